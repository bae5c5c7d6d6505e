"""A run that was stopped and resumed ends bit for bit as one that never stopped; the same seed gives the same bits."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

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
                job.stopping.signal = signal.SIGINT
    assert job.folder.status()["state"] == "interrupted"


CASES: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.001, "weight_decay_mode": "decoupled"},
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.001},
    {"optimizer": "sgd", "momentum": 0.0, "schedule": "step", "step_epochs": 1},
    {"optimizer": "adam", "weight_decay": 0.001, "ema": 0.9, "clip": 1.0},
    {"optimizer": "adamw", "weight_decay": 0.01, "balance": "loss", "early_stop": 2, "schedule": "cosine"},
    {"optimizer": "muon", "lookahead": 0.9, "accumulate": 3, "schedule": "linear", "bias_lr": 0.003, "head_lr": 0.02},
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


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
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


class Noting(nn.Module):
    """Notes which pictures it is trained on: each has its number in its first two pixels."""

    seen: ClassVar[list[list[int]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            high, low = (x[:, 0, 0, :2].detach() * 255).round().int().T.tolist()
            Noting.seen.append([256 * h + rest for h, rest in zip(high, low)])
        return self.layer(x.flatten(1))


def numbered(count: int = 301) -> Parts:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(count) // 256, np.arange(count) % 256
    return Parts("made", Dataset("made", images, np.arange(count) % 3, ("a", "b", "c")))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_picture_is_used_exactly_once_in_each_epoch_of_the_stitched_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """Killed twice, in the first and in the last epoch; what was trained after the last save is trained again."""
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 2)
    monkeypatch.setattr(Noting, "seen", [])
    given: dict[str, Any] = {"data": "made", "recipe": "generic", "batch_size": 16, "epochs": 3, "save_every": "5"}
    given |= {"out": tmp_path / "run", "mean": (0.0,), "std": (1.0,), "accumulate": accumulate, "device": "cpu"}
    settings, _, _ = resolve_train(given, origin="argument", environ={})
    job = start_job(settings, data=numbered(), model=Noting, report=print)
    Noting.seen.clear()  # what the look at the net before the run has seen
    used: list[list[int]] = []  # of each step, the pictures that the weights come from
    for kill_at in (8, 40, None):
        happenings = job.run()
        for _ in happenings:
            if kill_at is not None and job.progress.step >= kill_at:
                break
        happenings.close()  # type: ignore[attr-defined]
        parts, Noting.seen = Noting.seen, []
        used += [[*chain(*parts[i : i + accumulate])] for i in range(0, len(parts), accumulate)]
        if kill_at is not None:
            folder = job.folder
            del job, happenings
            job = resume_job(folder, data=numbered(), model=Noting, report=print)
            assert 0 < job.progress.step < kill_at and job.progress.step_in_epoch > 0
            del used[job.progress.step :]
            Noting.seen.clear()
    train = job.material.split.train.tolist()
    per_epoch = len(job.learner.batches)
    assert len(used) == 3 * per_epoch
    for epoch in range(3):
        pictures = [*chain(*used[epoch * per_epoch : (epoch + 1) * per_epoch])]
        assert sorted(pictures) == train and pictures != train


SAME_BITS = """
import os, sys
from pathlib import Path
import numpy as np
from striate.settings.layers import resolve_train
from striate.training.begin import start_job
from striate.data.dataset import Dataset, Parts
random = np.random.default_rng(0)
labels = random.integers(0, 3, 200)
part = Dataset("made", random.integers(0, 256, (200, 12, 12, 1)).astype(np.uint8), labels, ("a", "b", "c"))
given = {"data": "made", "model": "airnet", "recipe": "generic", "batch_size": 32, "epochs": 1, "ema": 0.9,
         "augment": "shift:1", "balance": "loss", "out": Path(sys.argv[1]), "threads": 1, "device": "cpu"}
settings, _, _ = resolve_train(given, origin="argument", environ={})
for _ in start_job(settings, data=Parts("made", part), report=print).run():
    pass
"""


@pytest.mark.slow
def test_the_hash_seed_and_the_clock_do_not_matter(tmp_path: Path) -> None:
    """The order of sets and the time of day are two things that differ from process to process."""
    results = []
    for number in ("1", "2"):
        run = tmp_path / number
        script = SAME_BITS if number == "1" else "import time; time.time = lambda: -1e9\n" + SAME_BITS
        subprocess.run(
            [sys.executable, "-c", script, str(run)],
            check=True,
            env={**_quiet(), "PYTHONHASHSEED": number},
            timeout=120,
        )
        results.append([(run / name).read_bytes() for name in ("steps.csv", "weights/best.safetensors", "split.json")])
    assert results[0] == results[1]
