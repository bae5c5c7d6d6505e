"""What torch says of a fault, told as what to write: for faults that no layer's own sizes explain."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from striate.models.dry_run import Call

Shape = tuple[int, ...]
Told = tuple[str, str]  # what is wrong, after the name of who did it; and what to write
_Rule = Callable[[re.Match[str], Call, Shape], Told]

_ALONG = ("pictures", "channels", "rows", "columns")
_ALIKE = "give both branches the same strides and paddings, so that their maps are of one size"


def in_plain_words(text: str, call: Call, shape: Shape) -> Told | None:
    """Return what an error of torch means, `shape` being what the module of `call` got; None for one not known."""
    for pattern, rule in _RULES:
        found = re.search(pattern, text)
        if found:
            return rule(found, call, shape)
    return None


def _together(found: re.Match[str], call: Call, shape: Shape) -> Told:
    one, other, axis = map(int, found.groups())
    along = _ALONG[axis] if axis < len(_ALONG) else f"entries along axis {axis}"
    what = f"adds or multiplies tensors that do not match: {one} {along} and {other}"
    if axis == 1:
        return what, f"bring both to as many, maps by a convolution of 1x1: nn.Conv2d({one}, {other}, 1)"
    return what, _ALIKE if axis in (2, 3) else "keep the batch as the first axis of both"


def _beside(found: re.Match[str], call: Call, shape: Shape) -> Told:
    return f"lays maps together whose sides differ: {found[1]} and {found[2]}", _ALIKE


def _pooled_away(found: re.Match[str], call: Call, shape: Shape) -> Told:
    what = f"pools maps of {found[1]}x{found[2]}, which are too small for it"
    return what, "use larger pictures (--size), or take a pool away"


def _channels(found: re.Match[str], call: Call, shape: Shape) -> Told:
    wanted, got = found[1], found[2]
    layer = call.module
    what = f"got maps of {got} channel{'s' * (got != '1')} and wants {wanted}"
    if isinstance(layer, nn.ConvTranspose2d):
        return what, f"write nn.ConvTranspose2d({got}, {layer.out_channels}, {layer.kernel_size}, …)"
    return what, f"give the kernels {got} input channels: weight of shape (outputs, {got}, height, width)"


def _flat(found: re.Match[str], call: Call, shape: Shape) -> Told:
    layer = type(call.module).__name__.removesuffix("1d")
    return f"got a batch of shape {shape}, which holds maps", f"write nn.{layer}2d in its place"


def _layer_norm(found: re.Match[str], call: Call, shape: Shape) -> Told:
    count = len(found[1].split(","))
    wanted = f"[{found[1]}]" if count > 1 else found[1]
    last = str(list(shape[-count:])) if count > 1 else str(shape[-1])
    return f"got a batch of shape {shape} and wants it to end in {wanted}", f"write nn.LayerNorm({last})"


def _group_norm(found: re.Match[str], call: Call, shape: Shape) -> Told:
    groups = getattr(call.module, "num_groups", 1)
    fits = groups if shape[1] % groups == 0 else 1
    return f"got {shape[1]} channels and wants {found[1]}", f"write nn.GroupNorm({fits}, {shape[1]})"


def _steps(found: re.Match[str], call: Call, shape: Shape) -> Told:
    kind = type(call.module).__name__
    hidden = getattr(call.module, "hidden_size", "…")
    return f"got {found[2]} numbers a step and wants {found[1]}", f"write nn.{kind}({found[2]}, {hidden}, …)"


def _device(found: re.Match[str], call: Call, shape: Shape) -> Told:
    return (
        "moves numbers to a device of its own choice",
        "take .cuda(), .to(…) and device=… out of forward: striate puts net and pictures where --device says",
    )


def _index(found: re.Match[str], call: Call, shape: Shape) -> Told:
    return (
        "looks pictures up as if they were whole numbers",
        "nn.Embedding takes indices; begin with a convolution, or with nn.Flatten() and nn.Linear",
    )


def _endless(found: re.Match[str], call: Call, shape: Shape) -> Told:
    return "calls itself without end", "in forward, call the layers, as self.conv1(x), and not self(x)"


_RULES: tuple[tuple[str, _Rule], ...] = (
    (
        r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d)",
        _together,
    ),
    (r"Sizes of tensors must match except in dimension \d+\. Expected size (\d+) but got size (\d+)", _beside),
    (r"Given input size: \(\d+x(\d+)x(\d+)\)\. Calculated output size: .* too small", _pooled_away),
    (r"expected input\[.*\] to have (\d+) channels, but got (\d+) channels", _channels),
    (r"\(unbatched\) or 3D \(batched\) input to conv1d", _flat),
    (r"Given normalized_shape=\[([\d, ]+)\]", _layer_norm),
    (r"weight of shape \[(\d+)\] and input of shape", _group_norm),
    (r"input\.size\(-1\) must be equal to input_size\. Expected (\d+), got (\d+)", _steps),
    (r"NVIDIA driver|not compiled with CUDA|same device, but found at least two", _device),
    (r"'indices' to have one of the following scalar types", _index),
    (r"maximum recursion depth exceeded", _endless),
)
