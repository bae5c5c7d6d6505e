"""Tensors on disk: safetensors only, never a pickle; a file's header is checked before anything in it is loaded."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save

from striate.errors import DataError
from striate.files import sha256_bytes, write_bytes

# Far above what any net or its optimizer needs: VGG-16 with Adam is 1.7 GB in a hundred tensors.
MOST_FILE_BYTES = 8 << 30
MOST_HEADER_BYTES = 4 << 20
MOST_TENSORS = 10_000
MOST_AXES = 8

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MEND = "the file is damaged; restore it or train again"


@dataclass(frozen=True)
class Described:
    """What a file's header says of one tensor: its bytes are `first` to `last` of the data behind the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    first: int
    last: int


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write tensors atomically and return the file's SHA-256.

    safetensors takes no channels-last or shared memory, so each tensor is written as a contiguous copy of its own.
    """
    content = pack_tensors(tensors, metadata)
    write_bytes(path, content)
    return sha256_bytes(content)


def pack_tensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a file that holds tensors, with `metadata` in its header."""
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    content = save(plain, metadata={"format": "pt", **(metadata or {})})
    return _in_order(content) if metadata else content


def _in_order(content: bytes) -> bytes:
    """Sort the metadata in a file's header: safetensors writes its entries in another order each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[start:]


def data_digest(content: bytes) -> str:
    """SHA-256 as hex of what stands behind the header in the content of a file."""
    return sha256_bytes(memoryview(content)[8 + int.from_bytes(content[:8], "little") :])


def read_tensors(path: Path, sha256: str | None = None, data_sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read all tensors of a file onto the CPU; with `sha256`, only a file of that digest.

    `data_sha256`: the digest of what stands behind the header, for a file whose header holds it. Header, digests and
    tensors come from one reading, so that no other process can change the file between them.
    Raises DataError naming the file where it is missing, damaged, or has another digest.
    """
    try:
        with _open(path) as stream:
            head, described, _ = _read_header(stream, path)
            whole, data = hashlib.sha256(head), hashlib.sha256()
            tensors = {}
            for name, entry in described.items():  # in the order of their bytes
                content = bytearray(entry.last - entry.first)
                if stream.readinto(content) != len(content):  # type: ignore[attr-defined]
                    raise _broken(path, "it ends too early")
                whole.update(content)
                data.update(content)
                flat = torch.frombuffer(content, dtype=entry.dtype) if content else torch.empty(0, dtype=entry.dtype)
                tensors[name] = flat.reshape(entry.shape)
    except OSError as error:
        raise _broken(path, error.strerror or str(error)) from error
    for what, digest, wanted in (("its SHA-256", whole, sha256), ("the SHA-256 of its data", data, data_sha256)):
        if wanted not in (None, digest.hexdigest()):
            raise DataError(
                f"{path} is damaged, or is another file",
                f"{what} is {digest.hexdigest()}, not {wanted}",
                "restore it or train again",
            )
    return tensors


def read_header(path: Path) -> dict[str, Described]:
    """Read what a file says it holds, without loading it. Raises DataError as `read_tensors` does."""
    return read_head(path)[0]


def read_head(path: Path) -> tuple[dict[str, Described], dict[str, str]]:
    """Read what a file says it holds, and its metadata. Raises DataError as `read_tensors` does."""
    try:
        with _open(path) as stream:
            return _read_header(stream, path)[1:]
    except OSError as error:
        raise _broken(path, error.strerror or str(error)) from error


def _open(path: Path) -> BinaryIO:
    if not path.exists():
        raise DataError(f"{path} is missing", "the weights were not saved or were moved", "train again")
    if not path.is_file():  # a pipe would wait for ever
        raise DataError(f"{path} is no file")
    return open(path, "rb")


def _read_header(stream: BinaryIO, path: Path) -> tuple[bytes, dict[str, Described], dict[str, str]]:
    """Read the header's bytes, the tensors it describes, in the order of their bytes, and its metadata."""
    size = os.fstat(stream.fileno()).st_size
    if size > MOST_FILE_BYTES:
        raise _broken(path, f"it has {size:,} bytes, more than {MOST_FILE_BYTES:,}")
    length = stream.read(8)
    count = int.from_bytes(length, "little")
    if len(length) < 8 or not 2 <= count <= min(size - 8, MOST_HEADER_BYTES):
        raise _broken(
            path, f"a file of {size:,} bytes cannot have a header of {count:,} (at most {MOST_HEADER_BYTES:,})"
        )
    text = stream.read(count)
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is no JSON document ({str(error)[:80]})") from error
    if not isinstance(value, dict):
        raise _broken(path, "its header is no JSON object")
    metadata = value.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(entry, str) for entry in metadata.values()):
        raise _broken(path, "its metadata is no JSON object of texts")
    return length + text, _describe(value, size - 8 - count, path), metadata


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _describe(header: dict[str, Any], data_bytes: int, path: Path) -> dict[str, Described]:
    """Check a header against the safetensors format: every byte of the data belongs to exactly one tensor."""
    if len(header) > MOST_TENSORS:
        raise _broken(path, f"it names {len(header):,} tensors, more than {MOST_TENSORS:,}")
    described = {name: _describe_one(name, entry, path) for name, entry in header.items()}
    # A tensor without elements begins where the next one does, and comes before it.
    described = dict(sorted(described.items(), key=lambda item: (item[1].first, item[1].last)))
    at = 0
    for name, entry in described.items():
        if entry.first != at:
            raise _broken(path, f"the bytes of {name[:80]!r} begin at {entry.first:,} and not at {at:,}")
        at = entry.last
    if at != data_bytes:
        raise _broken(path, f"its tensors have {at:,} bytes and the file holds {data_bytes:,}")
    return described


def _describe_one(name: str, entry: Any, path: Path) -> Described:
    try:
        dtype, shape, (first, last) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and 0 <= number < 1 << 40 for number in (*shape, first, last))
        fits = whole and len(shape) <= MOST_AXES and len(entry) == 3
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits or last - first != math.prod(shape) * dtype.itemsize:
        raise _broken(path, f"its header cannot mean what it says of {name[:80]!r}")
    return Described(dtype, shape, first, last)


def _broken(path: Path, cause: str) -> DataError:
    return DataError(f"{path} cannot be read", cause, MEND)
