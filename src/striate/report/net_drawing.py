"""A net drawn to scale as one SVG file: maps, numbers, where sizes come from, and how much of the picture is seen."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from striate.models.receptive import Field
from striate.models.summary import Summary
from striate.models.table import LayerRow

WIDTH = 460  # units of the drawing; on a screen 400 pixels wide, letters of 12 are then 10 pixels high
_LEFT, _TEXT, _EYE = 14, 182, 414
_SIDE, _DEPTH, _BAR = 100.0, 44.0, 152.0  # of the largest map, the most channels and the longest row of numbers
_EYE_SIDE = 32.0
_LEAST = 1.5  # what is drawn is at least so large, or it could not be seen
_LINE = 15.0
_SLANT = 0.6  # channels recede to the right and up

_STYLE = """
.paper{fill:#fff}.ink{fill:#1c2430}.faint{fill:#566070}.line{stroke:#8a94a3;fill:none}
.conv{--c:#2f6fb5}.pool{--c:#2c8a5b}.linear{--c:#b8621b}.other{--c:#6b7585}.picture{--c:#8650b0}
.face{fill:var(--c);fill-opacity:.30;stroke:var(--c)}.side{fill:var(--c);fill-opacity:.55;stroke:var(--c)}
.eye{fill:none;stroke:#8a94a3}.seen{fill:#8650b0;fill-opacity:.6}
text{font:12px system-ui,'Segoe UI','Noto Sans','Noto Sans CJK SC',sans-serif}
.name{font-weight:600}.small{font-size:11px}.title{font-size:16px;font-weight:700}
svg.net{width:100%;max-width:820px;height:auto;display:block;margin:0 auto;color-scheme:light dark}
@media (prefers-color-scheme:dark){
.paper{fill:#12161c}.ink{fill:#e8ecf2}.faint{fill:#a5afbd}.line,.eye{stroke:#75808f}
.conv{--c:#6fb0f5}.pool{--c:#62cc98}.linear{--c:#f0a35e}.other{--c:#a3adba}.picture{--c:#c79bea}
.seen{fill:#c79bea}}
"""


@dataclass
class _Step:
    """One box of the drawing: a layer that changes the shape or multiplies, and the small layers after it."""

    row: LayerRow
    after: list[str]


@dataclass(frozen=True)
class _Scale:
    """Units for a pixel of a map, for a channel, and for a number of a row."""

    pixel: float
    channel: float
    number: float


_ENGLISH = {
    "told": "{parameters:,} parameters, {macs} multiply-adds for a picture of {shape}",
    "scale": "to scale: 10 units are {pixels:.3g} pixels of a map, {channels:.3g} channels",
    "numbers": ", {numbers:.3g} numbers",
    "eye": "on the right: what the number in the middle sees of the picture",
    "more": "{count} or more",
    "picture": "picture",
    "parameters": "{count:,} parameters",
    "unknown": "multiply-adds unknown",
    "macs": "{count:,} multiply-adds",
    "sees": "sees {size}",
    "all": ", all",
    "then": "then {kinds}",
}
_CHINESE = {
    "told": "{parameters:,} 个参数，一张 {shape} 的图片需 {macs} 次乘加",
    "scale": "按比例：10 个单位为特征图的 {pixels:.3g} 个像素、{channels:.3g} 个通道",
    "numbers": "、{numbers:.3g} 个数",
    "eye": "右侧：中间的那个数看到图片的哪一部分",
    "more": "{count} 以上",
    "picture": "图片",
    "parameters": "{count:,} 个参数",
    "unknown": "乘加次数未知",
    "macs": "{count:,} 次乘加",
    "sees": "看到 {size}",
    "all": "，全部",
    "then": "之后 {kinds}",
}
_Words = Mapping[str, str]


def draw_svg(summary: Summary, title: str, language: str = "en") -> str:
    """Return the drawing of a net as a standalone SVG document in UTF-8.

    Sides of maps, channels and rows of numbers are drawn to three linear scales, which the drawing states; what would
    be too small to see has a least size. Layers that change numbers only (activations, norms, dropout) stand as words
    below the layer before them. Light or dark as the reader's screen is. The file needs no other. `language`: en or zh.
    """
    words = _CHINESE if language == "zh" else _ENGLISH
    steps = _steps(summary)
    scale = _scale(summary, steps)
    parts, y = _heading(summary, title, scale, words)
    picture = summary.input_shape
    lines = [("name ink", words["picture"]), ("small faint", _shape(picture))]
    parts, y = _place(parts, y, picture, "picture", lines, None, picture, scale)
    for step in steps:
        parts.append(f'<path class="line" d="M{_LEFT + 12} {y - 3:.1f}v12m-3 -4l3 4l3 -4"/>')
        parts, y = _place(
            parts, y + 12, step.row.output_shape, _kind(step.row), _lines(step, words), step.row.field, picture, scale
        )
    height = y + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="net" role="img" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}">\n<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _steps(summary: Summary) -> list[_Step]:
    steps: list[_Step] = []
    shape: tuple[int, ...] = summary.input_shape
    for row in summary.rows:
        if steps and row.output_shape == shape and row.macs == 0 and not row.size_sums:
            steps[-1].after.append(row.kind)
        else:
            steps.append(_Step(row, []))
        shape = row.output_shape
    return steps


def _scale(summary: Summary, steps: Sequence[_Step]) -> _Scale:
    shapes = [summary.input_shape, *(step.row.output_shape for step in steps)]
    maps = [shape for shape in shapes if len(shape) == 3]
    rows = [shape[-1] for shape in shapes if shape and len(shape) != 3]
    return _Scale(
        _SIDE / max(max(shape[1:]) for shape in maps),
        _DEPTH / max(shape[0] for shape in maps),
        _BAR / max(rows, default=1),
    )


def _heading(summary: Summary, title: str, scale: _Scale, words: _Words) -> tuple[list[str], float]:
    macs = f"{summary.macs:,}"
    macs = macs if summary.macs_known else words["more"].format(count=macs)
    told = words["told"].format(parameters=summary.parameters, macs=macs, shape=_shape(summary.input_shape))
    scales = words["scale"].format(pixels=10 / scale.pixel, channels=10 / scale.channel)
    if any(len(row.output_shape) == 1 for row in summary.rows):
        scales += words["numbers"].format(numbers=10 / scale.number)
    parts = [
        f'<text class="title ink" x="{_LEFT}" y="26">{_text(_cut(title, 46))}</text>',
        f'<text class="small faint" x="{_LEFT}" y="44">{_text(told)}</text>',
        f'<text class="small faint" x="{_LEFT}" y="60">{_text(scales)}</text>',
        f'<text class="small faint" x="{_LEFT}" y="76">{_text(words["eye"])}</text>',
    ]
    return parts, 92.0


def _place(
    parts: list[str],
    y: float,
    shape: Sequence[int],
    kind: str,
    lines: list[tuple[str, str]],
    field: Field | None,
    picture: tuple[int, int, int],
    scale: _Scale,
) -> tuple[list[str], float]:
    """Append one step whose top is at `y`, and return where the next may begin."""
    box, height = _box(shape, kind, y, scale)
    words = [
        f'<text class="{style}" x="{_TEXT}" y="{y + 12 + i * _LINE:.1f}">{_text(_cut(line, 42))}</text>'
        for i, (style, line) in enumerate(lines)
    ]
    eye = _eye(field, picture, y) if field is not None else []
    return [*parts, *box, *words, *eye], y + max(height, len(lines) * _LINE + 4, _EYE_SIDE + 4 if eye else 0) + 6


def _box(shape: Sequence[int], kind: str, y: float, scale: _Scale) -> tuple[list[str], float]:
    if len(shape) != 3:
        length = max(_LEAST, (shape[-1] if shape else 1) * scale.number)
        return [f'<rect class="side {kind}" x="{_LEFT}" y="{y + 3:.1f}" width="{length:.2f}" height="9"/>'], 16.0
    channels, height, width = shape
    deep = max(_LEAST, channels * scale.channel)
    tall, wide = (max(_LEAST, length * scale.pixel) for length in (height, width))
    over = deep * _SLANT
    x, top = _LEFT, y + over
    return [
        f'<path class="side {kind}" d="M{x} {top:.2f}l{deep:.2f} {-over:.2f}h{wide:.2f}l{-deep:.2f} {over:.2f}z"/>',
        f'<path class="side {kind}" d="M{x + wide:.2f} {top:.2f}l{deep:.2f} {-over:.2f}v{tall:.2f}'
        f'l{-deep:.2f} {over:.2f}z"/>',
        f'<rect class="face {kind}" x="{x}" y="{top:.2f}" width="{wide:.2f}" height="{tall:.2f}"/>',
    ], tall + over


def _eye(field: Field, picture: tuple[int, int, int], y: float) -> list[str]:
    """Draw the picture small, and in its middle what is seen of it."""
    unit = _EYE_SIDE / max(picture[1:])
    height, width = picture[1] * unit, picture[2] * unit
    tall, wide = (max(_LEAST, seen * unit) for seen in field.seen)
    return [
        f'<rect class="seen" x="{_EYE + (width - wide) / 2:.2f}" y="{y + 2 + (height - tall) / 2:.2f}" '
        f'width="{wide:.2f}" height="{tall:.2f}"/>',
        f'<rect class="eye" x="{_EYE}" y="{y + 2:.1f}" width="{width:.2f}" height="{height:.2f}"/>',
    ]


def _lines(step: _Step, words: _Words) -> list[tuple[str, str]]:
    row = step.row
    kind = "" if row.kind == "function" else f" {row.kind}"
    lines = [("name ink", f"{_cut(row.name, 40 - len(kind))}{kind}"), ("small ink", _shape(row.output_shape))]
    lines += [("small faint", text) for text in row.size_sums]
    if row.parameters:
        equals = f" = {row.parameter_sum}" if row.parameter_sum else ""
        lines.append(("small faint", words["parameters"].format(count=row.parameters) + equals))
    if row.macs is None:
        lines.append(("small faint", words["unknown"]))
    elif row.macs:
        share = "" if row.share is None else f", {100 * row.share:.1f} %"
        lines.append(("small faint", words["macs"].format(count=row.macs) + share))
    if row.field is not None:
        whole = words["all"] if row.field.whole else ""
        lines.append(("small faint", words["sees"].format(size=_shape(row.field.size)) + whole))
    if step.after:
        lines.append(("small faint", words["then"].format(kinds=", ".join(step.after))))
    return lines


def _kind(row: LayerRow) -> str:
    name = (row.kind if row.kind != "function" else row.name.rpartition(".")[2]).lower()
    return next((kind for kind in ("conv", "pool", "linear") if kind in name), "other")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)


def _text(text: str) -> str:
    """Return text as XML holds it: marks escaped, characters that XML forbids replaced."""
    clean = "".join("�" if unicodedata.category(c) in ("Cc", "Cs", "Cn") else c for c in text)
    return html.escape(clean)
