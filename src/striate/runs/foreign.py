"""Weights that another program saved: .pt, .pth, .model or .safetensors, told by content, read without running code.

What torch.save writes is a zip archive of one pickle and the storages' bytes. The archive is checked, the pickle is
checked (plain_pickle.py), both are packed anew, and only that goes to torch.load with weights_only. Packed anew: two
readers of zip archives may find different files in a crafted one.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from striate.errors import DataError, MissingExtra
from striate.files import sha256_file
from striate.runs.plain_pickle import NotPlain, check_pickle
from striate.runs.tensors import DTYPES, MOST_TENSORS, read_tensors

# torch.load was mended up to here: CVE-2025-32434 (2.6), CVE-2026-24747 (2.10).
SAFE_TORCH = (2, 10)
# A checkpoint holds the optimizer's state and perhaps an average beside the weights: up to five times the net.
TIMES_THE_NET = 8
LEAST_LIMIT = 16 << 20
#: Where the weights stand in a checkpoint, if it is not the state dict itself.
WRAPPERS = ("state_dict", "model_state_dict", "model")
#: DistributedDataParallel and DataParallel put this before each name.
PARALLEL = "module."

STORAGE = re.compile(r"data/[0-9]{1,9}")
BESIDE = {"data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}
END_OF_ZIP, END_OF_ZIP64 = b"PK\x05\x06", b"PK\x06\x06"
MOST_DIRECTORY_BYTES = 1 << 20
SAVE_AGAIN = 'where the net was made, save its weights alone: torch.save(net.state_dict(), "weights.pt")'


def read_foreign(path: Path, net_bytes: int, expect_sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read the state dict in a file of another program: dense tensors on the CPU by name.

    `net_bytes`: what the weights of the net take that they are for; a file of more than a few times that is refused.
    The state dict is the file's value itself, or stands under one of WRAPPERS; the prefix `module.` is taken off where
    all names have it. Raises DataError for anything else, MissingExtra for a torch whose reader is not safe.
    """
    check_torch(torch.__version__)
    if not path.is_file():
        raise DataError(f"{path} is no file" if path.exists() else f"there is no file {path}")
    size, limit = path.stat().st_size, max(LEAST_LIMIT, TIMES_THE_NET * net_bytes)
    if size > limit:
        raise DataError(f"{path} has {size:,} bytes", f"for this net at most {limit:,} are read", SAVE_AGAIN)
    if expect_sha256 is not None and (found := sha256_file(path)) != expect_sha256.lower():
        raise DataError(f"{path} is not the file that was expected", f"its SHA-256 is {found}, not {expect_sha256}")
    with open(path, "rb") as stream:
        form = tell_form(stream.read(512))
    if form == "safetensors":
        return without_prefix(read_tensors(path))
    if form != "zip":
        raise DataError(f"{path} is {form}", "what torch.save writes since 1.6 is read, and safetensors", SAVE_AGAIN)
    return without_prefix(find_state(_load_zip(path), path))


def check_torch(version: str) -> None:
    """Raise MissingExtra where torch's reader of weights is known not to be safe."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < SAFE_TORCH:
        raise MissingExtra(
            f"torch {version} is too old to read foreign weights",
            "its reader can be made to run code or to overwrite memory",
            "pip install 'torch>=2.10'",
        )


def tell_form(start: bytes) -> str:
    """Return `zip` or `safetensors`, or words for another form, of a file's first 512 bytes."""
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    if start[8:9] == b"{":
        return "safetensors"
    if not start:
        return "empty"
    if start.startswith((b"\x80", b"(")):
        return "a bare pickle, or in the form of torch before 1.6"
    if start[257:262] == b"ustar" or b"pickle\0" in start:
        return "a tar archive, in the form of torch before 0.2"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")):
        return "a compressed archive"
    return "no file of weights"


def find_state(value: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a loaded value: the value itself, or what stands under one of WRAPPERS."""
    if _is_state(value):
        return dict(value)
    if isinstance(value, dict):
        under = [name for name in WRAPPERS if _is_state(value.get(name))]
        if len(under) == 1:
            return dict(value[under[0]])
        if under:
            raise DataError(f"{path} holds several state dicts", ", ".join(under), SAVE_AGAIN)
    found = f"found {', '.join(map(str, list(value)[:5]))}"[:200] if isinstance(value, dict) else "it is no dict"
    raise DataError(
        f"{path} holds no state dict", f"neither itself nor under {', '.join(WRAPPERS)}; {found}", SAVE_AGAIN
    )


def without_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take `module.` off where all names have it."""
    if state and all(name.startswith(PARALLEL) for name in state):
        return {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    return dict(state)


def _is_state(value: Any) -> bool:
    """Say whether a value is a dict of dense tensors by name."""
    return (
        isinstance(value, dict)
        and 0 < len(value) <= MOST_TENSORS
        and all(isinstance(name, str) and _is_dense(tensor) for name, tensor in value.items())
    )


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and value.dtype in DTYPES.values()


def _load_zip(path: Path) -> Any:
    try:
        with open(path, "rb") as stream:
            _check_directory(stream)
            with zipfile.ZipFile(stream) as archive:
                members = _check_members(archive, path.stat().st_size)
                packed = _pack(archive, members)
        # Nothing is read from the disk after the check.
        return torch.load(packed, map_location="cpu", weights_only=True, mmap=False)
    except NotPlain as error:
        raise DataError(f"{path} is not weights alone", str(error), SAVE_AGAIN) from error
    except Exception as error:  # zipfile and torch raise many kinds for a damaged file, and none may pass
        what = f"{type(error).__name__}: {str(error)[:80]}"
        raise DataError(f"{path} cannot be read", what, "the file is damaged: get it again") from error


def _check_directory(stream: BinaryIO) -> None:
    """Refuse a table of contents that would take much memory to read: zipfile reads it whole."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 98))
    end = stream.read()  # record of zip64 (56 bytes), its locator (20), end record (22): as torch writes them
    if end[-22:-18] != END_OF_ZIP:
        raise NotPlain("its archive does not end as torch.save ends it")
    directory = [int.from_bytes(end[-10:-6], "little")]
    if end[:4] == END_OF_ZIP64:
        directory.append(int.from_bytes(end[40:48], "little"))
    if max(directory) > MOST_DIRECTORY_BYTES:
        raise NotPlain("its archive has too many members")


def _check_members(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members that torch.save writes, by their names without the folder; refuse any other."""
    members: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for entry in archive.infolist():
        folder, _, name = entry.filename.partition("/")
        folders.add(folder)
        if name in ("constants.pkl", "data/constants.pkl") or name.startswith("code/"):
            raise NotPlain("it is a TorchScript archive, which holds code")
        if name in members or not (name in BESIDE or STORAGE.fullmatch(name)):
            raise NotPlain(f"its archive holds {entry.filename[:80]!r}, which torch.save does not write")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise NotPlain(f"{entry.filename[:80]!r} in its archive is compressed or locked")
        members[name] = entry
    if len(folders) != 1 or "data.pkl" not in members:
        raise NotPlain("its archive is not one that torch.save writes")
    if sum(entry.file_size for entry in members.values()) > file_bytes:
        raise NotPlain("the members of its archive overlap")
    return members


def _pack(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> io.BytesIO:
    """Check the pickle, and pack it and the storages into an archive of our own making."""
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise NotPlain("its numbers are not little-endian")
    pickled = archive.read(members["data.pkl"])
    storages = {name.removeprefix("data/"): e.file_size for name, e in members.items() if STORAGE.fullmatch(name)}
    check_pickle(pickled, storages)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as fresh:
        fresh.writestr("archive/data.pkl", pickled)
        fresh.writestr("archive/version", "3\n")
        fresh.writestr("archive/byteorder", "little")
        for name in storages:
            fresh.writestr(f"archive/data/{name}", archive.read(members[f"data/{name}"]))
    packed.seek(0)
    return packed
