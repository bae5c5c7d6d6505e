"""Optimizers, schedules, losses and the average of the weights, against torch's plain ones and hand values."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from striate.training.optim import WeightAverage, balanced_weights, make_loss, make_optimizer, rate

CPU = torch.device("cpu")


def steps_of(optimizer: torch.optim.Optimizer, net: nn.Module, seed: int = 0, count: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach().clone() for parameter in net.parameters()]


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_fused_adam_is_torchs_own_to_the_last_bit(decoupled: bool, weight_decay: float) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5))
    other = copy.deepcopy(net)
    ours = make_optimizer(
        net, "adamw" if decoupled else "adam", lr=0.01, weight_decay=weight_decay, decoupled=decoupled
    )
    plain = torch.optim.AdamW if decoupled else torch.optim.Adam
    theirs = plain(other.parameters(), 0.01, weight_decay=weight_decay, fused=True)
    for mine, wanted in zip(steps_of(ours, net), steps_of(theirs, other), strict=True):
        assert torch.equal(mine, wanted)


def test_fused_adam_leaves_a_parameter_without_gradient_alone() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = make_optimizer(net, "adam", lr=0.1)
    before = [p.detach().clone() for p in net.parameters()]
    net[0](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    after = list(net.parameters())
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2]) and torch.equal(before[3], after[3])


def test_decoupled_sgd_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(2.0)
    optimizer = make_optimizer(net, "sgd", lr=0.1, momentum=0.0, weight_decay=0.5, decoupled=True)
    net.weight.grad = torch.full((1, 1), 3.0)
    optimizer.step()
    assert net.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1 * 3.0)
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


def test_coupled_sgd_is_torchs_own() -> None:
    net = nn.Linear(3, 3)
    other = copy.deepcopy(net)
    ours = make_optimizer(net, "sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    theirs = torch.optim.SGD(other.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov=True, fused=True)
    for mine, wanted in zip(steps_of(ours, net), steps_of(theirs, other), strict=True):
        assert torch.equal(mine, wanted)


SCHEDULES = ["constant", "step", "cosine", "one-cycle", "triangular"]


@given(
    st.sampled_from(SCHEDULES), st.integers(1, 500), st.floats(1e-5, 10), st.sampled_from([0.0, 0.1, 0.5]), st.data()
)
def test_a_rate_is_positive_and_never_above_its_peak(
    schedule: str, total: int, peak: float, warmup: float, data: Any
) -> None:
    step = data.draw(st.integers(0, total - 1))
    value = rate(step, total, schedule=schedule, peak=peak, warmup=warmup, steps_per_epoch=max(1, total // 5))
    assert 0 < value <= peak * (1 + 1e-12)


def test_rates_by_hand() -> None:
    assert [rate(s, 4, schedule="constant", peak=2.0) for s in range(4)] == [2.0] * 4
    falls = [rate(s, 6, schedule="step", peak=1.0, steps_per_epoch=1, step_epochs=2, step_factor=0.5) for s in range(6)]
    assert falls == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert rate(50, 100, schedule="cosine", peak=1.0) == pytest.approx(0.5)
    assert rate(60, 100, schedule="triangular", peak=1.0) == pytest.approx(0.5)  # 0.2 up, then down to 0
    rising = [rate(s, 100, schedule="constant", peak=1.0, warmup=0.1) for s in range(10)]
    assert rising == sorted(rising) and rising[0] == pytest.approx(1 / 11)
    assert rate(99, 100, schedule="one-cycle", peak=1.0) < 0.01


LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 1, 1])
ONE_HOT = functional.one_hot(LABELS, 4).float()
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0])


def test_losses_against_torch() -> None:
    def value(kind: str, **options: Any) -> float:
        return make_loss(kind, 4, CPU, **options)(LOGITS, LABELS).item()

    assert value("cross-entropy") == functional.cross_entropy(LOGITS, LABELS).item()
    smoothed = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1).item()
    assert value("cross-entropy", label_smoothing=0.1) == smoothed
    # The articles' own form: a sigmoid at the end of the net, and BCELoss.
    assert value("binary-cross-entropy") == pytest.approx(nn.BCELoss()(LOGITS.sigmoid(), ONE_HOT).item(), rel=1e-6)
    assert value("mean-squared-error") == pytest.approx(nn.MSELoss()(LOGITS.sigmoid(), ONE_HOT).item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["cross-entropy", "binary-cross-entropy", "mean-squared-error"])
def test_class_weights_weigh_each_picture(kind: str) -> None:
    each = torch.stack([make_loss(kind, 4, CPU)(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(6)])
    wanted = (each * WEIGHTS[LABELS]).sum() / WEIGHTS[LABELS].sum()
    got = make_loss(kind, 4, CPU, class_weights=WEIGHTS)(LOGITS, LABELS)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([0] * 5 + [1] * 2 + [3] * 9)
    wanted = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    got = balanced_weights(torch.from_numpy(labels), 4).numpy()
    assert got[[0, 1, 3]] == pytest.approx(wanted, rel=1e-6) and got[2] == 0


def test_average_of_weights_by_hand() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    net[0].weight.data.fill_(1.0)
    average = WeightAverage(net, 0.9)
    expected = 1.0
    for step in range(200):
        net[0].weight.data.fill_(float(step))
        net[1].num_batches_tracked.fill_(step)
        average.update(net, step)
        weight = max(0.1, 9 / (10 + step))
        expected += weight * (step - expected)
    assert average.state["0.weight"].item() == pytest.approx(expected, rel=1e-5)
    assert average.state["1.num_batches_tracked"].item() == 199


@given(st.sampled_from(SCHEDULES), st.integers(1, 400), st.sampled_from([0.0, 0.05, 0.3, 0.9]))
def test_a_rate_rises_to_one_top_and_then_falls_to_almost_nothing(schedule: str, total: int, warmup: float) -> None:
    options: dict[str, Any] = {"schedule": schedule, "peak": 2.0, "warmup": warmup, "steps_per_epoch": 7}
    rates = [rate(step, total, step_epochs=3, **options) for step in range(total)]
    top = rates.index(max(rates))
    rising, falling = itertools.pairwise(rates[: top + 1]), itertools.pairwise(rates[top:])
    assert all(one < two for one, two in rising) and all(one >= two for one, two in falling)
    if warmup and schedule != "step":
        assert abs(top - warmup * total) <= 1
    if schedule in ("cosine", "one-cycle", "triangular") and total > 100 and warmup < 0.9:
        assert rates[-1] < 0.06


def test_one_cycle_is_a_warm_up_and_then_a_cosine() -> None:
    rates = [rate(step, 100, schedule="one-cycle", peak=2.0) for step in range(100)]
    assert rates[:30] == pytest.approx([2.0 * (step + 1) / 31 for step in range(30)]) and rates[30] == 2.0
    assert rates[30:] == pytest.approx([rate(step, 70, schedule="cosine", peak=2.0) for step in range(70)])
    assert rates[65] == pytest.approx(1.0)


def test_cross_entropy_is_scikit_learns_log_loss() -> None:
    probabilities, each = LOGITS.double().softmax(1).numpy(), WEIGHTS[LABELS].numpy()
    found = make_loss("cross-entropy", 4, CPU)(LOGITS, LABELS).item()
    assert found == pytest.approx(log_loss(LABELS, probabilities), rel=1e-6)
    found = make_loss("cross-entropy", 4, CPU, class_weights=WEIGHTS)(LOGITS, LABELS).item()
    assert found == pytest.approx(log_loss(LABELS, probabilities, sample_weight=each), rel=1e-6)


def test_label_smoothing_mixes_the_target_with_the_uniform() -> None:
    target = 0.8 * ONE_HOT.double() + 0.2 / 4
    wanted = -(target * LOGITS.double().log_softmax(1)).sum(1).mean().item()
    found = make_loss("cross-entropy", 4, CPU, label_smoothing=0.2)(LOGITS, LABELS).item()
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("kind", ["cross-entropy", "binary-cross-entropy", "mean-squared-error"])
def test_gradients_are_finite_far_out(kind: str) -> None:
    far = (LOGITS * 1e5).requires_grad_()
    make_loss(kind, 4, CPU)(far, LABELS).backward()
    assert far.grad is not None and bool(far.grad.isfinite().all())


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_adam_is_torchs_plain_adam(decoupled: bool, channels_last: bool) -> None:
    """The plain, not fused, implementation, with a rate that changes and weights in either layout."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5))
    other = copy.deepcopy(net)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    ours = make_optimizer(net, "adam", lr=0.1, betas=(0.8, 0.95), weight_decay=0.1, decoupled=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    theirs = kind(other.parameters(), 0.1, (0.8, 0.95), weight_decay=0.1, foreach=False, fused=False)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        for mine, wanted in zip(net.parameters(), other.parameters(), strict=True):
            gradient = torch.randn(wanted.shape, generator=generator)
            mine.grad, wanted.grad = torch.empty_like(mine).copy_(gradient), gradient.clone()
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.step()
    for mine, wanted in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_frozen_weights_stay(kind: str) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].weight.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = make_optimizer(net, kind, lr=0.1, weight_decay=0.5, decoupled=True)
    net(torch.ones(3, 2)).square().sum().backward()
    optimizer.step()
    same = [torch.equal(one, two) for one, two in zip(before, net.parameters(), strict=True)]
    assert same == [True, False, False, False]
