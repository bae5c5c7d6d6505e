"""How long a run takes, and runs of a given time: how many steps, at which rates, and resumed to the same end."""

from __future__ import annotations

import csv
import json
import signal
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from striate.errors import DataError, Interrupted, UsageError
from striate.runs.journal import EpochResult, read_results, read_steps
from striate.runs.tensors import read_tensors
from striate.settings.layers import resolve_train
from striate.settings.values import parse_time
from striate.training.forecast import FILE, Pace, fix_length, guess_pause, restore_length, steps_within, whole_seconds
from striate.training.job import Job
from striate.training.schedule import UNKNOWN, rate
from striate.training.state import state_tensors

Start = Callable[..., Job]
TIMED = ("seconds", "images_per_second", "peak_memory_mb")
LOOK = 0.03  # seconds that a look at the clock takes, by the clock of these tests


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on only when this thread looks at it: at least once a step. Other threads do not push it on."""
    here, looks = threading.get_ident(), [0]

    def look() -> float:
        looks[0] += threading.get_ident() == here
        return LOOK * looks[0]

    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(f"time.{name}", look)


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


def rows(job: Job, name: str) -> list[dict[str, str]]:
    with open(job.folder.file(name), encoding="utf-8", newline="") as stream:
        return [{key: value for key, value in row.items() if key not in TIMED} for row in csv.DictReader(stream)]


def assert_same_end(one: Job, other: Job) -> None:
    for name in ("steps.csv", "results.csv", "predictions.csv"):
        assert rows(one, name) == rows(other, name), name
    for which in ("best", "last"):
        first, second = (read_tensors(job.folder.weights / f"{which}.safetensors") for job in (one, other))
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], which
    first, second = state_tensors(one.learner), state_tensors(other.learner)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert one.folder.read_json("evaluation.json") == other.folder.read_json("evaluation.json")


@given(
    step_seconds=st.integers(1, 10**6),
    pause=st.integers(0, 10**6),
    per_epoch=st.integers(1, 500),
    left=st.integers(1, 10**9),
)
def test_the_steps_that_fit_fill_the_time(step_seconds: int, pause: int, per_epoch: int, left: int) -> None:
    steps = steps_within(left, per_epoch, step_seconds, pause)
    assert steps >= 1
    spread = step_seconds + pause / per_epoch
    assert (steps + 1) * spread > left and (steps == 1 or steps * spread <= left * (1 + 1e-9))
    # A whole number of epochs takes what the forecast says.
    whole = whole_seconds(3 * per_epoch, per_epoch, step_seconds, pause)
    assert whole == 3 * (per_epoch * step_seconds + pause)


def test_the_pace_leaves_out_the_first_block() -> None:
    pace = Pace()
    assert pace.step_seconds is None
    pace.note(2, 100.0)
    assert pace.step_seconds is None
    pace.note(12, 105.0)
    assert pace.step_seconds == 0.5
    pace.note(22, 107.0)
    assert pace.step_seconds == 0.35
    # 900 pictures in batches of 100, a third of a step each
    assert guess_pause(0.5, 100, 900) == pytest.approx(1.5)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2m ", 120)])
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "0s", "-3m", "10 minutes", "1e3s", "nans", "1..5h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="time"):
        resolve_train({"data": "digits", "time": text}, environ={})


def test_time_and_epochs_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--epochs has no effect") as caught:
        resolve_train({"data": "digits", "time": "10m", "epochs": 10}, environ={})
    assert "--time" in caught.value.cause
    settings, origins, _ = resolve_train({"data": "digits", "time": "10m"}, environ={})  # the recipe names epochs
    assert settings.time == "10m" and origins["epochs"] == "default"


@given(st.integers(0, 10**6), st.sampled_from(["constant", "linear", "cosine", "one-cycle", "triangular"]))
def test_until_the_steps_are_counted_the_schedule_stands_at_half_of_3_percent(step: int, schedule: str) -> None:
    held = rate(step, UNKNOWN, schedule=schedule, peak=1.0)
    first, last = (rate(at, 10_000, schedule=schedule, peak=1.0) for at in (0, 300))
    assert min(first, last) <= held <= max(first, last)
    assert held == pytest.approx((first + last) / 2, rel=0.06)


def test_a_step_schedule_falls_while_the_steps_are_counted() -> None:
    def at(step: int) -> float:
        return rate(step, UNKNOWN, schedule="step", peak=1.0, steps_per_epoch=5, step_epochs=2, step_factor=0.5)

    assert [at(step) for step in (0, 9, 10, 20)] == [1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize("validate_every", [1, 2, 0])
def test_a_run_of_a_given_time_ends_in_time(start: Start, clock: None, validate_every: int) -> None:
    said: list[str] = []
    job = start("run", time="20s", schedule="triangular", validate_every=validate_every, report=said.append)
    assert job.epochs is None and job.estimate is None
    finish(job)
    taken = job.progress.seconds + job.progress.pauses
    assert 18.5 < taken < 21.5, "of the clock of this test"
    record = json.loads(job.folder.file(FILE).read_text(encoding="utf-8"))
    total, measured = record["total_steps"], record["measured_steps"]
    assert 0.6 <= measured * LOOK <= 1.2 and total == job.total_steps == job.progress.step
    results = read_results(job.folder.path)
    per_epoch = len(job.learner.batches)
    assert total % per_epoch != 0, "the last epoch is a part of one"
    assert results[-1].step == total and results[-1].val_accuracy is not None
    assert job.epochs == len(results) and results[-1].epoch == len(results)
    assert [row.step for row in results[:-1]] == [per_epoch * (number + 1) for number in range(len(results) - 1)]
    assert read_steps(job.folder.path)[0] == list(range(1, total + 1))
    schedule: dict[str, Any] = {"schedule": "triangular", "peak": 0.01}
    wanted = [rate(step, UNKNOWN if step < measured else total, **schedule) for step in range(total)]
    assert [float(row["lr"]) for row in rows(job, "steps.csv")] == wanted
    assert any(line.startswith(f"20s of training: {total:,} steps") for line in said)
    assert job.estimate == pytest.approx(20, rel=0.08)


def test_a_time_that_is_over_at_once_still_trains(start: Start) -> None:
    job = finish(start("run", time="0.01s"))
    assert job.total_steps == job.progress.step > 1 and job.evaluation is not None


def test_a_real_second(start: Start) -> None:
    job = finish(start("run", time="1s"))
    assert job.folder.status()["state"] == "finished" and job.folder.file(FILE).is_file()
    assert read_results(job.folder.path)[-1].step == job.total_steps


TIMED_RUN: dict[str, Any] = {"time": "3s", "schedule": "one-cycle", "lookahead": 0.9, "batch_size": 20}


def stopped(job: Job, how: str) -> Job:
    """Stop a run with --time in one of the bad moments after its steps are counted."""
    happenings = job.run()
    with pytest.raises(Interrupted if how != "killed" else ZeroDivisionError):
        for happening in happenings:
            if job.total_steps == UNKNOWN:
                continue
            if how == "killed":  # the last save is of before the steps were counted
                raise ZeroDivisionError
            left = job.total_steps - job.progress.step
            at_end_of_epoch = isinstance(happening, EpochResult) and how == "between epochs"
            if at_end_of_epoch or (how == "at the last step" and left == 1) or (how == "in the middle" and left < 99):
                job.stopping.signal = signal.SIGTERM
    happenings.close()  # type: ignore[attr-defined]
    return job


@pytest.mark.parametrize("how", ["in the middle", "between epochs", "at the last step", "killed"])
def test_resumed_a_run_of_a_given_time_ends_as_it_would_have(
    start: Start, resume: Callable[..., Job], clock: None, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 1)
    job = stopped(start("stopped", **TIMED_RUN), how)
    total, measured = job.learner.total_steps, job.learner.measured_steps
    if how == "at the last step":
        assert job.progress.step == total and job.progress.step_in_epoch > 0
    resumed = finish(resume(job.folder))
    assert (resumed.total_steps, resumed.progress.step) == (total, total)
    whole = start("whole", **TIMED_RUN)
    fix_length(whole.learner, whole.folder, measured, total)
    assert_same_end(finish(whole), resumed)


def test_time_json_that_is_damaged(start: Start) -> None:
    job = start("run", time="10m")
    restore_length(job.learner, job.folder)
    assert job.total_steps == UNKNOWN
    for damaged in (
        {"total_steps": 5},
        {"total_steps": 5, "measured_steps": 5},
        {"total_steps": "x", "measured_steps": 1},
    ):
        job.folder.write_json(FILE, {"format": 1, **damaged})
        with pytest.raises(DataError, match=r"time\.json is damaged"):
            restore_length(job.learner, job.folder)


def test_an_ordinary_run_is_forecast_from_its_own_steps(start: Start, clock: None) -> None:
    job = start("run", epochs=4, batch_size=4)
    seen = []
    for _ in job.run():
        seen.append(job.estimate)
        assert job.epochs == 4
    known = [value for value in seen if value is not None]
    taken = job.progress.seconds + job.progress.pauses
    assert seen[0] is None and known[0] == pytest.approx(taken, rel=0.1) and known[-1] == pytest.approx(taken, rel=0.05)


class Counting(nn.Module):
    """A linear net that remembers on how many threads it was asked."""

    threads: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.threads.add(torch.get_num_threads())
        return self.layers(x)


def test_validation_and_test_use_the_recorded_threads(start: Start, resume: Callable[..., Job]) -> None:
    before = torch.get_num_threads()
    job = start("run", model=Counting, epochs=2)
    wanted = {job.learner.plan.threads, job.learner.plan.answer_threads}
    with pytest.raises(Interrupted):
        for happening in job.run():
            if isinstance(happening, EpochResult):
                job.stopping.signal = signal.SIGTERM
    try:
        torch.set_num_threads(before + 2)
        resumed = resume(job.folder, model=Counting)
        Counting.threads.clear()
        finish(resumed)
    finally:
        torch.set_num_threads(before)
    assert Counting.threads == wanted and before + 2 not in wanted


@pytest.mark.parametrize(("every", "wanted"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (9, [5]), (0, [5])])
def test_validation_every_so_many_epochs_and_at_the_end(start: Start, every: int, wanted: list[int]) -> None:
    job = finish(start("run", epochs=5, validate_every=every))
    results = read_results(job.folder.path)
    assert [row.epoch for row in results if row.val_accuracy is not None] == wanted
    assert len(results) == 5 and job.best.epoch in wanted and job.evaluation is not None


def test_patience_is_counted_in_epochs(start: Start) -> None:
    job = finish(start("run", epochs=30, lr=1e-12, early_stop=4, validate_every=2))
    results = read_results(job.folder.path)
    assert len(results) == job.best.epoch + 4 < 30


def test_settings_about_validation_need_one() -> None:
    with pytest.raises(UsageError, match="--validate-every has no effect"):
        resolve_train({"data": "digits", "validation": 0, "validate_every": 2}, environ={})
    with pytest.raises(UsageError, match="--early-stop has no effect"):
        resolve_train({"data": "digits", "validate_every": 0, "early_stop": 2}, environ={})


def test_test_time_augmentation_is_of_the_final_test_alone(start: Start) -> None:
    plain, job = finish(start("plain")), finish(start("run", tta="mirror-shift"))
    record = job.folder.read_json("evaluation.json")
    row = record.pop("top1_tta")
    assert row["kind"] == "mirror-shift" and 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert record == plain.folder.read_json("evaluation.json")
    assert rows(plain, "results.csv") == rows(job, "results.csv")
