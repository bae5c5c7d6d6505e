"""The root of the command line: help without torch, unknown verbs and flags, errors in three lines, exit codes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from striate import __version__
from striate.cli import main as root
from striate.cli.flags import make_command
from striate.errors import DataError, Interrupted, MissingExtra, StriateError, VerificationError

HEAVY = ("torch", "pydantic", "matplotlib", "numpy", "rich", "yaml", "PIL")


def modules_after(*arguments: str) -> list[str]:
    """Return which heavy modules a command line imports, in a fresh Python."""
    code = f"import sys; from striate.cli.main import run; run({list(arguments)!r}); "
    code += f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stderr.split()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], []])
def test_root_imports_nothing_heavy(arguments: list[str]) -> None:
    assert modules_after(*arguments) == []


@pytest.mark.parametrize(
    "arguments", [["train", "--help"], ["train", "digits", "--show-config"], ["recipes"], ["data", "--help"]]
)
def test_settings_import_no_torch(arguments: list[str]) -> None:
    loaded = modules_after(*arguments)
    assert "torch" not in loaded and "matplotlib" not in loaded
    assert "pydantic" in loaded  # the probe sees what is there


def test_installed_command_and_module_are_the_same() -> None:
    module = subprocess.run([sys.executable, "-m", "striate", "--version"], capture_output=True, text=True, timeout=60)
    assert (module.returncode, module.stdout, module.stderr) == (0, f"striate {__version__}\n", "")
    command = shutil.which("striate", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the command striate is not installed beside this Python")
    installed = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert (installed.returncode, installed.stdout) == (0, module.stdout)


def test_help_names_every_verb(striate: Any) -> None:
    outcome = striate("--help")
    assert outcome.code == 0 and outcome.err == ""
    for verb, (_, line) in root.VERBS.items():
        assert f"  {verb} " in outcome.out and line in outcome.out
    assert striate().out == outcome.out


@pytest.mark.parametrize("verb", [*root.VERBS, "data ls", "data show", "data add"])
def test_every_verb_has_help(striate: Any, verb: str) -> None:
    outcome = striate(*verb.split(), "--help")
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.startswith(f"Usage: striate {verb} ")
    assert "<str>" not in outcome.out and "{" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "error", "cause", "fix"),
    [
        (["trian"], "unknown command 'trian'", "train", "striate --help"),
        (["data", "shwo"], "unknown command 'shwo'", "show", "striate data --help"),
        (["xyzzy"], "unknown command 'xyzzy'", "known: ", "striate --help"),
        (["train", "digits", "--epoch", "3"], "unknown flag '--epoch'", "--epochs", "striate train --help"),
        (["predict", "r", "--jsonn"], "unknown flag '--jsonn'", "--json", "striate predict --help"),
        (["train", "--xyzzy"], "unknown flag '--xyzzy'", "no such flag", "striate train --help"),
        (["--verson"], "unknown flag '--verson'", "--version", "striate --help"),
        (["eval"], "RUN is missing", "striate eval needs it", "striate eval --help"),
        (["compare"], "RUN is missing", "striate compare needs it", "striate compare --help"),
        (["recipes", "mnist", "more"], "unexpected extra argument", "", "striate recipes --help"),
        (["train", "digits", "--lr"], "--lr", "", "striate train --help"),
        (["train", "mnits"], "unknown data set 'mnits'", "mnist", "striate data ls"),
        (["train", "digits", "--recipe", "lenet"], "unknown recipe", "tutorial-lenet5", "striate recipes"),
        (["train", "digits", "--lr", "fast"], "lr = 'fast'", "number", "--lr"),
        (["train", "digits", "--epochs", "0"], "epochs = '0'", "greater", "--epochs"),
        (["train", "digits", "--optimizer", "adam", "--momentum", "0.5"], "--momentum", "optimizer sgd", "--momentum"),
        (["train", "digits", "--data", "mnist"], "two data sets", "", "leave one out"),
        (["train", "digits", "--model-option", "relu"], "'relu'", "name=value", "activation=relu"),
        (["eval", "r", "--split", "tset"], "split", "'test'", "--split"),
        (["predict", "r"], "no picture", "", "--index 7"),
        (["predict", "r", "x.png", "--json", "--csv"], "exclude", "", ""),
        (["predict", "r", "x.png", "--json", "--top", "2"], "--top has no effect", "table", "--top"),
        (["predict", "r", "x.png", "--split", "train"], "--split has no effect", "--index", "--split"),
        (["compare", "one"], "cannot be compared", "", ""),
        (["compare", "a", "b", "--device", "cpu"], "--device has no effect", "--picture", "--device"),
        (["recipes", "mnits"], "unknown recipe 'mnits'", "mnist", "striate recipes"),
        (["data", "show", "mnits"], "unknown data set 'mnits'", "mnist", ""),
        (["data", "show", "digits", "--index", "x"], "index = 'x'", "59000:59009", "--index"),
        (["data", "show", "digits", "--index", "1796:1799"], "no picture 1798", "numbered 0 to 1796", "0:1797"),
        (["models", "lenet"], "unknown model 'lenet'", "lenet5", "striate models"),
        (["models", "--model-option", "a=b"], "--model-option has no effect", "name", "--model-option"),
        (["models", "lenet5", "--model-option", "pol=max"], "pol", "pool", ""),
        (["models", "lenet5", "--input", "28"], "input = ", "1x28x28", "--input"),
        (["train", "digits", "--config", "no.yaml", "--show-config"], "no.yaml", "No such file", "--config"),
    ],
)
def test_errors_have_three_lines(striate: Any, arguments: list[str], error: str, cause: str, fix: str) -> None:
    outcome = striate(*arguments)
    told = outcome.error_lines()
    assert error in told["error"] and cause in told.get("cause", "") and fix in told.get("fix", ""), outcome.err
    assert outcome.out == ""
    assert outcome.code == (3 if "no.yaml" in arguments else 2)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Put a verb `test-verb` into the table that does what a test wants."""

    def put(work: Callable[[], Any]) -> None:
        module = types.ModuleType("striate_test_verb")
        module.command = make_command("test-verb", work, [], "For a test.")  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        verbs = {**root.VERBS, "test-verb": (f"{module.__name__}:command", "For a test")}
        monkeypatch.setattr(root.RootGroup, "verbs", verbs)

    return put


def raiser(error: BaseException) -> Callable[[], Any]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (StriateError("it broke", "a cause", "a fix"), 1, ["error: it broke", "cause: a cause", "fix: a fix"]),
        (DataError("bad\nfile", "two\n lines"), 3, ["error: bad file", "cause: two lines"]),
        (MissingExtra("no onnx", fix="pip install"), 4, ["error: no onnx", "fix: pip install"]),
        (VerificationError("unequal"), 5, ["error: unequal"]),
        (Interrupted("stopped", exit_code=143), 143, ["error: stopped"]),
        (KeyboardInterrupt(), 130, ["error: stopped by Ctrl-C"]),
        (StriateError("name\x1b[2J\udcff"), 1, ["error: name\\x1b[2J\\xff"]),
        (
            ValueError("odd"),
            1,
            [
                "error: ValueError: odd",
                "cause: this is a fault in striate",
                "fix: run again with --debug and report it",
            ],
        ),
        (
            OSError(28, "No space left on device", "out.png"),
            1,
            [
                "error: out.png: No space left on device",
                "cause: the system refused it",
                "fix: check that it is there, allowed, and not full",
            ],
        ),
        (
            ModuleNotFoundError("No module named 'pyarrow.parquet'", name="pyarrow.parquet"),
            4,
            [
                "error: the Python package pyarrow is missing",
                "cause: it was not installed",
                "fix: pip install pyarrow",
            ],
        ),
        (MemoryError(), 1, ["error: out of memory", "fix: use a smaller --batch-size, --size or net"]),
    ],
)
def test_every_kind_of_error(striate: Any, verb: Any, error: BaseException, code: int, lines: list[str]) -> None:
    verb(raiser(error))
    outcome = striate("test-verb")
    assert (outcome.code, outcome.err.splitlines(), outcome.out) == (code, lines, "")


@pytest.mark.parametrize("arguments", [["--debug", "test-verb"], ["test-verb", "--debug"]])
def test_debug_shows_the_traceback(striate: Any, verb: Any, arguments: list[str]) -> None:
    verb(raiser(ValueError("odd")))
    assert "Traceback" not in striate("test-verb").err
    outcome = striate(*arguments)
    assert outcome.code == 1
    assert outcome.err.startswith("Traceback") and "in work" in outcome.err
    assert outcome.err.splitlines()[-3] == "error: ValueError: odd"


def test_debug_by_environment(striate: Any, verb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verb(raiser(ValueError("odd")))
    monkeypatch.setenv("STRIATE_DEBUG", "1")
    assert "Traceback" in striate("test-verb").err
    monkeypatch.setenv("STRIATE_DEBUG", "0")
    assert "Traceback" not in striate("test-verb").err


def test_debug_behind_the_dashes_is_a_name() -> None:
    assert root.take_debug(["predict", "--", "--debug"]) == (["predict", "--", "--debug"], False)
    assert root.take_debug(["predict", "--debug", "--", "-x"]) == (["predict", "--", "-x"], True)


def test_remarks_of_pillow_are_for_debugging(striate: Any, verb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        for module in ("PIL.TiffImagePlugin", "other"):
            warnings.warn_explicit(f"from {module}", UserWarning, f"{module}.py", 1, module=module)

    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: sys.stderr.write(f"{message}\n"))
    verb(work)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert striate("test-verb").err == "from other\n"
        assert striate("test-verb", "--debug").err == "from PIL.TiffImagePlugin\nfrom other\n"


SLEEPER = """
import sys, time, types
from striate.cli import main
from striate.cli.flags import make_command

def work():
    print("ready", flush=True)
    time.sleep(60)

module = types.ModuleType("sleeper")
module.command = make_command("sleep", work, [], "")
sys.modules["sleeper"] = module
main.RootGroup.verbs = {"sleep": ("sleeper:command", "")}
sys.exit(main.run(["sleep"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLEEPER)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, SIGINT arrives ignored, and Python keeps that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.1)  # into the sleep
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert err.splitlines() == [f"error: stopped by {'Ctrl-C' if code == 130 else 'SIGTERM'}"]


@pytest.mark.skipif(os.name == "nt", reason="pipes as on Unix")
def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "striate", "recipes"]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "striate", "recipes"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "No space left" in done.stderr and "Traceback" not in done.stderr
