"""What the tests of explain share: the registry's nets small enough for a test, and nets with a twist."""

from __future__ import annotations

import torch
from tests.models.families import NAMES, build, small_shape
from torch import Tensor, nn
from torch.nn import functional

REGISTRY = NAMES


def shape_of(name: str) -> tuple[int, int, int]:
    _, channels, (height, width) = small_shape(name)
    return channels, height, width


def registered(name: str) -> tuple[nn.Module, Tensor]:
    """Return a net of the registry in evaluation mode, and two pictures for it."""
    channels, height, width = shape_of(name)
    net = build(name, 10, channels, (height, width))
    generator = torch.Generator().manual_seed(1)
    # BatchNorm's first statistics would hide a mistake in the mode.
    with torch.no_grad():
        net.train()(torch.randn((4, channels, height, width), generator=generator))
    return net.eval(), torch.randn((2, channels, height, width), generator=generator)


class Twisted(nn.Module):
    """A user's net: in-place functions, a residual sum, a ReLU that runs three times, two heads added up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.block = Residual(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, groups=2, dilation=2, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)
        self.other = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(x))
        x = self.block(x)
        x = self.relu(self.conv2(x))
        x = self.relu(x - 0.1)
        x = self.pool(x).flatten(1)
        return self.head(x) + self.other(2 * x)


class Residual(nn.Module):
    """x + conv(x), in place, and a function at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x))
        out += x
        return functional.relu_(out)


def twisted() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    net = Twisted()
    pictures = torch.randn(3, 1, 12, 14)
    with torch.no_grad():
        net.train()(pictures)
    return net.eval(), pictures


class Corner(nn.Module):
    """Class 1 is the brightness of the lower right quarter, class 0 that of the upper left, nothing else counts."""

    def __init__(self) -> None:
        super().__init__()
        self.light = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        nn.init.constant_(self.light.weight, 1 / 9)
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Linear(2 * 4 * 4, 2, bias=False)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            weights = self.head.weight.view(2, 2, 4, 4)
            weights[0, 0, :2, :2] = 1
            weights[1, 1, 2:, 2:] = 1

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.light(x)).flatten(1))
