"""Optimizers, schedules, losses, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LossFunction = Callable[[Tensor, Tensor], Tensor]


def make_optimizer(
    net: nn.Module,
    kind: str,
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> torch.optim.Optimizer:
    """Build sgd, adam or adamw over all trainable parameters, with torch's fused kernels.

    `weight_decay` coupled is added to the gradient (L2 regularisation); decoupled shrinks the weights by
    lr · weight_decay apart from the gradient (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    # MPS has no fused SGD in every release; the plain kernels give the same numbers.
    fused = parameters[0].device.type in ("cpu", "cuda")
    if kind == "sgd":
        sgd = DecoupledSGD if decoupled else torch.optim.SGD
        return sgd(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
    if fused:
        return FusedAdam(parameters, lr, betas, weight_decay=weight_decay, decoupled=decoupled)
    return (torch.optim.AdamW if decoupled else torch.optim.Adam)(parameters, lr, betas, weight_decay=weight_decay)


class FusedAdam(torch.optim.Adam):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) or, decoupled, AdamW, by torch's fused kernel over prepared lists.

    torch's own `step` groups and counts the parameters anew each time: 0.12 ms against 0.02 ms for the ten tensors of
    strided-cnn, of a step of 1 ms in all. The arithmetic is the very same kernel's.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        *,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        super().__init__(parameters, lr, betas, weight_decay=weight_decay, fused=True)
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Change the parameters that have a gradient."""
        group = self.param_groups[0]
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [self.state[parameter] or self._first_state(parameter) for parameter in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        self._kernel(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    # torch wraps a step that does not say so in a profiler's record and two hook calls, 0.07 ms each time.
    step.hooked = True  # type: ignore[attr-defined]

    def _first_state(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


class DecoupledSGD(torch.optim.SGD):
    """SGD whose weight decay shrinks the weights by lr · weight_decay instead of adding to the gradient."""

    def step(self, closure: Any = None) -> Any:
        """Shrink, then step as SGD without weight decay."""
        for group in self.param_groups:
            with torch.no_grad():
                torch._foreach_mul_(group["params"], 1.0 - group["lr"] * group["weight_decay"])
            group["weight_decay"], decay = 0.0, group["weight_decay"]
            group["decay"] = decay
        try:
            return super().step(closure)
        finally:
            for group in self.param_groups:
                group["weight_decay"] = group.pop("decay")


def rate(
    step: int,
    total: int,
    *,
    schedule: str,
    peak: float,
    warmup: float = 0.0,
    steps_per_epoch: int = 1,
    step_epochs: int = 10,
    step_factor: float = 0.1,
) -> float:
    """Return the learning rate of step `step` of `total`, counted from 0: a pure function.

    `warmup`: share of all steps in which the rate rises linearly to `peak`. constant; step (times `step_factor` every
    `step_epochs` epochs); cosine (to 0); one-cycle (warm-up of 0.3 unless given, then cosine to 0; Smith and Topin
    2018, arXiv:1708.07120); triangular (warm-up of 0.2 unless given, then linear to 0).
    """
    if warmup == 0.0:
        warmup = {"one-cycle": 0.3, "triangular": 0.2}.get(schedule, 0.0)
    rising = warmup * total
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    progress = (step - rising) / max(1.0, total - rising)
    if schedule in ("cosine", "one-cycle"):
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "triangular":
        return peak * (1.0 - progress)
    if schedule == "step":
        return peak * step_factor ** (step // (steps_per_epoch * step_epochs))
    return peak


def make_loss(
    kind: str,
    num_classes: int,
    device: torch.device,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> LossFunction:
    """Return the mean loss of logits (B, K) and labels (B,).

    binary-cross-entropy and mean-squared-error compare the sigmoid of the logits with one-hot labels, averaged over
    pictures and classes. `class_weights` (K,) weigh each picture by its class, and the sum is divided by the weights
    of the batch, as torch's cross-entropy does.
    """
    weights = class_weights.to(device) if class_weights is not None else None
    if kind == "cross-entropy":
        return partial(functional.cross_entropy, weight=weights, label_smoothing=label_smoothing)
    # A row of the identity is a one-hot label; indexing it is quicker than functional.one_hot, which checks the range.
    one_hot = torch.eye(num_classes, device=device)
    of_logits = _binary_cross_entropy if kind == "binary-cross-entropy" else _mean_squared_error
    return partial(_against_one_hot, of_logits=of_logits, one_hot=one_hot, weights=weights)


def _against_one_hot(
    logits: Tensor, labels: Tensor, *, of_logits: Callable[..., Tensor], one_hot: Tensor, weights: Tensor | None
) -> Tensor:
    if weights is None:
        return of_logits(logits, one_hot[labels], "mean")
    each = of_logits(logits, one_hot[labels], "none").mean(1)  # (B,)
    of_picture = weights[labels]
    return (each * of_picture).sum() / of_picture.sum()


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


class WeightAverage:
    """Exponential moving average of a net's state (weights and BatchNorm statistics): what is tested and shipped.

    After each step the average moves by (1 − decay) towards the net; in the first steps faster, by at least
    9 / (10 + step), so that the first weights are soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    def update(self, net: nn.Module, step: int) -> None:
        """Move towards the net's present state; whole numbers (BatchNorm's counter) are copied."""
        weight = max(1.0 - self.decay, 9.0 / (10.0 + step))
        present = net.state_dict()
        floats = [name for name, tensor in self.state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in floats], [present[name] for name in floats], weight)
        for name in self.state.keys() - set(floats):
            self.state[name].copy_(present[name])
