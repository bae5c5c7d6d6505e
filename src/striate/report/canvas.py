"""What the pictures share: colours, figures measured in pixels, texts that fit, and PNG bytes.

Figures are made without pyplot, so there is no global state: they work in threads and without a screen.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray
from PIL import Image

from striate.errors import DataError
from striate.files import write_bytes
from striate.report.font import dress

Pixels = NDArray[np.uint8]

DPI = 100
INK, FAINT_INK, LINES, PAPER = "#2b3038", "#717884", "#e4e7ec", "#ffffff"
BLUE, ORANGE, PALE_BLUE, RED = "#2f6ca3", "#d97a2b", "#b9cfe3", "#b5483f"
# Okabe and Ito's colours, which people who do not see red and green apart can tell, without the yellow
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5c6370")
STROKES = ("-", "--", ":")


def new_figure(width: int, height: int) -> Figure:
    """Return an empty white figure of so many pixels."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place given in pixels from the upper left corner."""
    whole_width, whole_height = figure.get_size_inches() * DPI
    bottom = whole_height - top - height
    return figure.add_axes(
        (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height), facecolor=PAPER
    )


def plain(axes: Axes, across: str = "", up: str = "", title: str = "") -> None:
    """Give axes the common look: thin lines, names at the axes, the title at the left."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b8bec8")
        spine.set_linewidth(0.8)
    axes.tick_params(which="both", labelsize=9.5, colors=FAINT_INK, labelcolor=INK, length=3, width=0.8)
    axes.grid(True, color=LINES, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(across, fontsize=10.5, color=INK, labelpad=6)
    axes.set_ylabel(up, fontsize=10.5, color=INK, labelpad=6)
    # a given height spares matplotlib the search for one, which lays out all tick labels twice
    axes.set_title(title, loc="left", fontsize=11.5, color=INK, pad=10, fontweight="normal", y=1.0)


def chart_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes whose names stand at fixed distances, which is quicker than measuring all tick labels for them."""
    axes = axes_at(figure, left, top, width, height)
    axes.xaxis.set_label_coords(0.5, -30 / height)
    axes.yaxis.set_label_coords(-46 / width, 0.5)
    return axes


def legend(axes: Axes, **options: Any) -> None:
    """Draw the legend in the common look, if anything has a label."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=INK, **options)


def write_at(figure: Figure, left: float, top: float, words: str, size: float = 9.5, **options: Any) -> None:
    """Write words at a place given in pixels from the upper left corner; `top` is the upper edge of capital letters.

    Set by the base line, which is the same for all words: their boxes are not equally high.
    """
    height = figure.get_size_inches()[1] * DPI
    look: dict[str, Any] = {"color": INK, "va": "baseline"} | options
    base = round(top + 0.76 * size * DPI / 72)  # DejaVu's capitals are 0.73 em high
    figure.text(left, height - base, words, fontsize=size, transform=IdentityTransform(), **look)


def heading(figure: Figure, title: str, left: float = 20) -> int:
    """Write the picture's title and return the pixels that it takes from the top, 0 without one."""
    if not title:
        return 0
    width = figure.get_size_inches()[0] * DPI
    write_at(figure, left, 18, shorten(title, width - left - 16, 13), 13)
    return 50


def png(figure: Figure) -> bytes:
    """Draw a figure to PNG bytes: the same bytes for the same figure, with no date and no program's name in them."""
    dress(figure)
    stream = io.BytesIO()
    # print_png and not savefig: the user's savefig settings (tight boxes, another dpi) would move every pixel
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.print_png(stream, metadata={"Software": None}, pil_kwargs={"compress_level": 2})
    return stream.getvalue()


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    write_bytes(Path(path), png(figure))


def text_width(text: str, size: float) -> float:
    """Estimate the width of a text in pixels from classes of characters; `size` in points."""
    em = size * DPI / 72
    return em * sum(_character_width(character) for character in text)


def shorten(text: str, width: float, size: float) -> str:
    """Return the text on one line, cut with `…` where it would be wider than so many pixels."""
    text = " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def percent(fraction: float) -> str:
    """Write a fraction as a percentage with one decimal; what rounds to 0 or 100 without being it says so."""
    if not np.isfinite(fraction):
        return "–"
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    if 0.9995 <= fraction < 1:
        return ">99.9 %"
    return f"{100 * fraction:.1f} %"


def as_tile(image: Pixels, side: int) -> Pixels:
    """Turn a picture uint8 `(H, W, C)` or `(H, W)` into RGB pixels whose longer side is about `side`.

    A small picture is enlarged by a whole number, so that its pixels can be seen; one larger than `side` is reduced.
    One channel is gray, of four or more the first three are shown, of two their mean.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise DataError(f"a picture of {image.dtype} and shape {image.shape} cannot be drawn", "uint8 (H, W, C) is")
    if image.shape[2] == 2:
        image = image.mean(axis=2, keepdims=True).astype(np.uint8)
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]
    height, width = rgb.shape[:2]
    longer = max(height, width)
    if longer > side:
        size = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
        return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.BILINEAR))
    times = max(1, side // longer)
    return rgb.repeat(times, axis=0).repeat(times, axis=1)


def paste(figure: Figure, tile: Pixels, left: int, top: int) -> None:
    """Put RGB pixels on the figure unchanged, one to one, at pixels from the upper left corner."""
    height = round(figure.get_size_inches()[1] * DPI)
    figure.figimage(tile, xo=left, yo=height - top - tile.shape[0], origin="upper")


def tiles(figure: Figure, pictures: Sequence[Pixels], left: int, top: int, cell: tuple[int, int], columns: int) -> None:
    """Put pictures row by row into cells of (width, height) pixels, each in the middle of its cell's upper part.

    One array is pasted for all of them: hundreds of axes would take seconds.
    """
    width, height = cell
    tallest = max(tile.shape[0] for tile in pictures)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(pictures):
        y = index // columns * height + (tallest - tile.shape[0])
        x = index % columns * width + (width - tile.shape[1]) // 2
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    paste(figure, sheet, left, top)


def grid_columns(count: int) -> int:
    """Choose the columns of a grid a little wider than high, with as few empty cells as can be."""
    if count <= 5:
        return count
    ideal = (1.5 * count) ** 0.5
    candidates = range(max(2, int(ideal * 0.75)), int(ideal * 1.35) + 2)
    return min(candidates, key=lambda columns: (-count % columns, abs(columns - ideal)))


def numbers(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """Return a column of rows as floats; what is absent, empty or no number becomes NaN and is not drawn."""
    column = np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        value = row.get(key)
        if value is not None and str(value).strip():
            column[index] = float(value)
    column[~np.isfinite(column)] = np.nan
    return column


def _character_width(character: str) -> float:
    """Return the width in em, rounded up a little from DejaVu Sans's own."""
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if unicodedata.combining(character):
        return 0.0
    if character in " .,:;|!'ijlIt[]()/":
        return 0.4
    if character in "mwMW%@—→…":
        return 1.0
    return 0.74 if character.isupper() else 0.64
