"""The queue before a net: pictures of several requests become one batch; its length is bounded, and so is the wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Images
from striate.predictor.predictor import Logits
from striate.serve.refusals import Busy, Refused

# Of the newest batch in the mean time for a picture, by which Retry-After is told.
_NEWEST = 0.1
_LONGEST_RETRY = 30.0


@dataclass(frozen=True)
class Answered:
    """What is told of pictures: logits (n, K), how far each is from the training data, and `held` (n,).

    That says whether a picture looks as the training pictures do; True where these are no drawings.
    """

    logits: Logits
    distances: Sequence[float | None]
    held: NDArray[np.bool_]

    def part(self, start: int, end: int) -> Answered:
        """Return what is told of the pictures from `start` to before `end`."""
        return Answered(self.logits[start:end], self.distances[start:end], self.held[start:end])

    @classmethod
    def joined(cls, parts: Sequence[Answered]) -> Answered:
        """Return what several tell as one."""
        if len(parts) == 1:
            return parts[0]
        distances = [one for part in parts for one in part.distances]
        return cls(np.concatenate([p.logits for p in parts]), distances, np.concatenate([p.held for p in parts]))


@dataclass
class _Waiting:
    """Pictures (n, H, W, C) that wait together, since when, and who waits for their answers."""

    images: Images
    since: float
    answer: asyncio.Future[Answered]


class Batcher:
    """Asks `ask` for up to `max_batch` pictures at once, in `thread`, one batch at a time.

    While the net is free a picture waits for others at most `max_wait` seconds, and only for such as hold a place and
    are still being decoded; while it answers, those that come are its next batch. At most `max_places` pictures hold a
    place, from being decoded to being answered. All methods belong to the event loop; `told(n, seconds)` is called
    after each batch.
    """

    def __init__(
        self,
        ask: Callable[[Images], Answered],
        *,
        thread: ThreadPoolExecutor,
        max_batch: int = 64,
        max_wait: float = 0.002,
        max_places: int = 1_000,
        told: Callable[[int, float], None] = lambda pictures, seconds: None,
    ) -> None:
        self.max_batch = max_batch
        self.max_wait = max_wait
        self.max_places = max_places
        self.places = 0  # of pictures that are decoded, wait or are asked
        self.waiting = 0  # of pictures in the queue
        self._ask, self._thread, self._told = ask, thread, told
        self._queue: deque[_Waiting] = deque()
        self._asking = 0  # pictures of the batch that is asked now
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._seconds = 0.0  # for one picture

    @contextmanager
    def place(self, pictures: int) -> Iterator[None]:
        """Hold places for pictures while they are decoded and asked. Raises Busy where there are not so many."""
        if pictures > self.max_places:
            raise Refused(413, f"{pictures:,} pictures were sent at once", f"at most {self.max_places:,} are answered")
        if self.places + pictures > self.max_places:
            wait = min(_LONGEST_RETRY, self.places * self._seconds)
            raise Busy("too many pictures wait", f"there are places for {self.max_places:,}", retry_after=wait or 1.0)
        self.places += pictures
        try:
            yield
        finally:
            self.places -= pictures
            self._turn()

    async def answer(self, images: Images) -> Answered:
        """Return what `ask` says of pictures uint8 (n, H, W, C), n ≥ 1, that hold a place."""
        now, loop = time.monotonic(), asyncio.get_running_loop()
        pieces = [images[start : start + self.max_batch] for start in range(0, len(images), self.max_batch)]
        jobs = [_Waiting(piece, now, loop.create_future()) for piece in pieces]
        self._queue.extend(jobs)
        self.waiting += len(images)
        if not self._soon:  # when the requests that came with this one have been read: they are its batch
            self._soon = True
            loop.call_soon(self._turn)
        if len(jobs) == 1:
            return await jobs[0].answer
        return Answered.joined(await asyncio.gather(*(job.answer for job in jobs)))

    def _turn(self) -> None:
        """Ask the next batch if the net is free and nobody is worth waiting for."""
        self._soon = False
        if self._asking or not self._queue:
            return
        coming = self.places - self.waiting
        until = self._queue[0].since + self.max_wait
        if self.waiting < self.max_batch and coming > 0 and time.monotonic() < until:
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(until - time.monotonic(), self._time_is_over)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._next_batch()
        if batch:
            self._asking = sum(len(job.images) for job in batch)
            began = time.monotonic()
            images = [job.images for job in batch]
            asked = asyncio.get_running_loop().run_in_executor(self._thread, self._ask_joined, images)
            asked.add_done_callback(lambda done: self._answered(batch, done, time.monotonic() - began))

    def _time_is_over(self) -> None:
        self._timer = None
        self._turn()

    def _next_batch(self) -> list[_Waiting]:
        """Take from the queue what fits into a batch; who waits no more is left out."""
        batch: list[_Waiting] = []
        pictures = 0
        while self._queue and pictures + len(self._queue[0].images) <= self.max_batch:
            job = self._queue.popleft()
            self.waiting -= len(job.images)
            if not job.answer.done():
                batch.append(job)
                pictures += len(job.images)
        return batch

    def _ask_joined(self, images: list[Images]) -> Answered:
        return self._ask(images[0] if len(images) == 1 else np.concatenate(images))

    def _answered(self, batch: list[_Waiting], done: asyncio.Future[Answered], seconds: float) -> None:
        pictures, self._asking = self._asking, 0
        error: Any = asyncio.CancelledError() if done.cancelled() else done.exception()
        start = 0
        for job in batch:
            end = start + len(job.images)
            if not job.answer.done():
                if error is None:
                    job.answer.set_result(done.result().part(start, end))
                else:
                    job.answer.set_exception(error) if not done.cancelled() else job.answer.cancel()
            start = end
        each = seconds / pictures
        self._seconds = each if self._seconds == 0 else (1 - _NEWEST) * self._seconds + _NEWEST * each
        self._told(pictures, seconds)
        self._turn()
