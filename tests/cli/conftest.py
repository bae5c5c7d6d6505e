"""What the tests of the command line share: running it in this process, and one small run trained on the digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from striate.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What one command line did."""

    code: int
    out: str
    err: str

    def error_lines(self) -> dict[str, str]:
        """Return the three lines of an error as {word: text}; anything else on stderr fails."""
        lines = self.err.splitlines()
        assert 1 <= len(lines) <= 3, self.err
        told = dict(line.split(": ", 1) for line in lines)
        assert list(told) == ["error", "cause", "fix"][: len(told)] or list(told) == ["error", "fix"], self.err
        return told


Striate = Callable[..., Outcome]


@pytest.fixture
def striate(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Striate:
    """Run a command line in this process, in an empty folder, without the user's settings."""
    monkeypatch.chdir(tmp_path)
    for variable in ("STRIATE_DATA", "STRIATE_DEBUG", "STRIATE_DEVICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = run(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: three-conv on the digits, two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "digits-run"
    arguments = ["train", "digits", "--epochs", "2", "--threads", "1", "--quiet", "--device", "cpu"]
    assert run([*arguments, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def mlp_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second run folder: the plain net on the digits, one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "mlp-run"
    arguments = ["train", "digits", "--model", "mlp", "--epochs", "1", "--threads", "1", "--quiet", "--device", "cpu"]
    assert run([*arguments, "--out", str(folder)]) == 0
    return folder
