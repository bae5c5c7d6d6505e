"""The fixes file, striate.fixes.csv: what is to be dropped, relabelled or merged, without touching a picture.

A table with the columns action, what, to, reason. `drop` leaves out the picture `what`; `relabel` gives it the class
`to`; `merge` gives all pictures of the class `what` the class `to`; `decide` does nothing until a person has replaced
it. Rows apply from top to bottom.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from striate.data.findings import Finding
from striate.data.opening import open_regular, printable
from striate.data.records import Record, Source, class_name, class_order, few
from striate.errors import DataError, near_names
from striate.files import write_text

FIXES_NAME = "striate.fixes.csv"
COLUMNS = ("action", "what", "to", "reason")
ACTIONS = ("drop", "relabel", "merge", "decide")

_MOST_BYTES = 64 << 20
# Of copies in several splits the one in the split that stands last here stays, so that a given test set stays whole.
_SPLITS = (None, "train", "validation", "test")


@dataclass(frozen=True)
class Fix:
    """One row: an action, the source of a picture or the name of a class, and for relabel and merge the class to be."""

    action: str
    what: str
    to: str = ""
    reason: str = ""


def find_fixes(source: Source) -> Path | None:
    """Return the fixes file that lies at the top of a source's folder, None where there is none."""
    path = source.root / FIXES_NAME
    return path if source.kind in ("folder", "parquet") and path.is_file() else None


def read_fixes(path: Path) -> list[Fix]:
    """Read a fixes file. Raises DataError naming the rows that are wrong."""
    name = printable(str(path))
    with open_regular(path, name) as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise DataError(f"{name} has more than {_MOST_BYTES:,} bytes", "no fixes file is that large", "check the name")
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} is no table", str(error), "save it as CSV in UTF-8") from error
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if not {"action", "what"} <= set(header):
        raise DataError(
            f"{name} is no fixes file", f"its columns are {few(header) or 'none'}", f"expected {', '.join(COLUMNS)}"
        )
    fixes, wrong = [], []
    for number, row in rows[1:]:
        cells = dict(zip(header, row))
        fix = Fix(cells["action"].strip().lower(), *(cells.get(column, "") for column in COLUMNS[1:]))
        problem = _problem(fix)
        if problem:
            wrong.append(f"row {number}: {problem}")
        fixes.append(fix)
    if wrong:
        raise DataError(f"{name} has wrong rows", few(wrong), f"an action is one of {', '.join(ACTIONS)}")
    return fixes


def write_fixes(path: Path, fixes: Iterable[Fix]) -> None:
    """Write a fixes file, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text)  # its line ends, CRLF, also have it quote a name that holds one of the two
    writer.writerow(COLUMNS)
    writer.writerows((fix.action, fix.what, fix.to, fix.reason) for fix in fixes)
    write_text(path, text.getvalue())


def apply_fixes(source: Source, fixes: Sequence[Fix]) -> tuple[Source, list[str]]:
    """Return the source as the fixes want it, and sentences to tell.

    A row that names nothing is told and does nothing, as the picture may have been deleted since.
    Raises DataError where no picture is left.
    """
    records: dict[str, Record] = {record.source: record for record in source.records}
    left_out = {left.source for left in source.left_out}
    done, idle = Counter[str](), []
    for fix in fixes:
        if fix.action == "drop" and (fix.what in records or fix.what in left_out):
            records.pop(fix.what, None)
            left_out.discard(fix.what)
        elif fix.action == "relabel" and fix.what in records:
            records[fix.what] = replace(records[fix.what], label=class_name(fix.to))
        elif fix.action == "merge" and any(record.label == class_name(fix.what) for record in records.values()):
            for name, record in records.items():
                if record.label == class_name(fix.what):
                    records[name] = replace(record, label=class_name(fix.to))
        elif fix.action != "decide":
            idle.append(fix.what)
            continue
        done[fix.action] += 1
    if not records:
        raise DataError("the fixes drop every picture", f"{done['drop']:,} rows say drop", "leave some")
    fixed = replace(
        source,
        records=tuple(records.values()),
        classes=class_order({record.label for record in records.values() if record.label is not None}),
        left_out=tuple(left for left in source.left_out if left.source in left_out),
    )
    return fixed, _told(source, fixes, done, idle)


def propose_fixes(findings: Iterable[Finding], records: Sequence[Record]) -> list[Fix]:
    """Return the rows that would settle findings; what only a person can know is `decide`.

    Files that cannot be used and copies are dropped, of copies in several splits those not in the test set; classes of
    nearly one name are merged into the larger one.
    """
    by_source = {record.source: record for record in records}
    sizes = Counter(record.label for record in records)
    fixes: dict[tuple[str, str], Fix] = {}

    def add(action: str, what: str, to: str = "", reason: str = "") -> None:
        if not any((other, what) in fixes for other in ("drop", "decide")):
            fixes[action, what] = Fix(action, what, to, reason)

    for one in findings:
        if one.code in ("unreadable", "not-a-picture"):
            for source in one.sources:
                add("drop", source, reason=one.code)
        elif one.code in ("label-conflict", "near-label-conflict"):
            for group in one.groups:
                for source in group:
                    others = few([f"{other} ({by_source[other].label})" for other in group if other != source], 3)
                    add("decide", source, reason=f"{one.code}: as {others}")
        elif one.code in ("leak", "near-leak", "duplicates"):
            for group in one.groups:
                kept = max(group, key=lambda source: _SPLITS.index(by_source[source].split))
                for source in group:
                    same_split = by_source[source].split == by_source[kept].split
                    if source != kept and not (one.code == "near-leak" and same_split):
                        add("drop", source, reason=f"{one.code}: as {kept}")
        elif one.code == "similar-classes":
            for group in one.groups:
                largest = max(group, key=lambda name: (sizes[name], name))
                for name in group:
                    if name != largest:
                        add("merge", name, largest, one.code)
        elif one.code == "blank" or (one.rank == "error" and not one.groups):
            for source in one.sources:
                if source in by_source:
                    add("decide", source, reason=one.code)
    return list(fixes.values())


def _problem(fix: Fix) -> str:
    if fix.action not in ACTIONS:
        near = near_names(fix.action, ACTIONS)
        return f"action {fix.action!r}" + (f", did you mean {near[0]}?" if near else "")
    if not fix.what:
        return "the column what is empty"
    if fix.action in ("relabel", "merge") and not class_name(fix.to).strip():
        return f"{fix.action} needs a class in the column to"
    return ""


def _told(source: Source, fixes: Sequence[Fix], done: Counter[str], idle: Sequence[str]) -> list[str]:
    told = []
    applied = [f"{done[action]:,} {action}" for action in ACTIONS[:3] if done[action]]
    if applied:
        told.append(f"fixes applied: {', '.join(applied)}")
    if done["decide"]:
        told.append(f"{done['decide']:,} rows of the fixes still say decide")
    if idle:
        told.append(f"{len(idle):,} rows of the fixes name nothing that is here: {few(idle, 3)}")
    new = {class_name(fix.to) for fix in fixes if fix.action in ("relabel", "merge")} - set(source.classes)
    if new:
        told.append(f"the fixes make new classes: {few(sorted(new))}")
    return told
