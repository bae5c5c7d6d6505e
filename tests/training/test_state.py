"""The state of a learner as tensors: into any memory layout and back, or refused."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from striate.errors import DataError, Interrupted
from striate.runs.tensors import read_tensors, write_tensors
from striate.training.job import Job
from striate.training.loop import Progress, train_epoch
from striate.training.state import first_non_finite, load_state, state_tensors

Start = Callable[..., Job]
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "momentum": 0.0},
    {"optimizer": "adam"},
    {"optimizer": "adamw", "ema": 0.9},
    {"optimizer": "muon", "lookahead": 0.9, "weight_decay": 0.01, "head_lr": 0.1},
]


def trained(start: Start, name: str, **settings: Any) -> Job:
    job = start(name, data=None, model="strided-cnn", size=16, **settings)
    for _ in train_epoch(job.learner, job.progress):
        pass
    return job


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda s: "-".join(map(str, s.values())))
def test_the_next_epoch_is_bit_for_bit_the_same(start: Start, tmp_path: Path, settings: dict[str, Any]) -> None:
    job = trained(start, "one", **settings)
    weight: torch.Tensor = job.learner.net.conv2.weight  # type: ignore[assignment, union-attr]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    write_tensors(tmp_path / "state", state_tensors(job.learner))
    other = start("two", model="strided-cnn", size=16, **settings)
    for value in state_tensors(other.learner).values():
        value.fill_(3)
    load_state(other.learner, read_tensors(tmp_path / "state"))
    for parameter in other.learner.parameters:
        for value in other.learner.optimizer.state[parameter].values():
            if value.ndim:
                assert value.stride() == parameter.stride(), "fused kernels would read it in the wrong order"
    losses = []
    for learner in (job.learner, other.learner):
        progress = Progress(epoch=1, step=job.progress.step)
        losses.append([row for block in train_epoch(learner, progress) for row in block])
    assert losses[0] == losses[1]
    first, second = state_tensors(job.learner), state_tensors(other.learner)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_names_in_a_checkpoint(start: Start) -> None:
    names = set(state_tensors(trained(start, "run", optimizer="adam", ema=0.9).learner))
    assert {"net.conv1.weight", "net.norm1.running_var", "ema.norm1.num_batches_tracked"} <= names
    assert {"optimizer.0.step", "optimizer.0.exp_avg", "optimizer.3.exp_avg_sq"} <= names


@pytest.mark.parametrize("change", ["missing", "more", "shape", "no average"])
def test_tensors_of_another_net_are_refused(start: Start, change: str) -> None:
    job = trained(start, "run", ema=0.9)
    tensors = dict(state_tensors(job.learner))
    if change == "missing":
        del tensors["net.fc.weight"]
    elif change == "more":
        tensors["net.extra"] = torch.zeros(1)
    elif change == "shape":
        tensors["net.fc.weight"] = torch.zeros(1, 1)
    else:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("ema.")}
    with pytest.raises(DataError, match="does not fit the net"):
        load_state(job.learner, tensors)


@pytest.mark.parametrize("name", ["net.fc.weight", "ema.fc.bias", "optimizer.0.exp_avg"])
def test_what_is_not_finite_is_named(start: Start, name: str) -> None:
    job = trained(start, "run", ema=0.9)
    tensors = {key: value.clone() for key, value in state_tensors(job.learner).items()}
    assert first_non_finite(job.learner, tensors) is None
    tensors[name].view(-1)[0] = float("-inf")
    assert first_non_finite(job.learner, tensors) == name


def test_a_buffer_may_hold_infinities(start: Start, small: Any) -> None:
    net = small()
    net.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    job = start("run", model=net)
    assert first_non_finite(job.learner, state_tensors(job.learner)) is None


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_all_of_airnets_training_is_resumed_bit_for_bit(
    start: Start, resume: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    """Muon in channels-last, slow weights, and a whitening bias that is trained in the first 3 of 12 steps."""
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 2)
    settings: dict[str, Any] = {
        "model": "airnet", "model_option": {"widths": (4, 8, 8), "head_scale": 1.0}, "size": 16, "batch_size": 32,
        "optimizer": "muon", "lr": 0.2, "bias_lr": 0.05, "head_lr": 0.5, "weight_decay": 0.001, "schedule": "linear",
        "whitening_epochs": 0.5, "lookahead": 0.9, "augment": "shift:1", "accumulate": 2,
    }  # fmt: skip
    whole = start("whole", **settings)
    for _ in whole.run():
        pass
    stopped = start("stopped", **settings)
    with pytest.raises(Interrupted):
        for number, _ in enumerate(stopped.run(), 1):
            if number == blocks:
                stopped.stopping.signal = signal.SIGINT
    assert 0 < stopped.progress.step < whole.total_steps
    resumed = resume(stopped.folder, model=None)
    for _ in resumed.run():
        pass
    first, second = state_tensors(whole.learner), state_tensors(resumed.learner)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    logs = [job.folder.file("steps.csv").read_text(encoding="utf-8") for job in (whole, resumed)]
    assert logs[0] == logs[1] and logs[0].count("\n") == 1 + whole.total_steps == 13
