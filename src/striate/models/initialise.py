"""Initial weights by name: an article's own choice, whatever the net."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from striate.errors import unknown_name

Fan = Literal["fan_in", "fan_out"]

SCHEMES = ("default", "xavier-uniform", "kaiming-normal")


def initialise(net: nn.Module, scheme: str = "default", generator: torch.Generator | None = None) -> None:
    """Draw the weights of every convolution and linear layer afresh; frozen weights and other layers are left alone.

    `default` changes nothing: torch's own, drawn when the net was made. `xavier-uniform` (Glorot and Bengio 2010)
    leaves the biases as torch drew them, as the LeNet article does; `kaiming-normal` (He et al. 2015: fan-in, for
    ReLU) sets them to zero. UsageError for an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise unknown_name("initialisation", scheme, SCHEMES)
    if scheme == "default":
        return
    for layer in net.modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) or not layer.weight.requires_grad:
            continue
        if scheme == "xavier-uniform":
            nn.init.xavier_uniform_(layer.weight, generator=generator)
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_convolutions(net: nn.Module, fan: Fan = "fan_in") -> None:
    """Draw the weights of a net's convolutions from normal numbers as He et al. (2015) do, for ReLU, by that fan."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and has_memory(layer.weight):
            nn.init.kaiming_normal_(layer.weight, mode=fan, nonlinearity="relu")


def has_memory(weight: Tensor) -> bool:
    """Say whether a weight is there to be drawn: for a normal number without memory torch loads its compiler, 2 s."""
    return not weight.is_meta
