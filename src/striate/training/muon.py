"""Muon: momentum whose direction is made orthogonal, for filters and matrices; Nesterov momentum for the rest."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from striate.training.uncompiled import Uncompiled

# Chosen by K. Jordan for the steepest rise of small singular values, not for convergence to 1 (see `orthogonalise`).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Three are enough for filters, as in airbench94_muon; language models take five.
ITERATIONS = 3
# Keeps a gradient of zeros from being divided by zero.
TINY = 1e-7


def orthogonalise(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Bring the singular values of each of the matrices (N, R, C) near 1 and leave their directions as they are.

    A Newton-Schulz iteration X ← aX + (bA + cA²)X with A = XXᵀ: only products of matrices. After five iterations the
    singular values lie within about 0.7 to 1.2; those that were very small before are still on their way up.
    Source: K. Jordan et al., 'Muon: an optimizer for hidden layers in neural networks', 2024.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # (N, R, C) with R <= C: A is as small as it can be
    x = x / (x.norm(dim=(1, 2), keepdim=True) + TINY)
    for _ in range(iterations):
        squares = x @ x.mT  # (N, R, R)
        squares = torch.baddbmm(squares, squares, squares, beta=b, alpha=c)
        x = torch.baddbmm(x, squares, x, beta=a)  # (N, R, C)
    return x.mT if tall else x


class Muon(Uncompiled):
    """Muon on groups with `orthogonal`, SGD with Nesterov momentum on the others.

    A group holds `lr`, `momentum`, `weight_decay` (added to the gradient) and `orthogonal`. Parameters of an orthogonal
    group have two or more dimensions, the first being their outputs, and count as matrices (outputs, all else). Before
    each step such a matrix is scaled to the norm √outputs, that of orthogonal rows, so that a rate means the same angle
    whatever the layer, and weight decay would do nothing. Those of equal shape go through `orthogonalise` together.
    Source: K. Jordan et al. 2024 as for `orthogonalise`, and airbench94_muon (KellerJordan/cifar10-airbench).
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Change the parameters that have a gradient."""
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not weights:
                continue
            gradients = [parameter.grad for parameter in weights]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
            speeds = [self._speed(parameter) for parameter in weights]
            torch._foreach_mul_(speeds, group["momentum"])
            torch._foreach_add_(speeds, gradients)
            directions = list(torch._foreach_add(gradients, speeds, alpha=group["momentum"]))
            if group["orthogonal"]:
                for weight in weights:
                    weight.mul_(len(weight) ** 0.5 / weight.norm().clamp_min(TINY))
                directions = _orthogonal(directions)
            torch._foreach_add_(weights, directions, alpha=-group["lr"])

    # torch wraps a step that does not say so in a profiler's record and two hook calls, 0.07 ms each time.
    step.hooked = True  # type: ignore[attr-defined]

    def _speed(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def _orthogonal(directions: list[Tensor]) -> list[Tensor]:
    """Orthogonalise each of these tensors as a matrix (outputs, all else), those of equal shape together."""
    places: dict[torch.Size, list[int]] = defaultdict(list)
    for place, direction in enumerate(directions):
        places[direction.shape].append(place)
    result = list(directions)
    for shape, same in places.items():
        matrices = torch.stack([directions[place] for place in same]).flatten(2)  # (N, outputs, all else)
        for place, matrix in zip(same, orthogonalise(matrices)):
            result[place] = matrix.reshape(shape)
    return result
