"""The file formats that the named data sets come in: IDX, CIFAR's binary records, the hub's parquet tables.

Every reader checks the whole file before it returns anything, and none of them can run code from a file: CIFAR's
"python" archives, which are pickles, are not read. Compression is recognised by content, not by the file's name.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Images, Labels
from striate.data.encoded import MOST_BYTES, decode_all
from striate.errors import DataError, MissingExtra

GET_ANOTHER = "delete it and run again to download it anew, or add a good copy: striate data add FILE"

# CIFAR unpacked has 184 MB.
MOST_TAR_BYTES = 1 << 30

CIFAR_PIXELS = 3 * 32 * 32
_CIFAR_MEMBER = re.compile(r"(data_batch_[1-5]|test_batch|train|test)\.bin|batches\.meta\.txt|fine_label_names\.txt")


class Pictures(NamedTuple):
    """What a file holds: uint8 (N, H, W, C), int64 (N,), and the class names where the file has them."""

    images: Images
    labels: Labels
    classes: tuple[str, ...] | None


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file, plain or gzipped: uint8 (N,) for labels, (N, H, W) for pictures.

    Format: two zero bytes, type 8 (unsigned byte), the number of dimensions, each dimension as a big-endian
    32-bit number, then the values, with nothing after them (Y. LeCun, the MNIST page).
    Raises DataError where any of this does not hold, or the gzip stream is cut short, corrupt or too long.
    """
    path = Path(path)
    with _opened(path, "an IDX file") as stream:
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] != 8 or head[3] not in (1, 3):
            raise DataError(
                f"{path} is no IDX file: it begins with {_shown(head + stream.read(12))}",
                "expected 00 00 08 01 (labels) or 00 00 08 03 (pictures)",
                GET_ANOTHER,
            )
        raw_shape = stream.read(4 * head[3])
        if len(raw_shape) < 4 * head[3]:
            raise DataError(f"{path} ends inside its header", "the file is cut short", GET_ANOTHER)
        shape = tuple(int.from_bytes(raw_shape[i : i + 4], "big") for i in range(0, len(raw_shape), 4))
        expected = math.prod(shape)
        if not 0 < expected <= MOST_BYTES:
            raise DataError(
                f"{path} announces {' × '.join(map(str, shape))} values",
                f"expected 1 to {MOST_BYTES:,} bytes; the header is damaged",
                GET_ANOTHER,
            )
        # One byte more than announced: it shows a file that is too long and makes gzip check its own sum.
        content = _read_up_to(stream, expected + 1)
    if len(content) != expected:
        got = f"more than {expected:,}" if len(content) > expected else f"{len(content):,}"
        cause = "the file is cut short" if len(content) < expected else "there are bytes after the last value"
        raise DataError(f"{path} holds {got} values, expected {expected:,} from its header", cause, GET_ANOTHER)
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_idx_pair(images_path: Path, labels_path: Path, num_classes: int) -> Pictures:
    """Read an IDX file of pictures with its file of labels: images (N, H, W, 1), labels (N,).

    Raises DataError where either is broken, the counts differ, or a label is not in 0 … num_classes − 1.
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, wanted, word in ((images_path, images, 3, "pictures"), (labels_path, labels, 1, "labels")):
        if array.ndim != wanted:
            raise DataError(
                f"{path} has {array.ndim} dimensions, expected {wanted}",
                f"this is not a file of {word}; the files may be swapped",
                GET_ANOTHER,
            )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images):,} pictures, {labels_path} holds {len(labels):,} labels",
            "every picture has one label; the two files do not belong together",
            "delete both and run again to download them anew, or add good copies: striate data add FILE",
        )
    check_range(labels_path, labels, num_classes)
    return Pictures(images[..., None], labels.astype(np.int64), None)


def read_cifar_binary(path: Path) -> dict[str, Pictures]:
    """Read CIFAR-10 or CIFAR-100 in the binary layout: {"train": …, "test": …} as far as `path` holds them.

    `path`: the folder with the .bin files, one .bin file, or the archive (.tar.gz or .tar), which is read member by
    member in memory; nothing is extracted. images uint8 (N, 32, 32, 3), labels int64 (N,), CIFAR-100's are the fine
    ones. A record is the label (CIFAR-100: coarse, then fine) and 1024 red, 1024 green, 1024 blue values in rows.
    Raises DataError for a missing batch, a length that is no whole number of records, or a label out of range.
    """
    path = Path(path)
    if path.is_dir():
        found = [file for file in path.iterdir() if _CIFAR_MEMBER.fullmatch(file.name) and file.is_file()]
        members = {file.name: (file, _read_whole(file)) for file in found}
    elif path.suffix == ".bin":
        members = {path.name: (path, _read_whole(path))}
    else:
        members = _read_tar(path)
    batches = sorted(name for name in members if name.startswith("data_batch_"))
    if batches and path.suffix != ".bin" and len(batches) != 5:
        missing = sorted({f"data_batch_{i}.bin" for i in range(1, 6)} - set(batches))
        raise DataError(f"{path} lacks {', '.join(missing)}", "the train set has five batches", GET_ANOTHER)
    names = {
        10: _class_names(members.get("batches.meta.txt"), 10),
        100: _class_names(members.get("fine_label_names.txt"), 100),
    }
    layout: list[tuple[str, list[str], int]] = [
        ("train", batches, 10),
        ("test", ["test_batch.bin"], 10),
        ("train", ["train.bin"], 100),
        ("test", ["test.bin"], 100),
    ]
    parts: dict[str, Pictures] = {}
    for part, wanted, num_classes in layout:
        present = [members[name] for name in wanted if name in members]
        if not present:
            continue
        if part in parts:
            raise DataError(f"{path} holds CIFAR-10 and CIFAR-100 files", "expected one of them", "part them")
        pieces = [_cifar_records(where, content, num_classes) for where, content in present]
        images, labels = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        parts[part] = Pictures(images, labels, names[num_classes])
    if not parts:
        raise DataError(
            f"{path} holds no CIFAR .bin file",
            "expected data_batch_1.bin … test_batch.bin, or train.bin and test.bin; the python archives are pickles, "
            "which can run code, and are not read",
            "get the archive called 'binary version' and: striate data add FILE",
        )
    return parts


def read_parquet(path: Path, threads: int | None = None) -> Pictures:
    """Read pictures from a parquet table as the hub lays them out, decoding them on `threads` threads.

    Columns: `img` or `image`, a struct {bytes, path} whose bytes are a PNG, JPEG, WebP or BMP file; `label` or
    `fine_label`, integers. Class names come from the schema's metadata, where they are. All pictures must have one
    size and one mode, L (C = 1) or RGB (C = 3).
    Raises MissingExtra without pyarrow; DataError for anything else, naming the row.
    """
    path = Path(path)
    encoded, labels, classes = _read_table(path)
    if not encoded:
        raise DataError(f"{path} has no rows", "expected pictures", GET_ANOTHER)
    if classes is not None:
        check_range(path, labels, len(classes))
    return Pictures(decode_all(path, encoded, GET_ANOTHER, threads), labels, classes)


def _read_table(path: Path) -> tuple[list[bytes | None], Labels, tuple[str, ...] | None]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            f"cannot read {path}", "parquet needs pyarrow, which is not installed", "pip install 'striate[parquet]'"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            image_column = _column(path, schema.names, ("img", "image"))
            label_column = _column(path, schema.names, ("label", "fine_label"))
            kind = schema.field(image_column).type
            if not pyarrow.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                raise DataError(
                    f"{path}: column {image_column!r} has type {kind}",
                    "expected a struct {bytes, path} with the bytes of a picture file",
                    "write the table in the hub's layout for images",
                )
            table = file.read(columns=[f"{image_column}.bytes", label_column])
        encoded = [row for chunk in table.column(image_column).chunks for row in chunk.field("bytes").to_pylist()]
        numbers = table.column(label_column)
        if numbers.null_count or not pyarrow.types.is_integer(numbers.type):
            raise DataError(
                f"{path}: column {label_column!r} has type {numbers.type} and {numbers.null_count} empty rows",
                "expected an integer in every row",
                "number the classes from 0",
            )
        labels = numbers.to_numpy().astype(np.int64)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet", _first_line(error), GET_ANOTHER) from error
    return encoded, labels, _hub_classes(schema.metadata, label_column)


def read_parquet_classes(path: Path) -> tuple[str, ...] | None:
    """Return the class names in a parquet file's metadata, or None where there are none or it cannot be read."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    try:
        metadata = pyarrow.parquet.read_schema(path).metadata
    except (OSError, pyarrow.ArrowException):
        return None
    return _hub_classes(metadata, "label") or _hub_classes(metadata, "fine_label")


def check_range(path: Path, labels: NDArray[Any], num_classes: int) -> None:
    """Raise DataError, naming the file and the first such row, unless every label is in 0 … num_classes − 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{path}: {len(wrong):,} labels out of range, the first is {int(labels[wrong[0]])} in row {int(wrong[0])}",
            f"{num_classes} classes are numbered 0 to {num_classes - 1}",
            GET_ANOTHER,
        )


@contextmanager
def _opened(path: Path, word: str) -> Iterator[BinaryIO]:
    """Open a file that may be gzipped; turn what goes wrong while reading it into a DataError that names it."""
    try:
        with open(path, "rb") as plain:
            magic = plain.read(2)
            plain.seek(0)
            if not magic:
                raise DataError(f"{path} is empty", f"expected {word}", GET_ANOTHER)
            if magic == b"\x1f\x8b":
                with gzip.open(plain, "rb") as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield plain
    except EOFError as error:
        raise DataError(f"{path} is cut short", "its gzip stream ends too early", GET_ANOTHER) from error
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path} is corrupt", _first_line(error), GET_ANOTHER) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read", error.strerror or str(error), "check the name and the rights"
        ) from error


def _read_whole(path: Path) -> bytes | bytearray:
    with _opened(path, "CIFAR records") as stream:
        content = _read_up_to(stream, MOST_TAR_BYTES + 1)
    if len(content) > MOST_TAR_BYTES:
        raise DataError(f"{path} is larger than {MOST_TAR_BYTES:,} bytes", "no file of CIFAR is", GET_ANOTHER)
    return content


def _read_up_to(stream: BinaryIO, most: int) -> bytearray:
    """Read at most `most` bytes in pieces, so that memory follows what the file holds, not what it announces.

    A bytearray, because an array on `bytes` could not be written to, which torch.from_numpy warns of.
    """
    content = bytearray()
    while len(content) < most and (piece := stream.read(min(most - len(content), 16 << 20))):
        content += piece
    return content


class _Limited(io.RawIOBase):
    """A stream that ends with a DataError once it has given more than `most` bytes: no archive can fill memory."""

    def __init__(self, stream: BinaryIO, most: int, path: Path) -> None:
        self._stream, self._left, self._path = stream, most, path

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise DataError(f"{self._path} unpacks to far more than CIFAR has", "not the official archive", GET_ANOTHER)
        return content


def _read_tar(path: Path) -> dict[str, tuple[Path, bytes | bytearray]]:
    members: dict[str, tuple[Path, bytes | bytearray]] = {}
    with (
        _opened(path, "a tar archive of CIFAR .bin files") as stream,
        tarfile.open(fileobj=_Limited(stream, MOST_TAR_BYTES, path), mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            if not member.isreg() or not _CIFAR_MEMBER.fullmatch(name):
                continue
            if name in members:
                raise DataError(f"{path} holds {name} twice", "the official archive does not", GET_ANOTHER)
            content = archive.extractfile(member)
            members[name] = (path / member.name, content.read() if content is not None else b"")
        # The rest of the stream is read so that gzip checks its sum.
        while stream.read(1 << 20):
            pass
    return members


def _cifar_records(where: Path, content: bytes | bytearray, num_classes: int) -> tuple[Images, Labels]:
    label_bytes = 1 if num_classes == 10 else 2
    record = label_bytes + CIFAR_PIXELS
    if not content or len(content) % record:
        raise DataError(
            f"{where} has {len(content):,} bytes",
            f"expected a whole number of records of {record:,} bytes; the file is cut short or of another kind",
            GET_ANOTHER,
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    labels = rows[:, label_bytes - 1].astype(np.int64)
    check_range(where, labels, num_classes)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 3, 32, 32) → (N, 32, 32, 3)
    return np.ascontiguousarray(images), labels


def _class_names(member: tuple[Path, bytes | bytearray] | None, num_classes: int) -> tuple[str, ...] | None:
    if member is None:
        return None
    names = tuple(member[1].decode("utf-8", "replace").split())
    return names if len(names) == num_classes else None


def _column(path: Path, names: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    raise DataError(
        f"{path} has no column {' or '.join(map(repr, wanted))}",
        "its columns are: " + (", ".join(names) or "none"),
        "rename the column; pictures are in 'img' or 'image', class numbers in 'label' or 'fine_label'",
    )


def _hub_classes(metadata: dict[bytes, bytes] | None, label_column: str) -> tuple[str, ...] | None:
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _shown(content: bytes) -> str:
    return repr(content) if content[:1] == b"<" else content.hex(" ") or "nothing"
