"""Auxiliary heads: their losses are trained and not reported, in parts of a batch and after a resume too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from striate.runs.tensors import read_tensors
from striate.training.job import Job
from striate.training.loop import Progress, train_epoch

Start = Callable[..., Job]


class Headed(nn.Module):
    """A net with one head halfway."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(36, 3))
        self.above = nn.Sequential(nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.below(x)
        if self.training and torch.is_grad_enabled():
            self.seen = [x]
        return self.above(x)

    def auxiliary_logits(self) -> Iterator[torch.Tensor]:
        while self.seen:
            yield self.head(self.seen.pop())


def first_rows(job: Job, count: int) -> list[tuple[int, int, float, float]]:
    rows: list[tuple[int, int, float, float]] = []
    for block in train_epoch(job.learner, Progress()):
        rows += block
        if len(rows) >= count:
            break
    return rows


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_heads_loss_counts_three_tenths_and_is_not_reported(start: Start, accumulate: int) -> None:
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "precision": "fp32", "threads": 1, "validation": 0}
    job = start("run", model=Headed, accumulate=accumulate, **settings)
    net, learner = job.learner.net, job.learner
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    weights = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    (images, labels), *_ = learner.batches.epoch(0)

    logits = functional.linear  # by hand, from the same weights
    bare = {name: tensor.requires_grad_() for name, tensor in weights.items()}
    maps = functional.relu(functional.conv2d(images, bare["below.0.weight"], bare["below.0.bias"], stride=2)).flatten(1)
    inner = functional.relu(logits(maps, bare["above.0.weight"], bare["above.0.bias"]))
    own = functional.cross_entropy(logits(inner, bare["above.2.weight"], bare["above.2.bias"]), labels)
    other = functional.cross_entropy(logits(maps, bare["head.1.weight"], bare["head.1.bias"]), labels)
    gradients = dict(zip(bare, torch.autograd.grad(own + 0.3 * other, list(bare.values())), strict=True))

    learner.total_steps = 1
    rows = [row for block in train_epoch(learner, Progress()) for row in block]
    assert len(rows) == 1 and rows[0][3] == pytest.approx(float(own.detach()), rel=1e-5)
    for name, parameter in net.named_parameters():
        moved = (weights[name].detach() - parameter.detach()) / learner.optimizer.param_groups[0]["lr"]
        torch.testing.assert_close(moved, gradients[name], rtol=1e-3, atol=1e-5)


def test_a_run_with_a_head_goes_on_bit_for_bit(start: Start, resume: Callable[..., Job]) -> None:
    whole, cut = (start(name, model=Headed, epochs=2, save_every=4) for name in ("whole", "cut"))
    list(whole.run())
    happenings = cut.run()
    for happening in happenings:
        if getattr(happening, "step", 0) >= 5:
            happenings.close()
            break
    resumed = resume(cut.folder, model=Headed)
    list(chain(resumed.run()))
    first, second = (read_tensors(job.folder.weights / "last.safetensors") for job in (whole, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_attribute_that_is_no_method_is_none_of_it(start: Start) -> None:
    class Flagged(Headed):
        auxiliary_logits = True  # type: ignore[assignment]

    job = start("run", model=Flagged)
    assert len(first_rows(job, 1)) >= 1
    assert job.learner.net.head[1].weight.grad is None  # type: ignore[index, union-attr]
