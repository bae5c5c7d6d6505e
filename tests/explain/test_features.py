"""Kernels, maps and cells: what is shown is what the net computes, and the net is left as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.explain.nets import REGISTRY, registered, twisted
from torch import nn
from torch.nn import functional

from striate.errors import UsageError
from striate.explain.features import (
    cell,
    feature_maps,
    kernels,
    layer_output,
    layers_with_kernels,
    left_out,
    list_layers,
    receptive_field,
    scaled,
)
from striate.models import create_model


def hooked(net: nn.Module, pictures: torch.Tensor) -> dict[str, np.ndarray]:
    """Return what each module returned, by plain forward hooks that copy it at once; `#2` for a second run."""
    found: dict[str, np.ndarray] = {}
    handles = []
    for name, module in net.named_modules():

        def keep(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
            runs = sum(key.partition("#")[0] == name for key in found)
            found[f"{name}#{runs + 1}" if runs else name] = output.detach().clone().numpy()

        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        net(pictures)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", REGISTRY)
def test_feature_maps_are_what_forward_hooks_see(name: str) -> None:
    net, pictures = registered(name)
    wanted = hooked(net, pictures)
    found = feature_maps(net.train(), pictures)
    for layer in found:
        assert layer.maps.dtype == np.float32 and layer.maps.shape[0] == 2
        np.testing.assert_allclose(layer.maps, wanted[layer.name], rtol=0, atol=1e-6)
    # Every leaf that returns maps is there; containers only where they return something of their own.
    leaves = {name for name, module in net.named_modules() if name and not list(module.children())}
    with_maps = {key for key, value in wanted.items() if value.ndim == 4 and key.partition("#")[0] in leaves}
    assert with_maps <= {layer.name for layer in found}
    layers = list_layers(net, pictures)
    assert [layer.name for layer in layers if layer.has_maps] == [layer.name for layer in found]
    assert all(layer.shape == wanted[layer.name].shape[1:] for layer in layers)


def test_maps_that_later_layers_overwrite_and_layers_that_run_again() -> None:
    net, pictures = twisted()
    found = {layer.name: layer.maps for layer in feature_maps(net, pictures)}
    wanted = hooked(net, pictures)
    assert list(found) == ["conv1", "relu", "block.conv", "block.norm", "block", "conv2", "relu#2", "relu#3", "pool"]
    for name, maps in found.items():
        np.testing.assert_allclose(maps, wanted[name], rtol=0, atol=1e-6)
    assert found["conv1"].min() < 0 <= found["relu"].min()
    assert not np.array_equal(found["block.norm"], found["block"])
    assert [layer.name for layer in feature_maps(net, pictures, ["relu#2"])] == ["relu#2"]


def test_the_net_is_left_as_it_was() -> None:
    net, pictures = twisted()
    net.train()
    net.block.norm.eval()
    net.conv1.weight.requires_grad_(False)
    net(pictures).sum().backward()
    before = copy.deepcopy(net)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    feature_maps(net, pictures)
    cell(net, pictures[0], "conv2", 1, 2, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, own), (_, old) in zip(net.named_parameters(), before.named_parameters()):
        assert own.requires_grad == old.requires_grad and torch.equal(own, old), name
        assert (own.grad is None) == (name == "conv1.weight")
    assert [module.training for module in net.modules()] == [module.training for module in before.modules()]
    assert all(torch.equal(own, old) for own, old in zip(net.buffers(), before.buffers()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_net_without_maps_says_which_layers_were_left_out() -> None:
    net, pictures = registered("mlp")
    assert feature_maps(net, pictures) == []
    assert left_out(list_layers(net, pictures)).startswith("without maps, since they return single numbers: layers.0 (")
    conv, pictures = registered("lenet5")
    assert "head.1 (120)" in left_out(list_layers(conv, pictures))


def test_unknown_layers_are_refused_with_the_near_names() -> None:
    net, pictures = twisted()
    for call in (
        lambda: feature_maps(net, pictures, ["conv3"]),
        lambda: cell(net, pictures[0], "conv3", 0, 0, 0),
        lambda: kernels(net, "conv3"),
    ):
        with pytest.raises(UsageError, match="unknown layer 'conv3'") as caught:
            call()
        assert "conv1" in caught.value.cause
    with pytest.raises(UsageError, match="no kernels"):
        kernels(net, "relu")
    with pytest.raises(UsageError, match="no cell 8, 0, 0"):
        cell(net, pictures[0], "conv2", 8, 0, 0)
    with pytest.raises(UsageError, match="does not run"):
        cell(net, pictures[0], "relu#9", 0, 0, 0)


def test_kernels_are_the_weights_and_are_scaled_about_zero() -> None:
    net, _ = twisted()
    assert np.array_equal(kernels(net, "conv2"), net.conv2.weight.detach().numpy())
    shown = scaled(kernels(net, "conv1"))
    assert max(abs(shown.max() - 0.5), abs(shown.min() - 0.5)) == pytest.approx(0.5)
    assert np.array_equal(shown > 0.5, kernels(net, "conv1") > 0)
    assert (scaled(np.zeros((2, 1, 3, 3), np.float32)) == 0.5).all()
    assert layers_with_kernels(net, (1, 12, 14)) == ["conv1", "block.conv", "conv2"]


def test_an_mlps_first_weights_are_kernels_of_the_pictures_size() -> None:
    net, pictures = registered("mlp")
    (name,) = layers_with_kernels(net, (1, 28, 28))
    whole = kernels(net, name, (1, 28, 28))
    assert whole.shape == (200, 1, 28, 28)
    linear = dict(net.named_modules())[name]
    by_hand = (whole[17] * pictures[0].numpy()).sum() + linear.bias[17].item()
    assert by_hand == pytest.approx(cell(net, pictures[0], name, 17, 0, 0).value, abs=1e-4)


CONVOLUTIONS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 5), "padding": (1, 2), "stride": (2, 3), "bias": False},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "valid", "dilation": 2},
    {"kernel_size": 3, "padding": 2, "dilation": (1, 2), "groups": 2},
    {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "groups": 4},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_the_multiply_adds_of_every_cell_give_its_value(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 8, **options), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    picture = torch.randn(1, 9, 11)
    (maps,) = feature_maps(net, picture[None], ["1"])
    _, height, width = maps.maps[0].shape
    groups = options.get("groups", 1)
    for channel, y, x in ((0, 0, 0), (7, height - 1, width - 1), (3, height // 2, 0), (5, 0, width // 2)):
        found = cell(net, picture, "1", channel, y, x)
        assert found.value == pytest.approx(maps.maps[0, channel, y, x], abs=1e-6)
        assert found.terms is not None
        assert found.terms.total == pytest.approx(found.value, abs=1e-5)
        assert np.array_equal(found.terms.products, found.terms.inputs * found.terms.weights)
        assert np.array_equal(found.terms.weights, net[1].weight[channel].detach().numpy())
        first = channel // (8 // groups) * (4 // groups)
        assert found.terms.channels == tuple(range(first, first + 4 // groups))


def test_the_sums_of_the_first_lesson() -> None:
    """The worked example of many a lesson: 0…8 under the kernel 0, 1, 2, 3 gives 19, 25, 37, 43."""
    net = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.Flatten())
    with torch.no_grad():
        net[0].weight.copy_(torch.arange(4.0).view(1, 1, 2, 2))
    picture = torch.arange(9.0).view(1, 3, 3)
    found = [cell(net, picture, "0", 0, y, x) for y in (0, 1) for x in (0, 1)]
    assert [one.value for one in found] == [19, 25, 37, 43]
    assert [one.field for one in found] == [(0, 0, 2, 2), (0, 1, 2, 3), (1, 0, 3, 2), (1, 1, 3, 3)]
    assert found[0].terms is not None and found[0].terms.products.tolist() == [[[0, 1], [6, 12]]]


def support(net: nn.Module, shape: tuple[int, ...], layer: str, place: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the box where the gradient of a cell is not zero, with the ReLUs taken out and weights made positive."""
    net = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.data.abs_().add_(0.01)
    picture = torch.rand((1, *shape), dtype=torch.float64, requires_grad=True)
    caught = []
    handle = dict(net.named_modules())[layer].register_forward_hook(lambda *given: caught.append(given[2]))
    net.double()(picture)
    handle.remove()
    (slope,) = torch.autograd.grad(caught[0][(0, *place)], picture)
    rows, columns = slope[0].abs().sum(0).nonzero(as_tuple=True)
    if not len(rows):
        return None
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


class Branches(nn.Module):
    """Two branches of unlike fields and a skip, so that no rule along one path gives the field."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(4, 4, 5, padding=2)
        self.tall = nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        self.join = nn.Conv2d(4, 3, 1)
        self.pool = nn.AvgPool2d(3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = functional.softplus(self.wide(x) + self.tall(x) + x)
        return self.pool(self.join(x)).mean((2, 3))


@pytest.mark.parametrize("layer", ["stem", "wide", "tall", "join", "pool"])
def test_receptive_fields_are_the_support_of_the_gradient(layer: str) -> None:
    torch.manual_seed(0)
    net = Branches().eval()
    shape = (2, 37, 31)
    size = next(one.shape[1:] for one in list_layers(net, torch.zeros(1, *shape)) if one.name == layer)
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3), (0, size[1] - 1)):
        wanted = support(net, shape, layer, (1, y, x))
        assert receptive_field(net, shape, layer, (1, y, x)) == wanted


def test_a_max_pool_sees_its_window_and_a_global_pool_the_picture() -> None:
    net = create_model("lenet5", 10, 1, 32).eval()
    assert cell(net, torch.zeros(1, 32, 32), "pool1", 0, 3, 4).field == (4, 6, 10, 12)
    other, pictures = twisted()
    assert cell(other, pictures[0], "pool", 0, 0, 0).field is not None
    assert cell(net, torch.zeros(1, 32, 32), "head.5", 9, 0, 0).field == (0, 0, 32, 32)


def test_a_cell_that_sees_only_the_padding_sees_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, padding=2), nn.Flatten())
    found = cell(net, torch.zeros(1, 4, 4), "0", 0, 0, 0)
    assert found.field is None and found.terms is not None and found.terms.inputs.tolist() == [[[0.0]]]


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d((1, 3), (2, 1)),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d((3, 2), 2, (1, 0), ceil_mode=True),
        nn.AdaptiveAvgPool2d(3),
        nn.AdaptiveMaxPool2d((2, 3)),
    ],
    ids=repr,
)
def test_the_window_of_a_pooled_number_gives_it(pool: nn.Module) -> None:
    net = nn.Sequential(pool)
    picture = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(2))
    pooled = net(picture[None])[0]
    for y, x in np.ndindex(*pooled.shape[1:]):
        window = cell(net, picture, "0", 1, y, x).window
        assert window is not None
        reduced = window.inputs.max() if window.rule == "max" else window.inputs.mean()
        assert reduced == pytest.approx(float(pooled[1, y, x]), abs=1e-6)


def test_an_activation_reads_one_number_and_an_in_place_one_has_lost_it() -> None:
    picture = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3))
    found = cell(nn.Sequential(nn.ReLU()), picture, "0", 0, 2, 1)
    assert found.window is not None and found.window.rule == "each"
    assert found.window.inputs.tolist() == [[float(picture[0, 2, 1])]]
    assert cell(nn.Sequential(nn.ReLU(inplace=True)), picture, "0", 0, 2, 1).window is None


def test_a_layers_output_has_maps_or_numbers() -> None:
    net, pictures = registered("lenet5")
    wanted = hooked(net, pictures)
    for layer in list_layers(net, pictures):
        np.testing.assert_allclose(layer_output(net, pictures, layer.name), wanted[layer.name], rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="unknown layer"):
        layer_output(net, pictures, "conv9")


def test_a_linear_layer_that_reads_something_else_has_no_kernels_of_pictures() -> None:
    """As many numbers as the picture has pixels, and none of them a pixel."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.fc = nn.GRU(8, 8, batch_first=True), nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.rows(x.squeeze(1))[0].flatten(1))

    assert layers_with_kernels(Rows(), (1, 8, 8)) == []
    with pytest.raises(UsageError, match="no kernels"):
        kernels(Rows(), "fc", (1, 8, 8))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert layers_with_kernels(plain, (1, 8, 8)) == ["1"] and kernels(plain, "1", (1, 8, 8)).shape == (3, 1, 8, 8)
