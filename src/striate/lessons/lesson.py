"""What a lesson is made of, as plain data: parts with sentences in two languages, tables, and scenes of grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int, int]  # channel, row, column, counted from 0
Values = NDArray[np.float64]
FORMAT = 1


class Text(NamedTuple):
    """One sentence in both languages."""

    en: str
    zh: str


NOTHING = Text("", "")


@dataclass(frozen=True)
class Grid:
    """Numbers (C, H, W) that a scene shows, each channel as a field of cells.

    `role` (input, weight, output) gives the colour. `border` counts the cells of padding: top, bottom, left, right.
    Of the grids that share a `group`, a frame shows those that it lights.
    """

    key: str
    title: Text
    cells: Values
    role: str = "input"
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: str = ""


@dataclass(frozen=True)
class Frame:
    """One moment of a scene.

    `sums` is what is worked out. `window` holds the lit cells of each grid, `at` those worked on right now, `filled`
    how many cells of a grid are known by now, counted in order; a grid not named there is known from the beginning.
    `ends` says that a step is finished here; the frames before it show its way.
    """

    says: Text
    sums: str = ""
    window: Mapping[str, Sequence[Cell]] = field(default_factory=dict)
    at: Mapping[str, Sequence[Cell]] = field(default_factory=dict)
    filled: Mapping[str, int] = field(default_factory=dict)
    ends: bool = True


@dataclass(frozen=True)
class Scene:
    """Grids, and the frames that fill them; `left_out` is how many steps more there would be."""

    grids: tuple[Grid, ...]
    frames: tuple[Frame, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Table:
    """Rows of texts; `right` names the columns that hold numbers."""

    columns: tuple[Text, ...]
    rows: tuple[tuple[str | Text, ...], ...]
    right: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines over the same places `x`; `y` values are drawn on a logarithmic axis."""

    across: Text
    up: Text
    x: tuple[float, ...]
    lines: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Picture:
    """Pixels uint8 (H, W, C) with a title, what was done to them, and the numbers that did it."""

    title: Text
    pixels: NDArray[np.uint8]
    does: Text = NOTHING
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A piece of a lesson: sentences, then whatever shows them; `numbers` is what a program wants of it."""

    key: str
    title: Text
    says: tuple[Text, ...]
    scene: Scene | None = None
    table: Table | None = None
    chart: Chart | None = None
    pictures: tuple[Picture, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """A lesson: its name, title, what it is about, and its parts."""

    name: str
    title: Text
    about: Text
    parts: tuple[Part, ...]

    def part(self, key: str) -> Part:
        """Return the part called `key`. Raises KeyError."""
        return {part.key: part for part in self.parts}[key]

    def to_json(self) -> dict[str, Any]:
        """Return the lesson as plain values; pictures are left out but for their titles."""
        parts = [_part_to_json(part) for part in self.parts]
        return {
            "format": FORMAT,
            "lesson": self.name,
            "title": self.title._asdict(),
            "about": self.about._asdict(),
            "parts": parts,
        }


def plain(values: Any) -> Any:
    """Return numbers and arrays as Python's own; a float that is a whole number becomes one."""
    if isinstance(values, np.ndarray):
        return plain(values.tolist())
    if isinstance(values, Text):
        return values._asdict()
    if isinstance(values, Mapping):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain(value) for value in values]
    value = values.item() if isinstance(values, np.generic) else values
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def number(value: float) -> str:
    """Write a number with at most four significant digits, a whole one with all, and a true minus sign."""
    value = float(value)
    whole = value.is_integer() and abs(value) < 1e12
    return (f"{int(value)}" if whole else f"{value:.4g}").replace("-", "−")


def factor(value: float) -> str:
    """Write a number as it stands in a product: a negative one in parentheses."""
    return f"({number(value)})" if value < 0 else number(value)


def shape(sides: Sequence[int]) -> str:
    """Write sides as 8×8×3."""
    return "×".join(f"{side}" for side in sides)


def size_text(sides: tuple[int, ...]) -> str:
    """Write (C, H, W) as a learner reads it: height × width × channels, without a single channel."""
    channels, height, width = sides
    return shape((height, width)) if channels == 1 else shape((height, width, channels))


def rows_text(values: Values) -> str:
    """Write a field (H, W) as it is typed: rows parted by semicolons."""
    return "; ".join(", ".join(number(value) for value in row) for row in values)


def _part_to_json(part: Part) -> dict[str, Any]:
    document: dict[str, Any] = {
        "key": part.key,
        "title": part.title._asdict(),
        "says": [text._asdict() for text in part.says],
        "numbers": plain(part.numbers),
    }
    if part.scene is not None:
        document["grids"] = [
            {"key": grid.key, "title": grid.title._asdict(), "cells": plain(grid.cells), "padding": list(grid.border)}
            for grid in part.scene.grids
        ]
        document["steps"] = [
            {"says": frame.says._asdict(), "sums": frame.sums} for frame in part.scene.frames if frame.ends
        ]
        document["steps_left_out"] = part.scene.left_out
    if part.table is not None:
        document["table"] = {
            "columns": [column._asdict() for column in part.table.columns],
            "rows": [[plain(cell) for cell in row] for row in part.table.rows],
        }
    if part.pictures:
        document["pictures"] = [
            {"title": picture.title._asdict(), "does": picture.does._asdict(), "note": picture.note}
            for picture in part.pictures
        ]
    return document
