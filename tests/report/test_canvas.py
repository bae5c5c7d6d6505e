"""Pictures as pixels, texts that fit, tables read as numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.textpath import TextPath
from PIL import Image

from striate.errors import DataError
from striate.report import canvas


def pixels(content: bytes) -> np.ndarray:
    """PNG bytes as RGB pixels."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_small_gray_picture_is_enlarged_by_a_whole_number() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1) * 20
    tile = canvas.as_tile(image, 15)
    assert tile.shape == (9, 12, 3)
    np.testing.assert_array_equal(tile[1::3, 1::3], np.repeat(image, 3, axis=2))
    np.testing.assert_array_equal(canvas.as_tile(image[:, :, 0], 15), tile)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (8, 8, 1), (28, 28, 3), (30, 700, 3), (700, 3, 4), (5, 6, 2), (200, 200, 7)]
)
def test_a_picture_of_any_size_becomes_rgb_no_larger_than_asked(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tile = canvas.as_tile(image, 100)
    assert tile.dtype == np.uint8 and tile.shape[2] == 3
    assert 50 < max(tile.shape[:2]) <= 100
    assert min(tile.shape) >= 1


@pytest.mark.parametrize("image", [np.zeros((4, 4, 1)), np.zeros((0, 4, 1), np.uint8), np.zeros(4, np.uint8)])
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="cannot be drawn"):
        canvas.as_tile(image, 100)


def test_pasted_pixels_arrive_unchanged_at_their_place() -> None:
    tile = np.random.default_rng(1).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    figure = canvas.new_figure(101, 77)
    canvas.paste(figure, tile, 13, 22)
    drawn = pixels(canvas.png(figure))
    assert drawn.shape == (77, 101, 3)
    np.testing.assert_array_equal(drawn[22:62, 13:44], tile)
    drawn = drawn.copy()
    drawn[22:62, 13:44] = 255
    assert (drawn == 255).all()


def test_png_bytes_carry_no_date_and_no_program() -> None:
    content = canvas.png(canvas.new_figure(20, 20))
    assert set(Image.open(io.BytesIO(content)).info) <= {"dpi"}


@given(st.text(max_size=60), st.floats(10, 400))
def test_shortened_text_fits_on_one_line(text: str, width: float) -> None:
    short = canvas.shorten(text, width, 9.5)
    assert "\n" not in short and short.isprintable()
    assert canvas.text_width(short, 9.5) <= max(width, canvas.text_width("…", 9.5))


def test_shorten_keeps_what_fits() -> None:
    assert canvas.shorten("T-shirt/top", 112, 9.5) == "T-shirt/top"
    assert canvas.shorten("two\nlines", 112, 9.5) == "two lines"
    assert canvas.shorten("连衣裙" * 20, 112, 9.5).endswith("…")


@pytest.mark.parametrize("text", ["airplane", "T-shirt/top", "0123456789", "WWWWWW", "automobile → truck", "illicit"])
def test_the_estimated_width_is_not_below_the_fonts_own(text: str) -> None:
    true_width = TextPath((0, 0), text, size=10, prop="DejaVu Sans").get_extents().width * canvas.DPI / 72
    assert true_width <= canvas.text_width(text, 10) * 1.02 <= true_width * 1.6


@pytest.mark.parametrize(
    ("fraction", "words"),
    [(0.0, "0.0 %"), (1e-6, "<0.1 %"), (0.5, "50.0 %"), (0.99951, ">99.9 %"), (1.0, "100.0 %"), (float("nan"), "–")],
)
def test_percent_claims_no_certainty_by_rounding(fraction: float, words: str) -> None:
    assert canvas.percent(fraction) == words


@given(st.integers(1, 400))
def test_a_grid_is_not_much_wider_than_high_and_leaves_no_row_empty(count: int) -> None:
    columns = canvas.grid_columns(count)
    rows = -(-count // columns)
    assert 1 <= columns <= count
    assert (rows - 1) * columns < count <= rows * columns
    assert count <= 5 or 0.6 <= columns / rows <= 4


def test_nine_pictures_make_a_square() -> None:
    assert canvas.grid_columns(9) == 3


def test_numbers_reads_text_and_leaves_gaps() -> None:
    rows = [{"a": "1.5"}, {"a": ""}, {}, {"a": None}, {"a": "inf"}, {"a": 2}]
    np.testing.assert_array_equal(canvas.numbers(rows, "a"), [1.5, np.nan, np.nan, np.nan, np.nan, 2])
