"""The loop's own parts: blocks, clipping, gradients that were there before, BatchNorm measured anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.models.dry_run import set_mode
from striate.training import loop
from striate.training.job import Job
from striate.training.loop import Progress, recompute_batchnorm, train_epoch

Start = Callable[..., Job]


def weights_of(net: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in net.parameters()])


@pytest.mark.parametrize("steps", [1, 5, 64])
def test_the_length_of_a_block_changes_nothing(start: Start, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(loop, "RECORD_STEPS", steps)
    monkeypatch.setattr(loop, "RECORD_SECONDS", math.inf)
    job = start("run")
    progress = Progress()
    blocks = list(train_epoch(job.learner, progress))
    count = len(job.learner.batches)
    assert [len(block) for block in blocks[:-1]] == [steps] * (len(blocks) - 1)
    rows = [row for block in blocks for row in block]
    assert [row[0] for row in rows] == list(range(1, count + 1)) and {row[1] for row in rows} == {1}
    assert (progress.step, progress.step_in_epoch, progress.seen) == (count, count, len(job.learner.batches.indices))
    monkeypatch.setattr(loop, "RECORD_STEPS", 3)
    other, again = start("other"), Progress()
    assert [row for block in train_epoch(other.learner, again) for row in block] == rows
    assert (again.loss_sum, again.correct, again.lr) == (progress.loss_sum, progress.correct, progress.lr)


def test_slow_steps_are_told_one_by_one(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RECORD_SECONDS", -1.0)
    job = start("run")
    assert [len(block) for block in train_epoch(job.learner, Progress())] == [1] * len(job.learner.batches)


def test_running_accuracy_and_loss_are_of_the_batches_as_they_were_seen(start: Start) -> None:
    job = start("run", model=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), lr=1e-12, optimizer="sgd")
    net = job.learner.net
    images, labels = zip(*job.learner.batches.epoch(0), strict=True)
    with torch.no_grad():
        logits = net(torch.cat(images))
    progress = Progress()
    for _ in train_epoch(job.learner, progress):
        pass
    wanted = nn.functional.cross_entropy(logits.double(), torch.cat(labels))
    assert progress.loss_sum / progress.seen == pytest.approx(float(wanted), rel=1e-5)
    assert progress.correct == int((logits.argmax(1) == torch.cat(labels)).sum())


def test_gradients_that_a_net_brings_along_have_no_effect(start: Start, small: Any) -> None:
    moved = []
    for name, leftover in (("clean", 0.0), ("used", 1e3)):
        torch.manual_seed(0)
        net = small()
        if leftover:
            for parameter in net.parameters():
                parameter.grad = torch.full_like(parameter, leftover)
        job = start(name, model=net)
        for _ in train_epoch(job.learner, Progress()):
            pass
        moved.append(weights_of(net))
        assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(moved[0], moved[1])


def test_the_gradient_is_clipped_to_the_norm_asked_for(start: Start, small: Any) -> None:
    for name, clip in (("tight", 1e-3), ("wide", 1e6)):
        job = start(name, optimizer="sgd", momentum=0.0, lr=1.0, clip=clip, batch_size=184)
        assert len(job.learner.batches) == 1
        before = weights_of(job.learner.net)
        for _ in train_epoch(job.learner, Progress()):
            pass
        length = float((weights_of(job.learner.net) - before).norm())
        assert length == pytest.approx(clip, rel=1e-2) if name == "tight" else length < 100


def test_the_rate_of_each_step_is_that_of_the_schedule(start: Start) -> None:
    job = start("run", schedule="one-cycle", lr=0.1)
    rows = [row for block in train_epoch(job.learner, Progress()) for row in block]
    assert [row[2] for row in rows] == [job.learner.rate(step, job.learner.total_steps) for step in range(len(rows))]
    assert len({row[2] for row in rows}) == len(rows)


def norms_of(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_batchnorm_is_measured_as_the_mean_over_the_batches(start: Start) -> None:
    job = start("run", batch_size=30)
    net = job.learner.net
    weights = weights_of(net)
    set_mode(net, True)
    recompute_batchnorm(net, job.learner.batches, epoch=2)
    first, second = norms_of(net)
    convolution = net.layers[0]  # type: ignore[index, union-attr]
    means, variances = [], []
    with torch.no_grad():
        for images, _ in job.learner.batches.sample(2, 4000):
            maps = convolution(images)  # type: ignore[operator]
            means.append(maps.mean((0, 2, 3)))
            variances.append(maps.var((0, 2, 3)))
    torch.testing.assert_close(first.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var, torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(weights_of(net), weights) and net.training and all(m.training for m in net.modules())
    assert first.momentum == second.momentum == 0.1 and int(first.num_batches_tracked or 0) == len(means)
    kept = [norm.running_mean.clone() for norm in (first, second)]  # type: ignore[union-attr]
    torch.manual_seed(99)  # dropout must play no part
    recompute_batchnorm(net, job.learner.batches, epoch=2)
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip((first, second), kept, strict=True))  # type: ignore[arg-type]


class Frozen(nn.Module):
    """Keeps its BatchNorm in evaluation mode while it trains, as one does with pretrained layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.norm.running_mean.fill_(5.0)  # type: ignore[union-attr]
        self.own = nn.BatchNorm2d(1)
        self.line = nn.Linear(64, 3)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(self.own(self.norm(x)).flatten(1))


def test_a_frozen_batchnorm_keeps_its_statistics(start: Start) -> None:
    job = start("run", model=Frozen, recompute_batchnorm="on")
    for _ in job.run():
        pass
    norm, own = norms_of(job.learner.net)
    assert float(norm.running_mean[0]) == 5.0 and float(own.running_mean[0]) != 0.0  # type: ignore[index]
    assert not norm.training


def test_a_net_without_batchnorm_or_statistics_is_left_alone(start: Start) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 3))
    job = start("run", model=net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recompute_batchnorm(net, job.learner.batches, epoch=0)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_one_picture_a_step_needs_it(start: Start) -> None:
    """After such training the running statistics follow the last pictures: the net is worse than it could be."""
    accuracies = {}
    for wanted in ("auto", "off"):
        job = start(wanted, model="strided-cnn", size=16, batch_size=1, lr=0.003, recompute_batchnorm=wanted)
        for _ in job.run():
            pass
        assert job.evaluation is not None
        accuracies[wanted] = job.evaluation.record["loss"]
    assert accuracies["auto"] < accuracies["off"]
    assert np.isfinite(accuracies["off"])


def rows_of(job: Job, epochs: int = 1) -> list[tuple[int, int, float, float]]:
    rows = []
    progress = Progress()
    for _ in range(epochs):
        rows += [row for block in train_epoch(job.learner, progress) for row in block]
        progress.next_epoch()
    return rows


def flat_net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))


@pytest.mark.parametrize("parts", [2, 3, 16])
@pytest.mark.parametrize(
    "settings",
    [{}, {"balance": "loss"}, {"loss": "binary-cross-entropy"}, {"clip": 0.05}],
    ids=["plain", "weighted", "binary", "clipped"],
)
def test_a_batch_in_parts_steps_as_the_whole_batch_does(start: Start, parts: int, settings: dict[str, Any]) -> None:
    """Without BatchNorm and dropout the two differ by rounding alone; the last batch of 8 has fewer parts."""
    settings = {"optimizer": "sgd", "lr": 0.1, **settings}
    whole, split = (start(name, model=flat_net(), accumulate=n, **settings) for name, n in (("a", 1), ("b", parts)))
    one, other = rows_of(whole), rows_of(split)
    assert [row[:3] for row in one] == [row[:3] for row in other]
    assert [row[3] for row in other] == pytest.approx([row[3] for row in one], rel=1e-4)
    torch.testing.assert_close(weights_of(split.learner.net), weights_of(whole.learner.net), rtol=1e-4, atol=1e-5)


def test_each_part_goes_through_the_net_by_itself(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    job = start("run", model=flat_net(), accumulate=3)
    sizes: list[int] = []
    job.learner.net.register_forward_hook(lambda net, given, answer: sizes.append(len(given[0])))
    progress = Progress()
    for _ in train_epoch(job.learner, progress):
        pass
    count = len(job.learner.batches.indices)
    assert sizes[:3] == [6, 6, 4] and sum(sizes) == progress.seen == count and progress.step == math.ceil(count / 16)


def test_the_epoch_ends_where_the_run_does(start: Start) -> None:
    job = start("run")
    job.learner.total_steps = 4
    progress = Progress()
    assert [row[0] for block in train_epoch(job.learner, progress) for row in block] == [1, 2, 3, 4]
    assert progress.step == progress.step_in_epoch == 4


def whitening_job(start: Start, name: str, **settings: Any) -> Job:
    options = {"widths": (4, 4)}
    return start(
        name,
        model="airnet",
        model_option=options,
        size=12,
        whitening_epochs=0.5,
        bias_lr=0.02,
        batch_size=32,
        **settings,
    )


def test_the_whitening_bias_is_trained_at_first_and_then_frozen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RECORD_STEPS", 1)
    job = whitening_job(start, "run")
    bias: Any = job.learner.net.whiten.bias
    seen = []
    for _ in train_epoch(job.learner, Progress()):
        [group] = [group for group in job.learner.optimizer.param_groups if group["end"] is not None]
        seen.append((group["lr"], bias.requires_grad, bias.detach().clone()))
    assert len(seen) == 6 and group["end"] == 3
    assert [lr for lr, _, _ in seen] == pytest.approx([0.02, 0.02 * 2 / 3, 0.02 / 3, 0, 0, 0])
    assert [asks for _, asks, _ in seen] == [True] * 3 + [False] * 3
    assert len({tuple(values.tolist()) for _, _, values in seen}) == 3
    assert torch.equal(seen[2][2], seen[5][2])
    job.learner.set_rates(0)
    assert bias.requires_grad  # a function of the step alone


def test_no_step_reads_from_the_device(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits for all that was begun: it may happen at the end of a block, and not at each step."""
    monkeypatch.setattr(loop, "RECORD_STEPS", 10**6)
    monkeypatch.setattr(loop, "RECORD_SECONDS", math.inf)
    reads: list[str] = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "numpy"):
        original = getattr(torch.Tensor, name)

        def noted(self: torch.Tensor, *given: Any, _name: str = name, _original: Any = original) -> Any:
            reads.append(_name)
            return _original(self, *given)

        monkeypatch.setattr(torch.Tensor, name, noted)
    counts = []
    for name, batch_size in (("few", 64), ("many", 8)):
        job = start(name, batch_size=batch_size, optimizer="muon", clip=1.0, accumulate=2, lookahead=0.9)
        reads.clear()
        for _ in train_epoch(job.learner, Progress()):
            pass
        counts.append(sorted(reads))
    assert counts[0] == counts[1] == ["__int__", "tolist"]


class Mixed:
    """Batches whose labels are shares of classes (B, K)."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def epoch(self, epoch: int, first: int) -> Any:
        for images, labels in self.batches.epoch(epoch, first):
            yield images, nn.functional.one_hot(labels, 3).float() * 0.7 + 0.1


def test_mixed_labels_count_as_the_class_with_the_greatest_share(start: Start) -> None:
    found = []
    for name, smoothing in (("plain", 0.3), ("mixed", 0.0)):
        job = start(name, model=flat_net(), optimizer="sgd", label_smoothing=smoothing)
        if name == "mixed":
            job.learner.batches = Mixed(job.learner.batches)  # type: ignore[assignment]
        progress = Progress()
        for _ in train_epoch(job.learner, progress):
            pass
        found.append((progress.correct, progress.seen, progress.loss_sum))
    assert found[0][:2] == found[1][:2] and found[0][2] == pytest.approx(found[1][2], rel=1e-5)
