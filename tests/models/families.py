"""What the tests over the registry share: the nets that the quick ones try, and what keeps a net small."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from striate.models import create_model
from striate.models.registry import list_families, native_shape

#: Their family's form for small pictures, which has the same blocks, is tried by the quick tests.
LARGER_FORMS = {"densenet121"}
#: Every net; all but the first, and so smallest, of each class are marked slow.
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if place or name in LARGER_FORMS else [])
    for family in list_families()
    for place, name in enumerate(family)
]
#: Options that keep a large net small enough for a test, by the beginning of its name; the longest that fits counts.
SMALL: dict[str, dict[str, Any]] = {
    "airnet": {"widths": (8, 16, 16)},
    "alexnet": {"hidden": (16, 8)},
    "alexnet-2012": {"units": 16},
    "densenet-cifar": {"depth": 16, "growth": 4},
    "vgg": {"stem": "cifar"},
}


def small_options(name: str) -> dict[str, Any]:
    return next((SMALL[key] for key in sorted(SMALL, key=len, reverse=True) if name.startswith(key)), {})


def small_shape(name: str) -> tuple[int, int, tuple[int, int]]:
    """Return the (classes, channels, size) of the net's paper, for nets for ImageNet ten classes of 32 pixels."""
    classes, channels, size = native_shape(name)
    return (classes, channels, size) if max(size) < 100 else (10, channels, (32, 32))


def parameters_of(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name, *small_shape(name)).parameters())


def build(name: str, num_classes: int, in_channels: int, size: tuple[int, int], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes, in_channels, size, **{**small_options(name), **options})


def all_logits(net: nn.Module, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return a net's logits in training, and those of its auxiliary heads if it has some."""
    return net(pictures), *getattr(net, "auxiliary_logits", tuple)()


#: The nets that take a second and more for a step, and the others.
HEAVY = [name for name in NAMES if parameters_of(str(name.values[0])) > 5_000_000]
LIGHT = [name for name in NAMES if name not in HEAVY]
