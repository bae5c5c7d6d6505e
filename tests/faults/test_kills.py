"""kill -9 at random moments, while saving too: what is resumed ends bit for bit as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.conftest import Count
from tests.faults.trainings import (
    LONGEST,
    OPTIMIZERS,
    Host,
    Process,
    assert_same_run,
    resume_arguments,
    train_arguments,
    wait_until,
)

KILLS = 20
KILLED = 128 + signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_killed_at_random_moments(
    host: Host, place: Path, whole_of: Callable[[str], Path], optimizer: str, count: Count
) -> None:
    whole, run = whole_of(optimizer), place / "run"
    dice = random.Random(optimizer)
    begin, go_on = train_arguments("run", optimizer=optimizer), resume_arguments("run")
    kills = KILLS // len(OPTIMIZERS)
    killed = 0
    while killed < kills:
        process = host.start(place, *(go_on if run.is_dir() else begin))
        if wait_for_moment(process, run, dice, at_a_save=killed % 2 == 1):
            process.signal(signal.SIGKILL)
        code = process.wait()
        if code == KILLED:
            killed += 1
        else:
            assert code == 0, process.stderr
        if is_finished(run):  # before its moment came, or before the kill: once more from the start
            assert_same_run(whole, run)
            run.rename(place / f"ended-{killed}-{time.monotonic_ns()}")
    if not run.is_dir():
        host.run(place, *begin)
    elif not is_finished(run):
        host.run(place, *go_on)
    assert_same_run(whole, run)
    count("kills survived", kills, kills)


def wait_for_moment(process: Process, run: Path, dice: random.Random, *, at_a_save: bool) -> bool:
    """Wait for a random moment of a training, or for a file being written; False where it ends before."""
    end = time.monotonic() + LONGEST
    wait_until(lambda: has_begun(run) or not process.is_running())
    moment = time.monotonic() + dice.uniform(0, 1.0)
    saves_to_skip = dice.randrange(4)
    before: set[str] = set()
    while process.is_running() and time.monotonic() < end:
        if at_a_save:
            present = {name for _, _, names in os.walk(run) for name in names if name.endswith(".tmp")}
            if present - before:
                saves_to_skip -= 1
                if saves_to_skip < 0:
                    return True
            before = present
        elif time.monotonic() >= moment:
            return True
        time.sleep(0.0005)
    return False


def is_finished(run: Path) -> bool:
    """Say whether a run is trained and tested; its last pictures may not be drawn yet."""
    path = run / "status.json"  # written at the first step
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["state"] == "finished"


def has_begun(run: Path) -> bool:
    """Say whether a run has come so far that it can be resumed: before that there is nothing to lose."""
    path = run / "steps.csv"
    return path.is_file() and path.stat().st_size > 0
