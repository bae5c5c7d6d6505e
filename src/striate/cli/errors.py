"""How the command line tells an error: at most three lines on stderr, below a table where it helps, and a code."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

import typer

from striate.cli.output import printable
from striate.errors import StriateError, UsageError, unknown_name

# typer carries its own copy of click, or uses the installed one, depending on its version: found through BadParameter,
# which is public in both.
_TYPER_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
_TYPER_ERROR: type[Exception] = _TYPER_USAGE_ERROR.__bases__[0]

INTERRUPTED = 130
TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM came while no one else was listening for it."""


def raise_terminated(signum: int, frame: FrameType | None) -> None:
    """Signal handler: unwind, so that temporary files and locks are cleared, and leave with 143."""
    raise Terminated


@contextlib.contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Make SIGTERM unwind; training puts its own handler in place while it runs."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers: the caller's business
        return
    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(error: BaseException, *, debug: bool = False, stream: TextIO | None = None) -> int:
    """Print an error in its three lines and return the exit code."""
    stream = stream or sys.stderr
    if debug:
        traceback.print_exception(error, file=stream)
    what, cause, fix, code = explain(error)
    for line in error.detail if isinstance(error, StriateError) else ():
        stream.write(printable(line) + "\n")
    for word, text in (("error", what), ("cause", cause), ("fix", fix)):
        if text:
            stream.write(f"{word}: {printable(' '.join(text.split()))}\n")
    stream.flush()
    return code


def explain(error: BaseException) -> tuple[str, str, str, int]:
    """Return what happened, the cause, the fix and the exit code."""
    if isinstance(error, _TYPER_ERROR):
        error = _as_usage_error(error)
    if isinstance(error, StriateError):
        return error.what, error.cause, error.fix, error.exit_code
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "stopped by Ctrl-C", "", "", INTERRUPTED
    if isinstance(error, Terminated):
        return "stopped by SIGTERM", "", "", TERMINATED
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("striate"):
        package = error.name.partition(".")[0]
        return f"the Python package {package} is missing", "it was not installed", f"pip install {package}", 4
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _refused_memory(error):
        return "out of memory", str(error), "use a smaller --batch-size, --size or net", 1
    if isinstance(error, OSError) and error.strerror:
        where = error.filename if isinstance(error.filename, str) else "a file"
        return f"{where}: {error.strerror}", "the system refused it", "check that it is there, allowed, and not full", 1
    told = str(error) or "no message"
    return f"{type(error).__name__}: {told}", "this is a fault in striate", "run again with --debug and report it", 1


def _refused_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def _as_usage_error(error: Any) -> StriateError:
    """Turn typer's own error into ours: near names for a wrong flag, and where to read more."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "striate"
    read_more = f"see `{command} --help`"
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and option and context is not None:
        known = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)]
        flags = [name for name in known if name.startswith("--")] + ["--help", "--debug"]
        near = unknown_name("flag", option, flags)
        cause = near.cause if near.cause.startswith("did you mean") else f"{command} has no such flag"
        return UsageError(f"unknown flag {option!r}", cause, read_more)
    if type(error).__name__ == "MissingParameter" and error.param is not None:
        name = error.param.metavar or error.param.name
        return UsageError(f"{name} is missing", f"{command} needs it", read_more)
    message = error.format_message().rstrip(".")
    failure = UsageError(message[:1].lower() + message[1:], "", read_more)
    failure.exit_code = getattr(error, "exit_code", 2)
    return failure
