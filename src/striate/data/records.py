"""Records: one for each picture of a source, saying where its bytes are and what is stated about it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from striate.data.opening import open_regular, printable
from striate.errors import DataError, UsageError

# How folders and tables write the splits; capitals do not matter.
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}

# No file of one picture is larger.
MOST_FILE_BYTES = 1 << 30


class Place(Protocol):
    """Where the bytes of one picture are. Places may be read by several threads at once."""

    def read(self) -> bytes:
        """Return the whole picture file. Raises DataError naming the picture."""

    def open(self) -> BinaryIO:
        """Return a stream that can seek, for reading a header without the rest; the caller closes it."""

    @property
    def path(self) -> Path | None:
        """The file on disk that is this picture and nothing else, where there is one."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A picture that is a file of its own."""

    path: Path

    def read(self) -> bytes:
        """Return the file's bytes. Raises DataError where it cannot be read, or changes meanwhile."""
        label = printable(str(self.path))
        with open_regular(self.path, label) as stream:
            before = os.fstat(stream.fileno())
            if before.st_size > MOST_FILE_BYTES:
                raise DataError(
                    f"{label} has {before.st_size:,} bytes", "no picture file is that large", "make it smaller"
                )
            try:
                content = stream.read(MOST_FILE_BYTES + 1)
                after = os.fstat(stream.fileno())
            except OSError as error:
                raise DataError(f"{label} cannot be read", error.strerror or str(error), "check the disk") from error
        if len(content) != after.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError(
                f"{label} changed while it was read", "another program writes to it", "wait for it, then run again"
            )
        return content

    def open(self) -> BinaryIO:
        """Open the file, never waiting for a pipe. Raises DataError."""
        return open_regular(self.path, printable(str(self.path)))


@dataclass(frozen=True, slots=True)
class Record:
    """One picture of a source. Two strings of it, `source` and `label`, can always be written as UTF-8.

    `source` is a path with / from the source's root, "set.zip!cat/1.jpg", "t.parquet#12" or "set.npz#train/12"; a byte
    of a file's name that is no UTF-8 stands in it as \\xff. `label` is a class name in Unicode's form NFC, or None
    where none is stated. `split` is train, validation or test where the source says so.
    """

    source: str
    label: str | None
    place: Place
    split: str | None = None
    group: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something in a source that is no record: a short code for programs, and the reason for people.

    In folders and archives: hidden, run-folder, empty-folder, misplaced (a picture in no class folder), beside-split
    (a folder next to train/ that is no split), not-a-picture (named like one), other-file, special-file, link-loop,
    linked-twice, dangling-link, outside-root, no-permission, unreadable. In tables also: missing-file, no-label,
    duplicate-row, conflicting-rows, not-in-table. In archives also: path-escape, link, duplicate-member. In parquet
    also: no-label, other-split.
    """

    source: str
    code: str
    reason: str


def _nothing() -> None:
    """Release nothing."""


@dataclass(frozen=True)
class Source:
    """All pictures of a folder, table, archive, parquet table or .npz file; used as `with open_source(…) as source`.

    `kind` is folder, table, archive, parquet or npz; `root` an absolute folder. `records` are in an order that does
    not depend on the disk's: by source, and rows of parquet and .npz as they come. `classes` as `class_order` gives
    them. `notes` are sentences to tell. `release` is what `close` calls; records are not readable afterwards.
    """

    name: str
    root: Path
    kind: str
    records: tuple[Record, ...]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    release: Callable[[], None] = _nothing

    def close(self) -> None:
        """Close the archive or table that the records are in."""
        self.release()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def storable(name: str) -> str:
    """Return a file's name as text that UTF-8 can hold: bytes that are no UTF-8 become \\xff."""
    return re.sub("[\ud800-\udfff]", lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", name)


def class_name(name: str) -> str:
    """Return the class that a folder or table calls `name`: storable, and in Unicode's composed form NFC.

    macOS writes é as e and an accent, other systems as one character; the eye and striate see one class.
    """
    return unicodedata.normalize("NFC", storable(name))


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in their fixed order: by code points; where all are whole numbers, by number."""
    known = set(names)
    if all(name.isascii() and name.isdigit() for name in known):
        return tuple(sorted(known, key=lambda name: (int(name), name)))
    return tuple(sorted(known))


def match_classes(here: Sequence[str], known: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Match class names to those of a model, by name: the indices in `known`, and sentences to tell.

    Names of `here` that the model does not know are not in the indices.
    """
    indices = {class_name(name): index for index, name in enumerate(known)}
    matched = {name: indices[class_name(name)] for name in here if class_name(name) in indices}
    unknown = [name for name in here if name not in matched]
    missing = [name for index, name in enumerate(known) if index not in matched.values()]
    told = []
    if unknown:
        told.append(f"the model does not know {few(unknown)}: these pictures are not counted")
    if missing:
        told.append(f"no picture of {few(missing)} is here")
    return matched, told


def split_notes(records: Sequence[Record]) -> list[str]:
    """Say which classes are in the validation or test pictures and not in the train pictures, or the reverse."""
    by_split: dict[str, Counter[str]] = {}
    for record in records:
        if record.split is not None and record.label is not None:
            by_split.setdefault(record.split, Counter())[record.label] += 1
    train = by_split.pop("train", None)
    if train is None:
        return []
    notes = []
    for split, counts in sorted(by_split.items()):
        only_here = class_order(counts.keys() - train.keys())
        if only_here:
            pictures = sum(counts[name] for name in only_here)
            notes.append(
                f"only in {split}, not in train: {few(only_here)} ({pictures:,} pictures);"
                " what is not trained cannot be told, the other classes are matched by name"
            )
        only_train = class_order(train.keys() - counts.keys())
        if only_train:
            notes.append(f"in train, not in {split}: {few(only_train)}; classes are matched by name")
    return notes


def with_groups(records: Sequence[Record], pattern: str) -> list[Record]:
    """Give each record the group that a regular expression finds in its source.

    The group is what the expression's first parentheses hold, or all that it matches; where it matches nothing, the
    record keeps the group that it has. Raises UsageError for a broken expression and for one that matches no record.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group {pattern} is no regular expression", str(error), "check its brackets") from error
    grouped, count = [], 0
    for record in records:
        found = expression.search(record.source)
        count += found is not None
        name = record.group if found is None else found[1] if expression.groups else found[0]
        grouped.append(replace(record, group=name))
    if records and count == 0:
        raise UsageError(
            f"--group {pattern} matches none of {len(records):,} pictures",
            f"the first is {printable(records[0].source)}",
            "change the expression",
        )
    return grouped


def few(names: Sequence[str], most: int = 5) -> str:
    """Name a few things, and how many more there are."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + rest
