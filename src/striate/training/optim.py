"""Optimizers, and which parameters have a rate of their own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.joining import head_layers
from striate.training.muon import Muon
from striate.training.uncompiled import Uncompiled

Group = dict[str, Any]


def make_optimizer(
    net: nn.Module,
    kind: str,
    *,
    lr: float,
    bias_lr: float | None = None,
    head_lr: float | None = None,
    whitening_steps: int | None = None,
    frozen: Collection[str] = (),
    thaw: int = 0,
    momentum: float = 0.9,
    side_momentum: float = 0.85,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> torch.optim.Optimizer:
    """Build sgd, adam, adamw or muon over all trainable parameters, with torch's fused kernels where it has them.

    `lr`, `bias_lr`, `head_lr`, `whitening_steps`, `frozen` and `thaw` as in `parameter_groups`. `weight_decay` coupled
    is added to the gradient (L2 regularisation); decoupled shrinks the weights by lr · weight_decay apart from the
    gradient (Loshchilov and Hutter 2019, arXiv:1711.05101). For muon it is divided by the group's rate before
    it is added to the gradient: biases and head, whose rates are far apart, are pulled alike (airbench94_muon).
    `momentum` is then of the orthogonal groups and `side_momentum` of the others.
    """
    groups = parameter_groups(net, lr, bias_lr, head_lr, whitening_steps, muon=kind == "muon", frozen=frozen, thaw=thaw)
    if kind == "muon":
        for group in groups:
            group["momentum"] = momentum if group["orthogonal"] else side_momentum
            group["weight_decay"] = 0.0 if group["orthogonal"] else weight_decay / group["peak"]
        return Muon(groups)
    decay: dict[str, Any] = {"weight_decay": weight_decay, "decoupled": decoupled}
    if kind == "sgd":
        return FusedSGD(groups, lr, momentum, nesterov=nesterov, **decay)
    return FusedAdam(groups, lr, betas, **decay)


def parameter_groups(
    net: nn.Module,
    lr: float,
    bias_lr: float | None = None,
    head_lr: float | None = None,
    whitening_steps: int | None = None,
    *,
    muon: bool = False,
    frozen: Collection[str] = (),
    thaw: int = 0,
) -> list[Group]:
    """Sort the trainable parameters into groups by the peak of their rate.

    `head_lr`: of the net's last linear layer. `bias_lr`: of all other vectors and numbers, which are biases and
    BatchNorm's scales. `lr`: of all other filters and matrices, and of those two where theirs is None.
    `whitening_steps`: the net's `whitening_bias` is a group of its own with the peak of the biases, whose rate falls to
    0 within so many steps (`end`). Parameters named in `frozen` are not trained before step `thaw` (`begin`). `muon`
    tells apart which groups are `orthogonal`: the filters and matrices but for the head. Raises UsageError where a rate
    finds no parameter, and for muon without filter or hidden matrix.
    """
    head = {parameter for layer in head_layers(net) for parameter in layer.parameters()}
    fading = getattr(net, "whitening_bias", None) if whitening_steps is not None else None
    groups: dict[tuple[Any, ...], Group] = {}
    found = set()
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        role = "head" if parameter in head else "bias" if parameter.ndim < 2 else "weight"
        rates = {"head": head_lr, "bias": bias_lr, "weight": lr}
        peak = lr if rates[role] is None else rates[role]
        end = whitening_steps if parameter is fading else None
        begin = thaw if name in frozen else 0
        orthogonal = muon and role == "weight"
        found |= {role, "fading"} if parameter is fading else {role}
        group: Group = {
            "params": [], "lr": peak, "peak": peak, "begin": begin, "end": end, "orthogonal": orthogonal
        }  # fmt: skip
        groups.setdefault((peak, begin, end, orthogonal), group)["params"].append(parameter)
    wanted = (
        ("--head-lr", head_lr is not None, "head", "it has no linear layer that is trained"),
        ("--bias-lr", bias_lr is not None, "bias", "it has no biases"),
        ("--whitening-epochs", whitening_steps is not None, "fading", "it has no whitening layer, as airnet has"),
        ("--optimizer muon", muon, "weight", "muon turns filters and hidden matrices, and it has neither"),
    )
    for flag, given, role, cause in wanted:
        if given and role not in found:
            raise UsageError(f"{flag} has no effect on {type(net).__name__}", cause, f"leave out {flag}")
    return list(groups.values())


class FusedSGD(Uncompiled, torch.optim.SGD):
    """SGD with momentum by torch's fused kernel over prepared lists: torch's own numbers in a shorter step.

    Decoupled, the decay shrinks the weights by lr · weight_decay before the step instead of adding to the gradient.
    """

    def __init__(
        self, groups: list[Group], lr: float, momentum: float, *, weight_decay: float, nesterov: bool, decoupled: bool
    ) -> None:
        super().__init__(groups, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)
        self._decoupled = decoupled

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Change the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            decay = group["weight_decay"]
            if self._decoupled and decay:
                torch._foreach_mul_(parameters, 1.0 - group["lr"] * decay)
            torch._fused_sgd_(
                parameters,
                [parameter.grad for parameter in parameters],
                [self._speed(parameter) for parameter in parameters] if group["momentum"] else [],
                lr=group["lr"],
                momentum=group["momentum"],
                nesterov=group["nesterov"],
                weight_decay=0.0 if self._decoupled else decay,
                dampening=0.0,
                maximize=False,
                is_first_step=False,  # a speed of zero, times the momentum, plus the gradient is the gradient
            )

    # torch wraps a step that does not say so in a profiler's record and two hook calls, 0.07 ms each time.
    step.hooked = True  # type: ignore[attr-defined]

    def _speed(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


class FusedAdam(Uncompiled, torch.optim.Adam):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) or, decoupled, AdamW, by torch's fused kernel over prepared lists.

    torch's own `step` groups and counts the parameters anew each time: 0.12 ms against 0.02 ms for the ten tensors of
    strided-cnn, of a step of 1 ms in all. The arithmetic is the very same kernel's.
    """

    def __init__(
        self,
        groups: list[Group],
        lr: float,
        betas: tuple[float, float],
        *,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        super().__init__(groups, lr, betas, weight_decay=weight_decay, fused=True)
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Change the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
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
