"""Losses of single and of mixed labels, against torch, scikit-learn and hand values."""

from __future__ import annotations

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

from striate.training.losses import balanced_weights, make_loss

CPU = torch.device("cpu")
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


KINDS = ["cross-entropy", "binary-cross-entropy", "mean-squared-error"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_one_hot_shares_are_labels(kind: str, weights: torch.Tensor | None) -> None:
    smoothing = 0.2 if kind == "cross-entropy" else 0.0
    loss = make_loss(kind, 4, CPU, label_smoothing=smoothing, class_weights=weights)
    assert loss(LOGITS, ONE_HOT).item() == pytest.approx(loss(LOGITS, LABELS).item(), rel=1e-6)
    assert loss.mass(ONE_HOT).item() == loss.mass(LABELS).item()


@given(st.floats(0, 1), st.sampled_from(["cross-entropy", "binary-cross-entropy"]), st.sampled_from([0.0, 0.1]))
def test_the_loss_of_a_mixture_is_the_mixture_of_losses(share: float, kind: str, smoothing: float) -> None:
    """As mixup's own code has it: share · loss(one label) + (1 − share) · loss(the other)."""
    loss = make_loss(kind, 4, CPU, label_smoothing=smoothing if kind == "cross-entropy" else 0.0)
    mixed = share * ONE_HOT + (1 - share) * ONE_HOT.flip(0)
    wanted = share * loss(LOGITS, LABELS) + (1 - share) * loss(LOGITS, LABELS.flip(0))
    assert loss(LOGITS, mixed).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_mixture_weighs_as_its_classes_do() -> None:
    loss = make_loss("cross-entropy", 4, CPU, class_weights=WEIGHTS)
    half = (ONE_HOT + ONE_HOT.flip(0)) / 2
    logs = LOGITS.double().log_softmax(1)
    wanted = -(half.double() * WEIGHTS * logs).sum() / (half.double() * WEIGHTS).sum()
    assert loss(LOGITS, half).item() == pytest.approx(wanted.item(), rel=1e-6)


@given(st.sampled_from(KINDS), st.integers(1, 7), st.sampled_from([None, WEIGHTS]), st.booleans(), st.integers(0, 99))
def test_shares_of_the_parts_make_the_whole(
    kind: str, parts: int, weights: torch.Tensor | None, mixed: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(11, 4, generator=generator)
    labels = torch.randint(0, 4, (11,), generator=generator)
    if mixed:
        labels = torch.rand(11, 4, generator=generator).softmax(1)
    loss = make_loss(kind, 4, CPU, class_weights=weights)
    pairs = list(zip(logits.chunk(parts), labels.chunk(parts), strict=True))
    shares = [loss.mass(theirs) / loss.mass(labels) for _, theirs in pairs]
    assert sum(shares).item() == pytest.approx(1.0, rel=1e-5)  # type: ignore[union-attr]
    total = sum(share * loss(some, theirs) for share, (some, theirs) in zip(shares, pairs, strict=True))
    assert float(total) == pytest.approx(loss(logits, labels).item(), rel=1e-5)
