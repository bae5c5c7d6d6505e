"""Before a run folder is made: what is accepted as data and net, and what is refused with which sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.conftest import make_parts
from torch import nn

from striate.data.dataset import Dataset, Parts
from striate.data.preprocess import measure
from striate.errors import DataError, UsageError
from striate.models.airnet import AirNet
from striate.settings.train import TrainSettings
from striate.training.average import Lookahead
from striate.training.job import Job
from striate.training.material import as_parts
from striate.training.prepare import _smallest_part

Start = Callable[..., Job]


def plain(features: int = 64, classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": None}, "no net is named for made"),
        ({"model": plain(classes=4)}, r"shape \(2, 4\) instead of \(2, 3\)"),
        ({"model": plain(features=60)}, "1.*Linear"),
        ({"model": "alexnet"}, "alexnet|AlexNet"),
        ({"model": nn.Flatten()}, "Flatten"),
        ({"model": plain(), "model_option": {"width": 3}}, "--model-option has no effect"),
        ({"mean": (0.1, 0.2), "std": (0.1, 0.2)}, "--mean has 2 numbers"),
        ({"validation": 0.001}, "leaves a split empty"),
        ({"validation_range": "0:1000"}, "the validation range 0:1000 leaves the data"),
        ({"device": "cuda:99"}, "cuda:99 is not there"),
        ({"augment": "shfit:2"}, "unknown augmentation"),
        ({"augment": "flip,shift:9:reflect"}, "shift:9:reflect on pictures of 8×8"),
        ({"model": plain().double()}, "the net's weights are torch.float64"),
        ({"model": plain(), "whitening_epochs": 2}, "--whitening-epochs has no effect on Sequential"),
        ({"model": plain(), "optimizer": "muon"}, "--optimizer muon has no effect on Sequential"),
        ({"model": nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), "head_lr": 1}, "--head-lr has no effect"),
        ({"ema": 0.9, "lookahead": 0.9}, "ema and lookahead are both averages"),
        ({"accumulate": 17}, "a batch of 16 has no 17 parts"),
        ({"side_momentum": 0.5}, "--side-momentum has no effect here"),
        ({"optimizer": "muon", "nesterov": True}, "--nesterov has no effect here"),
        ({"optimizer": "muon", "weight_decay": 1, "weight_decay_mode": "coupled"}, "--weight-decay-mode has no effect"),
    ],
)
def test_refused_before_a_folder_is_made(start: Start, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        start("run", **settings)
    assert not (tmp_path / "run").exists()


def test_batchnorm_and_a_last_batch_of_one(start: Start) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))

    count = len(start("counted", model=plain()).material.split.train)
    with pytest.raises(UsageError, match="BatchNorm"):
        start("run", model=net(), batch_size=count - 1)
    start("other", model=net(), batch_size=count - 2)


def test_a_batch_that_is_larger_than_the_data_takes_all_of_them(start: Start, tmp_path: Path) -> None:
    said: list[str] = []
    few = make_parts(82)
    job = start("large", data=few, batch_size=128, report=said.append)
    count = len(job.material.split.train)
    assert f"batch 128 is larger than the data: a step takes all {count} train pictures" in said
    same = start("exact", data=few, batch_size=count)
    for one in (job, same):
        assert [type(happening) for happening in one.run()] and len(one.learner.batches) == 1
    losses = [(tmp_path / name / "steps.csv").read_text() for name in ("large", "exact")]
    assert losses[0] == losses[1] and losses[0].count("\n") == 3


def test_nothing_to_train(start: Start) -> None:
    net = plain().requires_grad_(False)
    with pytest.raises(UsageError, match="the net has nothing to train"):
        start("run", model=net)


def test_mean_and_std_are_of_the_train_split_or_as_given(start: Start, parts: Parts) -> None:
    job = start("measured", model=plain())
    mean, std = measure(parts.train.images[job.material.split.train])
    assert (job.material.preprocess.mean, job.material.preprocess.std) == (mean, std)
    given = start("given", model=plain(), mean=0.5, std=0.25).material.preprocess
    assert (given.mean, given.std) == ((127.5,), (63.75,))


def test_the_seed_makes_the_net(start: Start) -> None:
    first, same, other = (
        start(name, model="three-conv", seed=seed).learner.parameters[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_pictures_are_brought_to_the_size_and_read_only_ones_are_taken(start: Start, parts: Parts) -> None:
    images = parts.train.images
    images.flags.writeable = False
    job = start("run", data=parts, model=plain(12 * 10), size="12x10")
    assert job.material.train_images.shape == (240, 12, 10, 1)
    part, pictures, indices = job.material.pictures("test")
    assert part is parts.train and np.array_equal(pictures, job.material.train_images[indices])


def test_a_validation_set_without_a_test_set_is_told(start: Start, parts: Parts) -> None:
    said: list[str] = []
    given = Parts("made", parts.train, validation=parts.train.take(np.arange(30)))
    job = start("run", data=given, model=plain(), report=said.append)
    assert len(job.material.split.test) == 36 and len(job.material.split.validation) == 30
    assert sum("36 of the train pictures" in line for line in said) == 1
    said.clear()
    start("other", data=parts, model=plain(), report=said.append)
    assert not any("test set" in line for line in said)


def test_what_counts_as_data(parts: Parts) -> None:
    assert as_parts(parts) is parts
    assert as_parts(parts.train).train is parts.train and as_parts(parts.train).name == "made"
    made = as_parts([torch.zeros(4, 8, 8), [0, 1, 1, 0]])
    assert made.name == "arrays" and made.train.images.shape == (4, 8, 8, 1)
    for wrong in (None, 5, np.zeros((4, 8, 8)), {"images": 1}, (1, 2, 3)):
        with pytest.raises(DataError, match="cannot train on a"):
            as_parts(wrong)


def test_every_part_is_brought_to_the_size(start: Start, parts: Parts) -> None:
    random = np.random.default_rng(3)
    colour = Dataset(
        "test", random.integers(0, 256, (9, 20, 30, 3)).astype(np.uint8), np.arange(9) % 3, parts.train.classes
    )
    job = start("run", data=Parts("made", parts.train, test=colour), model=plain(), fit="crop")
    _, pictures, _ = job.material.pictures("test")
    assert pictures.shape == (9, 8, 8, 1)


def test_batchnorm_and_a_last_part_of_one(start: Start) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))

    count = len(start("counted", model=plain()).material.split.train)
    with pytest.raises(UsageError, match="BatchNorm"):
        start("run", model=net(), batch_size=16, accumulate=15)
    with pytest.raises(UsageError, match="BatchNorm"):
        start("run", model=net(), batch_size=count - 3, accumulate=2)  # the last batch of 3 is a part of 2 and one of 1
    start("other", model=net(), batch_size=count - 4, accumulate=2)


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_the_smallest_part_is_found_by_trial(pictures: int, batch_size: int, data: st.DataObject) -> None:
    accumulate = data.draw(st.integers(1, batch_size))
    settings = TrainSettings(batch_size=batch_size, accumulate=accumulate)
    parts = [part for batch in torch.zeros(pictures).split(batch_size) for part in batch.chunk(accumulate)]
    assert _smallest_part(settings, pictures) == min(len(part) for part in parts)


def test_whitening_sees_every_class_of_pictures_that_lie_class_by_class(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("striate.training.prepare.WHITENING_PICTURES", 12)
    images = np.repeat(np.arange(3, dtype=np.uint8), 80)[:, None, None, None] * np.ones((1, 12, 12, 1), np.uint8)
    parts = Parts("made", Dataset("made", images, np.repeat(np.arange(3), 80), ("a", "b", "c")))
    shown: list[torch.Tensor] = []
    monkeypatch.setattr(AirNet, "fit_whitening", lambda net, pictures: shown.append(pictures))
    start("run", data=parts, model="airnet", model_option={"widths": (4, 4)}, mean=0, std=1)
    assert len(shown[0]) == 12 and shown[0].mul(255).round().unique().tolist() == [0, 1, 2]


def test_the_settings_reach_optimizer_and_average(start: Start) -> None:
    job = start(
        "run", model="airnet", model_option={"widths": (4, 4)}, size=12, optimizer="muon", lr=0.24, momentum=0.6,
        side_momentum=0.8, bias_lr=0.05, head_lr=0.6, whitening_epochs=1.5, weight_decay=0.004, lookahead=0.9, epochs=3,
    )  # fmt: skip
    groups = {
        (group["peak"], group["end"]): (group["momentum"], group["weight_decay"], group["orthogonal"])
        for group in job.learner.optimizer.param_groups
    }
    steps = len(job.learner.batches)
    assert groups == {
        (0.24, None): (0.6, 0.0, True),
        (0.05, None): (0.8, 0.004 / 0.05, False),
        (0.05, -(-3 * steps // 2)): (0.8, 0.004 / 0.05, False),
        (0.6, None): (0.8, 0.004 / 0.6, False),
    }
    assert isinstance(job.learner.average, Lookahead) and job.learner.average.decay == 0.9
    assert job.learner.total_steps == 3 * steps
