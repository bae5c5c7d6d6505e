"""Loads the pictures of a source: every file read once, decoded and fitted in threads, into one uint8 array.

Threads are enough: Pillow lets go of the interpreter while it decodes and scales, and so does the SHA-256. No process
is started, so it works in a notebook, in a script without `if __name__ == "__main__"`, and on every system. At any
time one encoded picture per thread is in memory, and decoded ones of no more than 64 million pixels in all.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from striate.data.cache import PACK_BYTES, Cache, Shelf
from striate.data.decode import decode_fitted
from striate.data.disk import let_go, memory_allowance, room_for
from striate.data.lookup import silent
from striate.data.modes import Pixels, header_channels
from striate.data.opening import MAX_PIXELS, check_size, explained, open_picture, orientation, printable, scalable
from striate.data.preprocess import Preprocess
from striate.data.records import Place, Record
from striate.errors import DataError

Progress = Callable[[int, int], None]
Result = TypeVar("Result")

_TOGETHER = 8  # pictures that a thread takes at a time: few, so that Ctrl-C is answered soon


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a picture tell; width and height are those of the picture turned upright."""

    width: int
    height: int
    channels: int
    mode: str
    format: str
    orientation: int


@dataclass(frozen=True, eq=False)
class Loaded:
    """Pictures in memory, in the order of their records, without those that failed.

    `images` uint8 (n, H, W, C); `good` int64 (n,), which record each is of; `failures` {record: why}; for every record,
    also failed ones, `digests` has the SHA-256 of the file's bytes ("" where they could not be read) and `notes` what
    the decoder did beside reading. `cached`: how many came from the cache.
    """

    images: Pixels
    good: NDArray[np.int64]
    failures: dict[int, DataError]
    digests: list[str]
    notes: list[tuple[str, ...]]
    cached: int = 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    digest: str
    notes: tuple[str, ...] = ()
    error: DataError | None = None
    origin: str = "file"  # or cache, or array


def no_progress(done: int, total: int) -> None:
    """Tell nobody how far it is."""


def read_header(record: Record, max_pixels: int = MAX_PIXELS) -> Header:
    """Read size, mode and orientation of one picture, and none of its pixels.

    Raises DataError for what cannot be a picture, and for one above `max_pixels` that could not be decoded scaled down.
    """
    name, place = printable(record.source), record.place
    with explained(name):
        if hasattr(place, "array"):
            shape = np.shape(place.array())
            height, width, channels = (*shape, 1)[:3]
            check_size(width, height, name, max_pixels)
            return Header(width, height, channels, "L" if channels == 1 else "RGB", "array", 1)
        with place.open() as stream, open_picture(stream, name, check=False) as (form, image):
            if form != "JPEG" or not scalable(image, max_pixels):
                check_size(image.width, image.height, name, max_pixels)
            turn = orientation(image, [])
            width, height = image.size if turn < 5 else image.size[::-1]
            return Header(width, height, header_channels(image), image.mode, form, turn)


def read_headers(
    records: Sequence[Record],
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> list[Header | DataError]:
    """Read the header of every record, in order; in place of one that cannot be read stands why."""

    def read(record: Record) -> Header | DataError:
        try:
            return read_header(record, max_pixels)
        except DataError as error:
            return _bare(error)

    with _quiet_pillow():
        return in_threads(read, records, threads, progress)


def load_pictures(
    records: Sequence[Record],
    preprocess: Preprocess,
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    cache: Cache | None = None,
    allowance: int | None = None,
    report: Callable[[str], None] = silent,
    progress: Progress = no_progress,
) -> Loaded:
    """Read, decode and fit all pictures: for each, the bytes that `decode_fitted` gives for its file.

    Every file is read once; its digest is that of the bytes that were decoded, whatever becomes of the file meanwhile.
    A picture that fails is left out and listed once, and none takes its place. `threads`: None for one per processor
    core. `cache`: None decodes everything. `allowance`: bytes that the array may take in memory, None for
    `memory_allowance()`; a larger one lies in a nameless file on disk. `report` is told in one line that it does.
    `progress` is called with (done, total). Raises DataError where there is room neither in memory nor on disk.
    """
    shape = (len(records), *preprocess.size, preprocess.channels)
    images = room_for(shape, memory_allowance() if allowance is None else allowance, report)
    shelf = cache.shelf(preprocess, max_pixels) if cache is not None else None

    def load(number: int) -> _Outcome:
        return _load_one(records[number], images[number], preprocess, max_pixels, shelf)

    outcomes: list[_Outcome] = []
    # What has been decoded is stored block by block, so that little is lost where the work is stopped.
    block = max(1, PACK_BYTES // math.prod(shape[1:]))
    with _quiet_pillow():
        for start in range(0, len(records), block):
            numbers = range(start, min(start + block, len(records)))

            def advance(done: int, _: int, start: int = start) -> None:
                progress(start + done, len(records))

            outcomes += in_threads(load, numbers, threads, advance)
            if shelf is not None:
                fine = [i for i in numbers if outcomes[i].error is None and outcomes[i].origin != "array"]
                told = [outcomes[i] for i in fine]
                shelf.put([one.digest for one in told], [one.notes for one in told], [images[i] for i in fine])
            let_go(images[start : numbers.stop])
    good = np.array([i for i, outcome in enumerate(outcomes) if outcome.error is None], dtype=np.int64)
    for row, number in enumerate(good):
        if row != number:
            images[row] = images[number]
    let_go(images)
    return Loaded(
        images[: len(good)],
        good,
        {i: outcome.error for i, outcome in enumerate(outcomes) if outcome.error is not None},
        [outcome.digest for outcome in outcomes],
        [outcome.notes for outcome in outcomes],
        sum(outcome.origin == "cache" for outcome in outcomes),
    )


def _load_one(record: Record, out: Pixels, preprocess: Preprocess, max_pixels: int, shelf: Shelf | None) -> _Outcome:
    name, digest = printable(record.source), ""
    notes: list[str] = []
    try:
        with explained(name):
            content, digest = _read(record.place)
            origin = "file" if isinstance(content, bytes) else "array"  # arrays are decoded already
            kept = shelf.get(digest, out) if shelf is not None and origin == "file" else None
            if kept is not None:
                return _Outcome(digest, kept, origin="cache")
            out[...] = decode_fitted(content, preprocess, max_pixels=max_pixels, notes=notes, name=name)
    except DataError as error:
        return _Outcome(digest, tuple(notes), _bare(error))
    return _Outcome(digest, tuple(notes), origin=origin)


def _bare(error: DataError) -> DataError:
    """Return an error that can be kept: its traceback would keep the picture's bytes in memory with it."""
    return DataError(error.what, error.cause, error.fix)


def _read(place: Place) -> tuple[bytes | np.ndarray, str]:
    """Return what a place holds, an encoded picture or an array, and its SHA-256."""
    if not hasattr(place, "array"):
        content = place.read()
        return content, hashlib.sha256(content).hexdigest()
    array = np.ascontiguousarray(place.array())
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(array.data.cast("B"))
    return array, digest.hexdigest()


def in_threads(
    work: Callable[[Any], Result], items: Sequence[Any], threads: int | None = None, progress: Progress = no_progress
) -> list[Result]:
    """Return `work` of each item, in order, computed in threads; an exception or Ctrl-C stops the rest.

    `threads`: None for one per processor core that this process may use.
    """
    results: list[Result] = []

    def some(start: int) -> list[Result]:
        return [work(item) for item in items[start : start + _TOGETHER]]

    with ThreadPoolExecutor(threads or available_cores(), thread_name_prefix="striate-load") as pool:
        try:
            for part in pool.map(some, range(0, len(items), _TOGETHER)):
                results += part
                progress(len(results), len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for those at work
            raise
    return results


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's remarks on odd files to itself; set once around all threads, since filters are the process's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield
