"""Arrays of pictures that are too large for memory: they lie in nameless files, and are gone through piece by piece.

Such an array is an ordinary one to whoever reads it. Its pages belong to the file: the system takes them back whenever
it needs room, and none of them counts as memory of the process alone (RssAnon).
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError, StriateError

Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]

SHARE = 4  # of the memory, one part in so many is what the pictures of a data set may take
PIECE_BYTES = 16 << 20
_UNKNOWN_MEMORY = 8 << 30  # where the system does not say


class _Map(mmap.mmap):
    """A nameless file of ours, mapped and shared: what is let go of its pages is still in the file."""


def default_folder() -> Path:
    """Return the folder of decoded pictures in the user's cache, which may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("striate")) / "pictures"


def claim(folder: Path) -> None:
    """Make the cache's folder, for its owner alone. Raises OSError, and StriateError for one that others can write."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not hasattr(os, "geteuid"):  # Windows: folders below a user's own are the user's own
        return
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise StriateError(f"{folder} belongs to another user", "it belongs to another user", "choose another folder")
    if status.st_mode & 0o022:
        raise StriateError(f"others may write in {folder}", "others may write in it", f"chmod go-w {folder}")


def memory_allowance() -> int:
    """Return the bytes that a data set may take in memory: a quarter of the machine's, or of the container's.

    Of several processes of one job on this machine (LOCAL_WORLD_SIZE, as torchrun sets it) each has its part. What is
    free at the moment does not count: the same command would otherwise take another order at another time.
    """
    found = [_UNKNOWN_MEMORY]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in _limits():
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            found.append(int(limit.read_text()))
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return min(found) // SHARE // (int(processes) if processes.isdigit() and int(processes) else 1)


def _limits(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """Yield the files that may limit this process's memory: of its control group and of those above it."""
    names = [""]
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds == "" or "memory" in kinds.split(","):
                names.append(name.strip("/"))
    for name in names:
        for place in (Path(name), *Path(name).parents):
            yield root / place / "memory.max"
            yield root / "memory" / place / "memory.limit_in_bytes"


def room_for(
    shape: tuple[int, ...], allowance: int, report: Callable[[str], None] | None = None, what: str = ""
) -> Pixels:
    """Return room for pictures uint8 (N, H, W, C): in memory, or above the allowance (bytes) on disk.

    `what`: what they are called, where they are no pictures. `report` is told in one line that they lie on disk. Raises
    DataError where there is room in neither.
    """
    size = math.prod(shape)
    what = what or f"{shape[0]:,} pictures of {shape[1]}×{shape[2]}"
    told = f"{what} take {size / 2**20:,.0f} MB"
    if size <= allowance:
        try:
            return np.empty(shape, np.uint8)
        except MemoryError as error:
            raise DataError(f"{told}, which there is no memory for", "", "use a smaller --size") from error
    folder = _folder()
    try:
        images = _on_disk(shape, folder)
    except OSError as error:
        cause = f"memory is allowed for {allowance / 2**20:,.0f} MB, and on disk: {error.strerror or error}"
        raise DataError(told, cause, f"make room in {folder}, or use a smaller --size") from error
    where = f"on disk (memory is allowed for {allowance / 2**20:,.0f} MB)"
    if _is_in_memory(folder):
        where = f"in {folder}, whose files are in memory; XDG_CACHE_HOME names a folder on a disk"
    if report is not None:
        report(f"{told}: they lie {where}")
    return images


def room_like(images: np.ndarray, shape: tuple[int, ...]) -> Pixels:
    """Return room for uint8 of this shape, on disk where `images` lie on disk. Raises DataError."""
    if is_on_disk(images) and 0 not in shape:
        return room_for(shape, 0, what="copies of pictures")
    return np.empty(shape, np.uint8)


def _folder() -> Path:
    """Return the folder for nameless files: the user's cache, else one for temporary files; on a disk if one is."""
    folder = default_folder()
    with contextlib.suppress(OSError, StriateError):
        claim(folder)
    known = [path for path in (folder, Path(tempfile.gettempdir()), Path("/var/tmp")) if os.access(path, os.W_OK)]
    return next((path for path in known if not _is_in_memory(path)), known[0] if known else folder)


def _is_in_memory(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Say whether a folder's files are kept in memory (tmpfs), where Linux tells."""
    kinds = {}
    with contextlib.suppress(OSError):
        kinds = {Path(line.split()[1]): line.split()[2] for line in mounts.read_text().splitlines()}
    here = folder.resolve()
    mount = next((path for path in (here, *here.parents) if path in kinds), here)
    return kinds.get(mount) in ("tmpfs", "ramfs")


def _on_disk(shape: tuple[int, ...], folder: Path) -> Pixels:
    with tempfile.TemporaryFile(dir=folder) as stream:
        _reserve(stream, math.prod(shape))
        # The map keeps the file alive, and it is gone with the map.
        return np.ndarray(shape, np.uint8, buffer=_Map(stream.fileno(), math.prod(shape)))


def _reserve(stream: Any, size: int) -> None:
    """Make a file of this size whose blocks are there: to write into a hole of a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, size)
        return
    for start in range(0, size, 1 << 24):
        stream.write(bytes(min(1 << 24, size - start)))
    stream.flush()


def is_on_disk(images: np.ndarray) -> bool:
    """Say whether an array is a map of a file, ours or another's."""
    return _map_of(images) is not None


def _map_of(images: np.ndarray) -> mmap.mmap | None:
    base: Any = images
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base


def pieces(images: np.ndarray, most: int = PIECE_BYTES) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first, pictures) of an array (N, …) in pieces of at most `most` bytes; what is on disk is let go again."""
    for start, end in spans(len(images), images[:1].nbytes, most):
        yield start, images[start:end]
        let_go(images[start:end])


def spans(count: int, row_bytes: int, most: int = PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of pieces of `count` rows that have at most `most` bytes each, and at least one row."""
    together = max(1, most // max(1, row_bytes))
    return ((start, min(start + together, count)) for start in range(0, count, together))


def let_go(images: np.ndarray) -> None:
    """Let go of the pages of an array in a file of ours that this process holds; the file keeps them."""
    _advise(images, "MADV_DONTNEED", ours=True)


def will_need(images: np.ndarray) -> None:
    """Tell the system that these pictures, if they lie on disk, are wanted soon: it reads them beside the program."""
    _advise(images, "MADV_WILLNEED")


def _advise(images: np.ndarray, advice: str, ours: bool = False) -> None:
    found = _map_of(images)
    # A page that is let go of a map which is not shared loses what was written there.
    if found is None or not images.nbytes or (ours and not isinstance(found, _Map)) or not hasattr(mmap, advice):
        return
    begin = images.ctypes.data - np.frombuffer(found, np.uint8).ctypes.data
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    with contextlib.suppress(OSError, ValueError):  # advice only
        found.madvise(getattr(mmap, advice), first, begin + images.nbytes - first)


def take(images: np.ndarray, indices: Indices | slice) -> np.ndarray:
    """Return the pictures at `indices`, in that order: a view where they follow each other, else a copy.

    The copy lies on disk where the pictures do. Raises DataError where there is no room.
    """
    rows = np.arange(len(images))[indices]
    first = int(rows[0]) if len(rows) else 0
    if np.array_equal(rows, np.arange(first, first + len(rows))):
        return images[first : first + len(rows)]
    if not is_on_disk(images):
        return images[rows]
    out = room_like(images, (len(rows), *images.shape[1:]))
    for start, end in spans(len(rows), images[:1].nbytes):
        out[start:end] = images[rows[start:end]]
        let_go(out[start:end])
    let_go(images)
    return out


def copied(images: Pixels, allowance: int) -> Pixels:
    """Return a copy of pictures in memory, or above the allowance on disk. Raises DataError."""
    out = room_for(images.shape, allowance)
    for start, some in pieces(images):
        out[start : start + len(some)] = some
        let_go(out[start : start + len(some)])
    return out


def in_pieces(images: np.ndarray, rows: Indices, most: int = PIECE_BYTES) -> Iterator[np.ndarray]:
    """Yield copies of the pictures at `rows`, in that order, in pieces of at most `most` bytes."""
    for start, end in spans(len(rows), images[:1].nbytes, most):
        yield images[rows[start:end]]
        let_go(images)
