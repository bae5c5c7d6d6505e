"""The cache: pictures already decoded and fitted, on disk, so that a later run need not decode them again.

A picture is found by the SHA-256 of its file's bytes, and by everything else that makes its pixels: size, fit,
channels, the versions of the decoders (`address`). Pictures of one such address lie together on a shelf, a folder of
packs (data/packs.py), each with the pictures that were decoded one after another.

Whatever goes wrong is told in one line, and the picture is decoded from its file: the cache can change how long a run
takes, and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
from PIL import features

from striate.data.decode import DECODER_VERSION
from striate.data.disk import claim, default_folder
from striate.data.lookup import silent
from striate.data.modes import Pixels
from striate.data.packs import FORMAT, HEAD, Row, as_json, make_index, read_pack, read_row, write_pack
from striate.data.preprocess import Preprocess
from striate.errors import LockHeld, StriateError
from striate.files import Lock, sha256_bytes

LIMIT = 10 << 30  # bytes of all packs together
PACK_BYTES = 64 << 20  # small enough to lose, large enough that a hundred thousand pictures are a few dozen files

_PATIENCE = 10.0  # seconds to wait for another training that is storing


@dataclass(frozen=True)
class Entry:
    """One pack in the cache's folder."""

    path: Path
    bytes: int
    used: float  # seconds since 1970: when it was last read or written


def address(preprocess: Preprocess, max_pixels: int) -> dict[str, Any]:
    """Return all that makes the pixels of a picture beside the bytes of its file, as plain data.

    The versions of Pillow and of the libraries in it belong to it: another one may round another way, and a run with
    the cache has to equal one without it to the last bit.
    """
    geometry = {name: value for name, value in preprocess.to_json().items() if name not in ("mean", "std")}
    libraries = {name: features.version(name) for name in ("libjpeg_turbo", "jpg", "webp", "libtiff")}
    decoder = {"striate": DECODER_VERSION, "pillow": PIL.__version__, "machine": platform.machine(), **libraries}
    return {"format": FORMAT, "geometry": geometry, "max_pixels": max_pixels, "decoder": decoder}


class Cache:
    """Decoded pictures on disk, in a folder that is the user's own.

    `limit`: bytes of all packs together; above it those used longest ago are removed. `report` is told what is wrong,
    once and in one line, however often it happens. Nothing here raises for a cache that cannot be used, but `clear`.
    """

    def __init__(
        self, folder: Path | None = None, *, limit: int = LIMIT, report: Callable[[str], None] = silent
    ) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self.limit = limit
        self._report = report
        self._told = False
        self._lock = threading.Lock()

    def shelf(self, preprocess: Preprocess, max_pixels: int) -> Shelf:
        """Open the pictures of one address; the shelf is empty where there are none or the folder cannot be used."""
        shelf = Shelf(self, address(preprocess, max_pixels), (*preprocess.size, preprocess.channels))
        try:
            claim(self.folder)
            shelf.refresh()
        except (OSError, StriateError) as error:
            self.trouble(_cause(error))
            shelf.closed = True
        return shelf

    def trouble(self, cause: str) -> None:
        """Report the first thing that is wrong, and no other."""
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._report(
                f"warning: the cache of pictures {self.folder} could not be used in full: {cause}; "
                "pictures are decoded from their files instead, with the same result"
            )

    def packs(self) -> list[Entry]:
        """Return every pack, the one used longest ago first; raises OSError where the folder cannot be read."""
        found = []
        for shelf in _entries(self.folder):
            if not shelf.is_dir(follow_symlinks=False):
                continue
            for entry in _entries(Path(shelf.path)):
                if entry.name.endswith(".pack") and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                        status = entry.stat(follow_symlinks=False)
                        found.append(Entry(Path(entry.path), status.st_size, status.st_mtime))
        return sorted(found, key=lambda pack: (pack.used, pack.path))

    def describe(self) -> list[dict[str, Any]]:
        """Return what lies on each shelf, for `striate cache ls`: newest first. Raises StriateError where it cannot."""
        shelves: dict[Path, dict[str, Any]] = {}
        try:
            packs = self.packs()
        except OSError as error:
            raise StriateError(f"the cache {self.folder} cannot be read", _cause(error), "see who owns it") from error
        for pack in packs:
            head = read_pack(pack.path)
            geometry = head.address.get("geometry", {}) if head else {}
            row = shelves.setdefault(pack.path.parent, {"geometry": geometry, "pictures": 0, "bytes": 0, "used": 0.0})
            row["pictures"] += len(head.rows) if head else 0
            row["bytes"] += pack.bytes
            row["used"] = max(row["used"], pack.used)
        return sorted(shelves.values(), key=lambda row: -row["used"])

    def clear(self) -> tuple[int, int]:
        """Remove every pack; return how many and their bytes. Raises LockHeld while a training is storing."""
        if not self.folder.is_dir():
            return 0, 0
        try:
            claim(self.folder)
            with self.locked():
                packs = self.packs()
                for shelf in _entries(self.folder):
                    if shelf.is_dir(follow_symlinks=False):
                        shutil.rmtree(shelf.path)
        except OSError as error:
            raise StriateError(
                f"the cache {self.folder} could not be emptied", _cause(error), "see who owns it, or remove it by hand"
            ) from error
        return len(packs), sum(pack.bytes for pack in packs)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache for storing; waits some seconds for another process. Raises LockHeld, StriateError."""
        end = time.monotonic() + _PATIENCE
        with contextlib.ExitStack() as held:
            while True:
                try:
                    held.enter_context(Lock(self.folder))
                    break
                except LockHeld:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)
            yield

    def make_room(self, needed: int, keep: set[Path]) -> bool:
        """Remove packs, used longest ago first and none of `keep`, until `needed` bytes fit; say whether they do."""
        packs = self.packs()
        total = sum(pack.bytes for pack in packs)
        removable = [pack for pack in packs if pack.path not in keep]
        if total - sum(pack.bytes for pack in removable) + needed > self.limit:
            return False
        for pack in removable:
            if total + needed <= self.limit:
                break
            pack.path.unlink(missing_ok=True)
            total -= pack.bytes
        return True


class Shelf:
    """The pictures of one address. `get` may be called from several threads, `put` from one."""

    def __init__(self, cache: Cache, address: dict[str, Any], shape: tuple[int, int, int]) -> None:
        self.closed = False  # nothing more is stored
        self._cache = cache
        self._address = address
        self._row_bytes = math.prod(shape)
        self._folder = cache.folder / sha256_bytes(as_json(address))[:16]
        self._rows: dict[str, Row] = {}
        self._known: set[Path] = set()  # packs whose rows are in _rows
        self._used: set[Path] = set()
        self._damaged: set[Path] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def refresh(self) -> None:
        """Take in packs that are there and not known yet, also those of another training. May raise OSError."""
        for entry in sorted(_entries(self._folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            if not entry.name.endswith(".pack") or path in self._known or not entry.is_file(follow_symlinks=False):
                continue
            self._take(path)

    def _take(self, path: Path) -> None:
        self._known.add(path)
        head = read_pack(path, self._row_bytes)
        if head is None or head.address != self._address:
            self._damage(path)
        else:
            for digest, row in head.rows.items():
                self._rows.setdefault(digest, row)

    def get(self, digest: str, out: Pixels) -> tuple[str, ...] | None:
        """Read the picture of the file with this SHA-256 into `out` (H, W, C) and return its notes.

        None where it is not here or is damaged; `out` may then hold anything.
        """
        row = self._rows.get(digest)
        if row is None:
            return None
        try:
            good = read_row(row, digest, out)
        except FileNotFoundError:  # removed by another process, which it may
            self._forget(row.pack)
            return None
        except OSError as error:
            self._cache.trouble(_cause(error))
            return None
        if not good:
            self._damage(row.pack)
            return None
        if row.pack not in self._used:
            self._used.add(row.pack)
            with contextlib.suppress(OSError):  # a cache that is only read keeps its dates
                os.utime(row.pack)
        return row.notes

    def put(self, digests: Sequence[str], notes: Sequence[tuple[str, ...]], images: Sequence[Pixels]) -> None:
        """Store those pictures that are not here under the SHA-256 of their files; after a failure, nothing more.

        Packs that were found damaged are removed, so that their pictures are stored anew.
        """
        if self.closed or not (self._damaged or any(digest not in self._rows for digest in digests)):
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with self._cache.locked():
                for path in self._damaged:
                    path.unlink(missing_ok=True)
                self._damaged.clear()
                self.refresh()
                new = list({digest: i for i, digest in enumerate(digests) if digest not in self._rows}.items())
                most = max(1, PACK_BYTES // self._row_bytes)
                for start in range(0, len(new), most):
                    self._write([(digest, notes[i], images[i]) for digest, i in new[start : start + most]])
        except (OSError, StriateError) as error:
            self._cache.trouble(_cause(error))
            self.closed = True

    def _damage(self, pack: Path) -> None:
        self._damaged.add(pack)
        self._forget(pack)
        self._cache.trouble(f"{pack.parent.name}/{pack.name} is damaged")

    def _forget(self, pack: Path) -> None:
        for digest, row in list(self._rows.items()):
            if row.pack == pack:
                self._rows.pop(digest, None)

    def _write(self, rows: Sequence[tuple[str, tuple[str, ...], Pixels]]) -> None:
        """Write one pack; the lock is held."""
        index = make_index(self._address, rows)
        if not self._cache.make_room(HEAD + len(index) + len(rows) * self._row_bytes, self._used):
            raise StriateError("", f"it is full (limit {self._cache.limit / 2**20:,.0f} MB)")
        for left in self._folder.glob("*.tmp"):  # of a process that was killed: only the holder of the lock writes
            left.unlink(missing_ok=True)
        path = write_pack(self._folder, index, [pixels for _, _, pixels in rows])
        self._used.add(path)
        self._take(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return getattr(error, "cause", "") or str(error)
