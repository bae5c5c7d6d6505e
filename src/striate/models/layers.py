"""Arithmetic that the nets share: the sizes of maps, activations by name, and the sentence for a wrong picture."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from striate.errors import UsageError

Size = tuple[int, int]

Stem = Literal["auto", "imagenet", "cifar"]

#: From this side on a stem that quarters the picture leaves enough of it: the last map of five halvings is then 2x2.
LARGE_PICTURE = 64

#: The articles that write LeakyReLU all use this slope.
LEAKY_SLOPE = 0.02


class Window(NamedTuple):
    """A convolution or pooling layer as far as the size of its map goes; lengths in pixels.

    `least`: the side that its map must have at least, where padding alone would let it make do with less.
    """

    layer: str
    kernel: int
    stride: int = 1
    padding: int = 0
    least: int = 1


def as_size(size: Any) -> Size:
    """Return a size in pixels as (height, width); one number means a square. UsageError for anything else."""
    pair = (size, size) if not isinstance(size, list | tuple) else tuple(size)
    try:
        height, width = (operator.index(length) for length in pair)
    except (TypeError, ValueError):
        raise UsageError(f"input_size is {size!r}", "it has to be one whole number, or height and width") from None
    if height < 1 or width < 1:
        raise UsageError(f"input_size is {size!r}", "height and width have to be at least 1")
    return height, width


def map_size(size: Size, window: Window) -> Size:
    """Return the size of the map that leaves a window: floor((n + 2p - k) / s) + 1 along each side."""
    height, width = ((length + 2 * window.padding - window.kernel) // window.stride + 1 for length in size)
    return height, width


def least_input(windows: Sequence[Window]) -> int:
    """Return the least side, in pixels, of a picture that leaves every window with at least one pixel."""
    length = 1
    for window in reversed(windows):
        length = max(window.least, (length - 1) * window.stride + window.kernel - 2 * window.padding)
    return length


def map_sizes(net: nn.Module, input_size: Size, windows: Sequence[Window]) -> list[Size]:
    """Return the size of the map after each window; UsageError names the first window that does not fit."""
    for window in windows:
        if window.kernel < 1 or window.stride < 1 or window.padding < 0:
            raise UsageError(
                f"{net.__class__.__name__}'s layer {window.layer} has kernel {window.kernel}, stride {window.stride} "
                f"and padding {window.padding}",
                "kernel and stride have to be at least 1, padding at least 0",
            )
    sizes = []
    size = input_size
    for window in windows:
        before, size = size, map_size(size, window)
        if min(size) < 1 or min(before) < window.least:
            least = least_input(windows)
            needed = window.kernel if window.least == 1 else window.least
            padded = f" with a padding of {window.padding}" if window.padding and window.least == 1 else ""
            raise UsageError(
                f"{net.__class__.__name__} cannot take pictures of {input_size[0]}x{input_size[1]} pixels",
                f"its layer {window.layer} needs {needed}x{needed} pixels{padded} "
                f"and gets a map of {before[0]}x{before[1]}",
                f"use pictures of at least {least}x{least}, for example --size {least}",
            )
        sizes.append(size)
    return sizes


def small_stem(stem: Stem, input_size: Size, large: int = LARGE_PICTURE) -> bool:
    """Say whether a net begins as for small pictures: `cifar`, or `auto` and a side of under `large` pixels."""
    return stem == "cifar" or (stem == "auto" and min(input_size) < large)


def make_activation(name: str) -> nn.Module:
    """Return the activation called `name`: relu, leaky-relu (slope 0.02), sigmoid, tanh or none."""
    if name == "relu":
        return nn.ReLU()
    if name == "leaky-relu":
        return nn.LeakyReLU(LEAKY_SLOPE)
    if name == "sigmoid":
        return nn.Sigmoid()
    if name == "tanh":
        return nn.Tanh()
    if name == "none":
        return nn.Identity()
    raise UsageError(f"unknown activation {name!r}", "known: relu, leaky-relu, sigmoid, tanh, none")


def check_picture(net: nn.Module, pictures: Tensor, wanted: tuple[int, int, int]) -> None:
    """Refuse a batch whose pictures are not (C, H, W) = `wanted`: the net's linear sizes hang on it."""
    if pictures.shape[1:] != wanted:
        raise UsageError(
            f"{net.__class__.__name__} was built for pictures of shape {wanted} (channels, height, width) "
            f"and got a batch of shape {tuple(pictures.shape)}",
            "the size of its linear layer hangs on the size of the picture",
            f"bring the pictures to {wanted[1]}x{wanted[2]} pixels, or build the net for theirs",
        )


def check_least(net: nn.Module, pictures: Tensor, in_channels: int, least: int) -> None:
    """Refuse a batch that is not (B, in_channels, H, W) with both sides of at least `least` pixels."""
    if pictures.dim() != 4 or pictures.shape[1] != in_channels or min(pictures.shape[2:]) < least:
        raise UsageError(
            f"{net.__class__.__name__} takes a batch of shape (pictures, {in_channels}, height, width) with sides of "
            f"at least {least} pixels and got {tuple(pictures.shape)}"
        )
