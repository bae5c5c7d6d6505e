"""The pen's width: thick strokes become usual ones, and a brush's fine parts stay."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.data.strokes import draw

from striate.data import pen
from striate.data.ink import find_pieces
from striate.data.style import DrawingStyle, stroke_width

STYLE = DrawingStyle(0, 20, "mass", (0.5, 0.5), (1.2, 1.6, 2.4, 3.5, 7.4), (19, 20), 0.5, 1.0)


def width_of(ink: np.ndarray) -> float:
    return float(stroke_width(ink[None])[0]) * 20 / max(ink.shape)


def cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero((ink > 0.1).any(axis=1)), np.flatnonzero((ink > 0.1).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def brushed(digit: int, *hairs: tuple[int, int, int, int]) -> np.ndarray:
    """A digit drawn with a broad brush, and lines as fine as a hair."""
    image = Image.new("L", (280, 280))
    image.paste(draw(digit, 280, 0.25, ink=255, paper=0, mode="L"))
    for hair in hairs:
        ImageDraw.Draw(image).line(hair, 255, 3)
    return cropped(np.asarray(image, np.float32) / 255)


@pytest.mark.parametrize("digit", range(10))
@pytest.mark.parametrize("side", [112, 280, 900])
def test_thick_strokes_become_usual_ones(digit: int, side: int) -> None:
    ink = cropped(1 - np.asarray(draw(digit, side, 0.22, mode="L"), np.float32) / 255)
    thin, told = pen.thinned(ink, STYLE, 20)
    before, after = (
        float(number) for number in told[0].removeprefix("thinned from ").removesuffix(" pixels").split(" to ")
    )
    assert STYLE.strokes[3] < before and abs(before - width_of(ink)) < 0.06 and abs(after - width_of(thin)) < 0.06
    assert STYLE.strokes[1] < after < STYLE.strokes[3]
    again, nothing = pen.thinned(thin, STYLE, 20)
    assert again is thin and nothing == []


@pytest.mark.parametrize("digit", [0, 2, 6, 8])
def test_the_fine_parts_of_a_brush_stay(digit: int) -> None:
    broad, told = pen.thinned(brushed(digit), STYLE, 20)
    assert told and max(broad.shape) < 150
    ink = brushed(digit, (140, 60, 276, 4), (140, 200, 20, 270))
    assert width_of(ink) > STYLE.strokes[3]
    thin, _ = pen.thinned(ink, STYLE, 20)
    assert len(find_pieces(thin > 0.5).areas) == 1
    corners = (thin[: len(thin) // 6, -thin.shape[1] // 6 :], thin[-len(thin) // 6 :, : thin.shape[1] // 6])
    assert all((corner > 0.5).any() for corner in corners)


def test_what_hangs_by_a_hair_does_not_break_off() -> None:
    ink = np.zeros((280, 280), np.float32)
    ink[:, :70] = ink[:, -70:] = 1
    ink[138:142] = 1
    thin, _ = pen.thinned(ink, STYLE, 20)
    assert len(find_pieces(thin > 0.5).areas) == 1
    assert len(find_pieces(-pen._grown(-np.pad(ink, 1), 8) > 0.5).areas) == 2


def test_a_blot_and_usual_strokes_stay_as_they_are() -> None:
    for ink in (
        np.ones((80, 80), np.float32),
        np.ones((3, 80), np.float32),
        brushed(0)[:1],
        np.ones((1, 1), np.float32),
    ):
        same, told = pen.thinned(ink, STYLE, 20)
        assert same is ink and told == []


def test_large_nets_do_not_make_it_slow() -> None:
    """Strokes are worked on at 400 pixels at most, whatever the net's box."""
    style = DrawingStyle(0, 250, "box", (0.0, 0.0), (2, 4, 8, 20, 60), (240, 250), 0.5, 1.0)
    ink = cropped(1 - np.asarray(draw(8, 1000, 0.22, mode="L"), np.float32) / 255)
    thin, told = pen.thinned(ink, style, 250)
    assert told and max(thin.shape) <= 400 and len(find_pieces(thin > 0.5).areas) == 1
    thick, told = pen.thickened(cropped(1 - np.asarray(draw(8, 1000, 0.004, mode="L"), np.float32) / 255), style, 250)
    assert told and max(thick.shape) <= 450
