"""Two trainings in one run folder: the second stops and names the first; a lock whose holder died needs no hand."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest
from tests.faults.conftest import Count, Timing
from tests.faults.trainings import (
    Host,
    assert_same_run,
    resume_arguments,
    train_arguments,
    wait_for_step,
)

PROMISED = 5.0  # seconds in which the second stops


@pytest.mark.parametrize("second", [resume_arguments("run"), train_arguments("run")], ids=["resume", "train"])
def test_the_second_stops_and_names_the_first(
    host: Host, place: Path, whole: Path, second: list[str], count: Count, timing: Timing
) -> None:
    """The first is not disturbed; when it is killed, its lock ends with it."""
    run, other = place / "run", place / "elsewhere"
    shutil.copytree(place, other)
    first = host.start(place, *train_arguments("run"), disturb={"seconds_a_sync": 0.05})
    wait_for_step(first, run, 3)
    began = time.monotonic()
    process = host.start(other, *(str(run) if word == "run" else word for word in second))
    assert process.wait() == 1, process.stderr
    seconds = process.seconds_to_end(began)
    timing("a second training to the end", seconds)
    assert seconds < PROMISED
    assert f"{run} is in use" in process.stderr and f"process {first.pid} is working in it" in process.stderr
    assert first.is_running()
    first.signal(signal.SIGKILL)
    first.wait()
    assert (run / ".lock").read_text() == str(first.pid), "the lock is stale"
    host.run(place, *resume_arguments("run"))
    assert_same_run(whole, run)
    count("second trainings refused", 1, 1)


def test_two_that_begin_at_once(host: Host, place: Path, whole: Path) -> None:
    """One of them gets the folder."""
    processes = [host.start(place, *train_arguments("run")) for _ in range(2)]
    assert sorted(process.wait() for process in processes) in ([0, 1], [0, 2])
    assert_same_run(whole, place / "run")


def test_a_folder_in_use_is_refused_before_data_are_read(host: Host, stopped: Path) -> None:
    """Reading pictures may take minutes; here their folder does not even exist."""
    process = host.start(stopped.parent, "train", "mnist", "--data-root", "nowhere", "--out", "run")
    assert process.wait() == 2
    assert "run is not empty" in process.stderr, process.stderr
