"""What the sheet and the page of `striate explain` share: heat over a picture, maps and kernels as pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from striate.explain.cam import METHODS as CAM_METHODS
from striate.explain.exciting import Excited
from striate.explain.explanation import Explanation
from striate.explain.features import scaled
from striate.report.canvas import Pixels, as_tile

Floats = NDArray[np.float32]

FOR, AGAINST = np.array([255, 140, 20]), np.array([60, 150, 255])  # orange and blue: red-green blind people tell them
FRAME = np.array([255, 140, 20])
TITLES = {
    "grad-cam": "Grad-CAM",
    "layer-cam": "LayerCAM",
    "occlusion": "occlusion",
    "integrated-gradients": "integrated gradients",
}


def overlay(seen: Pixels, values: Floats, side: int) -> Pixels:
    """Lay heat (H, W) over a picture uint8 (H, W, C) made gray: orange speaks for the class, blue against it.

    Full colour is the value farthest from zero.
    """
    gray = as_tile(seen, max(seen.shape[:2])).mean(2, keepdims=True)  # (H, W, 1)
    farthest = float(np.abs(values).max(initial=0.0))
    share = (np.abs(values) / farthest if farthest > 0 else values * 0)[..., None]
    colour = np.where(values[..., None] >= 0, FOR, AGAINST)
    return as_tile((gray * (1 - share) + colour * share).round().astype(np.uint8), side)


def caption(explanation: Explanation, method: str) -> str:
    """Return what stands below a heat map: its layer, its span, or what it adds up to."""
    if method in CAM_METHODS:
        return f"layer {explanation.layer}"
    values = explanation.maps[method]
    if method == "occlusion":
        return f"logit falls by up to {values.max():.3g}"
    return f"add up to {explanation.wanted - explanation.missing:.3g} of {explanation.wanted:.3g}"


def map_tiles(maps: Floats, most: int, side: int) -> list[Pixels]:
    """Return the first maps of (C, h, w) as gray tiles, all of them on one scale from the least to the greatest."""
    low, high = float(maps.min()), float(maps.max())
    shown = (maps[:most] - low) / (high - low) if high > low else maps[:most] * 0
    return [as_tile((255 * one).round().astype(np.uint8), side) for one in shown]


def kernel_tiles(kernels: Floats, most: int, side: int) -> list[Pixels]:
    """Return kernels (O, I, kh, kw) as tiles: in colour for three inputs, else gray, one for each output and input.

    Middle gray is a weight of zero, on one scale for all of them.
    """
    shown = (255 * scaled(kernels)).round().astype(np.uint8)
    if shown.shape[1] == 3:
        return [as_tile(np.ascontiguousarray(one.transpose(1, 2, 0)), side) for one in shown[:most]]
    return [as_tile(one, side) for one in shown.reshape(-1, *shown.shape[2:])[:most]]


def framed(image: Pixels, one: Excited, side: int) -> Pixels:
    """Return a picture uint8 (H, W, C) as a tile with a frame around what the most excited place sees."""
    tile = as_tile(image, side).copy()
    if one.field is None:
        return tile
    factors = (tile.shape[0] / image.shape[0], tile.shape[1] / image.shape[1])
    top, left, bottom, right = (round(edge * factors[number % 2]) for number, edge in enumerate(one.field))
    tile[top:bottom, [left, right - 1]] = FRAME
    tile[[top, bottom - 1], left:right] = FRAME
    return tile


def leading_classes(explanation: Explanation, most: int = 5) -> list[int]:
    """Return the classes whose curves are worth a line: the explained one, then those that come highest anywhere."""
    highest = np.max([curve.probabilities.max(0) for curve in explanation.edits], axis=0)
    target = explanation.classes.index(explanation.target)
    order = [target, *(int(number) for number in np.argsort(-highest, kind="stable") if number != target)]
    return [number for number in order[:most] if number == target or highest[number] >= 0.02]


def spread(count: int, most: int) -> Sequence[int]:
    """Return up to `most` numbers of 0 … count − 1, evenly spread, the first and the last among them."""
    if count <= most:
        return range(count)
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]
