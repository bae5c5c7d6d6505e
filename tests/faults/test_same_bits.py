"""The same seed gives the same bits: under another hash seed, another order of folders, and a clock that runs back."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import Count
from tests.faults.trainings import Host, Process, assert_same_run, stop, train_arguments, write_pictures

from striate.runs.journal import read_results

FOLDER = ["train", "pictures", "--model", "three-conv", "--size", "8", "--epochs", "2", "--batch-size", "16"]
FOLDER += ["--augment", "shift:1", "--no-cache"]


@pytest.fixture(scope="module")
def other_host() -> Iterator[Host]:
    """A host whose Python has another hash seed."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    made = Host(PYTHONHASHSEED="7")
    yield made
    made.close()


@pytest.mark.slow
def test_another_hash_seed_and_order_of_folders(host: Host, other_host: Host, place: Path, count: Count) -> None:
    write_pictures(place / "pictures")
    host.run(place, *FOLDER, "--out", "run")
    written = [place / "run" / name for name in ("data.json", "split.json", "model.json", "predictions.csv")]
    for seed in (1, 2):
        other_host.run(place, *FOLDER, "--out", f"run-{seed}", disturb={"shuffled_folders": seed})
        assert_same_run(place / "run", place / f"run-{seed}")
        for path in written:
            assert path.read_bytes() == (place / f"run-{seed}" / path.name).read_bytes(), path.name
        count("trainings with the same bits", 1, 1)


def test_resumed_under_another_hash_seed(
    host: Host, other_host: Host, stopped: Path, whole: Path, count: Count
) -> None:
    other_host.run(stopped.parent, "resume", "run", "--model", "net.py:Net", disturb={"shuffled_folders": 3})
    assert_same_run(whole, stopped)
    count("trainings with the same bits", 1, 1)


def test_a_clock_that_runs_back(host: Host, place: Path, whole: Path, count: Count) -> None:
    """Saving every second, and the times in the log, go by a clock that nobody can set."""
    process = host.run(place, *train_arguments("run", "--save-every", "1s"), disturb={"clock_runs_back": 1000.0})
    assert "-" not in process.stdout.partition("speed")[2].partition(" pictures/s")[0]
    run = place / "run"
    assert_same_run(whole, run)
    seconds = [row.seconds for row in read_results(run)]
    assert seconds == sorted(seconds) and seconds[0] > 0 and all(row.images_per_second > 0 for row in read_results(run))
    assert json.loads((run / "status.json").read_text())["saves"]["times"] >= 4
    count("trainings with the same bits", 1, 1)


def test_stopped_and_resumed_with_clocks_apart(host: Host, place: Path, whole: Path) -> None:
    stop(host.start(place, *train_arguments("run"), disturb={"clock_runs_back": -50_000.0}), place / "run")
    host.run(place, "resume", "run", "--model", "net.py:Net", disturb={"clock_runs_back": 50_000.0})
    assert_same_run(whole, place / "run")


def test_no_process_beside_it(host: Host, place: Path) -> None:
    """Pictures are decoded in threads: there is no worker process that could be killed, or left behind."""
    write_pictures(place / "pictures")
    for arguments in ([*FOLDER, "--out", "run"], train_arguments("digits")):
        process = host.start(place, *arguments)
        looks = 0
        while process.is_running():
            assert process.relatives() | children(process) <= {process.pid}
            looks += 1
            time.sleep(0.002)
        assert looks > 20 and process.wait() == 0, process.stderr


def children(process: Process) -> set[int]:
    """Return the processes it started, of whatever session."""
    found = set()
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(number) for number in task.read_text().split()}
    return found
