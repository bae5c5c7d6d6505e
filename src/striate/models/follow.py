"""What the output of one operation of torch sees of the picture, from what its inputs see: a rule for each operation.

An operation without a rule gives None: its receptive field cannot be known, and the table says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from striate.models import taps
from striate.models.receptive import Axis, Fields, collapse, gather, joined, mixed, moved, union

Shape = tuple[int, ...]
#: Of the operation's arguments, in their order: (shape, fields) of each tensor that depends on the picture.
Inputs = list[tuple[Shape, Fields]]
Rule = Callable[[Inputs, Sequence[Any], Shape], Fields | None]


def _each(fields: Fields, change: Callable[[Axis], Axis]) -> Fields:
    return change(fields[0]), change(fields[1])


def pointwise(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """Each number of the output is made of the inputs' numbers at its own place, broadcast as torch does."""
    aligned = []
    for own, fields in inputs:
        shift = len(shape) - len(own)
        if shift < 0:
            return None
        places = {dim: dim + shift for dim in range(len(own)) if own[dim] == shape[dim + shift]}
        aligned.append(_each(fields, lambda axis, places=places: moved(axis, places)))  # type: ignore[misc]
    return union([rows for rows, _ in aligned]), union([columns for _, columns in aligned])


def _first(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """Pass the first input on: what stands beside it changes numbers and not places."""
    return pointwise(inputs[:1], arguments, shape)


def _everything(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """Each number of the output may be made of all numbers of the inputs."""
    flat = [_each(fields, lambda axis: collapse(axis, axis.dims)) for _, fields in inputs]
    return union([rows for rows, _ in flat]), union([columns for _, columns in flat])


def _windows(inputs: Inputs, shape: Shape, along: Callable[[int, int, int], tuple[Any, float]], count: int) -> Fields:
    """Apply one window to each of the last `count` axes; `along(axis, inputs, outputs)` gives its taps and stride."""
    own, fields = inputs[0]
    for place in range(count):
        dim = len(own) - count + place
        table, factor = along(place, own[dim], shape[dim])
        fields = _each(fields, lambda axis, dim=dim, table=table, factor=factor: gather(axis, dim, table, factor))  # type: ignore[misc]
    return fields


def _at(values: Any, place: int, default: int = 0) -> int:
    """Return entry `place` of a list that may be empty or hold one number for all axes."""
    if not isinstance(values, list | tuple):
        return int(values)
    return int(values[place if place < len(values) else -1]) if values else default


def _convolution(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    weight, stride, padding, dilation, is_transposed = arguments[1], *arguments[3:7]
    kernel = weight.shape[2:]

    def along(place: int, length: int, outputs: int) -> tuple[Any, float]:
        step, border, spread = _at(stride, place), _at(padding, place), _at(dilation, place)
        if is_transposed:
            return taps.transposed(length, outputs, kernel[place], step, border, spread), 1 / step
        return taps.window(outputs, kernel[place], step, border, spread), float(step)

    return _windows(inputs, shape, along, len(kernel))


def _pool(count: int, has_dilation: bool) -> Rule:
    def rule(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
        kernel = arguments[1]
        given, defaults = list(arguments[2:5]), [[], 0, 1]
        stride, padding, dilation = given + defaults[len(given) :]
        dilation = dilation if has_dilation else 1  # where the others have `ceil_mode`

        def along(place: int, length: int, outputs: int) -> tuple[Any, float]:
            size = _at(kernel, place)
            step = _at(stride, place, size)
            return taps.window(outputs, size, step, _at(padding, place), _at(dilation, place)), float(step)

        return _windows(inputs, shape, along, count)

    return rule


def _resample(count: int, table: Callable[[int, int], Any]) -> Rule:
    def rule(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
        return _windows(inputs, shape, lambda _, length, outputs: (table(length, outputs), length / outputs), count)

    return rule


def _bilinear(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    corners = bool(arguments[2])
    return _windows(inputs, shape, lambda _, n, m: (taps.linear(n, m, corners), n / m), 2)


def _padding(table: Callable[[int, int, int], Any]) -> Rule:
    def rule(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
        borders = arguments[1]  # from the last axis to the first: before, after
        count = len(borders) // 2

        def along(place: int, length: int, outputs: int) -> tuple[Any, float]:
            before, after = borders[2 * (count - 1 - place) :][:2]
            return table(length, before, after), 1.0

        return _windows(inputs, shape, along, count)

    return rule


def _blank(length: int, before: int, after: int) -> Any:
    return taps.window(length + before + after, 1, padding=before)


def _shuffle(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    block = int(arguments[1])
    return _windows(inputs, shape, lambda _, n, m: ((np.arange(m) // block)[:, None], 1 / block), 2)


def _unshuffle(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    block = int(arguments[1])
    return _windows(inputs, shape, lambda _, n, m: (taps.window(m, block, block), float(block)), 2)


def _view(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    if 0 in own or math.prod(own) != math.prod(shape):
        return None
    groups = _groups(own, shape)
    return _each(fields, lambda axis: _regrouped(axis, groups, own, shape))


def _regrouped(axis: Axis, groups: list[tuple[list[int], list[int]]], own: Shape, shape: Shape) -> Axis:
    """Return the axis after a view that cuts and joins axes as `groups` say: exact where its own stays whole."""
    dims: set[int] = set()
    exact, layout = axis.exact, None
    for before, after in groups:
        carried = axis.dims & set(before)
        if not carried:
            continue
        wide_before, wide_after = ([d for d in g if s[d] > 1] for g, s in ((before, own), (after, shape)))
        dims |= set(wide_after)
        lengths = tuple(shape[d] for d in wide_after)
        if not exact and len(before) == 1 and axis.layout is not None and axis.layout[0] == lengths:
            return replace(axis, dims=frozenset({wide_after[axis.layout[1]]}), exact=True, layout=None)
        if axis.exact and len(wide_after) == 1 and carried <= set(wide_before):
            layout = tuple(own[d] for d in wide_before), wide_before.index(min(carried))
        exact = exact and len(wide_before) <= 1 and len(wide_after) <= 1
        if not wide_before and after:  # a map of one pixel: it keeps its place, should a padded window follow
            dims.add(after[min(len(after) - 1, before.index(min(carried)))])
    return replace(axis, dims=frozenset(dims)) if exact else mixed(axis, dims, layout or axis.layout)


def _groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Cut two shapes of one number of entries into the smallest runs of axes whose products agree."""
    groups, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        left, right = [i], [j]
        a, b = before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                a, i = a * before[i], i + 1
                left.append(i - 1)
            else:
                b, j = b * after[j], j + 1
                right.append(j - 1)
        groups.append((left, right))
    if i < len(before) or j < len(after):  # axes of one entry at the end
        groups.append((list(range(i, len(before))), list(range(j, len(after)))))
    return groups


def _permute(inputs: Inputs, order: Sequence[int]) -> Fields:
    own, fields = inputs[0]
    places = {dim % len(own): place for place, dim in enumerate(order)}
    return _each(fields, lambda axis: moved(axis, places))


def _transpose(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    rank = len(shape)
    order = list(range(rank))
    if rank > 1:
        one, other = (arguments[1] % rank, arguments[2] % rank) if len(arguments) > 2 else (0, 1)
        order[one], order[other] = order[other], order[one]
    return _permute(inputs, order)


def _unsqueeze(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    new = arguments[1] % len(shape)
    return _permute(inputs, []) if not inputs[0][0] else _each(inputs[0][1], lambda a: moved(a, _opened(shape, new)))


def _opened(shape: Shape, new: int) -> dict[int, int]:
    return {dim: dim + (dim >= new) for dim in range(len(shape) - 1)}


def _slice(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    given = list(arguments[1:])
    dim, start, _, step = given + [0, None, None, 1][len(given) :]
    dim %= len(own)
    begin = range(own[dim])[slice(start, None, None)]
    table = taps.window(shape[dim], 1, step, -(begin.start if len(begin) else 0))
    return _each(fields, lambda axis: gather(axis, dim, table, float(step)))


def _select(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    dim, index = arguments[1] % len(own), arguments[2]
    table = np.array([[index % own[dim]]])
    places = {d: d - (d > dim) for d in range(len(own)) if d != dim}
    return _each(fields, lambda axis: moved(gather(axis, dim, table, 1.0), places))


def _split(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    dim = (arguments[2] if len(arguments) > 2 else 0) % len(own)
    carried = any(dim in axis.dims for axis in fields)
    return None if carried else fields


def _index(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    picked = [dim for dim, index in enumerate(arguments[1]) if index is not None]  # x[:, [0, 2, 3]] picks along axis 1
    carried = any(dim in axis.dims for axis in fields for dim in picked)
    return None if carried or len(picked) != 1 or len(own) != len(shape) else fields


def _flip(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    fields = inputs[0][1]
    for dim in (dim % len(shape) for dim in arguments[1]):
        table = np.arange(shape[dim])[::-1, None]
        fields = _each(fields, lambda axis, dim=dim, table=table: gather(axis, dim, table, 1.0))  # type: ignore[misc]
    return fields


def _roll(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    fields = inputs[0][1]
    if len(arguments) < 3 or not arguments[2]:
        return None
    for shift, dim in zip(arguments[1], (dim % len(shape) for dim in arguments[2]), strict=True):
        table = ((np.arange(shape[dim]) - shift) % shape[dim])[:, None]
        fields = _each(fields, lambda axis, dim=dim, table=table: gather(axis, dim, table, 1.0))  # type: ignore[misc]
    return fields


def _repeat(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    shift = len(shape) - len(own)
    fields = _each(fields, lambda axis: moved(axis, {dim: dim + shift for dim in range(len(own))}))
    for dim, length in enumerate(own, shift):
        table = (np.arange(shape[dim]) % max(length, 1))[:, None]
        fields = _each(fields, lambda axis, dim=dim, table=table: gather(axis, dim, table, 1.0))  # type: ignore[misc]
    return fields


def _cat(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    tensors = arguments[0]
    dim = (arguments[1] if len(arguments) > 1 else 0) % len(shape)
    along = any(dim in axis.dims for _, fields in inputs for axis in fields)
    if along and len(inputs) != len(tensors):  # constants between the maps
        return None
    return joined([rows for _, (rows, _) in inputs], dim), joined([columns for _, (_, columns) in inputs], dim)


def _stack(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    new = (arguments[1] if len(arguments) > 1 else 0) % len(shape)
    opened = [_each(fields, lambda axis: moved(axis, _opened(shape, new))) for _, fields in inputs]
    return union([rows for rows, _ in opened]), union([columns for _, columns in opened])


def _product(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """A product of matrices: the last axis of the one and the last but one of the other are summed over."""
    left, right = [argument for argument in arguments if isinstance(argument, Tensor)][-2:]
    found: list[Fields] = []
    for matrix, dim, keeps in ((left, left.dim() - 1, left.dim() - 2), (right, max(right.dim() - 2, 0), None)):
        position = next((fields for own, fields in inputs if own == tuple(matrix.shape)), None)
        if position is None:
            continue
        places = {d: d for d in range(matrix.dim() - 2)}
        places[matrix.dim() - 2 if keeps is not None else matrix.dim() - 1] = (
            len(shape) - 2 if keeps is not None else len(shape) - 1
        )
        found.append(_each(position, lambda a, dim=dim, places=places: moved(collapse(a, [dim]), places)))  # type: ignore[misc]
    if not found or len(inputs) > 2:
        return _everything(inputs, arguments, shape)
    return union([rows for rows, _ in found]), union([columns for _, columns in found])


def _reduce(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """A sum, mean or maximum over axes, which then are one entry long or gone."""
    own, fields = inputs[0]
    named = next((a for a in arguments[1:] if isinstance(a, list | int) and not isinstance(a, bool)), None)
    dims = [named] if isinstance(named, int) else named
    gone = {dim % len(own) for dim in dims} if dims else set(range(len(own)))
    if len(shape) == len(own):
        places = {dim: dim for dim in range(len(own)) if dim not in gone}
    else:
        places = {dim: place for place, dim in enumerate(d for d in range(len(own)) if d not in gone)}
    return _each(fields, lambda axis: moved(collapse(axis, gone), places))


def _norm(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    last = range(len(own) - len(arguments[1]), len(own))
    return _each(fields, lambda axis: collapse(axis, last))


def _vector_norm(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    return _reduce(inputs, [arguments[0], *arguments[2:]], shape)


def _softmax(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    return _each(fields, lambda axis: collapse(axis, [arguments[1] % len(own)]))


def _batch_norm(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    measures = arguments[5] is True  # statistics of this very batch: every number sees the whole map
    return _everything(inputs, arguments, shape) if measures else _first(inputs, arguments, shape)


def _glu(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    dim = (arguments[1] if len(arguments) > 1 else -1) % len(own)
    return None if any(dim in axis.dims for axis in fields) else fields


def _restride(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    return fields if own == shape else None  # in torch, a change of memory format; anything else is not followed


def _copy(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    return pointwise(inputs[-1:], arguments, shape)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pool(2, True),
    "max_pool3d_with_indices": _pool(3, True),
    **{f"avg_pool{count}d": _pool(count, False) for count in (1, 2, 3)},
    **{f"_adaptive_avg_pool{count}d": _resample(count, taps.adaptive) for count in (2, 3)},
    **{f"adaptive_max_pool{count}d": _resample(count, taps.adaptive) for count in (2, 3)},
    "upsample_nearest2d": _resample(2, taps.nearest),
    "upsample_bilinear2d": _bilinear,
    "constant_pad_nd": _padding(_blank),
    "reflection_pad2d": _padding(taps.mirrored),
    "replication_pad2d": _padding(taps.repeated),
    "pixel_shuffle": _shuffle,
    "pixel_unshuffle": _unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _first),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze", "_reshape_alias"), _view),
    **dict.fromkeys(("expand", "copy", "lift_fresh", "alias", "detach", "contiguous"), pointwise),
    "permute": lambda inputs, arguments, shape: _permute(inputs, arguments[1]),
    **dict.fromkeys(("transpose", "t"), _transpose),
    "unsqueeze": _unsqueeze,
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "index": _index,
    "flip": _flip,
    "roll": _roll,
    "repeat": _repeat,
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), _product),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std", "logsumexp", "prod"), _reduce),
    "linalg_vector_norm": _vector_norm,
    "native_layer_norm": _norm,
    "native_group_norm": _everything,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), _batch_norm),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "_prelu_kernel", "native_dropout"), _first),
    **dict.fromkeys(("hardswish", "log_sigmoid_forward", "rrelu_with_noise"), _first),
    **dict.fromkeys(("_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("_native_multi_head_attention", "_scaled_dot_product_flash_attention_for_cpu"), _everything),
    **dict.fromkeys(("_scaled_dot_product_attention_math", "_scaled_dot_product_efficient_attention"), _everything),
    "glu": _glu,
    "as_strided": _restride,
    "copy_": _copy,
}
