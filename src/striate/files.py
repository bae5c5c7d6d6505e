"""Files: atomic writes, digests, a lock."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from striate.errors import LockHeld, StriateError, WriteFailed


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even when the power goes.

    Raises StriateError with the path and the system's reason; the old file is then untouched.
    """
    with staged(path) as temporary:
        write_new(temporary, content)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, down to the disk. Raises OSError."""
    # 0o666 less the user's umask, which the system takes off by itself; tempfile's files are private.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to inside a `with`; when the block ends well, that file takes `path`'s place.

    Where it does not, the file is removed, and what stood at `path` is untouched. Raises StriateError with the path
    and the system's reason for an OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise could_not_write(path, error) from error
        raise


def could_not_write(path: Path, error: OSError) -> WriteFailed:
    """Build the error for a write that the system refused, with the path and the system's reason."""
    return WriteFailed(
        f"could not write {path}", error.strerror or str(error), "make room, or choose a folder that can be written"
    )


def remove_temporaries(folder: Path) -> None:
    """Remove what writes that were cut off (kill -9, power) left in a folder of ours."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document, atomically, readable by a person: one key a line, lists of plain values on one."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    # Inside a JSON string a line break is written \\n, so a bracket before a real one opens a list.
    text = re.sub(r"\[\n([^\[\]{}]*?)\n\s*\]", lambda found: "[" + re.sub(r"\n\s*", " ", found[1].strip()) + "]", text)
    write_text(path, text + "\n")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError where that failed.

    Windows needs none; some network file systems, and folders that may not be listed, cannot.
    """
    if os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sha256_bytes(content: bytes | memoryview) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as hex, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Lock:
    """One process at a time in a folder, held through the operating system: it ends with the process.

    Used as `with Lock(folder): …`. Raises LockHeld with the holder's process number. A Lock that is dropped lets go.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / ".lock"
        self._stream: Any = None

    def __enter__(self) -> Lock:
        try:
            self._stream = open(self.path, "a+", encoding="utf-8")
        except OSError as error:
            raise StriateError(
                f"could not lock {self.path.parent}", error.strerror or str(error), "check that the folder is writable"
            ) from error
        try:
            _lock_stream(self._stream)
        except OSError:
            self._stream.seek(0)
            holder = self._stream.read().strip() or "unknown"
            self._stream.close()
            raise LockHeld(
                f"{self.path.parent} is in use", f"process {holder} is working in it", "wait for it or stop it"
            ) from None
        self._stream.seek(0)
        self._stream.truncate()
        self._stream.write(str(os.getpid()))
        self._stream.flush()
        return self

    def __exit__(self, *_: object) -> None:
        # The file stays: were it removed, one process could hold the old file's lock and another a new file's.
        with contextlib.suppress(OSError):
            self._stream.truncate(0)
        self._stream.close()

    def __del__(self) -> None:
        if self._stream is not None and not self._stream.closed:
            self.__exit__()


@contextlib.contextmanager
def waited_lock(folder: Path, seconds: float, told: Callable[[str], None] = lambda cause: None) -> Iterator[None]:
    """Hold a folder's Lock, for which another process is waited so long; `told` hears once who holds it.

    Raises LockHeld where it lasts longer.
    """
    lock, deadline, is_told = Lock(folder), time.monotonic() + seconds, False
    while True:
        try:
            lock.__enter__()
            break
        except LockHeld as error:
            if time.monotonic() > deadline:
                raise
            if not is_told:
                told(error.cause)
                is_told = True
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _lock_stream(stream: Any) -> None:
    if os.name == "nt":
        import msvcrt

        stream.seek(1024)  # past the text, which the other process must be able to read
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    import fcntl

    fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
