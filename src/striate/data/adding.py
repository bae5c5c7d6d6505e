"""A data set's file that the user got by hand: recognised, checked, copied into the user's cache."""

from __future__ import annotations

from pathlib import Path

from striate.data.digests import md5_file
from striate.data.download import copy_into
from striate.data.lookup import cache_folder, find_named, idx_digest, idx_spellings, kept, locate
from striate.data.named import CIFAR10_BINARIES, CIFAR100_BINARIES, IDX_NAMES, NAMED, PARQUET_NAMES, NamedSet
from striate.data.readers import Pictures, check_range, read_cifar_binary, read_idx, read_parquet
from striate.errors import DataError
from striate.files import sha256_file

_FORMATS = (
    "known are the .gz files of MNIST, Fashion-MNIST and KMNIST, the binary archives of CIFAR-10 and CIFAR-100 and "
    "their .bin files, and parquet tables as the hub has them"
)


def add_file(path: Path, name: str | None = None) -> str:
    """Put a file into the user's cache, where load_named finds it, and return a sentence saying what was done.

    The file is recognised by its digest, else by its name and content, which is then read whole. `name` says which
    data set it belongs to where that leaves several. The copy appears whole or not at all.
    Raises DataError for a file that is not recognised, is broken, or holds something else; StriateError where the
    disk will not.
    """
    path = Path(path)
    wanted = find_named(name) if name is not None else None
    if path.is_dir():
        raise DataError(f"{path} is a folder", "striate data add takes a file", f"use the folder: --data-root {path}")
    if not path.is_file():
        raise DataError(f"{path} does not exist", "striate data add takes a file", "check the name")
    if "-python" in path.name and path.name.startswith("cifar"):
        raise DataError(
            f"{path} is the python version of the archive",
            "it holds pickles, which can run code, and is not read",
            f"get the binary version: {path.name.replace('-python', '-binary')}",
        )
    named, file_name = _recognise(path, wanted)
    if wanted is not None and named.name != wanted.name:
        raise DataError(f"{path} belongs to {named.name}", f"not to {wanted.name}", f"striate data add {path}")
    folder = cache_folder() / named.name
    if path.resolve() != (folder / file_name).resolve():
        copy_into(path, folder / file_name)
    # Another spelling of the same file, perhaps the broken one that this one replaces, would be found first.
    stem = file_name.removesuffix(".gz")
    for other in idx_spellings(stem) if stem in IDX_NAMES else ():
        if other != file_name:
            (folder / other).unlink(missing_ok=True)
    if locate(named, cache_folder()) is not None:
        return f"added {file_name} to {named.name}, which is now complete in {folder}"
    return f"added {file_name} to {named.name}; not yet in {folder}: {', '.join(_missing(named, file_name, folder))}"


def _missing(named: NamedSet, file_name: str, folder: Path) -> list[str]:
    """Return the files that go with `file_name` and are not there."""
    for group in (CIFAR10_BINARIES, CIFAR100_BINARIES, PARQUET_NAMES):
        if file_name in group:
            return [other for other in group if not (folder / other).is_file()]
    return [file.name for file in named.files if kept(folder, file) is None]


def _recognise(path: Path, wanted: NamedSet | None) -> tuple[NamedSet, str]:
    """Return the data set that a file belongs to and its name there. Raises DataError."""
    with open(path, "rb") as stream:
        head = stream.read(4)
    md5, sha256 = md5_file(path), sha256_file(path)
    for named in NAMED.values():
        for file in named.files:
            if sha256 == file.sha256 or (md5 == file.md5 and not file.sha256):
                return named, file.name
    if head == b"PAR1":
        return _recognise_parquet(path)
    if path.name in CIFAR10_BINARIES + CIFAR100_BINARIES:
        named = NAMED["cifar10" if path.name in CIFAR10_BINARIES else "cifar100"]
        _check_cifar(path, named, read_cifar_binary(path), batches=5 if named.name == "cifar10" else 1)
        return named, path.name
    for named in NAMED.values():
        for file in named.files if named.kind == "cifar" else ():
            if path.name in (file.name, file.name.removesuffix(".gz")):
                _check_cifar(path, named, read_cifar_binary(path))
                return named, path.name
    if head[:2] in (b"\x1f\x8b", b"\0\0"):
        return _recognise_idx(path, wanted, packed=head[:2] == b"\x1f\x8b")
    raise DataError(f"{path} is no file of a named data set", _FORMATS, "check the file's name, or get it again")


def _recognise_parquet(path: Path) -> tuple[NamedSet, str]:
    pictures = read_parquet(path)
    for named in NAMED.values():
        if named.kind == "cifar" and len(pictures.classes or ()) == len(named.classes):
            for count, file_name in zip((named.train, named.test), PARQUET_NAMES, strict=True):
                if len(pictures.images) == count and pictures.images.shape[1:] == named.shape:
                    return named, file_name
    raise DataError(
        f"{path} holds {len(pictures.images):,} pictures of {len(pictures.classes or ())} named classes",
        "expected 50,000 or 10,000 of 10 or 100 classes: CIFAR-10 or CIFAR-100 as the hub has them",
        "check the file",
    )


def _check_cifar(path: Path, named: NamedSet, parts: dict[str, Pictures], batches: int = 1) -> None:
    for part, pictures in parts.items():
        expected = named.train // batches if part == "train" else named.test
        if len(pictures.images) != expected:
            raise DataError(
                f"{path}: {part} has {len(pictures.images):,} pictures",
                f"expected {expected:,}; the file is cut short",
                "get it again",
            )
        check_range(path, pictures.labels, len(named.classes))


def _recognise_idx(path: Path, wanted: NamedSet | None, packed: bool) -> tuple[NamedSet, str]:
    array = read_idx(path)
    digest = idx_digest(array)
    for named in NAMED.values():
        for file in named.files:
            if digest == file.content_sha256:
                return named, file.name if packed else file.name.removesuffix(".gz")
    index = next((i for i, stem in enumerate(IDX_NAMES) if path.name in idx_spellings(stem)), None)
    if index is None:
        raise DataError(f"{path} is no file of a named data set", _FORMATS, "give it its maker's name, or get it again")
    several = [named.name for named in NAMED.values() if named.kind == "idx"]
    if wanted is None:
        raise DataError(
            f"{path} could belong to {', '.join(several)}",
            "its bytes are none of the official ones that are known",
            "say which: striate data add FILE --data NAME",
        )
    if wanted.name not in several:
        raise DataError(f"{path} is an IDX file", f"{wanted.name} has none", f"choose among {', '.join(several)}")
    count = wanted.train if index < 2 else wanted.test
    shape = (count, *wanted.shape[:2]) if index % 2 == 0 else (count,)
    if array.shape != shape:
        raise DataError(f"{path} has shape {array.shape}", f"{wanted.name} has {shape}", "get the file again")
    if index % 2:
        check_range(path, array, len(wanted.classes))
    return wanted, IDX_NAMES[index] + (".gz" if packed else "")
