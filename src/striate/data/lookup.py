"""Where the files of the named public data sets lie: the folders looked in, and what is recognised in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from striate.data.named import CIFAR10_BINARIES, CIFAR100_BINARIES, IDX_NAMES, NAMED, PARQUET_NAMES, NamedFile, NamedSet
from striate.data.readers import read_idx, read_parquet_classes
from striate.errors import DataError, UsageError, unknown_name

Report = Callable[[str], None]


def silent(line: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Found:
    """Where a data set lies: `layout` is idx, binary, archive or parquet; `paths` in the order its reader wants."""

    layout: str
    paths: tuple[Path, ...]


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
    if named.kind == "embedded":
        return None
    for folder in (*(root / name for name in named.folders), root):
        if not folder.is_dir():
            continue
        found = _locate_idx(folder) if named.kind == "idx" else _locate_cifar(named, folder)
        if found is not None and (folder != root or _belongs(named, found)):
            return found
    return None


def lacking(named: NamedSet, root: Path) -> str:
    """Say which files are missing where a data set's own folder holds only some of them, "" where none does."""
    groups = (IDX_NAMES,) if named.kind == "idx" else (_binaries(named), PARQUET_NAMES)
    for folder in (root / name for name in named.folders):
        for group in groups:
            missing = [name for name in group if idx_path(folder, name) is None]
            if 0 < len(missing) < len(group):
                return f"{folder} lacks {', '.join(missing)}"
    return ""


def _locate_idx(folder: Path) -> Found | None:
    paths = tuple(path for name in IDX_NAMES if (path := idx_path(folder, name)) is not None)
    return Found("idx", paths) if len(paths) == len(IDX_NAMES) else None


def idx_spellings(name: str) -> tuple[str, str, str]:
    """Return the names that an IDX file goes by: plain, packed, and with the dot that some archives have."""
    return name, f"{name}.gz", name.replace("-idx", ".idx")


def idx_path(folder: Path, name: str) -> Path | None:
    """Return the file in `folder` under one of the names it goes by, None where it has none of them."""
    return next((folder / spelling for spelling in idx_spellings(name) if (folder / spelling).is_file()), None)


def kept(folder: Path, file: NamedFile) -> Path | None:
    """Return a data set's file in `folder`, None where it is not there."""
    if file.name.endswith("-ubyte.gz"):
        return idx_path(folder, file.name.removesuffix(".gz"))
    return folder / file.name if (folder / file.name).is_file() else None


def _locate_cifar(named: NamedSet, folder: Path) -> Found | None:
    # The quickest to read comes first.
    if all((folder / name).is_file() for name in _binaries(named)):
        return Found("binary", (folder,))
    archive = folder / named.files[0].name
    for path in (archive, archive.with_suffix("")):
        if path.is_file():
            return Found("archive", (path,))
    tables = tuple(folder / name for name in PARQUET_NAMES)
    return Found("parquet", tables) if all(path.is_file() for path in tables) else None


def _binaries(named: NamedSet) -> tuple[str, ...]:
    return CIFAR10_BINARIES if len(named.classes) == 10 else CIFAR100_BINARIES


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
