"""Losses of logits against labels: one class a picture, or a mixture of classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Loss:
    """The mean loss of logits (B, K) and labels: int64 (B,), or float (B, K) with the share of each class.

    `weights` (K,) weigh each picture by its class (by its classes, where they are mixed); the sum is then divided by
    the weights of the batch, as torch's cross-entropy does. `one_hot` is the identity (K, K): a row of it is a one-hot
    label, and indexing it is quicker than functional.one_hot, which checks the range.
    """

    kind: str
    one_hot: Tensor
    label_smoothing: float = 0.0
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar."""
        mixed = labels.is_floating_point()
        if self.kind == "cross-entropy":
            # Of a mixture torch divides the weighted sum by the pictures and not by their weights.
            by_hand = mixed and self.weights is not None
            loss = functional.cross_entropy(
                logits,
                labels,
                weight=self.weights,
                label_smoothing=self.label_smoothing,
                reduction="sum" if by_hand else "mean",
            )
            return loss / self.mass(labels) if by_hand else loss
        of_logits = _binary_cross_entropy if self.kind == "binary-cross-entropy" else _mean_squared_error
        targets = labels if mixed else self.one_hot[labels]
        if self.weights is None:
            return of_logits(logits, targets, "mean")
        each = of_logits(logits, targets, "none").mean(1)  # (B,)
        return (each * (targets * self.weights).sum(1)).sum() / self.mass(labels)

    def mass(self, labels: Tensor) -> Tensor:
        """Return what the sum over these pictures is divided by, a scalar: their number, or their weights' sum."""
        if self.weights is None:
            return torch.tensor(float(len(labels)), device=labels.device)
        return (labels * self.weights if labels.is_floating_point() else self.weights[labels]).sum()


def make_loss(
    kind: str,
    num_classes: int,
    device: torch.device,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Loss:
    """Return the loss of that name: cross-entropy, binary-cross-entropy or mean-squared-error.

    The last two compare the sigmoid of the logits with one-hot labels, averaged over pictures and classes.
    """
    weights = class_weights.to(device) if class_weights is not None else None
    return Loss(kind, torch.eye(num_classes, device=device), label_smoothing, weights)


def _binary_cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)


def _mean_squared_error(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return functional.mse_loss(logits.sigmoid(), targets, reduction=reduction)


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return class weights n / (K · n_k), float32 (K,), as scikit-learn's `balanced` does; 0 for an absent class."""
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = int((counts > 0).sum())
    weights = counts.sum() / (present * counts)
    weights[counts == 0] = 0.0
    return weights.float()
