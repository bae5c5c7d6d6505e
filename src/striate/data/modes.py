"""Pillow's picture modes → uint8 (H, W, C): bit depths, palettes, alpha, colour spaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.data.preprocess import over_white
from striate.errors import DataError

Pixels = NDArray[np.uint8]
#: Lays pictures whose last channel is alpha over a ground.
Flatten = Callable[[Pixels], Pixels]

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_GRAY = ("1", "L", "LA", "La")


def stored_as(image: Image.Image) -> str:
    """Return Pillow's name for how the samples lie in the file, such as `RGB;16B`; it is gone once they are loaded."""
    tiles: list[Any] = getattr(image, "tile", [])
    how = tiles[0][3] if tiles else ""
    return str(how[0] if isinstance(how, tuple) and how else how)


def header_channels(image: Image.Image) -> int:
    """Return how many channels the header promises, 1 or 3: of a palette, all colours count and not the used ones."""
    mode = image.mode
    if mode in ("P", "PA"):
        return 1 if _is_gray(_palette(image)) else 3
    return 1 if mode in (*_GRAY, "I", "F") or mode.startswith("I;") or "LA;16" in stored_as(image) else 3


def to_eight_bits(image: Image.Image, stored: str, notes: list[str], flatten: Flatten = over_white) -> Pixels:
    """Bring a loaded image of any mode to uint8 (H, W, 1 or 3), alpha over white unless `flatten` does otherwise.

    `stored` is what `stored_as` said before loading. `notes` collects what was done.
    """
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;"):
        return _scaled(image, notes)
    # Pillow brings 16-bit colour to 8 by its high byte, value/256: within one level of value/257.
    deep = "16" in stored
    if deep:
        notes.append("16 bits scaled to 8")
    gray = mode in _GRAY or "LA;16" in stored or (mode in ("P", "PA") and _has_gray_palette(image))
    if image.has_transparency_data:
        if mode in ("P", "1", "L", "RGB"):
            image = image.copy()  # Pillow writes the transparency into the palette while converting
            key = image.info.get("transparency")
            if deep and isinstance(key, tuple):
                image.info["transparency"] = tuple(value >> 8 for value in key)
        blended = np.asarray(image.convert("LA" if mode in _GRAY else "RGBA"))
        pixels = without_alpha(blended, notes, flatten)
    else:
        if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            notes.append(f"{mode} to RGB")
        goal = "L" if mode in ("1", "L") else "RGB"
        pixels = np.asarray(image if mode == goal else image.convert(goal))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels[..., :1] if gray else pixels


def without_alpha(images: Pixels, notes: list[str], flatten: Flatten = over_white) -> Pixels:
    """Lay pictures uint8 (…, C + 1) over a ground, and note it where alpha does anything."""
    if int(images[..., -1].min()) < 255:
        notes.append("alpha over white" if flatten is over_white else "alpha over what the ink stands out from")
    return flatten(images)


def _scaled(image: Image.Image, notes: list[str]) -> Pixels:
    """Scale 16-bit gray by its bit depth, 32-bit values by their range: uint8 (H, W, 1)."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise DataError("the picture holds NaN or infinite values", "they cannot be scaled", "write finite values")
    inverted = False
    if image.mode not in ("I", "F"):
        tags = getattr(image, "tag_v2", {})
        bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
        inverted = tags.get(_PHOTOMETRIC) == 0  # white is zero; Pillow turns this round for 8 bits only
        low, high = 0.0, float((1 << bits) - 1)
        notes.append(f"{bits} bits scaled to 8")
    else:
        if image.mode == "F" and low >= 0.0 and high <= 1.0:
            low, high = 0.0, 1.0
        notes.append(f"32-bit values from {low:g} to {high:g} scaled to 0–255")
    pixels = np.empty((*values.shape, 1), dtype=np.uint8)
    for row, line in enumerate(values):  # a row at a time: float64 of a large picture would fill the memory
        level = np.rint((line.astype(np.float64) - low) * (255.0 / max(high - low, 1e-300)))
        level = np.minimum(level, 255.0)
        pixels[row, :, 0] = 255.0 - level if inverted else level
    key = image.info.get("transparency")
    if image.mode.startswith("I;") and isinstance(key, int) and bool((values == key).any()):
        notes.append("alpha over white")
        pixels[values == key] = 255
    return pixels


def _palette(image: Image.Image) -> NDArray[np.int64]:
    return np.array(image.getpalette("RGB") or [0, 0, 0], dtype=np.int64).reshape(-1, 3)


def _is_gray(colours: NDArray[np.int64]) -> bool:
    return bool((colours == colours[:, :1]).all())


def _has_gray_palette(image: Image.Image) -> bool:
    palette = _palette(image)
    used = np.array(image.histogram()[:256]) > 0
    return _is_gray(palette[used[: len(palette)]])
