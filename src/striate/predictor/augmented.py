"""Test-time augmentation: the mean of a net's answers on a picture, its mirror image and its shifts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from striate.errors import unknown_name

#: From a net and pictures (B, C, H, W), normalised, to logits (B, K).
Ask = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def ask_once(net: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Return the net's logits for the pictures as they are."""
    return net(pictures)


def ask_mirrored(net: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Return the mean of the logits for the pictures and for their mirror images, left to right."""
    return 0.5 * net(pictures) + 0.5 * net(pictures.flip(3))


def ask_shifted(net: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Return half of the logits for the pictures and a quarter of those for each of two diagonal shifts by a pixel.

    What comes in at the edge is the picture reflected (K. Jordan 2024, arXiv:2404.00498, § 3.5).
    """
    height, width = pictures.shape[2:]
    layout = torch.channels_last if pictures.stride(1) == 1 else torch.contiguous_format
    padded = functional.pad(pictures, (1, 1, 1, 1), "reflect")  # (B, C, H+2, W+2)
    down = padded[:, :, :height, :width].contiguous(memory_format=layout)
    up = padded[:, :, 2:, 2:].contiguous(memory_format=layout)
    return 0.5 * net(pictures) + 0.25 * net(down) + 0.25 * net(up)


def ask_mirrored_and_shifted(net: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Return `ask_shifted` of a net that is asked twice, as in `ask_mirrored`: six answers a picture."""
    return ask_shifted(lambda shifted: ask_mirrored(net, shifted), pictures)


_ASKS: dict[str, Ask] = {
    "none": ask_once,
    "mirror": ask_mirrored,
    "shift": ask_shifted,
    "mirror-shift": ask_mirrored_and_shifted,
}


def ask_with(kind: str) -> Ask:
    """Return the way to ask called `kind`: none, mirror, shift or mirror-shift; digits and letters are not mirrored.

    Raises UsageError for any other name.
    """
    if kind not in _ASKS:
        raise unknown_name("test-time augmentation", kind, _ASKS)
    return _ASKS[kind]
