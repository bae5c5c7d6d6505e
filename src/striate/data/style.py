"""DrawingStyle: how the training pictures of a net for drawings look; decided and measured on them alone.

A pure function of the train pictures says whether they are drawings (gray strokes on an even ground, each in its place)
and how they were placed. `data/drawing.py` brings pictures of one's own to this style.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.disk import in_pieces
from striate.errors import UsageError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

CENTRINGS = ("mass", "box")
GROUNDS = (0, 255)

# What makes drawings of pictures (docs/drawing.md has what named data sets measure). The ground fills this share …
_LEAST_GROUND = 0.35
# … at most this share of the ink lies in strokes as wide as a quarter of the box (MNIST 0.09, Fashion-MNIST 0.68) …
_MOST_SOLID = 0.35
# … and of all pictures the middle of the ink stays this near to one place, as a share of the side.
_MOST_WANDERING = 0.06
_LEAST_SIDE, _MOST_SIDE = 8, 256
_LEAST_PICTURES = 20
_MEASURED = 10_000
_PIECE = 8 << 20  # bytes of pictures that are looked at together: 10,000 of MNIST's
# Ink above this share of full ink counts for boxes.
INK = 0.1
# Strokes may be thinner and thicker by this share, boxes by a pixel, places by this part of one: unseen pictures go a
# little beyond the seen.
_SLACK = 0.1


@dataclass(frozen=True)
class DrawingStyle:
    """How a net's training pictures are drawn, as plain data.

    `ground`: 0 for light ink on black, 255 for dark ink on white. `box`: pixels of the longer side of the ink.
    `centring`: `mass` or `box`, what of the ink lies at `centre` (down, across), in pixels from the picture's middle.
    `strokes` (least, thin, usual, thick, most): widths in pixels, the ends and the 5, 50 and 95 % points. `boxes` and
    `offsets`: the least and most of the box, and how far from `centre` the ink lies at most. Raises UsageError for
    values that cannot be. `peak`: the least that the darkest ink of a picture has, 0–1.
    """

    ground: int
    box: int
    centring: str
    centre: tuple[float, float]
    strokes: tuple[float, float, float, float, float]
    boxes: tuple[int, int]
    offset: float
    peak: float = 0.0

    def __post_init__(self) -> None:
        numbers = (*self.centre, *self.strokes, self.offset, self.peak)
        if self.ground not in GROUNDS or self.centring not in CENTRINGS:
            raise UsageError(
                f"a drawing has ground {self.ground!r} and centring {self.centring!r}", "0 or 255, mass or box"
            )
        if not all(type(side) is int and 1 <= side <= 4096 for side in (self.box, *self.boxes)):
            raise UsageError(f"a drawing has box {self.box!r} of {self.boxes!r}", "expected whole pixels")
        if not all(
            isinstance(number, (int, float)) and math.isfinite(number) and abs(number) < 1e4 for number in numbers
        ):
            raise UsageError("a drawing has measures that are no finite numbers", repr(numbers)[:200])
        if list(self.strokes) != sorted(self.strokes) or self.strokes[0] <= 0 or self.offset < 0:
            raise UsageError(f"a drawing has strokes {self.strokes} and offset {self.offset}", "expected rising widths")

    def holds(self, picture: Pixels) -> bool:
        """Say whether a picture uint8 (H, W, 1) at the net's size looks as the training pictures do."""
        return bool(self.holds_each(picture[None])[0])

    def holds_each(self, pictures: Pixels) -> NDArray[np.bool_]:
        """Say of each picture of uint8 (N, H, W, 1) at the net's size whether it looks as the training pictures do."""
        ink = as_ink(pictures[..., 0], self.ground)
        rim = np.sort(_rim(ink), axis=1)
        middle = rim.shape[1] // 2
        median = (rim[:, (rim.shape[1] - 1) // 2] + rim[:, middle]) / 2  # at a third of np.median's time
        found = _Measures.of(ink)
        low, high = self.strokes[0] * (1 - _SLACK), self.strokes[-1] * (1 + _SLACK)
        off = np.abs(getattr(found, self.centring) - np.asarray(self.centre, np.float32)).max(axis=1)
        held: NDArray[np.bool_] = (median <= INK) & (ink.max(axis=(1, 2)) >= self.peak * (1 - _SLACK))
        held &= (low <= found.strokes) & (found.strokes <= high)
        held &= (self.boxes[0] - 1 <= found.sides) & (found.sides <= self.boxes[1] + 1)
        return held & (off <= self.offset + _SLACK)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for model.json."""
        return {
            "ground": self.ground,
            "box": self.box,
            "centring": self.centring,
            "centre": list(self.centre),
            "strokes": list(self.strokes),
            "boxes": list(self.boxes),
            "offset": self.offset,
            "peak": self.peak,
        }

    @classmethod
    def from_json(cls, data: Any) -> DrawingStyle:
        """Build it from what `to_json` gave. Raises UsageError naming what is wrong."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(data, Mapping) or names - {"peak"} - set(data) or set(data) - names:
            raise UsageError("drawing has not the fields that this striate writes", ", ".join(sorted(names)))
        lengths = {"centre": 2, "strokes": 5, "boxes": 2}
        for name, length in lengths.items():
            if not isinstance(data[name], (list, tuple)) or len(data[name]) != length:
                raise UsageError(f"drawing.{name} is no list of {length} numbers")
        values: dict[str, Any] = {name: tuple(data[name]) if name in lengths else data[name] for name in data}
        return cls(**values)


def measure_style(images: Pixels, chosen: NDArray[np.int64]) -> DrawingStyle | None:
    """Decide whether train pictures, the `chosen` of uint8 (N, H, W, C), are drawings, and measure how they are drawn.

    None where they are not: in colour, without an even ground, filled and not drawn in strokes, or without a place.
    Of many pictures 10,000 are looked at, always the same ones.
    """
    count = len(chosen)
    _, height, width, channels = images.shape
    if (
        channels != 1
        or count < _LEAST_PICTURES
        or not _LEAST_SIDE <= min(height, width) <= max(height, width) <= _MOST_SIDE
    ):
        return None
    if count > _MEASURED:  # at random: in MNIST every other picture is of other writers
        chosen = chosen[np.sort(np.random.default_rng(0).choice(count, _MEASURED, replace=False))]
    ground = 255 if _median(images, chosen) > 127 else 0
    inks = partial(_inks, images, chosen, ground)
    looked = [(_Measures.of(ink), _rim(ink), int((ink < INK).sum()), ink.max(axis=(1, 2))) for ink in inks()]
    bare = sum(part[2] for part in looked) / (len(chosen) * height * width)
    if bare < _LEAST_GROUND or float(np.median(np.concatenate([part[1] for part in looked]))) > INK:
        return None
    found = _Measures.joined([part[0] for part in looked])
    drawn = found.sides > 0
    if not drawn.any():
        return None
    box = round(float(np.median(found.sides)))
    spreads = {name: np.nanstd(getattr(found, name), axis=0).max() for name in CENTRINGS}
    if min(spreads.values()) > _MOST_WANDERING * min(height, width) or _solid(inks(), box) > _MOST_SOLID:
        return None
    centring = min(CENTRINGS, key=lambda name: spreads[name])
    places = getattr(found, centring)
    places = places[~np.isnan(places).any(axis=1)]
    strokes, sides = found.strokes[drawn], found.sides[drawn]
    centre = places.mean(axis=0)
    return DrawingStyle(
        ground=ground,
        box=box,
        centring=centring,
        centre=(round(float(centre[0]), 3), round(float(centre[1]), 3)),
        strokes=tuple(round(float(part), 3) for part in np.quantile(strokes, (0, 0.05, 0.5, 0.95, 1))),  # type: ignore[arg-type]
        boxes=(int(sides.min()), int(sides.max())),
        offset=round(float(np.abs(places - centre).max()), 3),
        peak=round(float(np.concatenate([part[3] for part in looked])[drawn].min()), 3),
    )


def _median(images: Pixels, chosen: NDArray[np.int64]) -> float:
    """Return the median of all pixels of the `chosen` pictures."""
    counts = np.zeros(256, dtype=np.int64)
    for some in in_pieces(images, chosen, _PIECE):
        counts += np.bincount(some.reshape(-1), minlength=256)
    total, sums = int(counts.sum()), counts.cumsum()
    middle = [int(np.searchsorted(sums, place, side="right")) for place in ((total - 1) // 2, total // 2)]
    return sum(middle) / 2


def _inks(images: Pixels, chosen: NDArray[np.int64], ground: int) -> Iterator[Floats]:
    """Yield the ink (n, H, W) of the `chosen` pictures, some at a time: large ones would fill the memory."""
    return (as_ink(some[..., 0], ground) for some in in_pieces(images, chosen, _PIECE))


def as_ink(images: Pixels, ground: int) -> Floats:
    """Return how much ink each pixel of (N, H, W) has, float32 0–1."""
    return (images if ground == 0 else 255 - images).astype(np.float32) * np.float32(1 / 255)


def stroke_width(ink: Floats) -> Floats:
    """Return the mean width of the strokes in pixels of (N, H, W): twice the area by the length of the edges.

    The length is the total variation, so that gray edges count as what they cover.
    """
    count, height, width = ink.shape
    padded = np.zeros((count, height + 2, width + 2), ink.dtype)
    padded[:, 1:-1, 1:-1] = ink
    down = padded[:, 1:, :-1] - padded[:, :-1, :-1]  # (N, H + 1, W + 1)
    across = padded[:, :-1, 1:] - padded[:, :-1, :-1]
    length = np.sqrt(down * down + across * across).sum(axis=(1, 2))
    return 2 * ink.sum(axis=(1, 2)) / np.maximum(length, np.float32(1e-6))


@dataclass(frozen=True)
class _Measures:
    """Of pictures (N, H, W): stroke widths (N,), longer sides of the ink (N,), middles by mass and by box (N, 2)."""

    strokes: Floats
    sides: NDArray[np.int64]
    mass: Floats
    box: Floats

    @classmethod
    def of(cls, ink: Floats) -> _Measures:
        _, height, width = ink.shape
        total = ink.sum(axis=(1, 2))
        down = np.arange(height, dtype=np.float32) + 0.5 - height / 2
        across = np.arange(width, dtype=np.float32) + 0.5 - width / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            mass = np.stack([ink.sum(axis=2) @ down / total, ink.sum(axis=1) @ across / total], axis=1)
        marked: NDArray[np.bool_] = ink > INK
        top, bottom = _ends(np.any(marked, axis=2))
        left, right = _ends(np.any(marked, axis=1))
        middles = np.stack([(top + bottom - height) / 2, (left + right - width) / 2], axis=1).astype(np.float32)
        return cls(stroke_width(ink), np.maximum(bottom - top, right - left), mass, middles)

    @classmethod
    def joined(cls, parts: Sequence[_Measures]) -> _Measures:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def _ends(marked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each row of (N, L) has its first mark and the end of its last; 0 and 0 where it has none."""
    some = marked.any(axis=1)
    last = np.where(some, marked.shape[1] - marked[:, ::-1].argmax(axis=1), 0)
    return marked.argmax(axis=1), last


def _rim(ink: Floats) -> Floats:
    """Return the outermost pixels of (N, H, W) as (N, …)."""
    return np.concatenate([ink[:, 0], ink[:, -1], ink[:, 1:-1, 0], ink[:, 1:-1, -1]], axis=1)


def _solid(inks: Iterable[Floats], box: int) -> float:
    """Return the share of the ink that lies in squares of ink a quarter of the box wide (an opening)."""
    kept = all_of_it = 0
    side = round(box / 4) | 1
    for ink in inks:
        marked = ink > 0.25
        kept += int(_grown(~_grown(~marked, side, outside=True), side, outside=False).sum())
        all_of_it += int(marked.sum())
    return kept / max(1, all_of_it)


def _grown(marked: NDArray[np.bool_], side: int, *, outside: bool) -> NDArray[np.bool_]:
    """Grow the marks of (N, H, W) by a square of `side` pixels."""
    half = side // 2
    for axis in (1, 2):
        widths = [(half, half) if axis == current else (0, 0) for current in range(3)]
        padded = np.pad(marked, widths, constant_values=outside)
        length = marked.shape[axis]
        marked = np.logical_or.reduce([padded.take(range(at, at + length), axis=axis) for at in range(side)])
    return marked
