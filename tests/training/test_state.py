"""The state of a learner as tensors: into any memory layout and back, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from striate.errors import DataError
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
