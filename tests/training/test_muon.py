"""Muon against a plain re-computation, one filter at a time, and the singular values that its iteration leaves."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.models import create_model
from striate.training.muon import COEFFICIENTS, Muon, orthogonalise
from striate.training.optim import make_optimizer

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))


def matrices(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None)
@given(SHAPES, st.integers(0, 99), st.integers(0, 5))
def test_directions_stay_and_each_singular_value_follows_the_polynomial(
    shape: tuple[int, int, int], seed: int, iterations: int
) -> None:
    given_matrices = matrices(shape, seed).double()
    left, values, right = torch.linalg.svd(given_matrices, full_matrices=False)
    values = values / values.norm(dim=1, keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        values = a * values + b * values**3 + c * values**5
    wanted = left @ torch.diag_embed(values) @ right
    torch.testing.assert_close(orthogonalise(given_matrices, iterations), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(orthogonalise(given_matrices.float(), iterations), wanted.float(), rtol=1e-3, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 32), st.integers(2, 6), st.integers(0, 99))
def test_singular_values_of_filters_come_near_one(outputs: int, times: int, seed: int) -> None:
    """Five iterations bring all of a random matrix to about 0.7 to 1.2, and three most of the way there."""
    filters = matrices((1, outputs, outputs * times), seed)
    values = torch.linalg.svdvals(orthogonalise(filters, 5))
    assert values.min() > 0.65 and values.max() < 1.25
    values = torch.linalg.svdvals(orthogonalise(filters))
    assert values.min() > 0.3 and values.max() < 1.25


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 99), st.floats(1e-3, 1e3))
def test_neither_scale_nor_neighbours_nor_transposition_matter(
    shape: tuple[int, int, int], seed: int, scale: float
) -> None:
    some = matrices(shape, seed)
    found = orthogonalise(some)
    torch.testing.assert_close(orthogonalise(some * scale), found, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(orthogonalise(some.mT), found.mT, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([orthogonalise(one[None]) for one in some]), found, rtol=1e-4, atol=1e-5)


def plain_newton_schulz(gradient: torch.Tensor, iterations: int = 3) -> torch.Tensor:
    """The iteration as the paper has it, for one matrix."""
    a, b, c = COEFFICIENTS
    x = gradient / (gradient.norm() + 1e-7)
    if len(gradient) > gradient.shape[1]:
        x = x.T
    for _ in range(iterations):
        squares = x @ x.T
        x = a * x + (b * squares + c * squares @ squares) @ x
    return x.T if len(gradient) > gradient.shape[1] else x


@pytest.mark.parametrize("channels_last", [False, True])
def test_steps_are_those_of_a_plain_re_computation(channels_last: bool) -> None:
    """Filters one by one with a momentum by hand, all else by torch's SGD: airbench94_muon's two optimizers."""
    torch.manual_seed(0)
    net = create_model("airnet", 10, 3, 24, widths=(8, 16, 16), convs=(2, 2, 3))
    other = copy.deepcopy(net)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = make_optimizer(
        net, "muon", lr=0.24, bias_lr=0.053, head_lr=0.67, momentum=0.6, side_momentum=0.85, weight_decay=0.004
    )
    trained = [parameter for parameter in other.parameters() if parameter.requires_grad]
    filters = [parameter for parameter in trained if parameter.ndim == 4]
    biases = [parameter for parameter in trained if parameter.ndim == 1]
    side = torch.optim.SGD(
        [
            {"params": biases, "lr": 0.053, "weight_decay": 0.004 / 0.053},
            {"params": [other.fc.weight], "lr": 0.67, "weight_decay": 0.004 / 0.67},  # type: ignore[union-attr, list-item]
        ],
        momentum=0.85,
        nesterov=True,
    )
    speeds = [torch.zeros_like(parameter) for parameter in filters]
    for step in range(4):
        factor = 1 - step / 4
        generator = torch.Generator().manual_seed(step)
        for mine, wanted in zip(net.parameters(), other.parameters(), strict=True):
            if wanted.requires_grad:
                wanted.grad = torch.randn(wanted.shape, generator=generator)
                mine.grad = torch.empty_like(mine).copy_(wanted.grad)
        for optimizer in (ours, side):
            for group in optimizer.param_groups:
                group.setdefault("first", group["lr"])
                group["lr"] = group["first"] * factor
            optimizer.step()
        with torch.no_grad():
            for parameter, speed in zip(filters, speeds, strict=True):
                gradient = parameter.grad
                assert gradient is not None
                speed.mul_(0.6).add_(gradient)
                direction = (gradient + 0.6 * speed).reshape(len(gradient), -1)
                parameter *= len(parameter) ** 0.5 / parameter.norm()
                parameter -= 0.24 * factor * plain_newton_schulz(direction).view(parameter.shape)
    for mine, wanted in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)
        assert mine.is_contiguous(memory_format=torch.channels_last) or mine.ndim != 4 or not channels_last


def test_a_step_turns_every_filter_by_the_same_angle() -> None:
    """Scaled to rows of length one, a filter moves by lr times an almost orthogonal matrix, whatever its gradient."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2))
    before = [layer.weight.detach() * (8**0.5 / layer.weight.norm()) for layer in net[:2]]
    optimizer = make_optimizer(net, "muon", lr=0.1)
    for parameter, scale in zip(net.parameters(), (1e-4, 1.0, 1e4, 1.0, 1.0, 1.0), strict=True):
        parameter.grad = torch.randn_like(parameter) * scale
    optimizer.step()
    for layer, old in zip(net[:2], before, strict=True):
        moved = (layer.weight - old).flatten(1)
        values = torch.linalg.svdvals(moved) / 0.1
        assert values.min() > 0.4 and values.max() < 1.25


def test_zeros_and_missing_gradients_leave_finite_weights() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(2, 2))
    nn.init.zeros_(net[1].weight)
    kept = net[2].weight.detach().clone()
    optimizer = make_optimizer(net, "muon", lr=0.1, weight_decay=0.1)
    for layer in net[:2]:
        layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    assert all(bool(parameter.isfinite().all()) for parameter in net.parameters())
    assert torch.equal(net[2].weight, kept)
    assert math.isclose(net[0].weight.norm().item(), 2**0.5, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("lenet5", 28, {"activation": "relu"}),
        ("mlp", 8, {}),
        ("three-conv", 28, {}),
        ("airnet", 24, {"widths": (8, 8)}),
    ],
)
def test_any_net_learns_with_it(name: str, size: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = create_model(name, 3, 1, size, **options)
    optimizer = make_optimizer(net, "muon", lr=0.05, bias_lr=0.01, head_lr=0.05)
    assert isinstance(optimizer, Muon)
    labels = torch.arange(24) % 3
    pictures = torch.randn(24, 1, size, size, generator=torch.Generator().manual_seed(1)) + labels[:, None, None, None]
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(net(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
