"""Averages of the weights: what is validated, tested and shipped instead of the net's last weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a net's state (weights and BatchNorm statistics).

    After each step the average moves by (1 − decay) towards the net; in the first steps faster, by at least
    9 / (10 + step), so that the first weights are soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    def update(self, net: nn.Module, step: int, total: int) -> None:
        """Move towards the net as it is after step `step`, counted from 0, of `total`."""
        self._move(net, max(1.0 - self.decay, 9.0 / (10.0 + step)))

    def _move(self, net: nn.Module, weight: float) -> None:
        """Move by the share `weight`; whole numbers (BatchNorm's counter) are copied."""
        present = net.state_dict()
        floats = [name for name, tensor in self.state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in floats], [present[name] for name in floats], weight)
        for name in self.state.keys() - set(floats):
            self.state[name].copy_(present[name])


class Lookahead(WeightAverage):
    """Slow weights, which the net takes over every few steps (Zhang et al. 2019, arXiv:1907.08610).

    Every `EVERY` steps, and after the last one, they move towards the net by 1 − decay^EVERY · (step / total)³ and the
    net becomes as they are: hardly a change at first, an average over many steps at the end. The cube is airbench94's
    (K. Jordan 2024, arXiv:2404.00498, § 3.4). In the first `EVERY` steps they follow the net.
    """

    EVERY = 5

    def update(self, net: nn.Module, step: int, total: int) -> None:
        """Move the slow weights, if it is time, after step `step`, counted from 0, of `total`; then copy them back."""
        done = step + 1
        if done <= self.EVERY:
            self._move(net, 1.0)
        elif done % self.EVERY == 0 or done == total:
            self._move(net, 1.0 - self.decay**self.EVERY * (done / total) ** 3)
            present: dict[str, Tensor] = net.state_dict()
            with torch.no_grad():
                for name, slow in self.state.items():
                    present[name].copy_(slow)
