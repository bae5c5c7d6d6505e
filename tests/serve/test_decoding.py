"""Threads whose results come back together: in their own futures, also errors, and to a loop that is not the first."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from striate.serve.decoding import Threads

PATIENCE = 30.0


def double(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    time.sleep(0.001 * (number % 3))
    return 2 * number


async def many(threads: Threads) -> list[Any]:
    return await asyncio.wait_for(
        asyncio.gather(*(threads(double, number) for number in range(60)), return_exceptions=True), PATIENCE
    )


@pytest.mark.parametrize("count", [1, 3])
def test_each_gets_its_own_result(count: int) -> None:
    threads = Threads(count)
    for _ in range(2):  # the second time in a loop of its own
        found = asyncio.run(many(threads))
        assert [one for one in found if not isinstance(one, Exception)] == [2 * n for n in range(60) if n != 7]
        assert isinstance(found[7], ValueError)
    threads.close()


def test_the_loop_goes_on_while_they_work_and_who_waits_no_more_costs_nothing() -> None:
    gate, called = threading.Event(), []

    async def story() -> None:
        threads = Threads(1)
        first = asyncio.ensure_future(threads(gate.wait, PATIENCE))
        gone, stays = asyncio.ensure_future(threads(called.append, 1)), asyncio.ensure_future(threads(called.append, 2))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        assert await asyncio.wait_for(first, PATIENCE)
        await asyncio.wait_for(stays, PATIENCE)
        threads.close()

    asyncio.run(story())
    assert called == [2]
