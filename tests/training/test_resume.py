"""A run that was stopped and resumed ends bit for bit as one that never stopped; the same seed gives the same bits."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.data.dataset import Dataset, Parts
from striate.errors import DataError, Interrupted, UsageError
from striate.runs.folder import RunFolder
from striate.runs.tensors import read_tensors
from striate.settings.layers import resolve_train
from striate.training.begin import resume_job, start_job
from striate.training.job import Job
from striate.training.state import state_tensors

TIMED = {"seconds", "images_per_second", "peak_memory_mb"}


class Dropping(nn.Module):
    """A small net with what may go wrong at a resume: dropout, BatchNorm, a convolution in channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(3),
        )  # fmt: skip
        self.layers(torch.zeros(2, 1, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def pictures(count: int = 300) -> Parts:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 100, (count, 8, 8, 1)) + 70 * labels[:, None, None, None]
    return Parts("made", Dataset("made", images.astype(np.uint8), labels, ("a", "b", "c")))


def job_of(out: Path, **settings: Any) -> Job:
    resolved, _, _ = resolve_train(
        {"data": "made", "recipe": "generic", "batch_size": 16, "epochs": 3, "augment": "shift:1,flip", "out": out,
         "validation": 0.2, "lr": 0.01, **settings},
        origin="argument", environ={},
    )  # fmt: skip
    return start_job(resolved, data=pictures(), model=Dropping, report=print)


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(stream)]


def assert_same(one: Job, other: Job) -> None:
    for name in ("steps.csv", "results.csv"):
        assert rows(one.folder.file(name)) == rows(other.folder.file(name)), name
    for which in ("best", "last"):
        left, right = (read_tensors(job.folder.weights / f"{which}.safetensors") for job in (one, other))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left), which
    left, right = state_tensors(one.learner), state_tensors(other.learner)
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different
    assert one.folder.read_json("evaluation.json") == other.folder.read_json("evaluation.json")


def stop_after(job: Job, blocks: int) -> None:
    """Ask for a stop as a signal would, after some blocks of steps."""
    with pytest.raises(Interrupted):
        for number, _ in enumerate(job.run(), 1):
            if number == blocks:
                job.stop_signal = signal.SIGINT
    assert job.folder.status()["state"] == "interrupted"


CASES: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.001, "weight_decay_mode": "decoupled"},
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.001},
    {"optimizer": "sgd", "momentum": 0.0, "schedule": "step", "step_epochs": 1},
    {"optimizer": "adam", "weight_decay": 0.001, "ema": 0.9, "clip": 1.0},
    {"optimizer": "adamw", "weight_decay": 0.01, "class_weights": "balanced", "early_stop": 2, "schedule": "cosine"},
]


@pytest.mark.parametrize("settings", CASES, ids=lambda case: f"{case['optimizer']}-{len(case)}")
@pytest.mark.parametrize("blocks", [2, 7])
def test_resumed_in_the_middle_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], blocks: int
) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 3)  # so that a block ends within an epoch
    whole = finish(job_of(tmp_path / "whole", **settings))
    stopped = job_of(tmp_path / "stopped", **settings)
    stop_after(stopped, blocks)
    assert stopped.progress.step == min(3 * (blocks + 1), stopped.progress.step)
    assert 0 < stopped.progress.step < stopped.total_steps
    resumed = finish(resume_job(stopped.folder, data=pictures(), model=Dropping, report=print))
    assert resumed.progress.step == whole.progress.step
    assert_same(whole, resumed)


def test_each_step_stands_once_in_the_stitched_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 2)
    job = job_of(tmp_path / "run", save_every="3")
    stop_after(job, 5)
    job = finish(resume_job(job.folder, data=pictures(), model=Dropping, report=print))
    steps = [int(row["step"]) for row in rows(job.folder.file("steps.csv"))]
    assert steps == list(range(1, job.total_steps + 1))


def test_same_seed_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    one, two, other = (finish(job_of(tmp_path / n, seed=s)) for n, s in (("a", 7), ("b", 7), ("c", 8)))
    assert_same(one, two)
    assert rows(one.folder.file("steps.csv")) != rows(other.folder.file("steps.csv"))


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 4)
    whole = finish(job_of(tmp_path / "whole"))
    job = job_of(tmp_path / "run")
    stop_after(job, 8)
    newest = sorted(job.folder.checkpoints.iterdir())[-1] / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    said: list[str] = []
    resumed = finish(resume_job(job.folder, data=pictures(), model=Dropping, report=said.append))
    assert any("passed over" in line and newest.name in line for line in said)
    assert_same(whole, resumed)


def test_no_good_checkpoint_is_an_error(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run")
    stop_after(job, 1)
    for path in job.folder.checkpoints.glob("*/state.json"):
        path.write_text("{}")
    with pytest.raises(DataError, match="no checkpoint that can be used"):
        resume_job(job.folder, data=pictures(), model=Dropping, report=print)


def test_what_resume_refuses(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run")
    stop_after(job, 1)
    changed = pictures()
    changed.train.images[5, 3, 3, 0] ^= 1
    fresh = Parts("made", Dataset("made", changed.train.images.copy(), changed.train.labels, changed.train.classes))
    with pytest.raises(UsageError, match="changed"):
        resume_job(job.folder, data=fresh, model=Dropping, report=print)
    with pytest.raises(UsageError, match="your own class Dropping"):
        resume_job(job.folder, data=pictures(), report=print)
    with pytest.raises(UsageError, match="trained on arrays"):
        resume_job(job.folder, model=Dropping, report=print)
    finished = finish(resume_job(job.folder, data=pictures(), model=Dropping, report=print))
    with pytest.raises(UsageError, match="is finished"):
        resume_job(finished.folder, data=pictures(), model=Dropping, report=print)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_real_process_stopped_by_a_real_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "striate", "train", "digits", "--epochs", "4000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_quiet())
    results = tmp_path / "run" / "results.csv"
    for _ in itertools.count():
        if results.is_file() and results.read_text().count("\n") > 2:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    folder = RunFolder(tmp_path / "run")
    assert folder.status()["state"] == "interrupted"
    assert b"striate resume" in errors and b"Traceback" not in errors
    logged = [int(row["step"]) for row in rows(folder.file("steps.csv"))]
    assert logged == list(range(1, logged[-1] + 1))


def _quiet() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
