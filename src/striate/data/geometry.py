"""Chooses the size and the fit of a net's pictures from the headers of all files, and says why in a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.data.loading import Header
from striate.data.preprocess import Preprocess
from striate.errors import DataError

Floats = NDArray[np.float64]

SIDES = (128, 96, 64)  # of photographs
PIXELS = 100_000_000  # of all pictures together, so that an epoch takes a minute or two on a few cores
_LEAST_SIDE = 16  # smaller pictures of unequal sizes are enlarged to it
_LITTLE = 0.1  # share of a picture that may be cut off without a thought
_MUCH = 0.5
_ALIKE = 1.15  # ratio between the aspects of pictures that are called of one shape


@dataclass(frozen=True)
class Geometry:
    """Size (height, width), fit and channels of a net's pictures, and a sentence for each that says why."""

    size: tuple[int, int]
    fit: str
    channels: int
    reasons: tuple[str, ...]

    def preprocess(self) -> Preprocess:
        """Return it as the Preprocess that pictures are loaded with; mean and std are those of 0–1 until measured."""
        return Preprocess(self.size, self.fit, self.channels)


def choose_geometry(
    headers: Sequence[Header | DataError],
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
) -> Geometry:
    """Choose what is not given.

    Pictures of one size up to 64 pixels stay as they are. Otherwise the size is square: 128, 96 or 64, the largest that
    three quarters of the pictures have on their shorter side and that gives at most 100 million pixels in all; smaller
    pictures give a smaller size. The fit is `crop` where that cuts little off, `stretch` where all pictures have one
    other shape, `pad` where cropping would halve many of them, else `crop`. One channel only where all are gray.
    Raises DataError where no header could be read.
    """
    known = [header for header in headers if isinstance(header, Header)]
    if not known:
        raise DataError(
            "no picture can be read", f"none of {len(headers):,} files has a readable header", "check the files"
        )
    heights, widths = (np.array([getattr(one, side) for one in known], float) for side in ("height", "width"))
    grays = sum(header.channels == 1 for header in known)
    if channels is None:
        channels = 1 if grays == len(known) else 3
    chosen, why_size = _size(heights, widths) if size is None else (size, f"size {_by(size)}: given")
    if fit is None:
        fit, why_fit = _fit(heights, widths, chosen)
    else:
        why_fit = f"fit {fit}: given"
    return Geometry(chosen, fit, channels, (why_size, why_fit, _why_channels(channels, grays, len(known))))


def shown_areas(headers: Sequence[Header | DataError], preprocess: Preprocess) -> NDArray[np.int64]:
    """Return int64 (n, 4): top, bottom, left and right of what each picture covers when fitted; all but for `pad`."""
    height, width = preprocess.size
    areas = np.tile(np.array([0, height, 0, width], dtype=np.int64), (len(headers), 1))
    for index, header in enumerate(headers):
        if preprocess.fit == "pad" and isinstance(header, Header):
            scale = min(height / header.height, width / header.width)
            rows, columns = max(1, round(header.height * scale)), max(1, round(header.width * scale))
            top, left = (height - rows) // 2, (width - columns) // 2
            areas[index] = top, top + rows, left, left + columns
    return areas


def spread(headers: Sequence[Header | DataError], count: int) -> list[int]:
    """Return up to `count` indices of readable pictures, from the widest to the narrowest: a sample of all shapes."""
    aspects = [
        (header.width / header.height, index) for index, header in enumerate(headers) if isinstance(header, Header)
    ]
    order = [index for _, index in sorted(aspects, key=lambda pair: (-pair[0], pair[1]))]
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[place] for place in places]


def _size(heights: Floats, widths: Floats) -> tuple[tuple[int, int], str]:
    count, shorter = len(heights), np.minimum(heights, widths)
    if len({*zip(heights, widths, strict=True)}) == 1 and max(heights[0], widths[0]) <= SIDES[-1]:
        own = (int(heights[0]), int(widths[0]))
        return own, f"size {_by(own)}: all {count:,} pictures have it"
    quarter, middle = np.percentile(shorter, 25), np.median(shorter)
    told = f"{count:,} pictures, shorter side {middle:.0f} pixels (median)"
    if quarter < SIDES[-1]:
        side = max(_LEAST_SIDE, int(quarter) // 8 * 8)
        return (side, side), f"size {_by((side, side))}: {told}, {quarter:.0f} or less for a quarter of them"
    wide_enough = [side for side in SIDES if side <= quarter]
    side = next((side for side in wide_enough if side * side * count <= PIXELS), SIDES[-1])
    limit = "" if side == wide_enough[0] else f"; {wide_enough[0]} would make over {PIXELS // 10**6} million pixels"
    return (side, side), f"size {_by((side, side))}: {told}{limit}"


def _fit(heights: Floats, widths: Floats, size: tuple[int, int]) -> tuple[str, str]:
    aspects = widths / heights
    wanted = size[1] / size[0]
    cut = 1 - np.minimum(aspects / wanted, wanted / aspects)  # share of each picture that cropping takes away
    middle = float(np.median(cut))
    if np.percentile(cut, 90) <= _LITTLE:
        told = "nothing is cut off" if cut.max() < 0.005 else "nine pictures in ten lose 10 % or less at their edges"
        return "crop", f"fit crop: {told}"
    low, usual, high = np.percentile(aspects, [10, 50, 90])
    if high / low <= _ALIKE:
        return (
            "stretch",
            f"fit stretch: nearly all pictures are {usual:.2f} times as wide as high, and are changed alike",
        )
    much = float((cut > _MUCH).mean())
    if much > 0.25:
        return "pad", f"fit pad: cropping would take more than half of {100 * much:.0f} % of the pictures"
    told = f"half of the pictures lose {100 * middle:.0f} % or less at their edges"
    return "crop", f"fit crop: the shapes differ; {told}"


def _why_channels(channels: int, grays: int, count: int) -> str:
    if channels == 1:
        gray = "all pictures are gray" if grays == count else f"{count - grays:,} in colour become gray"
        return f"channels 1: {gray}"
    return f"channels {channels}: {count - grays:,} of {count:,} pictures are in colour"


def _by(size: tuple[int, int]) -> str:
    if size[0] == size[1]:
        return f"{size[0]}×{size[1]}"
    return f"{size[0]}×{size[1]} (height × width)"  # as --size takes it; elsewhere the width comes first
