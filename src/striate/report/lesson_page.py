"""The page of `striate lesson`: one HTML file that needs nothing else, in two languages, whose scenes move."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from striate.lessons.lesson import Cell, Chart, Grid, Lesson, Part, Scene, number
from striate.report.canvas import SERIES
from striate.report.embed import embedded

TEMPLATE = Path(__file__).with_name("lesson.html")
CHART_WIDTH, CHART_HEIGHT = 560, 240  # in units of the drawing


def lesson_page(lesson: Lesson, language: str | None = None) -> str:
    """Return the page as HTML. It opens in `language`, or without one in the reader's.

    Its policy (CSP) allows the page's own style and script by their digests, and nothing from outside.
    """
    data: dict[str, Any] = {
        "name": lesson.name,
        "title": lesson.title,
        "about": lesson.about,
        "language": language or "",
        "parts": [_part(part) for part in lesson.parts],
        "scenes": _as_script([_scene(part.scene) for part in lesson.parts if part.scene is not None]),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(data)
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, re.S)
        assert content is not None
        page = page.replace(f"DIGEST-OF-{tag.upper()}", _digest(content[1]))
    return page


def _part(part: Part) -> dict[str, Any]:
    return {
        "key": part.key,
        "title": part.title,
        "says": part.says,
        "table": part.table,
        "scene": part.scene is not None,
        "moves": part.scene is not None and len(part.scene.frames) > 1,
        "left_out": part.scene.left_out if part.scene is not None else 0,
        "chart": None if part.chart is None else _chart(part.chart),
        "pictures": [
            {"title": picture.title, "does": picture.does, "note": picture.note, "address": embedded(picture.pixels)}
            for picture in part.pictures
        ],
    }


def _scene(scene: Scene) -> dict[str, Any]:
    """Return what the script needs; a cell is its number in its grid."""
    grids = {grid.key: grid for grid in scene.grids}

    def places(lit: Mapping[str, Sequence[Cell]]) -> dict[str, list[int]]:
        return {key: [_place(grids[key], cell) for cell in cells] for key, cells in lit.items() if cells}

    return {
        "grids": [
            {
                "key": grid.key,
                "title": grid.title,
                "role": grid.role,
                "group": grid.group,
                "shape": grid.cells.shape,
                "border": grid.border,
                "cells": [number(value) for value in grid.cells.ravel()],
                "shades": _shades(grid),
            }
            for grid in scene.grids
        ],
        "frames": [
            {
                "says": frame.says,
                "sums": frame.sums,
                "window": places(frame.window),
                "at": places(frame.at),
                "filled": frame.filled,
                "ends": frame.ends,
            }
            for frame in scene.frames
        ],
    }


def _place(grid: Grid, cell: Cell) -> int:
    _, rows, columns = grid.cells.shape
    return (cell[0] * rows + cell[1]) * columns + cell[2]


def _shades(grid: Grid) -> list[float]:
    """Return for each cell where it lies from the least to the largest, for grids too wide to show numbers."""
    low, high = float(grid.cells.min()), float(grid.cells.max())
    return [round((float(value) - low) / (high - low or 1.0), 2) for value in grid.cells.ravel()]


def _chart(chart: Chart) -> dict[str, Any]:
    """Return lines as points on a drawing whose upward axis is logarithmic."""
    values = [value for line in chart.lines.values() for value in line if value > 0]
    low, high = math.floor(math.log10(min(values))), max(1, math.ceil(math.log10(max(values))))
    first, last = chart.x[0], chart.x[-1]

    def across(x: float) -> float:
        return round((x - first) / ((last - first) or 1.0) * CHART_WIDTH, 1)

    def down(y: float) -> float:
        return round((high - math.log10(max(y, 10.0**low))) / (high - low) * CHART_HEIGHT, 1)

    step = max(1, (high - low) // 6)
    return {
        "across": chart.across,
        "up": chart.up,
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
        "levels": [(down(10.0**power), power) for power in range(high, low - 1, -step)],
        "ticks": [(across(x), number(x)) for x in chart.x],
        "lines": [
            {
                "name": name,
                "colour": SERIES[i % len(SERIES)],
                "dashes": "7 5" if i % 2 else "",  # lines that lie on each other are both seen
                "points": [(across(x), down(y)) for x, y in zip(chart.x, line)],
                "values": [f"{number(x)}: {number(y)}" for x, y in zip(chart.x, line)],
            }
            for i, (name, line) in enumerate(chart.lines.items())
        ],
    }


def _as_script(value: Any) -> str:
    """Return JSON that may stand between script tags: nothing in it can close them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode()
