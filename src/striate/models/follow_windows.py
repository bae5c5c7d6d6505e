"""What the output of a window over maps sees: convolutions, pools, resampling, padding, shuffles of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from striate.models import taps
from striate.models.receptive import Fields, Inputs, Rule, Shape, each, gather


def _windows(inputs: Inputs, shape: Shape, along: Callable[[int, int, int], tuple[Any, float]], count: int) -> Fields:
    """Apply one window to each of the last `count` axes; `along(axis, inputs, outputs)` gives its taps and stride."""
    own, fields = inputs[0]
    for place in range(count):
        dim = len(own) - count + place
        table, factor = along(place, own[dim], shape[dim])
        fields = each(fields, lambda axis, dim=dim, table=table, factor=factor: gather(axis, dim, table, factor))  # type: ignore[misc]
    return fields


def _at(values: Any, place: int, default: int = 0) -> int:
    """Return entry `place` of a list that may be empty or hold one number for all axes."""
    if not isinstance(values, list | tuple):
        return int(values)
    return int(values[place if place < len(values) else -1]) if values else default


def convolution(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    weight, stride, padding, dilation, is_transposed = arguments[1], *arguments[3:7]
    kernel = weight.shape[2:]

    def along(place: int, length: int, outputs: int) -> tuple[Any, float]:
        step, border, spread = _at(stride, place), _at(padding, place), _at(dilation, place)
        if is_transposed:
            return taps.transposed(length, outputs, kernel[place], step, border, spread), 1 / step
        return taps.window(outputs, kernel[place], step, border, spread), float(step)

    return _windows(inputs, shape, along, len(kernel))


def pool(count: int, has_dilation: bool) -> Rule:
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


def resample(count: int, table: Callable[[int, int], Any]) -> Rule:
    def rule(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
        return _windows(inputs, shape, lambda _, length, outputs: (table(length, outputs), length / outputs), count)

    return rule


def bilinear(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    corners = bool(arguments[2])
    return _windows(inputs, shape, lambda _, n, m: (taps.linear(n, m, corners), n / m), 2)


def bordered(table: Callable[[int, int, int], Any]) -> Rule:
    def rule(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
        borders = arguments[1]  # from the last axis to the first: before, after
        count = len(borders) // 2

        def along(place: int, length: int, outputs: int) -> tuple[Any, float]:
            before, after = borders[2 * (count - 1 - place) :][:2]
            return table(length, before, after), 1.0

        return _windows(inputs, shape, along, count)

    return rule


def blank(length: int, before: int, after: int) -> Any:
    return taps.window(length + before + after, 1, padding=before)


def shuffle(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    block = int(arguments[1])
    return _windows(inputs, shape, lambda _, n, m: ((np.arange(m) // block)[:, None], 1 / block), 2)


def unshuffle(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    block = int(arguments[1])
    return _windows(inputs, shape, lambda _, n, m: (taps.window(m, block, block), float(block)), 2)
