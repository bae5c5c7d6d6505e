"""Where the numbers of a layer come from, written down: its map's size, its parameters, its multiply-adds."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from striate.models.sizes import transposed_sum, window_sum
from striate.models.watching import Operation

Shape = tuple[int, ...]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def size_sums(layer: nn.Module, before: Shape | None, after: Shape | None) -> tuple[str, ...]:
    """Return the sum behind each side of a layer's map, or one for all where they agree; () where nothing changes.

    Shapes are those of a batch: (B, C, H, W) or (B, features).
    """
    if before is None or after is None:
        return ()
    if isinstance(layer, nn.Linear):
        return (f"{layer.in_features} → {layer.out_features}",)
    if isinstance(layer, _CONVOLUTIONS):
        lengths = _spatial(before, after, len(layer.kernel_size))
        padding = [_pad_of(layer, axis) for axis in range(len(lengths))]
        return _axes(lengths, layer.kernel_size, layer.stride, padding, layer.dilation, False)
    if isinstance(layer, _TRANSPOSED):
        sums = [
            transposed_sum(
                a, layer.kernel_size[i], layer.stride[i], int(layer.padding[i]), layer.dilation[i],
                layer.output_padding[i], b,
            )
            for i, (a, b) in enumerate(_spatial(before, after, len(layer.kernel_size)))
        ]  # fmt: skip
        return _merged(sums)
    if isinstance(layer, _POOLS):
        rank = int(type(layer).__name__[-2])
        lengths = _spatial(before, after, rank)
        border = [(_nth(layer.padding, i), _nth(layer.padding, i)) for i in range(rank)]
        dilation = getattr(layer, "dilation", 1)
        return _axes(lengths, layer.kernel_size, layer.stride, border, dilation, bool(layer.ceil_mode))
    if type(layer).__name__.startswith("Adaptive"):
        return _merged([_adaptive(a, b) for a, b in _spatial(before, after, int(type(layer).__name__[-2]))])
    if isinstance(layer, nn.Upsample):
        return _merged([_enlarged(a, b) for a, b in _spatial(before, after, len(after) - 2)])
    return _reshaped(before, after)


def operation_sums(operation: Operation) -> tuple[str, ...]:
    """Return the sums behind the shape that a function in a `forward` returns, as for a layer."""
    before, after = operation.input_shapes[0], operation.output_shape or ()
    arguments, name = operation.arguments, operation.name
    if name == "convolution" and not arguments[6]:
        kernel = arguments[1].shape[2:]
        border = [(_nth(arguments[4], i), _nth(arguments[4], i)) for i in range(len(kernel))]
        return _axes(_spatial(before, after, len(kernel)), kernel, arguments[3], border, arguments[5], False)
    if name.startswith(("max_pool", "avg_pool")):
        rank = len(before) - 2
        values = [*arguments[1:], *(1, [], 0)[len(arguments) - 1 :]]
        kernel, stride, padding = values[0], values[1] or values[0], values[2]
        is_max = name.startswith("max")
        dilation = arguments[4] if is_max and len(arguments) > 4 else 1
        place = 5 if is_max else 4
        rounds_up = len(arguments) > place and bool(arguments[place])
        border = [(_nth(padding, i), _nth(padding, i)) for i in range(rank)]
        return _axes(_spatial(before, after, rank), kernel, stride, border, dilation, rounds_up)
    if "adaptive" in name:
        return _merged([_adaptive(a, b) for a, b in _spatial(before, after, len(before) - 2)])
    if name.startswith("upsample"):
        return _merged([_enlarged(a, b) for a, b in _spatial(before, after, len(before) - 2)])
    if name == "cat":
        return (_laid_together(operation.input_shapes, after),)
    if name in ("mm", "addmm", "bmm"):
        return (f"{operation.input_shapes[-2][-1]} → {after[-1]}",)
    if name == "mean" and len(before) == 4 and math.prod(before[2:]) != math.prod(after[2:]):
        return (f"mean of {before[2]}·{before[3]} = {math.prod(before[2:])} numbers",)
    return _reshaped(before, after)


def parameter_sum(layer: nn.Module, own: list[nn.Parameter]) -> str:
    """Write down how a layer's own parameters come about: `(5·5·1 + 1)·6`; empty where it has none."""
    if not own:
        return ""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    both = weight is not None and bias is not None
    usual = len(own) == 1 + both and weight is own[0]
    if usual and isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)):
        transposed = isinstance(layer, _TRANSPOSED)
        kernel = "·".join(str(side) for side in layer.weight.shape[2:])
        if transposed:
            outputs = layer.weight.shape[1]
            return f"{kernel}·{layer.in_channels}·{outputs}" + (f" + {layer.out_channels}" if both else "")
        one = f"{kernel}·{layer.weight.shape[1]}"
        return f"({one} + 1)·{layer.out_channels}" if both else f"{one}·{layer.out_channels}"
    if usual and isinstance(layer, nn.Linear):
        return f"({layer.in_features} + 1)·{layer.out_features}" if both else (
            f"{layer.in_features}·{layer.out_features}"
        )  # fmt: skip
    if both and len(own) == 2 and isinstance(layer, _NORMS):
        return f"2·{layer.weight.numel()}"
    return " + ".join("·".join(str(side) for side in parameter.shape) or "1" for parameter in own)


def mac_sum(layer: nn.Module, after: Shape | None) -> str:
    """Write down how a layer's multiply-adds come about, outputs times the weights of each: `12·12·10 · 5·5·1`."""
    if after is None or not isinstance(layer, (*_CONVOLUTIONS, nn.Linear)):
        return ""
    outputs = "·".join(str(side) for side in (*after[2:], after[1])) if isinstance(layer, _CONVOLUTIONS) else (
        "·".join(str(side) for side in after[1:])
    )  # fmt: skip
    shape = layer.weight.shape
    weights = "·".join(str(side) for side in (*shape[2:], shape[1]))
    return f"{outputs} · {weights}"


def _spatial(before: Shape, after: Shape, rank: int) -> list[tuple[int, int]]:
    return list(zip(before[len(before) - rank :], after[len(after) - rank :], strict=True))


def _nth(values: Any, place: int) -> int:
    return int(values[place if place < len(values) else -1]) if isinstance(values, list | tuple) else int(values)


def _axes(
    lengths: list[tuple[int, int]], kernel: Any, stride: Any, padding: list[tuple[int, int]], dilation: Any, up: bool
) -> tuple[str, ...]:
    return _merged(
        [
            window_sum(a, _nth(kernel, i), _nth(stride, i), padding[i], _nth(dilation, i), b, up)
            for i, (a, b) in enumerate(lengths)
        ]
    )


def _pad_of(layer: Any, axis: int) -> tuple[int, int]:
    """Return the padding before and after; `same` puts the odd pixel behind."""
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        whole = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        return whole // 2, whole - whole // 2
    return layer.padding[axis], layer.padding[axis]


def _adaptive(length: int, result: int) -> str:
    if length % result == 0:
        return f"{length}/{result} = {length // result} each → {result}"
    return f"⌊i·{length}/{result}⌋ to ⌈(i+1)·{length}/{result}⌉ → {result}"


def _enlarged(length: int, result: int) -> str:
    factor = result / length
    return f"⌊{length}·{factor:g}⌋ = {result}"


def _laid_together(parts: tuple[Shape, ...], after: Shape) -> str:
    axis = next((i for i in range(len(after)) if any(part[i] != after[i] for part in parts)), 1)
    lengths = [part[axis] for part in parts]
    if len(lengths) > 4:
        return f"{lengths[0]} + {lengths[1]} + … + {lengths[-1]} = {after[axis]}"
    return " + ".join(map(str, lengths)) + f" = {after[axis]}"


def _reshaped(before: Shape, after: Shape) -> tuple[str, ...]:
    """A map turned into a row of numbers, or the other way round."""
    if len(before) != len(after) and math.prod(before) == math.prod(after) and len(after) > 1:
        if len(before) > len(after):
            return ("·".join(map(str, before[1:])) + f" = {'x'.join(map(str, after[1:]))}",)
        return (f"{'x'.join(map(str, before[1:]))} = " + "·".join(map(str, after[1:])),)
    return ()


def _merged(sums: list[str]) -> tuple[str, ...]:
    return (sums[0],) if len(set(sums)) == 1 else tuple(sums)
