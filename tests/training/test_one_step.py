"""However the settings are combined, the optimizer steps exactly once for each step of the run."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.data.augment import parse
from striate.data.batches import Batches
from striate.data.preprocess import Preprocess
from striate.device import Plan
from striate.training import loop
from striate.training.average import Lookahead, WeightAverage
from striate.training.loop import Learner, Progress, train_epoch
from striate.training.losses import make_loss
from striate.training.optim import make_optimizer
from striate.training.schedule import rate

CPU = torch.device("cpu")
AVERAGES = {
    "none": lambda net: None,
    "ema": partial(WeightAverage, decay=0.9),
    "lookahead": partial(Lookahead, decay=0.9),
}
COMBINATIONS = list(
    itertools.product(
        ("fp32", "bf16"), AVERAGES, (1, 3), (None, 0.5), ("sgd", "adam", "adamw", "muon"), ("none", "mixup:0.2")
    )
)
SIZE, BATCH, PICTURES = 6, 4, 10


def make_learner(
    precision: str, average: str, accumulate: int, clip: float | None, optimizer: str, augment: str
) -> Learner:
    """A tiny net; its last batch is smaller than the others. bf16 is emulated where the processor lacks it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    random = np.random.default_rng(0)
    batches = Batches(
        random.integers(0, 256, (PICTURES, SIZE, SIZE, 1), dtype=np.uint8),
        random.integers(0, 3, PICTURES),
        np.arange(PICTURES),
        Preprocess((SIZE, SIZE), "stretch", 1, (127.5,), (70.0,)),
        batch_size=BATCH,
        seed=0,
        device=CPU,
        operations=parse(augment),
        num_classes=3,
    )
    return Learner(
        net=net,
        optimizer=make_optimizer(net, optimizer, lr=0.01, weight_decay=0.01, decoupled=optimizer == "adamw"),
        loss=make_loss("cross-entropy", 3, CPU, label_smoothing=0.1, class_weights=torch.tensor([1.0, 2.0, 3.0])),
        rate=partial(rate, schedule="one-cycle", peak=0.01),
        total_steps=2 * len(batches),
        batches=batches,
        plan=Plan(precision, False, 1, False, ""),
        device=CPU,
        seed=0,
        clip=clip,
        average=AVERAGES[average](net),  # type: ignore[no-untyped-call]
        accumulate=accumulate,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_step_of_the_optimizer_for_each_step(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RECORD_STEPS", 1)
    for combination in (c for c in COMBINATIONS if c[0] == precision):
        learner, progress = make_learner(*combination), Progress()
        calls: list[int] = []
        moved: list[int] = []
        step, update = learner.optimizer.step, getattr(learner.average, "update", None)

        def counted(calls: list[int] = calls, progress: Progress = progress, step: Any = step) -> None:
            calls.append(progress.step)
            step()

        def noted(net: nn.Module, at: int, total: int, moved: list[int] = moved, update: Any = update) -> None:
            moved.append(at)
            update(net, at, total)

        learner.optimizer.step = counted  # type: ignore[method-assign, assignment]
        if learner.average is not None:
            learner.average.update = noted  # type: ignore[method-assign, assignment]
        before = [parameter.detach().clone() for parameter in learner.parameters]
        for epoch in range(2):
            for rows in train_epoch(learner, progress):
                assert len(rows) == 1 and rows[0][0] == progress.step == len(calls), combination
                assert all(parameter.grad is None for parameter in learner.parameters), combination
            assert (progress.step_in_epoch, progress.seen) == (3, PICTURES), combination
            progress.next_epoch()
            assert progress.epoch == epoch + 1
        assert calls == list(range(6)), combination
        assert moved == (calls if learner.average is not None else []), combination
        after = list(learner.parameters)
        assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True)), combination
        assert all(bool(new.isfinite().all()) for new in after), combination
