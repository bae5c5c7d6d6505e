"""Zip and tar files, opened for reading single members; nothing is unpacked to where it could be found.

A compressed tar cannot be read from the middle, so it is first written, uncompressed, to a temporary file without a
name, which ends with the process. Limits on members, sizes and ratio keep an archive from filling disk or memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from striate.data.opening import open_regular, printable, reason
from striate.errors import DataError, StriateError

Parts = tuple[str, ...]

MOST_MEMBERS = 100_000
MOST_UNPACKED_BYTES = 64 << 30
# Photographs hardly shrink; drawings in BMP may a hundredfold. The ratio counts from a size that could do harm.
MOST_RATIO, FREE_BYTES = 200, 1 << 30
# What the readers of archives raise on damaged ones.
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
GET_AGAIN = "copy or download it again"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_UNPACK = "unpack it and name the folder"
_LINK = ("link", "links in archives are not followed")
_SPECIAL = ("special-file", "it is no regular file")
_UNREAD = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "zstd"}
_PACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Member:
    """What is in an archive: its path in parts, its size in bytes, and what the archive finds it by.

    `problem` is a code and a reason where it is no file to be read; a folder has neither key nor problem.
    """

    parts: Parts
    size: int = 0
    key: Any = None
    problem: tuple[str, str] | None = None


class Archive(Protocol):
    """An open archive; its members may be read by several threads at once."""

    path: Path

    def members(self) -> Iterator[Member]:
        """Yield what is in it, in its order. Raises DataError above the limits, and where it is damaged."""

    def open(self, member: Member) -> BinaryIO:
        """Return a stream of one member, which can seek."""

    def close(self) -> None:
        """Close the archive; its members cannot be read afterwards."""


def looks_like_archive(start: bytes) -> bool:
    """Say whether the first 262 bytes of a file are those of an archive, of a kind that is read or not."""
    packed = start.startswith((b"PK\x03\x04", b"PK\x05\x06", *_PACKERS, *_UNREAD))
    return packed or start[257:262] == b"ustar"


def open_archive(path: Path, report: Callable[[str], None]) -> Archive:
    """Open a zip or tar archive, told by content. Raises DataError for another kind, and for a damaged one."""
    label = printable(str(path))
    stream = open_regular(path, label)
    try:
        start = stream.read(262)
        stream.seek(0)
        for magic, kind in _UNREAD.items():
            if start.startswith(magic):
                raise DataError(f"{label} is a {kind} archive", "zip and tar (.gz, .bz2, .xz) are read", _UNPACK)
        if start.startswith(b"PK"):
            return ZipSet(path, stream)
        for magic, packer in _PACKERS.items():
            if start.startswith(magic):
                report(f"unpacking {path.name} to a temporary file, which a compressed tar needs")
                packed, stream = stream, _unpacked(path, packer(stream), packed_bytes=path.stat().st_size)
                packed.close()
                break
        return TarSet(path, stream)
    except DAMAGED as error:
        stream.close()
        raise _broken(path, error) from error
    except BaseException:
        stream.close()
        raise


class ZipSet:
    """A zip archive."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self._zip = zipfile.ZipFile(stream)

    def members(self) -> Iterator[Member]:
        """Yield what is in it, in its order."""
        infos = self._zip.infolist()
        _check_count(self.path, len(infos))
        total = sum(info.file_size for info in infos)
        _check_size(self.path, total, self.path.stat().st_size)
        for info in infos:
            name = _zip_name(info)
            # Above the sixteen bits of DOS attributes, archives made on Unix keep the file's mode.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() or name.endswith("/"):
                yield Member(_parts(name))
            elif info.flag_bits & 0x1:
                raise DataError(
                    f"{printable(str(self.path))} is encrypted", f"{printable(name)} needs a password", _UNPACK
                )
            elif info.compress_type not in _METHODS:
                raise DataError(
                    f"{printable(str(self.path))}: {printable(name)} is packed by method {info.compress_type}",
                    "stored, deflate, bzip2 and LZMA are read",
                    _UNPACK,
                )
            elif kind not in (0, stat.S_IFREG):
                yield Member(_parts(name), problem=_LINK if stat.S_ISLNK(kind) else _SPECIAL)
            else:
                yield _file(name, info.file_size, info)

    def open(self, member: Member) -> BinaryIO:
        """Return a stream of a member; ZipFile itself keeps threads apart."""
        return self._zip.open(member.key)  # type: ignore[return-value]

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._stream.close()


class TarSet:
    """A tar archive, not compressed or unpacked before; members are pieces of one file."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self._lock = threading.Lock()
        # The class itself reads plain tar only: nothing is unpacked here without the limits above.
        self._tar = tarfile.TarFile(fileobj=_SmallReads(stream), encoding="utf-8", errors="surrogateescape")

    def members(self) -> Iterator[Member]:
        """Yield what is in it, in its order."""
        count = 0
        while (info := self._next()) is not None:
            count += 1
            _check_count(self.path, count)
            self._tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            if info.isdir():
                yield Member(_parts(info.name))
            elif not info.isreg() or info.issparse():
                yield Member(_parts(info.name), problem=_LINK if info.issym() or info.islnk() else _SPECIAL)
            else:
                yield _file(info.name, info.size, info.offset_data)

    def _next(self) -> tarfile.TarInfo | None:
        try:
            info = self._tar.next()
            if info is None:
                # tarfile takes a cut or a damaged header for the end; the true one is a block of zeros.
                self._stream.seek(self._tar.offset)  # type: ignore[attr-defined]
                if self._stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("it is cut short, or damaged in the middle")
            return info
        except (*DAMAGED, RecursionError) as error:
            raise _broken(self.path, error) from error

    def open(self, member: Member) -> BinaryIO:
        """Return a stream of a member; threads take turns at the file."""
        return io.BufferedReader(_Piece(self._stream, self._lock, member.key, member.size))  # type: ignore[return-value]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class _SmallReads(io.RawIOBase):
    """A file whose headers may be read and no more: a header that announces gigabytes cannot fill memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 1 << 20:
            raise tarfile.ReadError("a header of the archive is far too long")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


class _Piece(io.RawIOBase):
    """A piece of a file as a stream of its own."""

    def __init__(self, stream: BinaryIO, lock: threading.Lock, start: int, size: int) -> None:
        self._stream, self._lock, self._start, self._size, self._at = stream, lock, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._size - self._at))
        with self._lock:
            self._stream.seek(self._start + self._at)
            content = self._stream.read(wanted)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _check_count(path: Path, count: int) -> None:
    if count > MOST_MEMBERS:
        raise DataError(
            f"{printable(str(path))} has more than {MOST_MEMBERS:,} members",
            "an archive of so many files is not read in place",
            _UNPACK,
        )


def _check_size(path: Path, unpacked: int, packed: int) -> None:
    if unpacked > MOST_UNPACKED_BYTES or (unpacked > FREE_BYTES and unpacked > MOST_RATIO * packed):
        raise DataError(
            f"{printable(str(path))} of {packed:,} bytes unpacks to {unpacked:,} or more",
            f"at most {MOST_UNPACKED_BYTES:,} bytes are read, and {MOST_RATIO} times the archive's own size",
            _UNPACK,
        )


def _broken(path: Path, error: Exception) -> DataError:
    label = printable(str(path))
    return DataError(f"{label} cannot be read as an archive", reason(error), GET_AGAIN)


def _unpacked(path: Path, stream: Any, packed_bytes: int) -> BinaryIO:
    """Write what a compressed tar holds to a temporary file without a name."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115  it is returned
    total = 0
    try:
        while piece := stream.read(1 << 20):
            total += len(piece)
            _check_size(path, total, packed_bytes)
            try:
                spool.write(piece)
            except OSError as error:
                raise StriateError(
                    f"no room to unpack {printable(str(path))}",
                    error.strerror or str(error),
                    f"make room in {tempfile.gettempdir()}, or set TMPDIR to a folder with room",
                ) from error
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool  # type: ignore[return-value]


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; UTF-8 that is not declared as such is read as UTF-8, and \\ parts as / does."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):  # old DOS names, and encodings that nothing tells of
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _parts(name: str) -> Parts:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _file(name: str, size: int, key: Any) -> Member:
    """Return a regular file as a member; one whose name leads out of the archive has a problem."""
    if name.startswith("/") or name[1:3] == ":/" or ".." in name.split("/"):
        return Member((name,), problem=("path-escape", "its name leads out of the archive"))
    return Member(_parts(name), size, key)
