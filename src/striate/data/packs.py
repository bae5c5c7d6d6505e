"""Packs: the files of the cache, each holding pictures of one size, checked when they are read.

    19 bytes   b"striate pictures 1\\n"
     8 bytes   length of the index, little-endian
    32 bytes   SHA-256 of the index
     …         index, JSON: {"address": …, "rows": [[SHA-256 of the file, SHA-256 of the row, notes], …]}
     …         the pixels, uint8, row after row

A pack appears whole or not at all and is never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from striate.data.modes import Pixels

FORMAT = 1
_MAGIC = b"striate pictures 1\n"
HEAD = len(_MAGIC) + 8 + 32  # bytes before the index
_MOST_INDEX = 256 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """Where one picture lies, the digest of all that is said of it, and what was done to it while it was decoded."""

    pack: Path
    offset: int
    check: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Pack:
    """The head of a pack: what makes its pictures beside their files, and its rows by the SHA-256 of their files."""

    address: dict[str, Any]
    rows: dict[str, Row]


def read_pack(path: Path, row_bytes: int | None = None) -> Pack | None:
    """Read the head of a pack whose pictures take `row_bytes` each; None for a file that is damaged, or no pack."""
    try:
        with open(path, "rb") as stream:
            return _parse(path, stream, row_bytes or 0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _parse(path: Path, stream: BinaryIO, row_bytes: int) -> Pack | None:
    head = stream.read(HEAD)
    if len(head) < HEAD or not head.startswith(_MAGIC):
        return None
    length = int.from_bytes(head[len(_MAGIC) : len(_MAGIC) + 8], "little")
    if length > _MOST_INDEX:
        return None
    body = stream.read(length)
    if len(body) != length or hashlib.sha256(body).digest() != head[len(_MAGIC) + 8 :]:
        return None
    told = json.loads(body)
    rows = {}
    for number, (digest, check, notes) in enumerate(told["rows"]):
        offset = HEAD + length + number * row_bytes
        rows[str(digest)] = Row(path, offset, str(check), tuple(str(note) for note in notes))
    return Pack(dict(told["address"]), rows)


def read_row(row: Row, digest: str, out: Pixels) -> bool:
    """Read a picture into `out` (H, W, C); False where it is not what was stored. Raises OSError."""
    with open(row.pack, "rb", buffering=0) as stream:
        stream.seek(row.offset)
        whole = stream.readinto(out.data.cast("B")) == out.nbytes
    return whole and _check(digest, row.notes, out) == row.check


def make_index(address: dict[str, Any], rows: Sequence[tuple[str, tuple[str, ...], Pixels]]) -> bytes:
    """Return the index of a pack of `rows`: SHA-256 of the file, notes, pixels."""
    listed = [[digest, _check(digest, notes, pixels), list(notes)] for digest, notes, pixels in rows]
    return as_json({"address": address, "rows": listed})


def write_pack(folder: Path, index: bytes, images: Sequence[Pixels]) -> Path:
    """Write one pack, whole or not at all, and return its path. Raises OSError.

    It is not synced to disk: what a power cut spoils, its digests tell.
    """
    digest = hashlib.sha256(index).digest()
    path = folder / f"{digest.hex()[:16]}.pack"
    number, temporary = tempfile.mkstemp(suffix=".tmp", dir=folder)
    try:
        with open(number, "wb") as stream:
            stream.write(_MAGIC + len(index).to_bytes(8, "little") + digest + index)
            for pixels in images:
                stream.write(pixels.data.cast("B"))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def as_json(value: Any) -> bytes:
    """Return plain data as JSON, always the same bytes for the same data."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()


def _check(digest: str, notes: Sequence[str], pixels: Pixels) -> str:
    """Return the SHA-256 over all that a row says: whose picture it is, its notes and its pixels."""
    check = hashlib.sha256(as_json([digest, list(notes)]))
    check.update(pixels.data)
    return check.hexdigest()
