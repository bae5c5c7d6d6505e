"""Line charts and reliability diagrams as SVG that lies in a page: its colours and language are the page's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44
MOST_POINTS = 400  # more cannot be told apart on so few pixels
LOG_FROM = 10.0  # a loss that spans so large a factor gets a logarithmic axis

Label = tuple[str, str]  # English, Chinese


@dataclass(frozen=True)
class Series:
    """One line: points (x, y), a label in both languages, and the class that gives its colour (s0, s1 …)."""

    points: Sequence[tuple[float, float]]
    label: Label
    look: str


def line_chart(series: Sequence[Series], x: Label, y: Label, *, percent: bool = False, alt: str = "") -> str:
    """Return a chart of all series on common axes, with a legend below; "" where no point is finite.

    `percent`: y is a fraction and is shown as per cent. A y axis is logarithmic where positive values span a factor of
    ten. Long series are reduced to means of neighbouring points.
    """
    drawn = [Series(_thinned(one.points), one.label, one.look) for one in series]
    points = [point for one in drawn for point in one.points]
    if not points:
        return ""
    ys = [value for _, value in points]
    log = not percent and min(ys) > 0 and max(ys) / min(ys) >= LOG_FROM
    axis_x = _Axis(*_padded(min(p[0] for p in points), max(p[0] for p in points), 0.0), LEFT, WIDTH - RIGHT)
    if log:
        axis_y = _Axis(math.log10(min(ys)), math.log10(max(ys)), HEIGHT - BOTTOM, TOP)
    else:
        axis_y = _Axis(*_padded(min(ys), max(ys), 0.05), HEIGHT - BOTTOM, TOP)
    parts = [_frame(axis_x, axis_y, x, y, percent=percent, log=log)]
    for one in drawn:
        path = " ".join(f"{axis_x.at(px):.1f},{axis_y.at(math.log10(py) if log else py):.1f}" for px, py in one.points)
        if len(one.points) == 1:
            cx, cy = path.split(",")
            parts.append(f'<circle class="{one.look}" cx="{cx}" cy="{cy}" r="4"/>')
        elif one.points:
            parts.append(f'<polyline class="line {one.look}" points="{path}"/>')
    legend = "".join(f'<span class="key {one.look}">{both(one.label)}</span>' for one in drawn if one.points)
    return f'{_svg(parts, alt)}<div class="legend">{legend}</div>'


def reliability_chart(bins: Sequence[dict[str, Any]], alt: str = "") -> str:
    """Return accuracy against confidence: a bar for each bin that holds answers, and the diagonal of a perfect net.

    `bins`: {low, high, count, confidence, accuracy} as `striate.evaluation.calibration.reliability` gives them.
    """
    side = 280
    axis_x, axis_y = _Axis(0, 1, LEFT, LEFT + side), _Axis(0, 1, TOP + side, TOP)
    words = (("confidence", "置信度"), ("accuracy", "准确率"))
    parts = [_frame(axis_x, axis_y, *words, percent=True, log=False, percent_x=True)]
    for one in bins:
        left, right = axis_x.at(one["low"]), axis_x.at(one["high"])
        top = axis_y.at(one["accuracy"])
        words_of = f"{one['count']:,}: {100 * one['confidence']:.1f} % → {100 * one['accuracy']:.1f} %"
        parts.append(
            f'<rect class="bar" x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}"'
            f' height="{axis_y.low - top:.1f}"><title>{words_of}</title></rect>'
            f'<line class="gap" x1="{axis_x.at(one["confidence"]):.1f}" x2="{axis_x.at(one["confidence"]):.1f}"'
            f' y1="{axis_y.at(one["confidence"]):.1f}" y2="{top:.1f}"/>'
        )
    parts.append(
        f'<line class="diagonal" x1="{axis_x.at(0)}" y1="{axis_y.at(0)}" x2="{axis_x.at(1)}" y2="{axis_y.at(1)}"/>'
    )
    return _svg(parts, alt, LEFT + side + RIGHT, TOP + side + BOTTOM)


def both(label: Label) -> str:
    """Return a label in both languages as HTML, of which the page shows one."""
    return f'<span class="en">{escape(label[0])}</span><span class="zh" lang="zh">{escape(label[1])}</span>'


@dataclass(frozen=True)
class _Axis:
    """From values to pixels: `first` … `last` lie at `low` … `high`."""

    first: float
    last: float
    low: float
    high: float

    def at(self, value: float) -> float:
        share = (value - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return self.low + share * (self.high - self.low)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if high <= low:
        return low - 0.5, high + 0.5
    return low - share * (high - low), high + share * (high - low)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers between low and high."""
    raw = (high - low) / about
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return the decades between two logarithms, or where there are few, also twice and five times each."""
    decades = [10.0**k for k in range(math.floor(low), math.ceil(high) + 1)]
    times = (1, 2, 5) if high - low < 2.5 else (1,)
    values = [decade * factor for decade in decades for factor in times]
    return [math.log10(value) for value in values if low - 1e-9 <= math.log10(value) <= high + 1e-9]


def _frame(
    axis_x: _Axis, axis_y: _Axis, x: Label, y: Label, *, percent: bool, log: bool, percent_x: bool = False
) -> str:
    parts = []
    for value in _log_ticks(axis_y.first, axis_y.last) if log else _ticks(axis_y.first, axis_y.last, 5):
        shown = 10**value if log else 100 * value if percent else value
        at = axis_y.at(value)
        parts.append(f'<line class="grid" x1="{axis_x.low}" x2="{axis_x.high}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{axis_x.low - 8}" y="{at + 4:.1f}" text-anchor="end">{shown:g}</text>')
    for value in _ticks(axis_x.first, axis_x.last, 6):
        shown = 100 * value if percent_x else value
        if not percent_x and value != int(value):  # half a step or epoch there is none
            continue
        place = f'x="{axis_x.at(value):.1f}" y="{axis_y.low + 18}"'
        parts.append(f'<text {place} text-anchor="middle">{f"{shown:,.0f}" if shown >= 1000 else f"{shown:g}"}</text>')
    middle, across = (axis_x.low + axis_x.high) / 2, (axis_y.low + axis_y.high) / 2
    unit_x, unit_y = (", %" if percent_x else ""), (", %" if percent else "")
    for language, words_x, words_y in (("en", x[0], y[0]), ("zh", x[1], y[1])):
        parts.append(
            f'<text class="{language}" x="{middle}" y="{axis_y.low + 38}" text-anchor="middle">{words_x}{unit_x}</text>'
        )
        turned = f'text-anchor="middle" transform="rotate(-90 14 {across})"'
        parts.append(f'<text class="{language}" x="14" y="{across}" {turned}>{words_y}{unit_y}</text>')
    return "".join(parts)


def _svg(parts: Sequence[str], alt: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    name = f' aria-label="{escape(alt)}"' if alt else ""
    return f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img"{name}>{"".join(parts)}</svg>'


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most MOST_POINTS points, each the mean of its neighbours; what is not finite is left out."""
    kept = [point for point in points if all(map(math.isfinite, point))]
    each = -(-len(kept) // MOST_POINTS)
    if each <= 1:
        return kept
    groups = [kept[i : i + each] for i in range(0, len(kept), each)]
    return [(sum(x for x, _ in some) / len(some), sum(y for _, y in some) / len(some)) for some in groups]
