"""From what a learner types to arrays: `0,1,2;3,4,5;6,7,8`, or a shape such as `8x8x3` filled by counting."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from striate.errors import UsageError
from striate.lessons.lesson import Values

MOST_CELLS = 20_000  # a lesson is there to be checked by hand
MOST_WEIGHTS = 120_000_000  # VGG's first fully connected layer has 103 million: half a gigabyte
INPUT_COUNTS, KERNEL_COUNTS = 10, 5  # a shape is filled with 0…9 and 0…4, over and over

_SHAPE = re.compile(r"\d+(?:[x×]\d+){1,2}")
_MAP_FORM = "write rows as 0,1,2;3,4,5 with | between channels, or a shape such as 8x8x3"


def read_map(given: Any, flag: str, channels: int | None = None) -> Values:
    """Return a map (C, H, W) of numbers typed as rows, of a shape `HxW` or `HxWxC`, or of an array.

    A shape is filled with 0, 1, … 9, 0, … in order of channel, row, column. `channels` is how many there are to be.
    Raises UsageError naming `flag`.
    """
    sides = read_shape(given, flag) if isinstance(given, str) and is_shape(given) else None
    if sides is None:
        cells = _read_channels(given, flag) if isinstance(given, str) else _from_array(given, flag)
        if channels is not None and channels != len(cells):
            raise UsageError(
                f"{flag} has {len(cells)} channels and --channels says {channels}",
                "numbers that are typed bring their channels along",
                "leave out --channels, or write the other channels after a |",
            )
        _check_cells(cells.size, flag)
        return cells
    height, width, depth = sides[0], sides[1], sides[2] if len(sides) > 2 else channels or 1
    if channels is not None and depth != channels:
        raise UsageError(f"{flag} has {depth} channels and --channels says {channels}", "", "leave out --channels")
    _check_cells(height * width * depth, flag)
    return counted((depth, height, width), INPUT_COUNTS)


def read_kernels(given: Any, flag: str, channels: int, count: int | None = None) -> Values:
    """Return kernels (K, C, H, W): typed with / between kernels, of a shape, or of an array.

    A shape is filled with 0, 1, … 4, 0, …; kernel number k begins with k. A kernel of one channel over an input of
    several is used for each of them. Raises UsageError naming `flag`.
    """
    if isinstance(given, str) and is_shape(given):
        sides = read_shape(given, flag)
        if len(sides) == 3 and sides[2] != channels:
            raise _wrong_channels(flag, sides[2], channels)
        many = count or 1
        _check_cells(many * channels * sides[0] * sides[1], flag)
        filled = [counted((channels, sides[0], sides[1]), KERNEL_COUNTS, first=k) for k in range(many)]
        return np.stack(filled)
    if isinstance(given, str):
        kernels = [_read_channels(text, flag) for text in given.split("/")]
    else:
        array = np.asarray(given, dtype=np.float64)
        kernels = list(array) if array.ndim == 4 else [_from_array(array, flag)]
    kernels = [np.repeat(kernel, channels, axis=0) if len(kernel) == 1 else kernel for kernel in kernels]
    for kernel in kernels:
        if len(kernel) != channels:
            raise _wrong_channels(flag, len(kernel), channels)
        if kernel.shape != kernels[0].shape:
            raise UsageError(f"{flag} has kernels of two sizes", "all kernels of a layer have one size", _MAP_FORM)
    if count is not None and count != len(kernels):
        raise UsageError(
            f"{flag} has {len(kernels)} kernels and --kernels says {count}",
            "numbers that are typed are kernels by themselves",
            "leave out --kernels, write the other kernels after a /, or give a shape such as 3x3",
        )
    return np.stack(kernels)


def read_numbers(given: Any, flag: str) -> Values:
    """Return numbers (N,) typed as `1,3`, or of a sequence. Raises UsageError naming `flag`."""
    cells = _read_channels(given, flag) if isinstance(given, str) else np.asarray(given, dtype=np.float64)
    cells = np.atleast_1d(cells.squeeze())
    if cells.ndim != 1 or not len(cells):
        raise UsageError(f"{flag} is {given!r}", "expected numbers in one row", f"write {flag} 1,3")
    return cells


def read_batches(given: Any, flag: str) -> list[Values]:
    """Return batches of numbers, which may differ in length: `1,3;2,4,6`. Raises UsageError naming `flag`."""
    rows = given.split(";") if isinstance(given, str) else list(given)
    return [read_numbers(row, flag) for row in rows]


def read_shape(text: str, flag: str) -> tuple[int, ...]:
    """Return the sides of `HxW` or `HxWxC`. Raises UsageError naming `flag`."""
    sides = tuple(int(side) for side in re.split("[x×]", text.strip().lower())) if is_shape(text) else ()
    if not sides or min(sides) < 1:
        raise UsageError(f"{flag} is {text!r}", "expected height x width x channels", f"write {flag} 3x3x5")
    return sides


def read_depth(text: str, flag: str) -> tuple[int, int, int]:
    """Return (height, width, channels) of a shape; without channels one. Raises UsageError naming `flag`."""
    height, width, *channels = read_shape(text, flag)
    return height, width, channels[0] if channels else 1


def check_weights(count: int, layer: str) -> None:
    """Raise UsageError for a layer that would take too much memory."""
    if count > MOST_WEIGHTS:
        raise UsageError(
            f"a layer {layer} has {count:,} weights",
            f"a lesson computes layers of up to {MOST_WEIGHTS:,}",
            "choose a smaller --input, or fewer outputs",
        )


def is_shape(text: str) -> bool:
    """Say whether a text is a shape and not numbers."""
    return _SHAPE.fullmatch(text.strip().lower()) is not None


def counted(sides: tuple[int, ...], modulus: int, first: int = 0) -> Values:
    """Return an array that counts first, first + 1, … and begins again with 0 at `modulus`."""
    return ((np.arange(math.prod(sides)) + first) % modulus).reshape(sides).astype(np.float64)


def _read_channels(text: str, flag: str) -> Values:
    channels = [[row.split(",") for row in channel.split(";")] for channel in text.split("|")]
    if (
        len({len(row) for channel in channels for row in channel}) > 1
        or len({len(channel) for channel in channels}) > 1
    ):
        raise UsageError(f"{flag} is {text!r}", "its rows or channels are not of one length", _MAP_FORM)
    try:
        cells = np.array([[[float(cell) for cell in row] for row in channel] for channel in channels])
    except ValueError as error:
        raise UsageError(f"{flag} is {text!r}", str(error), _MAP_FORM) from None
    if not np.isfinite(cells).all():
        raise UsageError(f"{flag} is {text!r}", "it holds what is no finite number", _MAP_FORM)
    return cells


def _from_array(given: Any, flag: str) -> Values:
    cells = np.asarray(given, dtype=np.float64)
    cells = cells[None] if cells.ndim == 2 else cells
    if cells.ndim != 3 or not cells.size or not np.isfinite(cells).all():
        raise UsageError(f"{flag} has shape {cells.shape}", "expected finite numbers (H, W) or (C, H, W)", _MAP_FORM)
    return cells


def _check_cells(count: int, flag: str) -> None:
    if not 0 < count <= MOST_CELLS:
        raise UsageError(
            f"{flag} has {count:,} cells",
            f"a lesson takes 1 to {MOST_CELLS:,}, so that it can be checked by hand",
            "choose a smaller size; `striate models` counts whole nets",
        )


def _wrong_channels(flag: str, got: int, wanted: int) -> UsageError:
    return UsageError(
        f"{flag} has {got} channels and the input {wanted}",
        "a kernel has as many channels as its input: it reads all of them at once",
        f"give it {wanted} channels, or one that is used for each; a shape such as 3x3 takes them from the input",
    )
