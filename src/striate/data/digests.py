"""Whether a file is the one that its maker published."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.files import sha256_file

# The largest file packed alone unpacks to 47 MB; this bounds the time that a hostile one can take.
_MOST_UNPACKED = 1 << 30


@dataclass(frozen=True)
class Digests:
    """What a good file has, as hex, "" where not known: SHA-256 and MD5 of the file, SHA-256 of what it unpacks to.

    A file is good when either SHA-256 holds: a mirror may have packed the same content anew. The MD5 decides only
    where neither is known.
    """

    sha256: str = ""
    md5: str = ""
    content_sha256: str = ""

    def problem(self, path: Path) -> str:
        """Return "" for a good file, otherwise a sentence on what is wrong. Raises ValueError without a digest."""
        checks: list[tuple[str, str, Callable[[Path], str]]] = [
            ("SHA-256", self.sha256, sha256_file),
            ("SHA-256 of the unpacked bytes", self.content_sha256, _content_sha256),
        ]
        if not (self.sha256 or self.content_sha256):
            checks = [("MD5", self.md5, md5_file)]
        problems = []
        for name, expected, measure in checks:
            if expected:
                got = measure(path)
                if got == expected:
                    return ""
                problems.append(f"{name} is {got}, expected {expected}")
        if not problems:
            raise ValueError("no digest is known to check the file with")
        return "; ".join(problems)


def md5_file(path: Path) -> str:
    """MD5 of a file as hex, which recognises a published file and guards nothing."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _content_sha256(path: Path) -> str:
    """SHA-256 of what a gzip file holds, or of the file itself if it is not gzipped, or why there is none."""
    digest, left = hashlib.sha256(), _MOST_UNPACKED
    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            stream: Any = gzip.GzipFile(fileobj=plain) if packed else plain
            while left > 0 and (piece := stream.read(1 << 20)):
                digest.update(piece)
                left -= len(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"not to be had ({error})"
    return digest.hexdigest()
