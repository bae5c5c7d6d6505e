"""The running average of the weights, and lookahead, against hand values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.training.average import Lookahead, WeightAverage


def test_average_of_weights_by_hand() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    net[0].weight.data.fill_(1.0)
    average = WeightAverage(net, 0.9)
    expected = 1.0
    for step in range(200):
        net[0].weight.data.fill_(float(step))
        net[1].num_batches_tracked.fill_(step)
        average.update(net, step, 200)
        weight = max(0.1, 9 / (10 + step))
        expected += weight * (step - expected)
    assert average.state["0.weight"].item() == pytest.approx(expected, rel=1e-5)
    assert average.state["1.num_batches_tracked"].item() == 199


def drifting_net() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    net[0].weight.data.fill_(1.0)
    return net


@pytest.mark.parametrize("total", [3, 20, 22])
def test_lookahead_by_hand(total: int) -> None:
    """The net moves by one a step; every fifth step, and at the last, it is drawn back to its slow weights."""
    net = drifting_net()
    lookahead = Lookahead(net, 0.9)
    fast = slow = 1.0
    for step in range(total):
        net[0].weight.data += 1.0
        net[1].running_mean.copy_(net[0].weight.data[0])  # type: ignore[union-attr, operator]
        net[1].num_batches_tracked.fill_(step)  # type: ignore[union-attr, operator]
        lookahead.update(net, step, total)
        fast, done = fast + 1.0, step + 1
        if done <= 5:
            slow = fast
        elif done % 5 == 0 or done == total:
            slow += (1 - 0.9**5 * (done / total) ** 3) * (fast - slow)
            fast = slow
        assert net[0].weight.item() == pytest.approx(fast, rel=1e-6)
        assert lookahead.state["0.weight"].item() == pytest.approx(slow, rel=1e-6)
        assert net[1].running_mean.item() == pytest.approx(fast, rel=1e-6)  # type: ignore[union-attr, operator]
    assert net[0].weight.item() == lookahead.state["0.weight"].item() < 1.0 + total + 1e-6
    assert (net[0].weight.item() < 1.0 + total) == (total > 5)
    assert net[1].num_batches_tracked.item() == total - 1  # type: ignore[union-attr, operator]


def test_lookahead_keeps_the_nets_own_tensors_and_layout() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = [parameter.data_ptr() for parameter in net.parameters()]
    lookahead = Lookahead(net, 0.9)
    for step in range(10):
        with torch.no_grad():
            net[0].weight.mul_(1.1)
        lookahead.update(net, step, 10)
    assert [parameter.data_ptr() for parameter in net.parameters()] == before
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(net[0].weight, lookahead.state["0.weight"])
    assert lookahead.state["0.weight"].data_ptr() != net[0].weight.data_ptr()
