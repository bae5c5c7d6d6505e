"""The sheet of `predict --show`: each picture beside what the net saw of it, with the steps between and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from striate.data.decode import decode
from striate.data.drawing import over_contrast
from striate.report import canvas

Pixels = NDArray[np.uint8]
Shown = tuple[str, Any, Sequence[Any]]  # a name, what was read, and the answers to it

PICTURES = 24
DIGITS = 40  # of one picture
SIDE = 196
_SMALL = 84
_WORDS = 430
_BOX = (217, 122, 43)
_LINE = 18


def seen_png(shown: Sequence[Shown]) -> bytes:
    """Draw up to 24 pictures, a row each: PNG bytes. Of a picture with several digits, each is shown."""
    rows = [(name, _whole(content, answers), list(answers)[:DIGITS]) for name, content, answers in shown[:PICTURES]]
    many = any(len(answers) > 1 for _, _, answers in rows)
    width = 20 + SIDE + 60 + (4 * (_SMALL + 16) + 20 if many else SIDE + 24 + _WORDS)
    heights = [_height(whole, answers) for _, whole, answers in rows]
    figure = canvas.new_figure(max(width, 600), 62 + sum(heights))
    top = canvas.heading(figure, "Your picture, and what the net saw of it") + 12
    for (name, whole, answers), height in zip(rows, heights, strict=True):
        canvas.write_at(figure, 20, top, canvas.shorten(name, width - 40, 10.5), 10.5)
        canvas.paste(figure, whole, 20 + (SIDE - whole.shape[1]) // 2, top + 24)
        canvas.write_at(figure, 20 + SIDE + 22, top + 24 + min(SIDE, whole.shape[0]) // 2 - 8, "→", 18)
        left = 20 + SIDE + 60
        if len(answers) > 1:
            _digits(figure, answers, left, top + 24)
        else:
            _one(figure, answers[0], left, top + 24)
        top += height
    return canvas.png(figure)


def _one(figure: Figure, answer: Any, left: int, top: int) -> None:
    tile = canvas.as_tile(answer.seen, SIDE)
    canvas.paste(figure, tile, left, top)
    words = left + SIDE + 24
    canvas.write_at(figure, words, top, canvas.shorten(_told(answer), _WORDS - 20, 12), 12)
    steps = answer.steps or ("nothing was done to it",)
    for number, step in enumerate(steps, 1):
        line = canvas.shorten(step, _WORDS - 20, 9.5)
        canvas.write_at(figure, words, top + 12 + _LINE * number, line, 9.5, color=canvas.FAINT_INK)


def _digits(figure: Figure, answers: Sequence[Any], left: int, top: int) -> None:
    for number, answer in enumerate(answers):
        across, down = left + number % 4 * (_SMALL + 16), top + number // 4 * (_SMALL + 34)
        canvas.paste(figure, canvas.as_tile(answer.seen, _SMALL), across, down)
        words = canvas.shorten(_told(answer), _SMALL + 14, 9)
        canvas.write_at(figure, across, down + _SMALL + 6, words, 9)


def _told(answer: Any) -> str:
    doubt = (" · rejected" if answer.rejected else "") + (" · unlike the training data" if answer.unlike else "")
    return f"{answer.label}  {canvas.percent(answer.probability)}{doubt}"


def _height(whole: Pixels, answers: Sequence[Any]) -> int:
    if len(answers) > 1:
        inner = -(-len(answers) // 4) * (_SMALL + 34)
    else:
        inner = max(SIDE, 30 + _LINE * len(answers[0].steps))
    return 24 + max(inner, whole.shape[0]) + 24


def _whole(content: Any, answers: Sequence[Any]) -> Pixels:
    """Return the picture as a tile, with a frame around each of several digits."""
    if hasattr(content, "seek"):
        content.seek(0)
    picture = decode(content, channels=3, flatten=over_contrast)
    tile = canvas.as_tile(picture, SIDE)
    if len(answers) < 2:
        return tile
    scale = tile.shape[1] / picture.shape[1]
    image = Image.fromarray(tile)
    for answer in answers:
        left, top, right, bottom = (round(side * scale) for side in answer.box)
        ImageDraw.Draw(image).rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=_BOX, width=2)
    return np.asarray(image)
