"""The preview sheet: what size and fit make of pictures of all shapes, each above what the net sees of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from striate.data.decode import decode
from striate.data.doctor import Checkup
from striate.data.geometry import spread
from striate.data.loading import Header
from striate.errors import DataError
from striate.report import canvas

Pixels = NDArray[np.uint8]

SIDE = 150  # pixels of a picture on the sheet
PICTURES = 12
_COLUMNS = 6
_FRAME = (217, 122, 43)  # the sheet's orange


def preview_png(checkup: Checkup, max_pixels: int) -> bytes:
    """Draw up to twelve pictures, from the widest to the narrowest, each above what the net sees: PNG bytes.

    The files are read again, so the source must be open. Where the fit is `crop` a frame shows what is kept.
    """
    rows = {int(record): row for row, record in enumerate(checkup.loaded.good)}
    chosen = [index for index in spread(checkup.headers, PICTURES) if index in rows]
    wholes, seen, names = [], [], []
    for index in chosen:
        record = checkup.source.records[index]
        try:
            whole = decode(record.place.read(), channels=3, target=(SIDE, SIDE), max_pixels=max_pixels)
        except DataError:  # it was there a moment ago
            continue
        tile = canvas.as_tile(whole, SIDE)
        header = checkup.headers[index]
        assert isinstance(header, Header)
        wholes.append(_framed(tile, checkup.geometry.size) if checkup.geometry.fit == "crop" else tile)
        seen.append(canvas.as_tile(checkup.loaded.images[rows[index]], SIDE))
        names.append(f"{record.label}  {header.width}×{header.height}")
    return _sheet(wholes, seen, names, checkup.geometry.reasons)


def _framed(tile: Pixels, size: tuple[int, int]) -> Pixels:
    """Draw a frame around the part of a picture that cropping to the shape of `size` keeps."""
    height, width = tile.shape[:2]
    kept_height = min(height, width * size[0] / size[1])
    kept_width = min(width, height * size[1] / size[0])
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    image = Image.fromarray(tile)
    right, bottom = max(left, left + kept_width - 1), max(top, top + kept_height - 1)
    box = (round(left), round(top), round(right), round(bottom))
    ImageDraw.Draw(image).rectangle(box, outline=_FRAME, width=2)
    return np.asarray(image)


def _sheet(wholes: Sequence[Pixels], seen: Sequence[Pixels], names: Sequence[str], reasons: Sequence[str]) -> bytes:
    cell = SIDE + 18
    lines = -(-len(wholes) // _COLUMNS)
    line_height = SIDE + max(tile.shape[0] for tile in seen) + 50 if seen else 0
    figure = canvas.new_figure(_COLUMNS * cell + 24, 66 + 18 * len(reasons) + lines * line_height)
    top = canvas.heading(figure, "Pictures from the widest to the narrowest, and below each what the net sees")
    for number, reason in enumerate(reasons):
        canvas.write_at(figure, 20, top + 18 * number, reason, 9.5, color=canvas.FAINT_INK)
    top += 18 * len(reasons) + 12
    for index, (whole, small) in enumerate(zip(wholes, seen, strict=True)):
        left, upper = 12 + index % _COLUMNS * cell, top + index // _COLUMNS * line_height
        middle = left + cell / 2
        canvas.paste(figure, whole, left + (cell - whole.shape[1]) // 2, upper + SIDE - whole.shape[0])
        canvas.paste(figure, small, left + (cell - small.shape[1]) // 2, upper + SIDE + 10)
        words = canvas.shorten(names[index], cell - 8, 9)
        canvas.write_at(figure, middle, upper + SIDE + small.shape[0] + 18, words, 9, ha="center")
    return canvas.png(figure)
