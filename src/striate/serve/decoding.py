"""Threads for what would hold up the event loop: decoding, drawing, decompressing. Their results come back together."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_Job = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class Threads:
    """Calls functions in a few threads: `await threads(function, *arguments)`, from one event loop at a time.

    Beside pictures as small as digits the usual executor costs as much as their decoding: it wakes the loop for each of
    its results. Here the loop is woken once for all that are there by then.
    """

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [threading.Thread(target=self._work, name="decode", daemon=True) for _ in range(count)]

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the function returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is None:
                for thread in self._threads:
                    thread.start()
            self._loop, self._woken = loop, False  # who waited in another loop is gone with it
        future = loop.create_future()
        self._jobs.put((future, function, arguments))
        return await future

    def close(self) -> None:
        """Let the threads end when they have done what they were given."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, arguments = job
            result, failure = None, None
            if not future.cancelled():
                try:
                    result = function(*arguments)
                except BaseException as error:
                    failure = error
            self._done.append((future, result, failure))
            del job, future, function, arguments, result, failure  # no picture is kept while the thread waits
            if not self._woken:
                self._woken = True
                assert self._loop is not None
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # before looking: what comes now wakes the loop again
        while self._done:
            future, result, failure = self._done.popleft()
            if future.done() or future.get_loop() is not self._loop:
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
