"""The root of the command line: a static table of verbs, and what happens with every error."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import typer
import typer.core
import typer.main

from striate.cli.errors import Terminated, explain, sigterm_unwinds, tell
from striate.cli.group import CONTEXT, LazyGroup, Verbs
from striate.cli.output import COMMAND_LINE
from striate.errors import PeerLost, UsageError
from striate.settings.launch import Launch, find_launch

VERBS: Verbs = {
    "train": ("striate.cli.train:train", "Train a net on a data set, test it and write a run folder"),
    "tune": ("striate.cli.tune:tune", "Search for better settings, judged by validation"),
    "check": ("striate.cli.check:check", "Look for faults in a folder of pictures, before you train on it"),
    "resume": ("striate.cli.train:resume", "Go on with a run from its last save, or extend it"),
    "verify": ("striate.cli.verify:verify", "Check a run's files, and train its first steps again"),
    "eval": ("striate.cli.evaluate:evaluate", "Count what a run gets right, every picture once"),
    "predict": ("striate.cli.predict:predict", "Ask a run what pictures show"),
    "explain": ("striate.cli.explain:explain", "Show what a run's net looks at in a picture"),
    "export": ("striate.cli.export:export", "Write a run as one file that proves itself: ONNX, or striate's own"),
    "serve": ("striate.cli.serve:serve", "Answer over HTTP, with a page to draw on"),
    "report": ("striate.cli.report:report", "Put all that is known of a run on one page"),
    "compare": ("striate.cli.compare:compare", "Set runs side by side"),
    "import": ("striate.cli.import_:import_weights", "Make a run of weights that another program saved"),
    "lesson": ("striate.cli.lesson:lesson", "Learn what a layer does, with numbers one can check by hand"),
    "models": ("striate.cli.models:models", "List the nets, or the layers of one"),
    "recipes": ("striate.cli.recipes:recipes", "List the recipes, or print one"),
    "data": ("striate.cli.data:data", "List, show and add data sets"),
    "cache": ("striate.cli.cache:cache", "List or remove the decoded pictures that are kept on disk"),
}

# Verbs that several processes, started by torchrun, carry out together.
TOGETHER = ("train", "resume")

EPILOG = "Start with: striate train digits"


class RootGroup(LazyGroup):
    """The verbs of striate."""

    verbs: ClassVar[Verbs] = VERBS


def build() -> Any:
    """Build the root command; no verb is imported."""
    app = typer.Typer(
        cls=RootGroup,
        add_completion=False,
        rich_markup_mode=None,
        subcommand_metavar="COMMAND [ARGS]...",
        help="Train, test and ask convolutional image classifiers (CNNs).",
        epilog=EPILOG,
        context_settings=CONTEXT,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version),
        ] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; anywhere on the line.")] = False,
    ) -> None:
        return  # `run` takes --debug out before typer sees it

    return typer.main.get_command(app)


def _print_version(asked: bool) -> None:
    if asked:
        from striate import __version__

        sys.stdout.write(f"striate {__version__}\n")
        raise typer.Exit(0)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing is raised but SystemExit of a library."""
    arguments, debug = take_debug(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character gets its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    COMMAND_LINE.set(tuple(arguments))
    launch = find_launch()
    try:
        with sigterm_unwinds(), warnings.catch_warnings():
            if not debug:  # a bad picture is told in our words; Pillow's own remarks would bury them
                warnings.filterwarnings("ignore", module="PIL")
            _check_launch(launch, arguments)
            command = build()
            with command.make_context("striate", list(arguments) or ["--help"]) as context:
                command.invoke(context)
            sys.stdout.flush()
    except typer.Exit as leave:
        return _flushed(int(leave.exit_code))
    except BrokenPipeError:
        return _quiet_pipe()
    except (Exception, KeyboardInterrupt, Terminated) as error:
        _flushed(0)
        if _told_elsewhere(error, launch) and not debug:
            return explain(error)[3]
        return tell(error, debug=debug)
    return 0


def _check_launch(launch: Launch | None, arguments: Sequence[str]) -> None:
    """Let one of the processes that torchrun started speak. Raises UsageError for a verb that is the work of one."""
    if launch is None or launch.size == 1:
        return
    verb = next(iter(arguments), "")
    if verb in VERBS and verb not in TOGETHER:
        raise UsageError(f"{verb} is the work of one process", "torchrun started several", f"striate {verb} …")
    if launch.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _told_elsewhere(error: BaseException, launch: Launch | None) -> bool:
    """Say whether another process tells of this error: it was told to it, or is the same in all on this machine."""
    if launch is None or launch.size == 1:
        return False
    return getattr(error, "told", False) or (launch.local_rank > 0 and not isinstance(error, PeerLost))


def take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Take --debug out of the arguments before `--`, wherever it stands; STRIATE_DEBUG=1 says the same."""
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [word for word in arguments[:end] if word != "--debug"]
    asked = len(kept) < end or os.environ.get("STRIATE_DEBUG", "") not in ("", "0")
    return kept + arguments[end:], asked


def _flushed(code: int) -> int:
    """Flush stdout; the reader may have gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _quiet_pipe()
    return code


def _quiet_pipe() -> int:
    """The reader of our output left, such as `head`: leave without a word, and let nothing else be written."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no real file
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return 0
