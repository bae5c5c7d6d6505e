"""When a run is saved, what a failed write leaves, and that no number hangs on either."""

from __future__ import annotations

import csv
import errno
import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate import files
from striate.errors import DataError, NonFiniteLoss, WriteFailed
from striate.runs import journal as journal_module
from striate.runs.checkpoint import check_checkpoint, list_checkpoints
from striate.runs.folder import RunFolder
from striate.runs.journal import Journal, read_steps
from striate.runs.tensors import read_tensors
from striate.training import saving
from striate.training.job import Job
from striate.training.saving import AUTO_SHARE, Saver
from striate.training.state import state_tensors

Start = Callable[..., Job]
Resume = Callable[..., Job]
TIMED = ("seconds", "images_per_second", "peak_memory_mb")


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


def rows(job: Job, name: str) -> list[dict[str, str]]:
    with open(job.folder.file(name), encoding="utf-8", newline="") as stream:
        return [{key: value for key, value in row.items() if key not in TIMED} for row in csv.DictReader(stream)]


def assert_same_run(one: Job, other: Job) -> None:
    for name in ("steps.csv", "results.csv"):
        assert rows(one, name) == rows(other, name), name
    for name in ("weights/best.safetensors", "weights/last.safetensors", "evaluation.json"):
        assert one.folder.file(name).read_bytes() == other.folder.file(name).read_bytes(), name
    first, second = state_tensors(one.learner), state_tensors(other.learner)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


class Clock:
    """Stands in for the module `time`: what a save costs and what training takes is told to it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@given(
    cost=st.floats(0.001, 20.0),
    epoch=st.floats(0.01, 500.0),
    block=st.floats(0.01, 30.0),
)
def test_auto_saves_every_minute_and_at_epoch_ends_but_never_over_one_percent(
    cost: float, epoch: float, block: float
) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(saving, "time", clock)
        patched.setattr(saving, "save_checkpoint", lambda *_: setattr(clock, "now", clock.now + cost))
        patched.setattr(Journal, "sync", lambda self: None)
        saver = Saver(RunFolder(Path("none")), Journal(Path("none")), "auto", print)
        began = clock.now
        saver.save({}, {"progress": {"step": 0}})
        last, longest, epoch_began = clock.now, 0.0, clock.now
        for step in range(1, 400):
            clock.now += block
            ended = clock.now - epoch_began >= epoch
            if saver.is_due(step, epoch_ended=ended):
                saver.save({}, {"progress": {"step": step}})
                longest, last = max(longest, clock.now - last), clock.now
            if ended:
                epoch_began = clock.now
    assert saver.seconds == pytest.approx(saver.times * cost)
    assert saver.seconds <= cost + AUTO_SHARE * (clock.now - began) * 1.01, "beside the first save, under 1 %"
    assert longest <= max(60.0, cost / AUTO_SHARE) + block + cost + 1e-6


def test_saving_often_or_never_ends_with_the_same_bits(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 2)
    seldom = finish(start("seldom", save_every=None, ema=0.9))
    often = finish(start("often", save_every="1", ema=0.9))
    assert often.saver.times > 2 * seldom.saver.times >= 4
    assert_same_run(seldom, often)
    told = often.folder.status()
    assert told["saves"]["times"] == often.saver.times and told["saves"]["seconds"] > 0


@pytest.mark.parametrize("before_the_first_save", [True, False])
def test_a_run_can_be_resumed_from_its_first_moment_on(
    start: Start, resume: Resume, before_the_first_save: bool
) -> None:
    whole = finish(start("whole"))
    job = start("run", save_every=None)
    if not before_the_first_save:
        happenings = job.run()
        next(happenings)
        happenings.close()  # type: ignore[attr-defined]
    folder = job.folder
    del job
    gc.collect()
    resumed = resume(folder)
    assert resumed.progress.step == 0
    assert_same_run(whole, finish(resumed))


class Disk:
    """Refuses the n-th write, file by file: opening, writing and syncing count."""

    def __init__(self, patched: pytest.MonkeyPatch, refused: int, number: int) -> None:
        self.writes, self.refused, self.number = 0, refused, number
        patched.setattr(files.os, "open", self._guard(os.open))
        patched.setattr(files.os, "fsync", self._guard(os.fsync))
        patched.setattr(journal_module, "open", self._guard(open), raising=False)

    def _guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            self.writes += 1
            if self.writes >= self.refused:
                raise OSError(self.number, os.strerror(self.number))
            return function(*arguments, **named)

        return guarded


@pytest.mark.parametrize(("share", "reason"), [(0.15, errno.ENOSPC), (0.5, errno.EROFS), (0.95, errno.EIO)])
def test_a_write_that_fails_stops_the_run_and_it_goes_on_bit_for_bit(
    start: Start, resume: Resume, share: float, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at a write after so large a share of them, and stays so until there is room."""
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 4)
    whole = start("whole", save_every="4", epochs=2)
    with pytest.MonkeyPatch.context() as patched:
        counter = Disk(patched, 10**9, reason)
        finish(whole)
    job = start("run", save_every="4", epochs=2)
    with pytest.MonkeyPatch.context() as patched:
        Disk(patched, int(counter.writes * share), reason)
        with pytest.raises(WriteFailed) as caught:
            finish(job)
    assert str(job.folder) in caught.value.what and caught.value.cause == os.strerror(reason)
    assert f"striate resume {job.folder}" in caught.value.fix and caught.value.exit_code == 1
    for checkpoint in list_checkpoints(job.folder.checkpoints)[-1:]:
        check_checkpoint(checkpoint)
        assert len(read_steps(job.folder.path)[0]) >= int(checkpoint.name.split("-")[1])
    assert_same_run(whole, finish(resume(job.folder)))
    assert not list(job.folder.path.rglob("*.tmp"))


def test_the_rows_before_a_loss_that_is_not_finite_are_logged(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 4)
    job = start("run", lr=1e30, optimizer="sgd", epochs=4)
    with pytest.raises(NonFiniteLoss) as caught:
        finish(job)
    steps, losses = read_steps(job.folder.path)
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 1
    assert f"at step {len(steps) + 1} " in caught.value.what
    assert all(abs(loss) < float("inf") for loss in losses)


def test_best_weights_changed_by_someone_while_training_are_put_back(start: Start, resume: Resume) -> None:
    whole = finish(start("whole", epochs=3))
    job = start("run", epochs=3, save_every="1")
    for happening in job.run():
        if getattr(happening, "epoch", 0) >= 2:
            path = job.folder.weights / "best.safetensors"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(bytes(content))
    assert_same_run(whole, job)


def test_best_weights_that_no_checkpoint_holds_are_an_error_that_names_them(start: Start, resume: Resume) -> None:
    job = start("run", epochs=3)
    stopped = job.run()
    while job.progress.epoch < 2:
        next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    # A save that came after the best weights, and a copy of them that is damaged too.
    job._save()
    newest = list_checkpoints(job.folder.checkpoints)[-1]
    assert (newest / "best.safetensors").is_file()
    assert (
        read_tensors(newest / "best.safetensors").keys() == read_tensors(job.folder.weights / "best.safetensors").keys()
    )
    for path in job.folder.path.rglob("best.safetensors"):
        path.write_bytes(b"")
    said: list[str] = []
    # The checkpoint with a damaged copy is passed over; the one from before there was a best has none.
    resumed = resume(job.folder, report=said.append)
    assert resumed.progress.step == 0 and any("best.safetensors" in line for line in said)
    assert_same_run(finish(start("whole", epochs=3)), finish(resumed))


def test_checkpoints_that_are_gone_are_no_reason_to_begin_again(start: Start, resume: Resume) -> None:
    """The logs would be cut back to nothing; so it is an error."""
    job = finish(start("run", epochs=1))
    job.folder.set_status("interrupted")
    for folder in list_checkpoints(job.folder.checkpoints):
        shutil.rmtree(folder)
    with pytest.raises(DataError, match="no checkpoint") as caught:
        resume(job.folder)
    assert "striate train --config" in caught.value.fix
