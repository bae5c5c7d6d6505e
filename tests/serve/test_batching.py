"""The queue before a net: who is asked with whom, how long one waits, and what happens when it is full."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from striate.serve.batching import Answered, Batcher
from striate.serve.refusals import Busy, Refused

# Against hanging; what takes so long in these tests never ends.
PATIENCE = 30.0


class Net:
    """Answers each picture with its first level, and notes the batches; `gate` holds it up until it is opened."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.fails = False

    def __call__(self, images: np.ndarray) -> Any:
        self.batches.append(len(images))
        self.began.set()
        assert self.gate.wait(PATIENCE)
        if self.fails:
            raise ValueError("the net failed")
        levels = [float(image[0, 0, 0]) for image in images]
        return Answered(images[:, 0, 0].astype(np.float32), levels, images[:, 0, 0, 0] > 9)


def pictures(*levels: int) -> np.ndarray:
    return np.array(levels, np.uint8).reshape(-1, 1, 1, 1)


async def ask(batcher: Batcher, *levels: int) -> list[int]:
    with batcher.place(len(levels)):
        answered = await batcher.answer(pictures(*levels))
    assert answered.logits[:, 0].tolist() == answered.distances
    assert answered.held.tolist() == [level > 9 for level in levels]
    return [int(level) for level in answered.logits[:, 0]]


def run(story: Callable[[Batcher, Net], Awaitable[None]], **options: Any) -> Net:
    """Run a story of a queue and its net to its end."""
    net = Net()

    async def tell() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(net, thread=thread, **options)
            try:
                await asyncio.wait_for(story(batcher, net), PATIENCE)
            finally:
                net.gate.set()
            assert (batcher.places, batcher.waiting) == (0, 0)

    asyncio.run(tell())
    return net


async def started(net: Net) -> None:
    """Wait until the net has been asked."""
    await asyncio.get_running_loop().run_in_executor(None, net.began.wait, PATIENCE)


def test_alone_one_waits_for_nobody() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        assert await ask(batcher, 7) == [7]

    assert run(story, max_wait=10 * PATIENCE).batches == [1]


def test_those_that_come_together_are_one_batch() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        assert await asyncio.gather(*(ask(batcher, level) for level in (5, 6, 7))) == [[5], [6], [7]]

    assert run(story).batches == [3]


def test_those_that_come_while_the_net_is_asked_are_its_next_batch() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        net.gate.clear()
        first = asyncio.ensure_future(ask(batcher, 1))
        await started(net)
        others = [asyncio.ensure_future(ask(batcher, level, level + 100)) for level in range(2, 9)]
        await asyncio.sleep(0)
        net.gate.set()
        assert await first == [1]
        assert await asyncio.gather(*others) == [[level, level + 100] for level in range(2, 9)]

    assert run(story, max_batch=10, max_wait=0.0).batches == [1, 10, 4]


def test_one_that_is_being_decoded_is_waited_for() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        with batcher.place(1):
            first = asyncio.ensure_future(ask(batcher, 1))
            await asyncio.sleep(0.05)
            assert net.batches == []
            logits = (await batcher.answer(pictures(2))).logits
        assert logits[0, 0] == 2 and await first == [1]

    assert run(story, max_wait=10 * PATIENCE).batches == [2]


def test_but_no_longer_than_the_bound() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        with batcher.place(1):  # its picture never comes
            assert await ask(batcher, 1) == [1]

    assert run(story, max_wait=0.05).batches == [1]


def test_one_that_cannot_be_read_is_waited_for_no_longer() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        with batcher.place(1):
            first = asyncio.ensure_future(ask(batcher, 1))
            await asyncio.sleep(0.01)
        assert await first == [1]

    assert run(story, max_wait=10 * PATIENCE).batches == [1]


def test_many_pictures_are_asked_in_parts() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        assert await ask(batcher, *range(23)) == list(range(23))

    assert run(story, max_batch=10).batches == [10, 10, 3]


def test_a_full_queue_refuses() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        net.gate.clear()
        waiting = [asyncio.ensure_future(ask(batcher, level)) for level in range(5)]
        await started(net)
        with pytest.raises(Busy) as caught:
            await ask(batcher, 9)
        assert caught.value.status == 429 and caught.value.retry_after > 0
        net.gate.set()
        assert await asyncio.gather(*waiting) == [[level] for level in range(5)]
        assert await ask(batcher, 9) == [9]
        with pytest.raises(Refused) as never:
            await ask(batcher, *range(6))
        assert never.value.status == 413

    run(story, max_places=5)


def test_who_waits_no_more_is_not_asked_for() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        net.gate.clear()
        first = asyncio.ensure_future(ask(batcher, 1))
        await started(net)
        gone, stays = asyncio.ensure_future(ask(batcher, 2)), asyncio.ensure_future(ask(batcher, 3, 4, 5))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        net.gate.set()
        assert await first == [1] and await stays == [3, 4, 5]

    assert run(story).batches == [1, 3]


def test_a_net_that_fails_fails_its_batch_alone() -> None:
    async def story(batcher: Batcher, net: Net) -> None:
        net.fails = True
        failed = await asyncio.gather(ask(batcher, 1), ask(batcher, 2), return_exceptions=True)
        assert all(isinstance(error, ValueError) for error in failed)
        net.fails = False
        assert await ask(batcher, 3) == [3]

    run(story)
