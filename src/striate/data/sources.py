"""Where pictures come from: a target on the command line becomes records, whatever it is.

Class folders, a table (CSV, TSV, JSON lines), a zip or tar archive of either, parquet tables (local or hf://owner/name)
and .npz files all give the same `Source`: for each picture where its bytes are, its class, and its split if stated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from striate.data.archives import gather_members
from striate.data.arrays import read_npz
from striate.data.folders import TABLE_ENDINGS, Gathered, arrange, walk_folder
from striate.data.formats import guess, recognise
from striate.data.hub import fetch_from_hub, is_address, read_parquet_files
from striate.data.lookup import Report, silent
from striate.data.named import NAMED
from striate.data.opening import open_regular, printable
from striate.data.packed import looks_like_archive, open_archive
from striate.data.records import (
    FilePlace,
    LeftOut,
    Place,
    Record,
    Source,
    class_order,
    few,
    split_notes,
    storable,
    with_groups,
)
from striate.data.tables import FilesOfTable, Find, Found, read_table, table_records
from striate.errors import DataError

__all__ = ["LeftOut", "Place", "Record", "Source", "looks_like_pictures", "open_source"]

_ENDINGS = (*TABLE_ENDINGS, ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".parquet", ".npz")
_EXPECTED = "a data set is a folder of class folders, a table, a zip or tar archive, a parquet or .npz file"


def looks_like_pictures(target: str) -> bool:
    """Say whether a target is a path or an hf:// address, and not the name of a data set.

    The name of a known data set always means that data set, also where a file or folder is called so: ./mnist means
    the folder. Anything else is a path if it has a separator, begins with a dot or ~, ends like a file of pictures, or
    is there.
    """
    if is_address(target) or target.startswith((".", "~")) or "/" in target or os.sep in target:
        return True
    if target.lower().replace("_", "-") in NAMED:
        return False
    return target.lower().endswith(_ENDINGS) or os.path.lexists(target)


def open_source(
    target: str | Path,
    *,
    follow_links: bool = False,
    group: str | None = None,
    allowance: int | None = None,
    report: Report = silent,
) -> Source:
    """Find all pictures of a folder, table, archive, parquet or .npz file, or hf://owner/name; decodes none.

    `follow_links`: also follow links, and rows of tables, that lead out of the folder. `group`: the column of a table,
    else a regular expression searched in each record's source, whose first parentheses (or all of it) are the group.
    `allowance`: bytes that the arrays of an .npz file may take in memory, above which they lie on disk; None for
    `memory_allowance()`. `report` gets a line for work that takes time. The caller closes the source.
    Raises DataError where the target is nothing of these or holds no picture, UsageError, MissingExtra.
    """
    if is_address(str(target)):
        name, root, tables = fetch_from_hub(str(target), report)
        return _from_parquet(tables, root, name, group)
    path = Path(os.path.abspath(os.path.expanduser(target)))
    label = printable(str(target))
    if os.path.isdir(path):
        return _from_folder(path, label, follow_links, group)
    with open_regular(path, label) as stream:
        start = stream.read(262)
    name = path.name.lower()
    if name.endswith(".npz"):
        pictures, notes = read_npz(path, allowance)
        source = Source(_stem(path), path.parent, "npz", tuple(pictures), (), (), tuple(notes))
        return _finish(source, label, group)
    if start.startswith(b"PAR1"):
        return _from_parquet([path], path.parent, _stem(path), group)
    if looks_like_archive(start):
        return _from_archive(path, label, group, report)
    if name.endswith(TABLE_ENDINGS):
        source, group = _from_table(FilePlace(path), path.name, FilesOfTable(path.parent, follow_links), group)
        return _finish(replace(source, name=_stem(path), root=path.parent), label, group)
    if recognise(start):
        raise DataError(f"{label} is one picture", _EXPECTED, "name the folder that holds the class folders")
    raise DataError(f"{label} is no data set", f"it {guess(start) if start else 'is empty'}; {_EXPECTED}", "check it")


def _from_folder(path: Path, label: str, follow_links: bool, group: str | None) -> Source:
    found = walk_folder(path, follow_links)
    if () in found.runs:
        raise DataError(f"{label} is the folder of a training run", _EXPECTED, "name the folder of the pictures")
    name = storable(path.name) or "pictures"
    if found.parquet and not found.pictures:
        return _from_parquet(found.parquet, Path(os.path.realpath(path)), name, group)
    source, group = _from_tree(found, label, FilesOfTable(path, follow_links), group)
    return _finish(replace(source, name=name, root=path, kind="folder"), label, group)


def _from_archive(path: Path, label: str, group: str | None, report: Report) -> Source:
    archive = open_archive(path, report)
    try:
        found = gather_members(archive)
        places = dict(found.pictures)

        def find(text: str) -> Found:
            parts = tuple(part for part in text.replace("\\", "/").split("/") if part not in ("", "."))
            source = found.shown(parts)
            if parts in places:
                return source, places[parts]
            return LeftOut(source, "missing-file", "the archive has no such picture")

        source, group = _from_tree(found, label, find, group)
        source = replace(source, name=_stem(path), root=path.parent, kind="archive", release=archive.close)
        return _finish(source, label, group)
    except BaseException:
        archive.close()
        raise


def _from_tree(found: Gathered, label: str, find: Find, group: str | None) -> tuple[Source, str | None]:
    """Take the classes from folders; where there are fewer than two, from the one table that lies at the top."""
    records, notes = arrange(found, label)
    source = Source("", Path(), "", tuple(records), (), tuple(found.left_out), tuple(notes))
    if len({record.label for record in records}) > 1 or not found.tables:
        return source, group
    tables: list[tuple[str, Source, str | None]] = []
    failures: list[DataError] = []
    for parts, place in found.tables:
        try:
            tables.append((found.shown(parts), *_from_table(place, found.shown(parts), find, group)))
        except DataError as error:
            failures.append(error)
    if len(tables) > 1:
        names = few([name for name, *_ in tables])
        raise DataError(f"{label} has no class folders and several tables: {names}", "", "name the table that counts")
    if not tables:
        if not records and failures:
            raise failures[0]
        return source, group
    name, table, group = tables[0]
    told = f"there are no class folders: labels are read from {printable(name)}"
    named = {record.source for record in table.records} | {left.source for left in table.left_out} | {name}
    others = [
        left for left in found.left_out if left.source not in named and left.code not in ("misplaced", "beside-split")
    ]
    shown = [found.shown(parts) for parts, _ in found.pictures]
    others += [LeftOut(here, "not-in-table", "no row names it") for here in shown if here not in named]
    return replace(table, left_out=(*others, *table.left_out), notes=(told, *table.notes)), group


def _from_table(place: Place, name: str, find: Find, group: str | None) -> tuple[Source, str | None]:
    """Read a table; `group` comes back as None where it named a column."""
    table = read_table(place.read(), printable(name), group)
    records, left_out, notes = table_records(table, find)
    source = Source("", Path(), "table", tuple(records), (), tuple(left_out), tuple(notes))
    return source, None if table.columns.get("group") == group else group


def _from_parquet(files: Sequence[Path], root: Path, name: str, group: str | None) -> Source:
    tables = read_parquet_files(list(files), root)
    try:
        left_out = tuple(tables.left_out)
        source = Source(name, root, "parquet", tuple(tables.records), (), left_out, (), tables.close)
        return _finish(source, name, group)
    except BaseException:
        tables.close()
        raise


def _finish(source: Source, label: str, group: str | None) -> Source:
    """Refuse a source without pictures; set groups, the classes in order, and what is to be told."""
    if not source.records:
        misplaced = sum(left.code == "misplaced" for left in source.left_out)
        if misplaced:
            raise DataError(
                f"{label} holds {misplaced:,} pictures but no class folders",
                "a picture's class is the name of the folder that it lies in",
                "move the pictures of each class into a folder of its own, or write a table of path and label",
            )
        seen = few([f"{left.source}: {left.reason}" for left in source.left_out if left.source != "."], 3)
        raise DataError(f"{label} holds no pictures", seen or "it is empty", "name another folder")
    records = source.records if group is None else tuple(with_groups(source.records, group))
    classes = class_order(record.label for record in records if record.label is not None)
    left_out = tuple(sorted(set(source.left_out), key=lambda left: (left.source, left.code, left.reason)))
    notes = (*source.notes, *split_notes(records))
    return replace(source, records=records, classes=classes, left_out=left_out, notes=notes)


def _stem(path: Path) -> str:
    """Return a file's name without its endings."""
    name = storable(path.name)
    while name.lower().endswith(_ENDINGS) and name.count(".", 1):
        name = name.rsplit(".", 1)[0]
    return name
