"""A full disk: the run stops and says why, the last checkpoint is whole, and with room it goes on bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import Count
from tests.faults.trainings import (
    NET,
    Host,
    Process,
    assert_same_run,
    newest_step,
    resume_arguments,
    train_arguments,
)

from striate.runs.checkpoint import check_checkpoint, list_checkpoints

Finish = Callable[[Path], Path]


def assert_stopped(process: Process, run: Path, reason: str) -> None:
    """Assert that a training ended with exit code 1, naming a file of the run and the reason, its checkpoints whole."""
    assert process.wait() == 1, process.stderr
    assert "could not write run/" in process.stderr and reason in process.stderr, process.stderr
    assert "striate resume run" in process.stderr
    for checkpoint in list_checkpoints(run / "checkpoints"):
        check_checkpoint(checkpoint)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.5], ids=lambda share: f"{share} of a checkpoint")
def test_files_that_may_not_grow(
    host: Host, stopped: Path, whole: Path, finish: Finish, share: float, count: Count
) -> None:
    """A limit of the system's on a file's size stands for the full disk."""
    before = newest_step(stopped)
    most = int((list_checkpoints(stopped / "checkpoints")[-1] / "state.safetensors").stat().st_size * share)
    process = host.start(stopped.parent, *resume_arguments("run"), disturb={"most_file_bytes": most})
    if share < 1:
        assert_stopped(process, stopped, "File too large")
        assert newest_step(stopped) == before
    else:  # checkpoints fit; what does not are pictures, which come when everything is saved
        process.wait()
    if not (stopped / "evaluation.json").is_file():
        finish(stopped)
    assert_same_run(whole, stopped)
    count("full disks survived", 1, 1)


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A small disk."""
    disk = place / "disk"
    disk.mkdir()
    mounted = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if not mounted or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("free", [120, 200, 300], ids=lambda free: f"{free} kB")
def test_a_full_disk(host: Host, small_disk: Path, whole: Path, finish: Finish, free: int, count: Count) -> None:
    """`free`: what a run may take; its checkpoints and weights need some 400 kB."""
    (small_disk / "net.py").write_text(NET, encoding="utf-8")
    filler, run = small_disk / "filler", small_disk / "run"
    filler.write_bytes(bytes((16 * 1024 - free) * 1024))
    process = host.start(small_disk, *train_arguments("run"))
    assert_stopped(process, run, "No space left on device")
    filler.unlink()
    assert_same_run(whole, finish(run))
    count("full disks survived", 1, 1)
