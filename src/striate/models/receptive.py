"""What each number of a map sees of the picture: intervals of pixels, carried through windows, unions and flattenings.

Rows and columns are followed apart, position by position, so that branches, skips, crops and uneven windows come out
right. Two intervals are kept for each position: the field as if the picture had no edge, which is what papers give
(Araujo et al. 2019, doi:10.23915/distill.00021), and the pixels that are really read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Taps = NDArray[np.int64]

#: In a table of taps: nothing is read here.
NO_TAP = -(2**40)


@dataclass(frozen=True, eq=False)
class Axis:
    """What the numbers of one tensor see along one axis of the picture, in pixels.

    `dims` are the tensor's axes along which this changes. Where it is one axis and `exact`, entry i of the arrays
    belongs to index i; otherwise the positions were mixed, as flattening does, and the arrays hold what occurs.
    `first` and `last` bound the field without edges, `low` and `high` the pixels really read (low > high: none).
    `jump` is the distance between the fields of neighbours. `known` is False for an upper bound. `layout` remembers
    how positions were mixed, so that a view may undo it: the lengths of the axes run together, and which was ours.
    """

    dims: frozenset[int]
    exact: bool
    first: Numbers
    last: Numbers
    low: Numbers
    high: Numbers
    jump: float
    known: bool = True
    layout: tuple[tuple[int, ...], int] | None = None


Fields = tuple[Axis, Axis]
Shape = tuple[int, ...]
#: Of an operation's arguments, in their order: (shape, fields) of each tensor that depends on the picture.
Inputs = list[tuple[Shape, Fields]]
#: From the inputs, the operation's arguments and the shape of its output to what the output sees; None: not known.
Rule = Callable[[Inputs, Sequence[Any], Shape], Fields | None]


@dataclass(frozen=True)
class Field:
    """The receptive field of one number: (rows, columns), in pixels.

    `size` does not end at the picture's edge. `stride` is the distance between the fields of neighbours and `padding`
    how far the first one reaches over the edge; both are None where positions are gone, as after flattening.
    `seen` is how much of the picture the number in the middle really reads.
    """

    size: tuple[int, int]
    stride: tuple[float, float] | None
    padding: tuple[int, int] | None
    seen: tuple[int, int]
    whole: bool


def each(fields: Fields, change: Callable[[Axis], Axis]) -> Fields:
    """Return rows and columns after a change of each."""
    return change(fields[0]), change(fields[1])


def pixels(length: int, dim: int) -> Axis:
    """Return the axis of the picture itself: pixel i sees pixel i."""
    place = np.arange(length, dtype=np.float64)
    return Axis(frozenset({dim}), True, place, place, place, place, 1.0)


def gather(axis: Axis, dim: int, taps: Taps, factor: float) -> Axis:
    """Return the axis after a window along `dim`: output i reads the inputs taps[i], int64 (outputs, taps).

    A tap beyond the map is padding: its field goes on in steps of the jump, and no pixel is read. `factor` is the
    stride. Where positions were mixed before, every output may read everything.
    """
    if dim not in axis.dims:
        return axis
    if not axis.exact:
        return replace(collapse(axis, axis.dims), known=False)
    inside = np.clip(taps, 0, len(axis.first) - 1)
    absent = taps == NO_TAP
    beyond = np.where(absent, 0, taps - inside) * axis.jump
    padded = absent | (taps != inside)
    return replace(
        axis,
        first=np.where(absent, np.inf, axis.first[inside] + beyond).min(1),
        last=np.where(absent, -np.inf, axis.last[inside] + beyond).max(1),
        low=np.where(padded, np.inf, axis.low[inside]).min(1),
        high=np.where(padded, -np.inf, axis.high[inside]).max(1),
        jump=axis.jump * factor,
    )


def collapse(axis: Axis, dims: Iterable[int]) -> Axis:
    """Return the axis after a sum over `dims`: everything along them is seen by each number that is left."""
    gone = axis.dims & frozenset(dims)
    if not gone:
        return axis
    return Axis(
        frozenset(),
        True,
        axis.first.min(keepdims=True),
        axis.last.max(keepdims=True),
        axis.low.min(keepdims=True),
        axis.high.max(keepdims=True),
        axis.jump,
        axis.known and gone == axis.dims,
    )


def moved(axis: Axis, places: dict[int, int]) -> Axis:
    """Return the axis with the tensor's axes renumbered; one that has no new place held a single entry."""
    kept = frozenset(places[dim] for dim in axis.dims if dim in places)
    return replace(axis, dims=kept)


def mixed(axis: Axis, dims: Iterable[int], layout: tuple[tuple[int, ...], int] | None = None) -> Axis:
    """Return the axis after its positions were spread over `dims` in an order that is no longer followed."""
    dims = frozenset(dims)
    return replace(axis, dims=dims, exact=False, layout=layout) if dims else collapse(axis, axis.dims)


def union(axes: Sequence[Axis]) -> Axis:
    """Return what a number sees that is made of one number of each of these: a skip, a branch, a gate."""
    result = axes[0]
    for axis in axes[1:]:
        result = _both(result, axis)
    return result


def joined(axes: Sequence[Axis], dim: int) -> Axis:
    """Return the axis of tensors laid one behind the other along `dim`; arrays follow where it carries positions."""
    if not any(dim in axis.dims for axis in axes):
        return union(axes)
    if not all(axis.dims == {dim} and axis.exact for axis in axes):
        return replace(union([collapse(axis, axis.dims) for axis in axes]), known=False)
    return Axis(
        frozenset({dim}),
        True,
        np.concatenate([axis.first for axis in axes]),
        np.concatenate([axis.last for axis in axes]),
        np.concatenate([axis.low for axis in axes]),
        np.concatenate([axis.high for axis in axes]),
        max(axis.jump for axis in axes),
        all(axis.known for axis in axes),
    )


def _both(one: Axis, other: Axis) -> Axis:
    known = one.known and other.known
    if one.dims and other.dims:
        alike = one.dims == other.dims and one.exact == other.exact and len(one.first) == len(other.first)
        same = alike and all(
            np.array_equal(getattr(one, name), getattr(other, name)) for name in ("first", "last", "low", "high")
        )
        if not (alike and (one.exact or same)):
            # Positions of two orders meet: each number may see all of both.
            one, other, known = collapse(one, one.dims), collapse(other, other.dims), False
    carrier = one if one.dims else other
    return Axis(
        carrier.dims,
        carrier.exact,
        np.minimum(one.first, other.first),
        np.maximum(one.last, other.last),
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
        max(one.jump, other.jump) if one.dims and other.dims else carrier.jump,
        known,
        carrier.layout,
    )


def field_of(fields: Fields | None, picture: tuple[int, int]) -> Field | None:
    """Return the receptive field of a tensor's numbers; None where it cannot be known."""
    if fields is None or not all(axis.known for axis in fields):
        return None
    if not all(np.isfinite(axis.first).any() for axis in fields):
        return None
    rows, columns = (_measure(axis, length) for axis, length in zip(fields, picture, strict=True))
    placed = all(axis.dims and axis.exact for axis in fields)
    seen = (rows[3], columns[3])
    return Field(
        (rows[0], columns[0]),
        (rows[1], columns[1]) if placed else None,
        (rows[2], columns[2]) if placed else None,
        seen,
        seen == picture,
    )


def _measure(axis: Axis, length: int) -> tuple[int, float, int, int]:
    """Return size, stride, padding, and the pixels seen from the middle, along one axis."""
    read = np.isfinite(axis.first)
    size = round(float((axis.last - axis.first + 1)[read].max()))
    middle = len(axis.first) // 2
    low, high = axis.low[middle], axis.high[middle]
    seen = int(min(high, length - 1) - max(low, 0) + 1) if low <= high else 0
    start = axis.first[read][0]
    return size, round(axis.jump, 3), round(-float(start)), seen
