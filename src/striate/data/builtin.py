"""The named public data sets: finding their files, downloading them, reading them.

Looked for in the folder given (--data-root), then STRIATE_DATA, then the user's cache, then downloaded into the cache.
What makes a file good: it reads properly and holds as many pictures as its maker says. A download must also have a
known digest, of the file as served or, where the gzip wrapper differs, of the unpacked bytes. A file that was found
is never refused for another wrapper; where its unpacked bytes are not the official ones, one line says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.dataset import Dataset, Parts
from striate.data.named import IDX_NAMES, NAMED, PARQUET_NAMES, NamedFile, NamedSet
from striate.data.readers import (
    GET_ANOTHER,
    Pictures,
    read_cifar_binary,
    read_idx,
    read_idx_pair,
    read_parquet,
    read_parquet_classes,
)
from striate.errors import DataError, UsageError, unknown_name

__all__ = ["NAMED", "add_file", "describe_named", "find_named", "load_named"]

Report = Callable[[str], None]

# The hub's table of CIFAR-100 misspells one class.
_MISSPELT = {"cra": "crab"}


def silent(line: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Found:
    """Where a data set lies: `layout` is idx, binary, archive or parquet; `paths` in the order its reader wants."""

    layout: str
    paths: tuple[Path, ...]


def load_named(name: str, root: Path | None = None, download: bool = True, report: Report = silent) -> Parts:
    """Return the parts of a named data set, its pictures as their makers give them, in their order.

    `digits` has one part only: 1,797 pictures of 8 × 8 pixels whose values 0–16 become round(v · 255 / 16).
    `report` gets a line for a download, for a mirror passed over and for a file that is not the official one.
    Raises UsageError for an unknown name; DataError where a file is broken or cannot be had.
    """
    named = find_named(name)
    if named.kind == "embedded":
        return _load_digits(named)
    looked = []
    for folder in data_roots(root, report):
        found = locate(named, folder)
        if found is not None:
            return _load_found(named, found, report)
        looked.append(folder)
    if not download:
        raise DataError(
            f"{named.name} is not here",
            "looked in " + ", ".join(map(str, looked)),
            "allow the download, or " + _by_hand(named, named.files),
        )
    download_named(named, report)
    found = locate(named, cache_folder())
    if found is None:
        raise DataError(f"{named.name} was downloaded but is gone", f"looked in {cache_folder()}", "run again")
    return _load_found(named, found, report)


def find_named(name: str) -> NamedSet:
    """Return the named data set; `_` and capitals do not matter. Raises UsageError with the near names."""
    named = NAMED.get(name.lower().replace("_", "-"))
    if named is None:
        raise unknown_name("data set", name, NAMED)
    return named


def cache_folder() -> Path:
    """Return the folder of downloaded data sets in the user's cache, which may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("striate")) / "data"


def data_roots(root: Path | None, report: Report = silent) -> Iterator[Path]:
    """Yield the folders to look in, in order. Raises UsageError where `root` is given and is no folder."""
    if root is not None:
        if not Path(root).is_dir():
            raise UsageError(f"--data-root {root} is no folder", "it holds data sets", "make it, or leave the flag out")
        yield Path(root)
    shared = os.environ.get("STRIATE_DATA", "")
    if shared and Path(shared).is_dir():
        yield Path(shared)
    elif shared:
        report(f"STRIATE_DATA names {shared}, which is no folder: passed over")
    yield cache_folder()


def locate(named: NamedSet, root: Path) -> Found | None:
    """Find the files of a data set under `root`: in its own folders first, then lying directly in `root`.

    All files must be there. Files lying in `root` itself that are another set's (told by the digest of the labels
    or by the class names, since several sets share their file names) are passed over.
    """
    for folder in (*(root / name for name in named.folders), root):
        if not folder.is_dir():
            continue
        found = _locate_idx(folder) if named.kind == "idx" else _locate_cifar(named, folder)
        if found is not None and (folder != root or _belongs(named, found)):
            return found
    return None


def _locate_idx(folder: Path) -> Found | None:
    paths = tuple(path for name in IDX_NAMES if (path := idx_path(folder, name)) is not None)
    return Found("idx", paths) if len(paths) == len(IDX_NAMES) else None


def idx_path(folder: Path, name: str) -> Path | None:
    """Return an IDX file under one of the names it goes by: plain, .gz, or with the dot that some archives have."""
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx")):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _locate_cifar(named: NamedSet, folder: Path) -> Found | None:
    # The quickest to read comes first.
    binaries = ["train.bin", "test.bin"]
    if len(named.classes) == 10:
        binaries = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    if all((folder / name).is_file() for name in binaries):
        return Found("binary", (folder,))
    archive = folder / named.files[0].name
    for path in (archive, archive.with_suffix("")):
        if path.is_file():
            return Found("archive", (path,))
    tables = tuple(folder / name for name in PARQUET_NAMES)
    return Found("parquet", tables) if all(path.is_file() for path in tables) else None


def _belongs(named: NamedSet, found: Found) -> bool:
    if found.layout == "parquet":
        classes = read_parquet_classes(found.paths[0])
        return classes is None or len(classes) == len(named.classes)
    if found.layout != "idx":
        return True
    try:
        digest = idx_digest(read_idx(found.paths[1]))
    except DataError:
        return True  # the reader will name what is broken
    return not any(
        other.name != named.name and other.kind == "idx" and other.files[1].content_sha256 == digest
        for other in NAMED.values()
    )


def idx_digest(array: np.ndarray) -> str:
    """SHA-256 of the unpacked IDX file that holds `array`, as hex."""
    digest = hashlib.sha256(bytes((0, 0, 8, array.ndim)))
    digest.update(np.array(array.shape, dtype=">u4").tobytes())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _load_digits(named: NamedSet) -> Parts:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
    train = Dataset("digits/train", images, bunch.target.astype(np.int64), named.classes)
    return Parts("digits", train, licence=named.licence)


def _load_found(named: NamedSet, found: Found, report: Report) -> Parts:
    where = found.paths[0].parent if found.layout == "idx" else found.paths[0]
    if found.layout == "idx":
        with ThreadPoolExecutor(2) as pool:
            train, test = pool.map(lambda i: _load_idx(named, found.paths, i, report), (0, 2))
    elif found.layout == "parquet":
        train, test = (read_parquet(path) for path in found.paths)
    else:
        parts = read_cifar_binary(found.paths[0])
        if set(parts) != {"train", "test"}:
            raise DataError(f"{where} holds only {', '.join(parts)}", "expected train and test", GET_ANOTHER)
        train, test = parts["train"], parts["test"]
    return Parts(
        named.name,
        _checked(named, "train", train, where),
        test=_checked(named, "test", test, where),
        licence=named.licence,
    )


def _load_idx(named: NamedSet, paths: tuple[Path, ...], first: int, report: Report) -> Pictures:
    pictures = read_idx_pair(paths[first], paths[first + 1], len(named.classes))
    arrays = (pictures.images[..., 0], pictures.labels.astype(np.uint8))
    for file, path, array in zip(named.files[first : first + 2], paths[first : first + 2], arrays, strict=True):
        if file.content_sha256 and idx_digest(array) != file.content_sha256:
            report(f"{path} is not the official file of {named.name}: its unpacked bytes have another SHA-256")
    return pictures


def _checked(named: NamedSet, part: str, pictures: Pictures, where: Path) -> Dataset:
    """Return the part as a Dataset. Raises DataError where it is not what its maker describes."""
    expected = named.train if part == "train" else named.test
    images, labels, classes = pictures
    if len(images) != expected or images.shape[1:] != named.shape:
        raise DataError(
            f"{where}: {named.name}/{part} has {len(images):,} pictures of {_shape(images.shape[1:])}",
            f"expected {expected:,} of {_shape(named.shape)}; a file is cut short or belongs to another data set",
            GET_ANOTHER,
        )
    if classes is not None and tuple(_MISSPELT.get(name, name) for name in classes) != named.classes:
        raise DataError(
            f"{where}: the class names of {named.name}/{part} are {', '.join(classes[:10])}",
            f"expected {', '.join(named.classes[:10])} in this order",
            GET_ANOTHER,
        )
    if classes is None and len(labels) and int(labels.max()) >= len(named.classes):
        raise DataError(f"{where}: label {int(labels.max())} in {named.name}/{part}", "no such class", GET_ANOTHER)
    return Dataset(f"{named.name}/{part}", np.ascontiguousarray(images), labels, named.classes)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _by_hand(named: NamedSet, files: tuple[NamedFile, ...]) -> str:
    names = ", ".join(file.name for file in files)
    return f"get {names} (see {named.homepage}) and for each: striate data add FILE"
