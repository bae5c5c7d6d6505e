"""Initial weights by name, against the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from striate.errors import UsageError
from striate.models import create_model
from striate.models.initialise import SCHEMES, initialise


def test_default_leaves_the_net_alone() -> None:
    net = create_model("lenet5", 10, 1, 28)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    initialise(net, "default")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_xavier_uniform_has_glorots_bounds_and_leaves_biases() -> None:
    net = create_model("lenet5", 10, 1, 28)
    biases = {key: value.clone() for key, value in net.state_dict().items() if key.endswith("bias")}
    initialise(net, "xavier-uniform")
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            field = math.prod(layer.weight.shape[2:])
            bound = math.sqrt(6 / ((layer.weight.shape[0] + layer.weight.shape[1]) * field))
            assert 0.8 * bound < layer.weight.abs().max() <= bound
    assert all(torch.equal(net.state_dict()[key], value) for key, value in biases.items())


def test_kaiming_normal_has_hes_spread_and_no_biases() -> None:
    net = create_model("mlp", 10, 1, 28)
    initialise(net, "kaiming-normal")
    first = net.layers[1]
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / 784), rel=0.02)
    assert not first.bias.any()


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "default"])
def test_a_generator_decides_and_the_global_one_is_untouched(scheme: str) -> None:
    nets = [create_model("three-conv", 10, 1, 28) for _ in range(2)]
    for net in nets:
        for parameter in net.parameters():
            nn.init.zeros_(parameter)
        before = torch.get_rng_state()
        initialise(net, scheme, torch.Generator().manual_seed(4))
        assert torch.equal(before, torch.get_rng_state())
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["conv1.weight"].abs().min() > 0


def test_frozen_weights_and_batch_norm_are_left_alone() -> None:
    net = create_model("airnet", 10, 1, 28, widths=(8, 8, 8))
    whiten, norm = net.whiten.weight.clone(), net.group1.norm1.weight.clone()
    initialise(net, "xavier-uniform")
    assert torch.equal(net.whiten.weight, whiten)
    assert torch.equal(net.group1.norm1.weight, norm)


def test_an_unknown_scheme_lists_the_near_ones() -> None:
    with pytest.raises(UsageError, match="unknown initialisation 'xavier'") as caught:
        initialise(nn.Linear(2, 2), "xavier")
    assert "xavier-uniform" in caught.value.cause
