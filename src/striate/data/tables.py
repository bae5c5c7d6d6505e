"""Tables of pictures: CSV, TSV and JSON lines with a path and a label in each row, and split, group, weight if wanted.

Columns go by their names, in any case and order. A row that cannot be used is listed with its number; a table that
cannot be understood is refused with the numbers of its first bad rows.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.data.folders import follow_link, is_inside, probe, special_kind, told
from striate.data.opening import printable
from striate.data.records import SPLITS, FilePlace, LeftOut, Place, Record, class_name, few, storable
from striate.errors import DataError

MOST_TABLE_BYTES = 256 << 20

# What a column may be called; of several in one table the first counts.
COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image_path", "image", "img", "picture"),
    "label": ("label", "class", "category", "target", "class_name"),
    "split": ("split", "set", "subset"),
    "group": ("group", "patient", "burst", "video", "subject"),
    "weight": ("weight",),
}

Found = tuple[str, Place] | LeftOut
Find = Callable[[str], Found]


@dataclass(frozen=True)
class Table:
    """What a table says: its columns as {path|label|split|group|weight: name in the table}, and its rows.

    Rows are (number, cells). A row's number is the line of the file that it ends on, as editors and spreadsheets count.
    """

    name: str
    columns: dict[str, str]
    rows: list[tuple[int, dict[str, str]]]


def read_table(content: bytes, name: str, group: str | None = None) -> Table:
    """Read a table's rows; `name` is what errors call it, and its ending tells JSON lines from columns.

    Columns may be parted by commas, semicolons or tabs. UTF-8, with or without a mark, or UTF-16 with one.
    `group` names a column of groups. Raises DataError where the text, the columns or rows are broken.
    """
    if len(content) > MOST_TABLE_BYTES:
        raise DataError(
            f"{name} has {len(content):,} bytes", f"a table may have {MOST_TABLE_BYTES:,}", "divide it, or use folders"
        )
    text = _decoded(content, name)
    if name.lower().endswith((".jsonl", ".ndjson")):
        header, lines = _json_lines(text, name)
    else:
        header, lines = _separated(text, name)
    columns = find_columns(header, group)
    for wanted in ("path", "label"):
        if wanted not in columns:
            raise DataError(
                f"{name} has no column for the {wanted}",
                f"its columns are: {few(header, 10) or 'none'}",
                f"call one of them {' or '.join(COLUMNS[wanted][:4])}",
            )
    known = {column: key for key, column in columns.items()}
    rows = [(number, {known[key]: cell for key, cell in cells.items() if key in known}) for number, cells in lines]
    if not rows:
        raise DataError(f"{name} has no rows", "there is nothing below its header", "add a row for each picture")
    return Table(name, columns, rows)


def find_columns(header: Sequence[str], group: str | None = None) -> dict[str, str]:
    """Return which columns of a table hold what, as {path|label|split|group|weight: name in the table}."""
    by_name = {name.strip().lower(): name for name in reversed(header)}
    columns = {}
    for key, names in COLUMNS.items():
        chosen = next((by_name[name] for name in names if name in by_name), None)
        if chosen is not None:
            columns[key] = chosen
    if group is not None and group in header:
        columns["group"] = group
    return columns


def table_records(table: Table, find: Find) -> tuple[list[Record], list[LeftOut], list[str]]:
    """Turn rows into records, by source; what cannot be used, with row numbers; and notes.

    `find` returns the source and place of a path, or why it is left out. Rows that say the same of one picture count
    once; where they differ, none of them is used. Raises DataError naming rows with a wrong split or weight, and
    where no row's picture is there.
    """
    left_out: list[LeftOut] = []
    seen: dict[str, tuple[int, Record]] = {}
    conflicting: set[str] = set()
    wrong: list[str] = []
    for number, cells in table.rows:
        row = f"{table.name}, row {number}"
        label, path = cells.get("label", "").strip(), cells.get("path", "")
        split, weight = cells.get("split", "").strip().lower(), _weight(cells.get("weight", ""))
        if weight is None or (split and split not in SPLITS):
            key = "weight" if weight is None else "split"
            wrong.append(f"row {number}: {key} {cells[key]!r}")
            continue
        if not label or not path:
            left_out.append(LeftOut(row, *(("no-label", "it has no label") if path else ("missing-file", "no path"))))
            continue
        found = find(path)
        if isinstance(found, LeftOut):
            left_out.append(LeftOut(found.source, found.code, f"{found.reason} ({row})"))
            continue
        source, place = found
        group = class_name(cells.get("group", "").strip()) or None
        record = Record(source, class_name(label), place, SPLITS.get(split), group, weight)
        if source not in seen:
            seen[source] = number, record
        elif seen[source][1] == record:
            left_out.append(LeftOut(source, "duplicate-row", f"row {number} says the same as row {seen[source][0]}"))
        else:
            conflicting.add(source)
            left_out.append(LeftOut(source, "conflicting-rows", f"row {number} differs from row {seen[source][0]}"))
    if wrong:
        raise DataError(
            f"{table.name}: {'; '.join(wrong[:5])}" + (f" and {len(wrong) - 5:,} more" if len(wrong) > 5 else ""),
            "a split is train, val or test, or empty; a weight is a number from 0",
            "correct these rows",
        )
    records = [record for source, (_, record) in seen.items() if source not in conflicting]
    if not records and left_out:
        raise DataError(
            f"{table.name}: none of its {len(table.rows):,} rows has a picture that can be used",
            f"{printable(left_out[0].source)}: {left_out[0].reason}",
            "paths count from the table's own folder; for pictures elsewhere add --follow-links",
        )
    notes = [f"{table.name}: " + ", ".join(f"{key} from column {name!r}" for key, name in table.columns.items())]
    return sorted(records, key=lambda record: record.source), left_out, notes


class FilesOfTable:
    """Finds on disk what the rows of a table name: paths count from `root`, and stay in it unless `follow_links`.

    A path written with backslashes is found also where the system parts names with slashes.
    """

    def __init__(self, root: Path, follow_links: bool = False) -> None:
        self._root = os.path.realpath(root)
        self._follow_links = follow_links
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> Found:
        """Return the source and place of a row's picture, or why it is left out."""
        if "\\" in path and not os.path.lexists(os.path.join(self._root, path)):
            path = path.replace("\\", "/")
        full = os.path.normpath(os.path.join(self._root, path))
        source = storable(os.path.relpath(full, self._root) if is_inside(full, self._root) else full)
        source = source.replace(os.sep, "/")
        problem = self._problem(full)
        return LeftOut(source, *problem) if problem else (source, FilePlace(Path(full)))

    def _problem(self, full: str) -> tuple[str, str] | None:
        folder, name = os.path.split(full)
        try:
            if folder not in self._folders:
                self._folders[folder] = os.path.realpath(folder)
            real = os.path.join(self._folders[folder], name)
            if not self._follow_links and not is_inside(real, self._root):
                return "outside-root", "it lies outside the table's folder; --follow-links allows it"
            mode = os.lstat(full).st_mode
        except (OSError, ValueError) as error:
            return told(error)
        if stat.S_ISLNK(mode):
            problem, _, mode = follow_link(full, self._root, self._follow_links)
            if problem is not None:
                return problem
        if not stat.S_ISREG(mode):
            return "special-file", "it is a folder" if stat.S_ISDIR(mode) else f"it is {special_kind(mode)}"
        problem = probe(full)
        return None if problem is None else ("not-a-picture" if problem[0] == "other-file" else problem[0], problem[1])


def _decoded(content: bytes, name: str) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name} is not UTF-8 in line {line}",
            f"it holds the byte {content[error.start]:02x} there",
            "save it as UTF-8 (spreadsheets call it 'CSV UTF-8')",
        ) from error


def _separated(text: str, name: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read comma-, semicolon- or tab-separated text: the header, and rows as (line, cells)."""
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{name}, row {reader.line_num}: {len(cells)} cells, the header has {len(header)}",
                    "every row has a cell for each column",
                    'put a cell that holds the separator between double quotes: "a,b.jpg"',
                )
            rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise DataError(
            f"{name}, row {reader.line_num}: the row cannot be read", str(error), "check its double quotes"
        ) from error
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise DataError(f"{name} has two columns called {repeated[0]!r}", "", "rename one of them")
    return header, rows


def _json_lines(text: str, name: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read JSON lines: all keys in their first order, and rows as (line, cells)."""
    header: dict[str, None] = {}
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            cause = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            raise DataError(f"{name}, row {number} is no JSON", cause, "write one JSON object a line") from error
        if not isinstance(value, dict):
            raise DataError(f"{name}, row {number} is no JSON object", "", 'write {"path": …, "label": …} on each line')
        header.update(dict.fromkeys(value))
        rows.append((number, {key: _cell(cell) for key, cell in value.items()}))
    return list(header), rows


def _cell(value: Any) -> str:
    """Write a JSON value as a cell; what is no plain value is as good as none."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) else ""


def _weight(text: str) -> float | None:
    """Return a weight, 1 where none is stated, None where it is none."""
    try:
        weight = float(text) if text.strip() else 1.0
    except ValueError:
        return None
    return weight if 0.0 <= weight < math.inf else None
