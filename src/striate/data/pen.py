"""The width of the pen: strokes thinner or thicker than nearly all that a net was trained on become usual ones."""

from __future__ import annotations

import numpy as np
from PIL import Image

from striate.data.ink import STRONG, Levels, find_pieces, highest
from striate.data.style import DrawingStyle, stroke_width

# Strokes are worked on at this many times the net's box, but not above so many pixels of the longer side.
_FINE, _MOST = 8, 400
# Below and above these shares of full ink a widened stroke is paper and ink.
_SOFT = 0.3
# A blot keeps its shape when it is narrowed and enlarged again: strokes become narrower by this many pixels at least.
_LEAST = 0.1


def thickened(ink: Levels, style: DrawingStyle, goal: int) -> tuple[Levels, list[str]]:
    """Widen strokes that are thinner than nearly all that the net was trained on, to the usual width."""
    _, thin, usual, _, _ = style.strokes
    longest = max(ink.shape)
    width = float(stroke_width(ink[None])[0])
    if width * goal / longest >= thin:
        return ink, []
    times = _times(goal)
    factor = int(longest // (goal * times))
    if factor > 1:  # a mean would wash a thin line out, the highest level keeps it
        rows, columns = (-(-side // factor) * factor for side in ink.shape)
        padded = np.pad(ink, ((0, rows - ink.shape[0]), (0, columns - ink.shape[1])))
        ink = padded.reshape(rows // factor, factor, columns // factor, factor).max(axis=(1, 3))
    ink = _fine(ink, goal * times)
    now = float(stroke_width(ink[None])[0]) / times
    # The longer side grows with the stroke and is scaled back into the box.
    more = (usual - now) * goal / max(1.0, goal - usual)
    radius = max(1, round(more * times / 2))
    ink = _grown(np.pad(ink, radius), radius)
    ink = np.clip((ink / max(float(ink.max()), 1e-6) - _SOFT) / (1 - 2 * _SOFT), 0, 1)  # a pen's ink is even
    return ink, [_told("thickened", width * goal / longest, usual)]


def thinned(ink: Levels, style: DrawingStyle, goal: int) -> tuple[Levels, list[str]]:
    """Narrow strokes that are thicker than nearly all that the net was trained on, to the usual width.

    Less where a part would vanish or break off: the fine strokes of a brush stay.
    """
    _, _, usual, thick, _ = style.strokes
    width = float(stroke_width(ink[None])[0]) * goal / max(ink.shape)
    if width <= thick:
        return ink, []
    times = _times(goal)
    fine = np.pad(np.clip(_fine(ink, goal * times), 0, 1), 1)
    now = float(stroke_width(fine[None])[0]) / times
    radius = round((now - usual) * goal / max(1.0, goal - usual) * times / 2)
    while radius > 0:
        left = -_grown(-fine, radius)
        if _is_all_there(fine, left, radius):
            rim = 1 + radius  # it is cut off, as widening adds one
            left = left[rim : left.shape[0] - rim, rim : left.shape[1] - rim]
            reached = float(stroke_width(left[None])[0]) * goal / max(left.shape)
            return (left, [_told("thinned", width, reached)]) if reached < now - _LEAST else (ink, [])
        radius = radius * 3 // 4
    return ink, []


def _is_all_there(before: Levels, after: Levels, radius: int) -> bool:
    """Say whether narrowed ink has the pieces that it had, and reaches near all places where there was ink."""
    marks = (before > STRONG, after > STRONG)
    if not marks[1].any() or len(find_pieces(marks[0]).areas) != len(find_pieces(marks[1]).areas):
        return False
    near = _grown(marks[1].astype(np.float32), 2 * radius + 1)  # a corner recedes further than a side
    return not (marks[0] & (near == 0)).any()


def resized(ink: Levels, shape: tuple[int, int]) -> Levels:
    """Return ink at another shape, by areas where it becomes smaller."""
    kind = Image.Resampling.BICUBIC if shape[0] > ink.shape[0] else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(ink)).resize(shape[::-1], kind))


def _times(goal: int) -> float:
    return max(1.0, min(_FINE, _MOST / goal))


def _fine(ink: Levels, side: float) -> Levels:
    scale = side / max(ink.shape)
    return resized(ink, (max(1, round(ink.shape[0] * scale)), max(1, round(ink.shape[1] * scale))))


def _grown(ink: Levels, radius: int) -> Levels:
    """Return the highest level in an octagon around each pixel, which is nearly a disc."""
    square = round(0.414 * radius)
    if square:
        ink = highest(ink, 2 * square + 1)
    for _ in range(radius - square):
        ink = _plus(ink)
    return ink


def _plus(ink: Levels) -> Levels:
    """Return the highest of each pixel and its four neighbours."""
    out = ink.copy()
    np.maximum(out[1:], ink[:-1], out=out[1:])
    np.maximum(out[:-1], ink[1:], out=out[:-1])
    np.maximum(out[:, 1:], ink[:, :-1], out=out[:, 1:])
    np.maximum(out[:, :-1], ink[:, 1:], out=out[:, :-1])
    return out


def _told(done: str, before: float, after: float) -> str:
    return f"{done} from {before:.1f} to {after:.1f} pixels"
