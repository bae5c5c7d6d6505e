"""What the command line writes: text, tables and documents, on a terminal and in a pipe."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, TextIO

from striate.report.text import cell_width as cell_width

Row = Sequence[str]

# The words after `striate`, for command.txt.
COMMAND_LINE: ContextVar[Sequence[str]] = ContextVar("COMMAND_LINE", default=())


def printable(text: str) -> str:
    """Return text that no terminal or pipe stumbles over: one line, no control characters, bad bytes as \\xff."""
    clean = replace_surrogates(text)
    return "".join(_escape(character) for character in clean)


def _escape(character: str) -> str:
    # Cc: control characters; Cf holds the marks that turn the reading direction, which could hide a name's ending.
    if unicodedata.category(character) in ("Cc", "Zl", "Zp") or "\u202a" <= character <= "\u202e":
        return character.encode("unicode_escape").decode("ascii")
    return character


def replace_surrogates(text: str) -> str:
    """Return text that UTF-8 can hold: bytes of a file name that were not UTF-8 become \\xff."""
    return re.sub("[\ud800-\udfff]", _surrogate_as_text, text)


def _surrogate_as_text(match: re.Match[str]) -> str:
    number = ord(match[0])
    # surrogateescape, with which Python reads file names, keeps the byte 0xff as U+DCFF
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


def say(text: str = "") -> None:
    """Write one line of data to stdout."""
    sys.stdout.write(replace_surrogates(text) + "\n")


def hint(text: str) -> None:
    """Write one line to stderr: progress, hints and names of bad pictures."""
    sys.stdout.flush()
    sys.stderr.write(replace_surrogates(text) + "\n")
    sys.stderr.flush()


def say_table(columns: Sequence[str], rows: Iterable[Row], *, right: Collection[int] = ()) -> None:
    """Write a table to stdout: by rich on a terminal, plain aligned columns in a pipe; `right` columns hold numbers."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, cells, right)
        return
    widths = [max(cell_width(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        parts = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            padding = " " * (width - cell_width(cell))
            parts.append(padding + cell if i in right else cell + padding)
        say("  ".join(parts).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Row], right: Collection[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a class called [red] is no markup
    sys.stdout.flush()
    Console(file=sys.stdout).print(table)


def write_text(text: str) -> None:
    """Write text that ends its own lines to stdout."""
    sys.stdout.write(text)


def heading(text: str) -> None:
    """Write a heading to stdout, bold on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(file=sys.stdout).print(Text(printable(text), style="bold"))
    else:
        say(printable(text))


def say_json(value: Any, *, one_line: bool = False) -> None:
    """Write a JSON document to stdout, always in UTF-8."""
    text = json.dumps(json_ready(value), ensure_ascii=False, allow_nan=False, indent=None if one_line else 2)
    write_utf8(sys.stdout, text + "\n")


def json_ready(value: Any) -> Any:
    """Return plain values that JSON can hold: no stray surrogates, null for a number that is not finite."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {replace_surrogates(str(key)): json_ready(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def say_csv(row: Iterable[Any]) -> None:
    """Write one row of CSV to stdout, always in UTF-8."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([replace_surrogates(str(cell)) for cell in row])
    write_utf8(sys.stdout, line.getvalue())


def write_utf8(stream: TextIO, text: str) -> None:
    """Write text in UTF-8 whatever the stream's own encoding is: documents are read by programs."""
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text)
        return
    stream.flush()
    buffer.write(text.encode("utf-8"))
    buffer.flush()


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return 0.9912 as `99.12 %`."""
    if fraction is None or not math.isfinite(fraction):
        return "-"
    return f"{100 * fraction:.{digits}f} %"


def interval(value: dict[str, Any] | None) -> str:
    """Return {value, low, high} as `99.12 % (98.91–99.29)`."""
    if not value or value.get("value") is None:
        return "-"
    return f"{100 * value['value']:.2f} % ({100 * value['low']:.2f}–{100 * value['high']:.2f})"
