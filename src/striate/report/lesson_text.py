"""A lesson as lines of text: sentences, grids of numbers side by side, steps and tables, in one of two languages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from striate.lessons.lesson import Frame, Grid, Lesson, Part, Scene, Table, Text, number, shape
from striate.report.text import cell_width

MOST_STEP_LINES = 16  # of a scene; the page and the JSON have the other steps
WIDEST_GRID, MOST_CELLS = 16, 256  # columns, and cells of one channel: a larger grid is no longer read
GAP = 3  # columns between two blocks
# Chinese may be parted anywhere but before these.
_TOKEN = re.compile(r"\s+|[\u2e80-\uffef][，。；：、！？）】”…]*|[^\s\u2e80-\uffef]+(?: %)?[.]?[，。；：、！？）】”…]*")
Block = list[str]


def lesson_lines(lesson: Lesson, language: str, width: int) -> list[str]:
    """Return a lesson in lines of at most `width` columns; `language` is en or zh."""
    lines = [_in(lesson.title, language), *_wrap(_in(lesson.about, language), width)]
    for part in lesson.parts:
        lines += ["", *_part_lines(part, language, width)]
    return lines


def _part_lines(part: Part, language: str, width: int) -> Iterator[str]:
    title = _in(part.title, language)
    yield title
    yield "─" * cell_width(title)
    for text in part.says:
        yield from _wrap(_in(text, language), width)
    if part.table is not None:
        yield ""
        yield from _table_lines(part.table, language)
    if part.scene is not None:
        yield ""
        yield from _scene_lines(part.scene, language, width)
    if part.pictures:
        yield ""
        told = [(_in(picture.title, language), picture.note, _in(picture.does, language)) for picture in part.pictures]
        widest = [max(cell_width(row[i]) for row in told) for i in range(2)]
        for title, note, does in told:
            yield f"  {_padded(title, widest[0])}  {_padded(note, widest[1])}  {does}".rstrip()
        yield _in(Text("--html shows the pictures.", "图片见 --html。"), language)


def _scene_lines(scene: Scene, language: str, width: int) -> Iterator[str]:
    blocks = [block for grid in scene.grids for block in _blocks(grid, language)]
    for row in _rows_of(blocks, width - 2):
        yield from (f"  {line}".rstrip() for line in row)
        yield ""
    steps = [frame for frame in scene.frames if frame.ends]
    column = max((cell_width(_in(frame.says, language)) for frame in steps if frame.sums), default=0)
    lines: list[str] = []
    shown = 0
    while shown < len(steps) and len(lines) < MOST_STEP_LINES:
        lines += _step_lines(steps[shown], language, column, width)
        shown += 1
    yield from lines
    more = len(steps) - shown + scene.left_out
    if more:
        told = Text(f"… and {more:,} more; --html and --json show them", f"……另有 {more:,} 步，见 --html 与 --json")
        yield f"  {_in(told, language)}"


def _step_lines(frame: Frame, language: str, column: int, width: int) -> list[str]:
    """Return a step: what it is, in its column, and beside it the sum."""
    text = _in(frame.says, language)
    if not frame.sums:
        return [f"  {line}" for line in _wrap(text, width - 2)]
    first, *rest = _wrap(frame.sums, max(20, width - column - 4))
    return [f"  {_padded(text, column)}  {first}", *(f"  {'':{column}}  {line}" for line in rest)]


def _blocks(grid: Grid, language: str) -> list[Block]:
    """Return one block of lines for each channel: the title, then the rows; cells of padding are dots."""
    channels, rows, columns = grid.cells.shape
    title = _in(grid.title, language)
    if columns > WIDEST_GRID or rows * columns > MOST_CELLS:
        told = Text("too large to print", "太大，不打印")
        return [[f"{title}: {shape((rows, columns, channels))}", _in(told, language)]]
    top, bottom, left, right = grid.border
    cells = [
        [
            [
                number(value) if top <= i < rows - bottom and left <= j < columns - right else "·"
                for j, value in enumerate(row)
            ]
            for i, row in enumerate(channel)
        ]
        for channel in grid.cells
    ]
    across = max(len(text) for channel in cells for row in channel for text in row)
    blocks = []
    for c, channel in enumerate(cells):
        name = title if channels == 1 else f"{title} [{c + 1}]"
        blocks.append([name, *(" ".join(f"{text:>{across}}" for text in row) for row in channel)])
    return blocks


def _rows_of(blocks: Sequence[Block], width: int) -> Iterator[Block]:
    """Set blocks side by side, as many as fit, and yield each such row of blocks as lines."""
    row: list[Block] = []
    used = 0
    for block in blocks:
        wide = max(cell_width(line) for line in block)
        if row and used + wide > width:
            yield _beside(row)
            row, used = [], 0
        row.append(block)
        used += wide + GAP
    if row:
        yield _beside(row)


def _beside(blocks: Sequence[Block]) -> Block:
    widths = [max(cell_width(line) for line in block) for block in blocks]
    lines = []
    for i in range(max(len(block) for block in blocks)):
        cells = [_padded(block[i] if i < len(block) else "", wide) for block, wide in zip(blocks, widths)]
        lines.append((" " * GAP).join(cells).rstrip())
    return lines


def _table_lines(table: Table, language: str) -> Iterator[str]:
    rows = [[_in(cell, language) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(cell_width(row[i]) for row in rows) for i in range(len(table.columns))]
    for row in rows:
        cells = [_padded(cell, wide, i in table.right) for i, (cell, wide) in enumerate(zip(row, widths))]
        yield f"  {'  '.join(cells)}".rstrip()


def _wrap(text: str, width: int) -> list[str]:
    """Break a sentence into lines of at most `width` columns, at spaces and between Chinese characters."""
    lines, line = [], ""
    for token in _TOKEN.findall(text):
        if line and cell_width(line + token.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += token if line or token.strip() else ""
    return [*lines, line.rstrip()] if line.strip() else lines or [""]


def _padded(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def _in(text: str | Text, language: str) -> str:
    return getattr(text, language) if isinstance(text, Text) else text
