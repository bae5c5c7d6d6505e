"""Small pictures for a page of bounded size, as data addresses."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.report.embed import data_address

SIDE = 96  # pixels: as large as a page shows them; smaller ones are enlarged by the browser, pixel by pixel
_LOSSLESS_SIDE = 40  # under it each pixel is seen, and PNG costs little


def thumbnail(pixels: NDArray[np.uint8], side: int = SIDE) -> str:
    """Return a picture uint8 (H, W, C) as the data address of a PNG or JPEG of at most `side` pixels."""
    channels = pixels.shape[2]
    if channels not in (1, 3):  # two or more channels that are no colours: their mean
        pixels, channels = pixels.mean(2, keepdims=True).astype(np.uint8), 1
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    if max(image.size) <= _LOSSLESS_SIDE and channels == 1:
        image.save(stream, "PNG", optimize=True)
        return data_address(stream.getvalue(), "png")
    image.save(stream, "JPEG", quality=88 if max(image.size) <= _LOSSLESS_SIDE else 80)
    return data_address(stream.getvalue(), "jpeg")


def heated(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a picture uint8 (H, W, C) in gray with heat (H, W) of 0 … 1 laid over it in orange, uint8 (H, W, 3)."""
    gray = pixels.astype(np.float32).mean(2, keepdims=True).repeat(3, 2)
    share = 0.75 * heat[..., None]
    return (gray * (1 - share) + np.array((255.0, 120.0, 20.0), np.float32) * share).round().astype(np.uint8)
