"""Finds ink on paper: which of the two is dark, the paper's level at each place, and the pieces that hang together.

Everything here takes float32 levels 0–1 (H, W); numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.float32]
Marks = NDArray[np.bool_]

# The paper's level changes slowly: it is found on a picture of at most this side.
_COARSE = 128
# Strokes are narrower than these shares of the shorter and of the longer side; paper is seen across them.
_WINDOW_SHORT, _WINDOW_LONG = 1 / 3, 1 / 4
# Paper whose level changes by less than this share of the ink's contrast is even.
_EVEN = 0.12
_LEAST_LEVEL = 0.02
# Ink is what reaches this share of full ink, and what hangs on it down to the second share.
STRONG, WEAK = 0.5, 0.25
# Where dark covers a share this far from a half, that decides; pictures longer than this are narrow.
_CLEAR, _NARROW = 0.15, 1.3


@dataclass(frozen=True)
class Ink:
    """How much ink each pixel has, 0–1 (H, W); its noise; whether the paper's level had to be followed."""

    amount: Levels
    noise: float
    uneven: bool


def is_dark_on_light(levels: Levels) -> bool:
    """Decide whether ink is dark: around strokes there is less of it than of paper.

    In a tight crop there may be more. There the paper lies at the rim, or the ink of a narrow picture is one piece and
    the paper is several.
    """
    coarse = reduced(levels, _COARSE)
    side = _window(coarse)
    above, below = highest(coarse, side), -highest(-coarse, side)
    contrast, middle = above - below, (above + below) / 2
    near_strokes = contrast > contrast.max() * STRONG
    if not near_strokes.any():
        return True
    dark = coarse < np.where(near_strokes, middle, np.median(middle[near_strokes]))
    share = float(dark[near_strokes].mean())
    if abs(share - 0.5) > _CLEAR:
        return share < 0.5
    if max(coarse.shape) > _NARROW * min(coarse.shape):
        pieces = [int((find_pieces(marks).areas > marks.size / 100).sum()) for marks in (dark, ~dark)]
        if pieces[0] != pieces[1]:
            return pieces[0] < pieces[1]
    return share + float(edge(dark).mean()) < 1


def find_ink(levels: Levels, *, follow: bool) -> Ink:
    """Return the ink of dark strokes on paper; `follow` paper whose level changes from place to place."""
    height, width = levels.shape
    coarse = reduced(levels, _COARSE)
    paper = closed(coarse)
    # The highest level within a window lies above the paper by its noise.
    below = paper - coarse
    contrast = max(float(np.quantile(below, 0.995)), _LEAST_LEVEL)
    blank = below < contrast * STRONG
    paper = paper - np.median(below[blank])
    spread = float(np.subtract(*np.quantile(paper[blank], (0.95, 0.05))))
    uneven = follow and spread > _EVEN * contrast
    if uneven:
        paper = smoothed(paper, max(1, round(max(coarse.shape) / 64)))
        whole = Image.fromarray(paper.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        level = np.maximum(np.asarray(whole), _LEAST_LEVEL)
    else:
        level = np.float32(max(float(np.median(levels[levels > np.median(paper[blank]) - contrast / 2])), _LEAST_LEVEL))
    amount = (1 - levels / level).astype(np.float32)
    return Ink(*_gained(amount), uneven)


def _gained(amount: Levels) -> tuple[Levels, float]:
    """Bring full ink to 1 and paper with its noise to 0; return that and the noise."""
    full = _full_ink(amount)
    quiet = amount[np.abs(amount) < full * WEAK]
    noise = 1.4826 * float(np.median(np.abs(quiet - np.median(quiet)))) if quiet.size else 0.0
    floor = min(2 * noise, full * WEAK)
    return np.clip((amount - floor) / max(full - floor, 1e-6), 0, 1), noise / max(full, 1e-6)


def _full_ink(amount: Levels) -> float:
    """Return the amount of solid ink: the upper tenth of what is above half of the most."""
    flat = amount.reshape(-1)
    count = max(1, min(flat.size, max(4, round(flat.size / 2000))))
    most = float(np.partition(flat, flat.size - count)[-count:].mean())
    strong = flat[flat > most * STRONG]
    return max(float(np.quantile(strong, 0.9)) if strong.size else most, _LEAST_LEVEL)


def closed(levels: Levels) -> Levels:
    """Fill what is dark and narrower than the window: the highest level around, then the lowest of those."""
    side = _window(levels)
    return -highest(-highest(levels, side), side)


def highest(levels: Levels, side: int) -> Levels:
    """Return the highest value in the square of `side` (odd) pixels around each pixel; outside there is none."""
    half = side // 2
    for axis in (0, 1):
        widths = [(half, half) if axis == current else (0, 0) for current in (0, 1)]
        run = np.pad(levels, widths, constant_values=-np.inf)
        length, reach = levels.shape[axis], 1
        while reach < side:  # windows of twice the length, until the last step fits exactly
            step = min(reach, side - reach)
            end = run.shape[axis] - step
            run = np.maximum(run.take(range(end), axis), run.take(range(step, step + end), axis))
            reach += step
        levels = run.take(range(length), axis)
    return levels


def smoothed(levels: Levels, radius: int) -> Levels:
    """Return the mean of the square of 2 · radius + 1 pixels around each pixel, by sums that run along."""
    side = 2 * radius + 1
    for axis in (0, 1):
        widths = [(radius + 1, radius) if axis == current else (0, 0) for current in (0, 1)]
        total = np.pad(levels.astype(np.float64), widths, mode="edge").cumsum(axis=axis)
        length = levels.shape[axis]
        total = total.take(range(side, side + length), axis) - total.take(range(length), axis)
        levels = (total / side).astype(np.float32)
    return levels


def reduced(levels: Levels, most: int) -> Levels:
    """Return the levels scaled down by areas so that no side is above `most`; as they are where none is."""
    height, width = levels.shape
    if max(height, width) <= most:
        return levels
    scale = most / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BOX))


def edge(marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the outermost pixels of (H, W)."""
    return np.concatenate([marks[0], marks[-1], marks[1:-1, 0], marks[1:-1, -1]])


@dataclass(frozen=True)
class Pieces:
    """Pieces of marks that touch at sides or corners: `labels` (H, W), 0 without a mark, and of each piece from 1 …

    … at index piece − 1: `areas` (n,) in pixels and `boxes` (n, 4) as left, top, right, bottom (the ends are left out).
    """

    labels: NDArray[np.int32]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]


def find_pieces(marks: Marks) -> Pieces:
    """Find the pieces that hang together: runs along rows, joined with the runs that they touch in the next row."""
    height, width = marks.shape
    wide = width + 1  # a column without marks parts the rows
    flat = np.zeros(height * wide + 1, np.int8)
    flat[:-1].reshape(height, wide)[:, :width] = marks
    change = np.diff(flat, prepend=np.int8(0))
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    first = np.searchsorted(ends - wide, starts, "left")
    last = np.searchsorted(starts - wide, ends, "right")
    counts = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(starts)), counts)
    below = np.arange(len(above)) - np.repeat(counts.cumsum() - counts, counts) + np.repeat(first, counts)
    roots = _joined(len(starts), above, below)
    names, piece = np.unique(roots, return_inverse=True)
    lengths = ends - starts
    rows, lefts = starts // wide, starts % wide
    boxes = np.zeros((len(names), 4), np.int64)
    boxes[:, :2] = max(height, wide)
    np.minimum.at(boxes[:, 0], piece, lefts)
    np.minimum.at(boxes[:, 1], piece, rows)
    np.maximum.at(boxes[:, 2], piece, lefts + lengths)
    np.maximum.at(boxes[:, 3], piece, rows + 1)
    labels = np.zeros(height * wide, np.int32)
    labels[np.flatnonzero(flat[:-1])] = np.repeat(piece + 1, lengths)
    areas = np.bincount(piece, weights=lengths, minlength=len(names)).astype(np.int64)
    return Pieces(labels.reshape(height, wide)[:, :width], areas, boxes)


def _joined(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of `count` nodes the least node that edges lead to."""
    least = np.arange(count)
    while True:
        low = np.minimum(least[one], least[other])
        before = least.copy()
        np.minimum.at(least, least[one], low)
        np.minimum.at(least, least[other], low)
        least = least[least]
        if np.array_equal(before, least):
            return least


def _window(levels: Levels) -> int:
    """Return the side, odd, of a window that is wider than any stroke."""
    short, long = sorted(levels.shape)
    return max(3, round(max(short * _WINDOW_SHORT, long * _WINDOW_LONG)) | 1)
