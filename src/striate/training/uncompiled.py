"""An optimizer that is never compiled, and so starts two seconds earlier."""

from __future__ import annotations

from typing import Any

import torch


class Uncompiled(torch.optim.Optimizer):
    """Mixed in before one of torch's optimizers: groups are added without loading torch.compile's machinery.

    torch wraps `add_param_group` so that torch.compile passes over it, and the wrapper imports torch._dynamo and sympy
    at its first call: 2 s before the first step of a run (`python -X importtime -m striate train digits`). Nothing of
    striate is compiled. torch.optim.SGD's own `step` does the same, which is one reason for FusedSGD.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch's own method does."""
        wrapped = torch.optim.Optimizer.add_param_group
        getattr(wrapped, "__wrapped__", wrapped)(self, param_group)
