"""Optimizers against torch's plain ones and hand values; groups with rates of their own."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from striate.errors import UsageError
from striate.models import create_model
from striate.training.optim import make_optimizer, parameter_groups


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


class Whole(nn.Module):
    """One of each: a filter with bias, BatchNorm, hidden matrix, a lone number, head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4, 6)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(6, 3)


def names_of(net: nn.Module, groups: list[dict[str, Any]]) -> dict[tuple[float, int | None, bool], set[str]]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {
        (group["peak"], group["end"], group["orthogonal"]): {names[parameter] for parameter in group["params"]}
        for group in groups
    }


def test_each_parameter_is_in_the_group_of_its_rate() -> None:
    net = Whole()
    assert names_of(net, parameter_groups(net, 0.1)) == {(0.1, None, False): {n for n, _ in net.named_parameters()}}
    biases = {"conv.bias", "norm.weight", "norm.bias", "hidden.bias", "scale"}
    head, weights = {"head.weight", "head.bias"}, {"conv.weight", "hidden.weight"}
    assert names_of(net, parameter_groups(net, 0.1, 0.2, 0.3)) == {
        (0.1, None, False): weights, (0.2, None, False): biases, (0.3, None, False): head,
    }  # fmt: skip
    assert names_of(net, parameter_groups(net, 0.1, muon=True)) == {
        (0.1, None, True): weights, (0.1, None, False): biases | head,
    }  # fmt: skip


def test_the_whitening_bias_has_a_group_that_ends() -> None:
    net = create_model("airnet", 10, 1, 24, widths=(8, 8))
    found = names_of(net, parameter_groups(net, 0.1, 0.2, 0.3, 40, muon=True))
    assert found[0.2, 40, False] == {"whiten.bias"} and found[0.3, None, False] == {"fc.weight"}
    assert len(found[0.1, None, True]) == 4 and "whiten.weight" not in set().union(*found.values())
    assert "whiten.bias" in names_of(net, parameter_groups(net, 0.1, 0.2))[0.2, None, False]


@pytest.mark.parametrize(
    ("net", "rates", "flag"),
    [
        (nn.Linear(2, 2, bias=False), {"bias_lr": 0.1}, "--bias-lr"),
        (nn.Conv2d(1, 2, 3), {"head_lr": 0.1}, "--head-lr"),
        (Whole(), {"whitening_steps": 3}, "--whitening-epochs"),
        (create_model("airnet", 10, 1, 24, whitening=False), {"whitening_steps": 3}, "--whitening-epochs"),
        (nn.Linear(2, 2), {"muon": True}, "--optimizer muon"),
    ],
    ids=["bias", "head", "whitening", "no whitening", "muon"],
)
def test_a_rate_without_a_parameter_is_refused(net: nn.Module, rates: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} has no effect on {type(net).__name__}"):
        parameter_groups(net, 0.1, **rates)


PLAIN: dict[str, Any] = {
    "sgd": lambda groups: torch.optim.SGD(groups, 0.1, 0.9, fused=True),
    "adam": lambda groups: torch.optim.Adam(groups, 0.1, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, 0.1, weight_decay=0.0, fused=True),
}


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_groups_step_each_at_its_own_rate(kind: str) -> None:
    net = Whole()
    other = copy.deepcopy(net)
    ours = make_optimizer(net, kind, lr=0.1, bias_lr=0.02, head_lr=0.3, decoupled=kind == "adamw")
    rates = {"conv.weight": 0.1, "hidden.weight": 0.1, "head.weight": 0.3, "head.bias": 0.3}
    plain = PLAIN[kind]([{"params": [p], "lr": rates.get(name, 0.02)} for name, p in other.named_parameters()])
    for mine, wanted in zip(steps_of(ours, net), steps_of(plain, other), strict=True):
        assert torch.equal(mine, wanted)


def test_no_optimizer_loads_the_compiler() -> None:
    """Importing torch._dynamo takes two seconds, and nothing of ours is compiled."""
    program = """
import sys, torch
from striate.training.optim import make_optimizer
for kind in ("sgd", "adam", "adamw", "muon"):
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    optimizer = make_optimizer(net, kind, lr=0.1)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
