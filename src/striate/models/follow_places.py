"""What numbers see that an operation only moves: views, turned axes, slices, flips, and tensors laid together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from striate.models import taps
from striate.models.receptive import Axis, Fields, Inputs, Shape, each, gather, joined, mixed, moved, union


def view(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    if 0 in own or math.prod(own) != math.prod(shape):
        return None
    groups = _groups(own, shape)
    return each(fields, lambda axis: _regrouped(axis, groups, own, shape))


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


def permute(inputs: Inputs, order: Sequence[int]) -> Fields:
    own, fields = inputs[0]
    places = {dim % len(own): place for place, dim in enumerate(order)}
    return each(fields, lambda axis: moved(axis, places))


def transpose(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    rank = len(shape)
    order = list(range(rank))
    if rank > 1:
        one, other = (arguments[1] % rank, arguments[2] % rank) if len(arguments) > 2 else (0, 1)
        order[one], order[other] = order[other], order[one]
    return permute(inputs, order)


def unsqueeze(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    new = arguments[1] % len(shape)
    return permute(inputs, []) if not inputs[0][0] else each(inputs[0][1], lambda a: moved(a, _opened(shape, new)))


def _opened(shape: Shape, new: int) -> dict[int, int]:
    return {dim: dim + (dim >= new) for dim in range(len(shape) - 1)}


def sliced(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    given = list(arguments[1:])
    dim, start, _, step = given + [0, None, None, 1][len(given) :]
    dim %= len(own)
    begin = range(own[dim])[slice(start, None, None)]
    table = taps.window(shape[dim], 1, step, -(begin.start if len(begin) else 0))
    return each(fields, lambda axis: gather(axis, dim, table, float(step)))


def select(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    dim, index = arguments[1] % len(own), arguments[2]
    table = np.array([[index % own[dim]]])
    places = {d: d - (d > dim) for d in range(len(own)) if d != dim}
    return each(fields, lambda axis: moved(gather(axis, dim, table, 1.0), places))


def split(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    dim = (arguments[2] if len(arguments) > 2 else 0) % len(own)
    carried = any(dim in axis.dims for axis in fields)
    return None if carried else fields


def index(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    picked = [dim for dim, index in enumerate(arguments[1]) if index is not None]  # x[:, [0, 2, 3]] picks along axis 1
    carried = any(dim in axis.dims for axis in fields for dim in picked)
    return None if carried or len(picked) != 1 or len(own) != len(shape) else fields


def flip(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    fields = inputs[0][1]
    for dim in (dim % len(shape) for dim in arguments[1]):
        table = np.arange(shape[dim])[::-1, None]
        fields = each(fields, lambda axis, dim=dim, table=table: gather(axis, dim, table, 1.0))  # type: ignore[misc]
    return fields


def roll(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    fields = inputs[0][1]
    if len(arguments) < 3 or not arguments[2]:
        return None
    for shift, dim in zip(arguments[1], (dim % len(shape) for dim in arguments[2]), strict=True):
        table = ((np.arange(shape[dim]) - shift) % shape[dim])[:, None]
        fields = each(fields, lambda axis, dim=dim, table=table: gather(axis, dim, table, 1.0))  # type: ignore[misc]
    return fields


def repeat(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    shift = len(shape) - len(own)
    fields = each(fields, lambda axis: moved(axis, {dim: dim + shift for dim in range(len(own))}))
    for dim, length in enumerate(own, shift):
        table = (np.arange(shape[dim]) % max(length, 1))[:, None]
        fields = each(fields, lambda axis, dim=dim, table=table: gather(axis, dim, table, 1.0))  # type: ignore[misc]
    return fields


def cat(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    tensors = arguments[0]
    dim = (arguments[1] if len(arguments) > 1 else 0) % len(shape)
    along = any(dim in axis.dims for _, fields in inputs for axis in fields)
    if along and len(inputs) != len(tensors):  # constants between the maps
        return None
    return joined([rows for _, (rows, _) in inputs], dim), joined([columns for _, (_, columns) in inputs], dim)


def stack(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    new = (arguments[1] if len(arguments) > 1 else 0) % len(shape)
    opened = [each(fields, lambda axis: moved(axis, _opened(shape, new))) for _, fields in inputs]
    return union([rows for rows, _ in opened]), union([columns for _, columns in opened])
