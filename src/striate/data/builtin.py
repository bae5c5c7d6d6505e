"""The named public data sets: finding their files, downloading them, reading them.

Looked for in the folder given (--data-root), then STRIATE_DATA, then the user's cache, then downloaded into the cache.
What makes a file good: it reads properly and holds as many pictures as its maker says. A download must also have a
known digest, of the file as served or, where the gzip wrapper differs, of the unpacked bytes. A file that was found
is never refused for another wrapper; where its unpacked bytes are not the official ones, one line says so.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.adding import add_file as add_file
from striate.data.dataset import Dataset, Parts
from striate.data.digests import Digests
from striate.data.download import fetch
from striate.data.lookup import (
    Found,
    Report,
    cache_folder,
    data_roots,
    find_named,
    idx_digest,
    kept,
    lacking,
    locate,
    silent,
)
from striate.data.named import NAMED, NamedFile, NamedSet
from striate.data.readers import GET_ANOTHER, Pictures, read_cifar_binary, read_idx_pair, read_parquet
from striate.errors import DataError

# The hub's table of CIFAR-100 misspells one class.
_MISSPELT = {"cra": "crab"}


def load_named(
    name: str, root: Path | None = None, download: bool = True, report: Report = silent, class_names: str = "en"
) -> Parts:
    """Return the parts of a named data set, its pictures as their makers give them, in their order.

    `digits` has one part only: 1,797 pictures of 8 × 8 pixels whose values 0–16 become round(v · 255 / 16).
    `report` gets a line for a download, for a mirror passed over and for a file that is not the official one.
    `class_names`: en, or zh for Chinese ones. Raises UsageError for an unknown name; DataError where a file is broken
    or cannot be had.
    """
    named = find_named(name)
    parts = _find_parts(named, root, download, report)
    if class_names == "en":
        return parts
    test = parts.test and replace(parts.test, classes=named.classes_zh)
    return replace(parts, train=replace(parts.train, classes=named.classes_zh), test=test)


def _find_parts(named: NamedSet, root: Path | None, download: bool, report: Report) -> Parts:
    if named.kind == "embedded":
        return _load_digits(named)
    looked = []
    for folder in data_roots(root, report):
        found = locate(named, folder)
        if found is not None:
            return _load_found(named, found, report)
        if short := lacking(named, folder):
            report(short)
        looked.append(short or str(folder))
    if not download:
        raise DataError(
            f"{named.name} is not here",
            "looked in " + "; ".join(looked),
            "allow the download, or " + _by_hand(named, named.files),
        )
    download_named(named, report)
    found = locate(named, cache_folder())
    if found is None:
        raise DataError(f"{named.name} was downloaded but is gone", f"looked in {cache_folder()}", "run again")
    return _load_found(named, found, report)


def download_named(named: NamedSet, report: Report = silent) -> None:
    """Download the files of a data set that the user's cache does not have yet. Raises DataError, StriateError."""
    folder = cache_folder() / named.name
    missing = tuple(file for file in named.files if kept(folder, file) is None)
    size = sum(file.size for file in missing) / 1e6
    report(f"downloading {named.name}: {len(missing)} files, {size:.1f} MB, to {folder}")
    for file in missing:
        digests = Digests(file.sha256, file.md5, file.content_sha256)
        fix = _by_hand(named, tuple(file for file in missing if kept(folder, file) is None))
        fetch(file.urls, folder / file.name, digests, file.size, report=report, fix=fix)


def describe_named(root: Path | None = None) -> list[dict[str, Any]]:
    """Describe every named data set: name, pictures, classes, size (H, W, C), licence, and where it was found."""
    rows: list[dict[str, Any]] = []
    roots = tuple(data_roots(root))
    for named in NAMED.values():
        found = next((found for folder in roots if (found := locate(named, folder)) is not None), None)
        where = "not here: downloaded when first used, or striate data add FILE"
        if named.kind == "embedded":
            where = "inside scikit-learn"
        elif found is not None:
            where = str(found.paths[0] if found.layout in ("binary", "archive") else found.paths[0].parent)
        rows.append(
            {
                "name": named.name,
                "pictures": named.train + named.test,
                "classes": len(named.classes),
                "size": named.shape,
                "licence": named.licence,
                "where": where,
            }
        )
    return rows


def _load_digits(named: NamedSet) -> Parts:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
    train = Dataset("digits", images, bunch.target.astype(np.int64), named.classes)
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
