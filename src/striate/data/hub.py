"""Parquet tables as the Hugging Face hub lays them out: a file, a folder of shards, or hf://owner/name.

Labels are read at once, pictures only when wanted, by groups of rows. Needs the extra `parquet`.
"""

from __future__ import annotations

import bisect
import io
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from striate.data.opening import open_regular, printable
from striate.data.readers import read_parquet_classes
from striate.data.records import SPLITS, LeftOut, Record, class_name, few, storable
from striate.errors import DataError, MissingExtra, StriateError, UsageError

IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "fine_label", "labels", "class", "category")
MOST_GROUP_BYTES = 1 << 30  # of pictures that are read at once
_GROUPS_KEPT = 4  # threads that work through the rows in order are within so many groups
_SHARD = re.compile(r"(?P<split>\w+?)(-\d+-of-\d+(-\w+)?)?")
_ADDRESS = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?(/(?P<folder>.+?))?/?")
_INSTALL = "pip install 'striate[parquet]'"


@dataclass(frozen=True, slots=True)
class CellPlace:
    """A picture in a row of a parquet file."""

    table: ParquetFile
    row: int

    @property
    def path(self) -> None:
        """There is no file of its own."""
        return None

    def read(self) -> bytes:
        """Return the picture's file. Raises DataError naming the row where there is none."""
        content = self.table.cell(self.row)
        if not isinstance(content, bytes) or not content:
            raise DataError(
                f"{printable(self.table.path.name)}#{self.row} has no picture bytes",
                "a path alone is not enough",
                "embed the pictures in the table",
            )
        return content

    def open(self) -> BinaryIO:
        """Return `read` as a stream."""
        return io.BytesIO(self.read())


class ParquetFile:
    """An open parquet file whose pictures are read by groups of rows; threads take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = printable(str(path))
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Any] = OrderedDict()
        stream = open_regular(path, self.label)
        try:
            with _explained(self.label):
                import pyarrow
                import pyarrow.parquet

                self._file = pyarrow.parquet.ParquetFile(stream)
                self.schema = self._file.schema_arrow
            self.image = self._column("pictures", IMAGE_COLUMNS)
            kind = self.schema.field(self.image).type
            nested = pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            if not nested and not pyarrow.types.is_binary(kind) and not pyarrow.types.is_large_binary(kind):
                raise DataError(
                    f"{self.label}: column {self.image!r} has type {kind}",
                    "expected a struct {bytes, path} with the bytes of a picture file",
                    "write the table in the hub's layout for images",
                )
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        self._cells = f"{self.image}.bytes" if nested else self.image
        self._starts = [0]  # the first row of each group, and one past the last
        for group in range(self._file.metadata.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)

    def labels(self) -> list[str | None]:
        """Return the class of every row by name, None where none is stated: no value, or −1 as the hub has it."""
        column = self._column("labels", LABEL_COLUMNS)
        with _explained(self.label):
            values = self._file.read(columns=[column]).column(column).to_pylist()
        names = read_parquet_classes(self.path) if any(isinstance(value, int) for value in values[:1000]) else None
        return [self._class_of(value, names, row) for row, value in enumerate(values)]

    def _class_of(self, value: Any, names: tuple[str, ...] | None, row: int) -> str | None:
        if value is None or value == -1 or value == "":
            return None
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            raise DataError(f"{self.label}#{row}: the label is {value!r}", "expected a number or a name", "mend it")
        if isinstance(value, str) or names is None:
            return class_name(str(value))
        if not 0 <= value < len(names):
            raise DataError(
                f"{self.label}#{row}: label {value} out of range", f"{len(names)} classes are named", "mend the table"
            )
        return class_name(names[value])

    def cell(self, row: int) -> Any:
        """Return what the column of pictures holds in a row."""
        group = bisect.bisect_right(self._starts, row) - 1
        with self._lock, _explained(self.label):
            column = self._kept.get(group)
            if column is None:
                column = self._kept[group] = self._read_group(group)
                while len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
        return column[row - self._starts[group]].as_py()

    def _read_group(self, group: int) -> Any:
        size = self._file.metadata.row_group(group).total_byte_size
        if size > MOST_GROUP_BYTES:
            raise DataError(
                f"{self.label}: group {group} of its rows has {size:,} bytes",
                f"at most {MOST_GROUP_BYTES:,} are read at once",
                "write the table with smaller groups of rows",
            )
        column = self._file.read_row_group(group, columns=[self._cells]).column(self.image)
        column = column.combine_chunks()
        return column.field("bytes") if self._cells != self.image else column

    def _column(self, what: str, names: tuple[str, ...]) -> str:
        for name in names:
            if name in self.schema.names:
                return name
        raise DataError(
            f"{self.label} has no column of {what}",
            "its columns are: " + (", ".join(self.schema.names) or "none"),
            f"call it {' or '.join(names[:2])}",
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._kept.clear()
            self._file.close()
            self._stream.close()


@dataclass
class Tables:
    """The records of one or more parquet files, in their order, and the open files."""

    records: list[Record]
    left_out: list[LeftOut]
    files: list[ParquetFile]

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def read_parquet_files(paths: list[Path], root: Path) -> Tables:
    """Read the labels of parquet files; a file called train-…, validation-… or test-…, or in such a folder, is a split.

    If some files are of a split, the others are left out. Raises MissingExtra without pyarrow, DataError otherwise.
    """
    tables = Tables([], [], [])
    splits = {path: split_of(path.relative_to(root)) for path in paths}
    wanted = [path for path in sorted(paths) if splits[path] or not any(splits.values())]
    for path in sorted(paths):
        if path not in wanted:
            reason = "its name says neither train, validation nor test"
            tables.left_out.append(LeftOut(_source(path, root), "other-split", reason))
    try:
        for path in wanted:
            file = ParquetFile(path)
            tables.files.append(file)
            source = _source(path, root)
            for row, label in enumerate(file.labels()):
                if label is None:
                    tables.left_out.append(LeftOut(f"{source}#{row}", "no-label", "it has no label"))
                else:
                    tables.records.append(Record(f"{source}#{row}", label, CellPlace(file, row), splits[path]))
        if not tables.records:
            raise DataError(f"{few([path.name for path in wanted])}: no labelled pictures", "", "name another table")
    except BaseException:
        tables.close()
        raise
    return tables


def split_of(path: Path) -> str | None:
    """Return the split that a parquet file's path says: train-00000-of-00001.parquet, train/0000.parquet."""
    stem = _SHARD.fullmatch(path.stem)
    for word in (stem["split"] if stem else "", *reversed(path.parts[:-1])):
        if word.lower() in SPLITS:
            return SPLITS[word.lower()]
    return None


def is_address(target: str) -> bool:
    """Say whether a target is a data set on the hub."""
    return target.startswith("hf://")


def fetch_from_hub(address: str, report: Callable[[str], None]) -> tuple[str, Path, list[Path]]:
    """Download the parquet files of hf://owner/name[@revision][/folder], or find them in the hub's own cache.

    Returns the data set's short name, the folder, and the files. The environment's HF_ENDPOINT names another hub.
    Raises UsageError for a broken address and where several configurations are there; MissingExtra; DataError where
    the hub does not answer or has no parquet.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UsageError(f"{address} is no data set on the hub", "expected hf://owner/name", "check the address")
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra(
            f"cannot read {address}", "it needs huggingface-hub, which is not installed", _INSTALL
        ) from error
    chosen = parts["folder"]
    report(f"looking for {address} on the hub, or in its cache")
    try:
        folder = huggingface_hub.snapshot_download(
            parts["name"],
            repo_type="dataset",
            revision=parts["revision"],
            allow_patterns=[f"{chosen}/*.parquet"] if chosen else ["*.parquet"],
            endpoint=os.environ.get("HF_ENDPOINT") or None,
        )
    except Exception as error:  # its own kinds, those of its HTTP client, and any on answers that are no hub's
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{address} cannot be had", reason, "check the name and the network, or download its parquet files yourself"
        ) from error
    root = Path(folder)
    files = sorted(root.rglob("*.parquet"))
    if chosen:
        files = [file for file in files if file.is_relative_to(root / chosen)]
    _check_one_configuration(address, root, files)
    return parts["name"].split("/")[1], root, files


def _check_one_configuration(address: str, root: Path, files: list[Path]) -> None:
    if not files:
        raise DataError(f"{address} has no parquet files", "other layouts are not read", "download it yourself")
    folders = {file.relative_to(root).parent.as_posix() for file in files}
    # A split may have a folder of its own, in the folder of its configuration.
    configurations = sorted(
        {str(PurePosixPath(f).parent) if PurePosixPath(f).name.lower() in SPLITS else f for f in folders}
    )
    if len(configurations) > 1:
        raise UsageError(
            f"{address} holds several configurations", few(configurations), f"name one: {address}/{configurations[0]}"
        )


def _source(path: Path, root: Path) -> str:
    return storable(path.relative_to(root).as_posix())


@contextmanager
def _explained(label: str) -> Iterator[None]:
    """Turn what pyarrow raises into a DataError that begins with the file, or MissingExtra where there is none."""
    try:
        yield
    except StriateError:
        raise
    except ImportError as error:
        raise MissingExtra(f"cannot read {label}", "parquet needs pyarrow, which is not installed", _INSTALL) from error
    except Exception as error:  # pyarrow raises its own kinds, OSError, ValueError and others on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{label} cannot be read as parquet", reason, "copy or download it again") from error
