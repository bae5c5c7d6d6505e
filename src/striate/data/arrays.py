"""Pictures in numpy's .npz files: arrays of pictures and labels, of one set or of train, validation and test.

Nothing that could run code is read: arrays of Python objects are refused.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.data.dataset import Dataset, Images
from striate.data.disk import PIECE_BYTES, is_on_disk, let_go, memory_allowance, room_for
from striate.data.opening import open_regular, printable, reason
from striate.data.records import Record, class_name, storable
from striate.errors import DataError

MOST_BYTES = 4 << 30

# Names of the arrays of pictures and of labels, and the split they are.
_PAIRS = (
    ("x_train", "y_train", "train"),
    ("x_val", "y_val", "validation"),
    ("x_valid", "y_valid", "validation"),
    ("x_test", "y_test", "test"),
    ("train_images", "train_labels", "train"),
    ("val_images", "val_labels", "validation"),
    ("test_images", "test_labels", "test"),
    ("images", "labels", None),
    ("x", "y", None),
)
_NAMES = ("classes", "class_names", "label_names")
_EXPECTED = "expected x_train, y_train (and x_val, y_val, x_test, y_test), or images, labels"


@dataclass(frozen=True, slots=True, eq=False)
class ArrayPlace:
    """A picture in an array: row `index` of uint8 (N, H, W, C)."""

    images: Images
    index: int

    @property
    def path(self) -> None:
        """There is no file of its own."""
        return None

    def array(self) -> NDArray[np.uint8]:
        """Return the picture, uint8 (H, W, C)."""
        return self.images[self.index]

    def read(self) -> bytes:
        """Return the picture as a PNG file, for whoever wants a file."""
        stream = io.BytesIO()
        pixels = self.array()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def open(self) -> BinaryIO:
        """Return `read` as a stream."""
        return io.BytesIO(self.read())


def read_npz(path: Path, allowance: int | None = None) -> tuple[list[Record], list[str]]:
    """Read an .npz file: its records, in the arrays' order, and notes.

    `allowance`: bytes that its arrays may take in memory; None for `memory_allowance()`. What is more lies on disk.

    Arrays are called x_train, y_train, x_val, y_val, x_test, y_test (as Keras does), train_images, train_labels … (as
    MedMNIST does), or images, labels. Pictures and labels as `Dataset.from_arrays` takes them; labels may also be
    names; `classes` may name the classes by number. Raises DataError, naming the array, for anything else.
    """
    arrays = _load(path, memory_allowance() if allowance is None else allowance)
    label = printable(path.name)
    pairs = [(x, y, split) for x, y, split in _PAIRS if x in arrays and y in arrays]
    if not pairs:
        raise DataError(f"{label} holds {', '.join(sorted(arrays)) or 'no array'}", _EXPECTED, "rename the arrays")
    if len({split for *_, split in pairs}) != len(pairs) or (len(pairs) > 1 and any(s is None for *_, s in pairs)):
        found = ", ".join(f"{x} and {y}" for x, y, _ in pairs)
        raise DataError(f"{label} holds the same split twice: {found}", _EXPECTED, "leave some out")
    names = _class_names(arrays, label)
    labels = iter(_labels([arrays[y] for _, y, _ in pairs], names, f"{label}, {pairs[0][1]}"))
    records: list[Record] = []
    for x, y, split in pairs:
        unlabelled = np.zeros(len(arrays[y]), dtype=np.int64)
        images = Dataset.from_arrays(arrays[x], unlabelled, ["unknown"], name=f"{label}, {x}").images
        prefix = f"{storable(path.name)}#{split}/" if split else f"{storable(path.name)}#"
        records += (Record(f"{prefix}{i}", next(labels), ArrayPlace(images, i), split) for i in range(len(images)))
    if not records:
        raise DataError(f"{label} holds no pictures", "its arrays are empty", "write the pictures into it")
    return records, [f"{label}: " + ", ".join(f"{x} with {y}" for x, y, _ in pairs)]


def _labels(arrays: list[NDArray[Any]], names: tuple[str, ...] | None, where: str) -> list[str]:
    """Return the class of every row of all arrays of labels, by name."""
    try:
        labels = np.concatenate(arrays)
    except ValueError as error:
        raise DataError(f"{where}: the arrays of labels differ in shape", str(error), "write them alike") from error
    if labels.dtype.kind in "US":
        return [class_name(text) for text in _texts(labels, where)]
    # Dataset turns one-hot rows and whole floats into numbers, and refuses the rest.
    blank = np.zeros((len(labels), 1, 1), dtype=np.uint8)
    dataset = Dataset.from_arrays(blank, labels, names, name=where)
    known = [class_name(name) for name in dataset.classes]
    return [known[number] for number in dataset.labels.tolist()]


def _class_names(arrays: dict[str, NDArray[Any]], label: str) -> tuple[str, ...] | None:
    found = next((name for name in _NAMES if name in arrays), None)
    return None if found is None else tuple(_texts(arrays[found], f"{label}, {found}"))


def _texts(array: NDArray[Any], where: str) -> list[str]:
    """Return an array of names (K,) or (K, 1) as text."""
    if array.dtype.kind not in "US" or array.size != len(array):
        raise DataError(f"{where} has type {array.dtype} and shape {array.shape}", "expected names (K,)", "mend it")
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in array.ravel().tolist()]


def _load(path: Path, allowance: int) -> dict[str, NDArray[Any]]:
    """Read all arrays whose names are known. Raises DataError for a damaged file, and for objects."""
    label = printable(str(path))
    wanted = {name for pair in _PAIRS for name in pair[:2]} | set(_NAMES)
    arrays: dict[str, NDArray[Any]] = {}
    left = MOST_BYTES
    try:
        with open_regular(path, label) as stream, zipfile.ZipFile(stream) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name not in wanted:
                    continue
                with archive.open(info) as member:
                    arrays[name] = _read_array(member, f"{label}, {name}", info.file_size, left, allowance)
                left -= arrays[name].nbytes
                allowance -= 0 if is_on_disk(arrays[name]) else arrays[name].nbytes
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{label} cannot be read as .npz", reason(error), "write it again with numpy.savez") from error
    return arrays


def _read_array(stream: Any, where: str, holds: int, left: int, allowance: int) -> NDArray[Any]:
    """Read one .npy file of `holds` bytes, to disk above the allowance; first its header is checked."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise DataError(
            f"{where} holds Python objects",
            "reading them could run code",
            "write numbers or text: array.astype('uint8'), array.astype(str)",
        )
    size = math.prod(shape) * dtype.itemsize
    if size > left:
        raise DataError(f"{where} has {size:,} bytes", f"one file may hold {MOST_BYTES:,}", "divide it, or use uint8")
    fits = bool(shape) and size <= holds
    content = room_for((size,), allowance, what=where) if size and fits else np.empty(0, np.uint8)
    found = 0
    while found < len(content) and (count := stream.readinto(content[found : found + PIECE_BYTES].data)):
        let_go(content[found : found + count])
        found += count
    if found != size or stream.read(1) or not fits:
        held = f"{found if fits else holds:,} bytes"
        raise DataError(f"{where} holds {held}", f"its header announces {size:,} and shape {shape}", "write it again")
    array = np.frombuffer(content, dtype=dtype)
    return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)
