"""Reads the pictures of an epoch from disk ahead of the steps: one thread, one lot of blocks after another."""

from __future__ import annotations

import queue
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from striate.data.disk import let_go, spans, will_need

LOTS = 2  # in memory at once: one that batches are drawn from, one that is being read
_NEAR = 16  # rows; those of a block follow each other closely, with gaps where pictures validate


class Ahead:
    """The pictures of an epoch in its order, read lot by lot.

    `images` uint8 (N, H, W, C); `order` (n,) numbers of pictures; `ends` (lots,) where each lot of the order ends.
    `first`: the place in the order from which on they are wanted. Use it in a `with`: at its end the thread stops.
    What goes wrong in the thread is raised by `take`.
    """

    def __init__(self, images: NDArray[np.uint8], order: torch.Tensor, ends: torch.Tensor, first: int = 0) -> None:
        self._images = images
        self._order = order.numpy()
        places = [0, *ends.tolist()]
        self._lots = [(start, end) for start, end in pairwise(places) if end > first]
        self._room = threading.Semaphore(LOTS)
        self._ready: queue.Queue[Any] = queue.Queue()
        self._closed = False
        self._start = self._end = 0
        self._pictures = torch.empty(0)
        self._rows = torch.empty(0)
        self._thread = threading.Thread(target=self._read_all, name="striate-read", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._room.release()
        self._thread.join()

    def take(self, places: torch.Tensor) -> torch.Tensor:
        """Return the pictures at these places of the order (rising), uint8 (B, H, W, C).

        What lies before them is forgotten.
        """
        if not len(places):  # another process has all pictures of this batch
            return torch.empty((0, *self._images.shape[1:]), dtype=torch.uint8)
        parts, done = [], 0
        while True:
            here = int(torch.searchsorted(places, self._end))
            if here > done:
                parts.append(self._pictures.index_select(0, self._rows[places[done:here] - self._start]))
            done = here
            if done == len(places):
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            self._next()

    def _next(self) -> None:
        if self._end:
            self._pictures = self._rows = torch.empty(0)
            self._room.release()
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        self._start, self._end, pictures, rows = found
        self._pictures, self._rows = torch.from_numpy(pictures), torch.from_numpy(rows)

    def _read_all(self) -> None:
        try:
            for start, end in self._lots:
                self._room.acquire()
                if self._closed:
                    return
                numbers, rows = np.unique(self._order[start:end], return_inverse=True)
                self._ready.put((start, end, self._read(numbers), rows))
        except BaseException as error:  # told to the thread that waits
            self._ready.put(error)

    def _read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read the pictures of these numbers (rising)."""
        breaks = np.flatnonzero(np.diff(numbers) > _NEAR) + 1
        for run in np.split(numbers, breaks):  # the disk works on many blocks at a time
            will_need(self._images[run[0] : run[-1] + 1])
        out = np.empty((len(numbers), *self._images.shape[1:]), np.uint8)
        for start, end in spans(len(numbers), self._images[:1].nbytes):
            if self._closed:
                break
            # Any other mode than clip would make another copy.
            np.take(self._images, numbers[start:end], axis=0, out=out[start:end], mode="clip")
        let_go(self._images)
        return out
