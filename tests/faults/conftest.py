"""Trainings that a test may kill, starve or disturb; and the figures of all tests, told at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.trainings import NET, Host, resume_arguments, stop, train_arguments

Count = Callable[[str, int, int], None]
Timing = Callable[[str, float], None]


@pytest.fixture(scope="session")
def session_host() -> Iterator[Host]:
    """The forking host."""
    if not hasattr(os, "fork") or not Path("/proc").is_dir():
        pytest.skip("needs fork and /proc")
    made = Host()
    yield made
    made.close()


@pytest.fixture
def host(session_host: Host, count: Count) -> Iterator[Host]:
    """The forking host; whatever ended in a test has left no process behind."""
    yield session_host
    ended = session_host.assert_nothing_left()
    count("processes that left no child behind", ended, ended)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with a net of the user's own."""
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def whole_of(session_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the run of an optimizer's settings that nothing disturbed."""
    made: dict[str, Path] = {}

    def run(optimizer: str) -> Path:
        if optimizer not in made:
            folder = tmp_path_factory.mktemp(optimizer)
            (folder / "net.py").write_text(NET, encoding="utf-8")
            session_host.run(folder, *train_arguments("run", optimizer=optimizer))
            made[optimizer] = folder / "run"
        return made[optimizer]

    return run


@pytest.fixture
def whole(whole_of: Callable[[str], Path]) -> Path:
    """A run that nothing disturbed."""
    return whole_of("adamw")


@pytest.fixture(scope="session")
def stopped_once(session_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped in the middle."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "net.py").write_text(NET, encoding="utf-8")
    stop(session_host.start(folder, *train_arguments("run")), folder / "run")
    return folder / "run"


@pytest.fixture
def stopped(stopped_once: Path, place: Path) -> Path:
    """A copy of a run that was stopped in the middle."""
    return Path(shutil.copytree(stopped_once, place / "run"))


@pytest.fixture
def finish(host: Host) -> Callable[[Path], Path]:
    """Go on with a run to its end."""

    def resume(run: Path) -> Path:
        host.run(run.parent, *resume_arguments(run.name))
        return run

    return resume


@pytest.fixture
def count(record_property: Callable[[str, Any], None]) -> Count:
    """Record how many went well of how many that were tried."""
    return lambda name, good, tried: record_property("count", [name, good, tried])


@pytest.fixture
def timing(record_property: Callable[[str, Any], None]) -> Timing:
    """Record how many seconds something took; the longest is told."""
    return lambda name, seconds: record_property("timing", [name, seconds])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell the figures of docs/reliability.md."""
    counts: dict[str, list[int]] = {}
    longest: dict[str, float] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for kind, value in getattr(report, "user_properties", []) if getattr(report, "when", "") == "teardown" else []:
            if kind == "count":
                name, good, tried = value
                sums = counts.setdefault(name, [0, 0])
                sums[0], sums[1] = sums[0] + good, sums[1] + tried
            elif kind == "timing":
                longest[value[0]] = max(longest.get(value[0], 0.0), value[1])
    if counts or longest:
        terminalreporter.section("faults")
        for name, (good, tried) in sorted(counts.items()):
            terminalreporter.line(f"{name}: {good} of {tried}")
        for name, seconds in sorted(longest.items()):
            terminalreporter.line(f"{name}: {seconds:.1f} s")
