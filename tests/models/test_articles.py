"""The articles' nets: their parameter counts, their layers, and torchvision's AlexNet as an oracle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.errors import UsageError
from striate.models import create_model
from striate.models.alexnet import AlexNet
from striate.models.lenet import LeNet5
from striate.models.registry import native_shape


def parameters_of(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def shapes_of(net: nn.Module, picture: torch.Tensor, kinds: tuple[type[nn.Module], ...]) -> list[tuple[int, ...]]:
    """Return the shapes, without the batch axis, that leave the layers of these kinds."""
    shapes: list[tuple[int, ...]] = []
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        net.eval()(picture)
    return shapes


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mlp", 159_010),
        ("strided-cnn", 3_720),
        ("lenet5", 61_706),
        ("simple-cnn", 296_130),
        ("less-simple-cnn", 77_880),
        ("alexnet", 44_428_106),
        ("three-conv", 21_578),
    ],
)
def test_parameter_counts_of_the_articles(name: str, count: int) -> None:
    with torch.device("meta"):  # counts without filling 44 million weights
        net = create_model(name, *native_shape(name))
    assert parameters_of(net) == count


@settings(max_examples=25, deadline=None, derandomize=True)
@given(channels=st.integers(1, 6), classes=st.integers(1, 20), height=st.integers(12, 60), width=st.integers(12, 60))
def test_parameter_counts_by_hand(channels: int, classes: int, height: int, width: int) -> None:
    def count(name: str, **options: Any) -> int:
        with torch.device("meta"):
            return parameters_of(create_model(name, classes, channels, (height, width), **options))

    def places(pools: int) -> int:
        return (height // 2**pools) * (width // 2**pools)

    pixels = channels * height * width
    assert count("mlp") == pixels * 200 + 200 + 200 * classes + classes
    assert count("mlp", hidden=(7, 5)) == pixels * 7 + 7 + 7 * 5 + 5 + 5 * classes + classes
    assert count("mlp", hidden=()) == pixels * classes + classes
    strided = math.prod((((side - 5) // 2 + 1) - 3) // 2 + 1 for side in (height, width))
    assert count("strided-cnn") == channels * 250 + 10 + 20 + 910 + 20 + 10 * strided * classes + classes
    lenet = math.prod((side // 2 - 4) // 2 for side in (height, width))
    fully = 16 * lenet * 120 + 120 + 120 * 84 + 84 + 84 * classes + classes
    assert count("lenet5") == channels * 150 + 6 + 6 * 16 * 25 + 16 + fully
    assert count("lenet5", head="gap") == channels * 150 + 6 + 6 * 16 * 25 + 16 + 16 * classes + classes
    first = channels * 18 * 9 + 18
    assert count("simple-cnn") == first + 18 * places(1) * 64 + 64 + 64 * classes + classes
    assert count("less-simple-cnn") == first + 2934 + 18 * places(2) * 64 + 64 + 64 * classes + classes
    assert count("three-conv") == channels * 72 + 8 + 1168 + 4640 + 32 * places(2) * classes + classes


def test_strided_cnn_goes_28_12_5() -> None:
    shapes = shapes_of(create_model("strided-cnn", 10, 1, 28), torch.rand(1, 1, 28, 28), (nn.Conv2d,))
    assert shapes == [(10, 12, 12), (10, 5, 5)]


def test_lenet5_has_the_articles_maps_and_layers() -> None:
    kinds = (nn.Conv2d, nn.AvgPool2d, nn.Linear, nn.Sigmoid)
    shapes = shapes_of(LeNet5(), torch.rand(1, 1, 28, 28), kinds)
    conv1, conv2 = (6, 28, 28), (16, 10, 10)
    linear = [(120,), (120,), (84,), (84,), (10,)]
    assert shapes == [conv1, conv1, (6, 14, 14), conv2, conv2, (16, 5, 5), *linear]


def test_lenet5_with_a_global_pool_takes_other_sizes_than_it_was_built_for() -> None:
    net = create_model("lenet5", 10, 1, 28, head="gap").eval()
    assert net(torch.rand(2, 1, 40, 33)).shape == (2, 10)
    with pytest.raises(UsageError, match="at least 12 pixels"):
        net(torch.rand(2, 1, 11, 28))


def test_the_order_of_layers_in_strided_cnn_is_the_articles() -> None:
    net = create_model("strided-cnn", 10, 1, 28).eval()
    article = nn.Sequential(
        nn.Conv2d(1, 10, kernel_size=5, stride=2),
        nn.LeakyReLU(0.02),
        nn.BatchNorm2d(10),
        nn.Conv2d(10, 10, kernel_size=3, stride=2),
        nn.LeakyReLU(0.02),
        nn.BatchNorm2d(10),
        nn.Flatten(),
        nn.Linear(250, 10),
    ).eval()
    article.load_state_dict(dict(zip(article.state_dict(), net.state_dict().values())))
    pictures = torch.rand(4, 1, 28, 28)
    assert torch.equal(net(pictures), article(pictures))


def test_alexnet_is_torchvisions_with_its_hidden_sizes() -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.alexnet(weights=None, num_classes=7).eval()
    torch.manual_seed(3)
    ours = AlexNet(7, 3, 96, hidden=(4096, 4096)).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    # The same order of random numbers: the same seed gives the same net.
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.02)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for side in (63, 96, 130):
            pictures = torch.rand(2, 3, side, side)
            torch.testing.assert_close(ours(pictures), theirs(pictures), rtol=1e-5, atol=1e-5)


def test_alexnet_at_96_pixels_repeats_each_value_nine_times() -> None:
    net = AlexNet(10, 3, 96, hidden=(8,)).eval()
    with torch.no_grad():
        small = net.features(torch.rand(1, 3, 96, 96))
        wide = net.avgpool(small)
    assert small.shape == (1, 256, 2, 2)
    assert wide.shape == (1, 256, 6, 6)
    assert torch.equal(wide, small.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3))


def test_alexnet_drops_out_before_each_hidden_layer() -> None:
    kinds = [type(layer).__name__ for layer in AlexNet(10, 3, 64, hidden=(8, 4), dropout=0.25).classifier]
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]
    assert [layer.p for layer in AlexNet(10, 3, 64, hidden=(8,), dropout=0.25).modules() if hasattr(layer, "p")] == [
        0.25
    ]
