"""Pictures of digits (N, 28, 28) as people bring them: other colours, places, sizes, pens, papers, cameras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Style = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """Return the ink 0–1 (side, side) of a digit uint8 (28, 28): as drawn with a finer pen where it is larger."""
    image = Image.fromarray(digit)
    if side == 28:
        return np.asarray(image, np.float32) / 255
    large = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    sharp = min(max(side / 56, 1.0), 6.0)
    return np.clip((large - 0.5) * sharp + 0.5, 0, 1)


def cropped(ink: np.ndarray) -> np.ndarray:
    """Return ink without its margin."""
    rows, columns = np.flatnonzero((ink > 0.2).any(axis=1)), np.flatnonzero((ink > 0.2).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def placed(ink: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """Put ink somewhere into a picture of `side`."""
    canvas = np.zeros((side, side), np.float32)
    top, left = (int(random.integers(0, side - length + 1)) for length in ink.shape)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return canvas


def on_paper(ink: np.ndarray, paper: tuple[float, ...] = (255,), pen: tuple[float, ...] = (0,)) -> np.ndarray:
    """Return a picture uint8 (H, W, C) of ink in the pen's colour on paper."""
    levels = ink[..., None]
    return np.rint(levels * np.array(pen) + (1 - levels) * np.array(paper)).astype(np.uint8)


def black_on_white(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    return on_paper(enlarged(digit, side))


def off_centre(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    return on_paper(placed(cropped(enlarged(digit, side)), round(side * 1.4), random))


def small(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """The digit takes a quarter of the side (at 28 pixels, half of it: ten pixels)."""
    whole = max(side, 56) * 2
    return on_paper(placed(cropped(enlarged(digit, max(28, whole // 4))), whole, random))


def large(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    ink = cropped(enlarged(digit, side))
    return on_paper(np.pad(ink, max(1, side // 28)))


def tight(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    return on_paper(cropped(enlarged(digit, side)))


def thin(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """Drawn with a pen of one pixel along the middle of the strokes."""
    times = -(-112 // side)
    lines = thinned(enlarged(digit, side * times) > 0.4)
    return on_paper(lines.reshape(side, times, side, times).any(axis=(1, 3)).astype(np.float32))


def thick(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """Drawn with a pen 1.5 pixels (of 28) wider."""
    fine = Image.fromarray(np.rint(enlarged(digit, max(side, 112)) * 255).astype(np.uint8))
    more = max(1, round(fine.width * 0.75 / 28))
    fine = fine.filter(ImageFilter.MaxFilter(2 * more + 1)) if more < 8 else _grown(fine, more)
    ink = np.asarray(fine.resize((side, side), Image.Resampling.BOX), np.float32) / 255
    return on_paper(ink)


def coloured(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """A coloured pen on coloured paper, either of them the lighter."""
    light, dark = random.uniform(170, 255, 3), random.uniform(0, 90, 3)
    pair = (light, dark) if random.random() < 0.7 else (dark, light)
    return on_paper(enlarged(digit, side), *(tuple(colour) for colour in pair))


def canvas(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """An RGBA canvas as browsers give them: transparent but for the strokes, in any colour."""
    ink = enlarged(digit, side)
    picture = np.zeros((side, side, 4), np.uint8)
    picture[..., :3] = random.choice(np.array([(0, 0, 0), (255, 255, 255), (20, 60, 200), (250, 230, 60)]))
    picture[..., 3] = np.rint(ink * 255)
    return picture


def framed(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """In a printed box, with specks of dirt at the border."""
    whole = round(side * 1.3)
    ink = placed(enlarged(digit, side), whole, random)
    line, inset = max(1, whole // 60), max(1, whole // 40)
    for edge in (slice(inset, inset + line), slice(whole - inset - line, whole - inset)):
        ink[edge, inset : whole - inset] = 1
        ink[inset : whole - inset, edge] = 1
    for _ in range(3):
        at, speck = int(random.integers(0, whole - line)), max(1, line // 2)
        ink[at : at + speck, :speck] = 1
    return on_paper(ink)


def photographed(digit: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """A photograph: paper lit from one side, a shadow across it, a soft lens, noise."""
    whole = round(side * 1.25)
    ink = placed(enlarged(digit, side), whole, random)
    down, across = np.mgrid[0:whole, 0:whole] / whole - 0.5
    angle = random.uniform(0, 2 * np.pi, 2)
    light = 0.8 + 0.4 * (down * np.sin(angle[0]) + across * np.cos(angle[0]))
    edge = down * np.sin(angle[1]) + across * np.cos(angle[1]) - random.uniform(-0.2, 0.2)
    shade = 1 - random.uniform(0.3, 0.45) / (1 + np.exp(-edge * random.uniform(20, 80)))
    paper, pen = np.array([235, 228, 212]), np.array([45, 48, 70])
    levels = ink[..., None] * pen + (1 - ink[..., None]) * paper
    levels = levels * (light * shade)[..., None] + random.normal(0, 5, (whole, whole, 3))
    image = Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(whole / 300)))


def thinned(marks: np.ndarray) -> np.ndarray:
    """Return the lines of one pixel that marks (H, W) shrink to (Zhang and Suen 1984)."""
    marks = np.pad(marks, 1)
    while True:
        before = marks.copy()
        for first in (True, False):
            ring = [np.roll(marks, move, (0, 1)) for move in _RING]
            count = np.sum(ring, axis=0)
            turns = np.sum([~ring[i] & ring[(i + 1) % 8] for i in range(8)], axis=0)
            up, right, down, left = ring[0], ring[2], ring[4], ring[6]
            pairs = (up & right & down, right & down & left) if first else (up & right & left, up & down & left)
            marks = marks & ~((count >= 2) & (count <= 6) & (turns == 1) & ~pairs[0] & ~pairs[1])
        if np.array_equal(before, marks):
            return marks[1:-1, 1:-1]


def _grown(image: Image.Image, more: int) -> Image.Image:
    """Grow by a square of 2 · more + 1 pixels, in steps of 7: Pillow's filter slows down with its square."""
    for step in [3] * (more // 3) + ([more % 3] if more % 3 else []):
        image = image.filter(ImageFilter.MaxFilter(2 * step + 1))
    return image


# up, upper right, right, … : where a pixel is moved so that its neighbour there stands in its place
_RING = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))

STYLES: dict[str, Style] = {
    "black on white": black_on_white,
    "off-centre": off_centre,
    "small": small,
    "large": large,
    "cropped tight": tight,
    "thin (1 pixel)": thin,
    "thick": thick,
    "coloured paper": coloured,
    "RGBA canvas": canvas,
    "framed with specks": framed,
    "photograph": photographed,
}
