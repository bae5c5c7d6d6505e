"""Blocks: a pure order of every picture once, drawn from few blocks at a time, and how good that shuffle is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.order import MOST_HELD_BYTES, WANTED_BLOCKS, Blocks
from striate.device import generator
from striate.errors import UsageError
from striate.settings.values import check_order


def arrange(blocks: Blocks, drawn: torch.Tensor, seed: int = 0, again: bool = False) -> tuple[torch.Tensor, list[int]]:
    order, ends = blocks.arrange(drawn, generator(seed, "order"), again=again)
    return order, [0, *ends.tolist()]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 50), st.integers(2, 30), st.integers(0, 2**50), st.integers(0, 9))
def test_every_picture_once_and_a_lot_from_half_of_the_held_blocks(
    count: int, pictures: int, held: int, seed: int, left_out: int
) -> None:
    drawn = torch.tensor([i for i in range(count) if left_out == 0 or i % 10 < left_out], dtype=torch.int64)
    order, places = arrange(Blocks(pictures, held), drawn, seed)
    assert sorted(order.tolist()) == drawn.tolist()
    assert places[-1] == len(drawn) and all(a < b for a, b in pairwise(places))
    seen: set[int] = set()
    for start, end in pairwise(places):
        blocks = set((order[start:end] // pictures).tolist())
        assert len(blocks) <= max(1, held // 2) and not blocks & seen  # a block is read once
        seen |= blocks
    assert torch.equal(order, arrange(Blocks(pictures, held), drawn, seed)[0])


def test_another_epoch_has_other_blocks_together() -> None:
    drawn = torch.arange(1000)
    orders = [Blocks(10, 20).arrange(drawn, generator(0, "order", epoch))[0] for epoch in range(2)]
    lots = [{int(i) // 10 for i in order[:100]} for order in orders]
    assert not torch.equal(*orders) and lots[0] != lots[1]


def test_blocks_of_one_picture_shuffle_all_of_them() -> None:
    """The first picture of the order is any of them, whatever is held."""
    firsts = [int(arrange(Blocks(1, 4), torch.arange(50), seed)[0][0]) for seed in range(400)]
    assert len(set(firsts)) == 50


def test_a_rare_picture_that_comes_often_comes_in_many_lots() -> None:
    drawn = torch.tensor([0] * 40 + list(range(10, 210)))
    order, places = arrange(Blocks(10, 10), drawn, again=True)
    assert sorted(order.tolist()) == drawn.tolist()
    of_each = [int((order[start:end] == 0).sum()) for start, end in pairwise(places)]
    assert max(of_each) <= 5  # five blocks are mixed, and each of them visited once for each copy
    assert sum(count > 0 for count in of_each) >= 8


@settings(deadline=None, max_examples=20)
@given(st.integers(4, 20), st.integers(8, 40), st.integers(0, 2**40))
def test_the_stated_share_of_a_batch_that_comes_from_one_block(pictures: int, held: int, seed: int) -> None:
    """docs/large.md: two pictures of a lot are of one block with chance (N − 1) / (N · M/2 − 1)."""
    lot = held // 2 * pictures
    order, places = arrange(Blocks(pictures, held), torch.arange(lot * 6), seed)
    pairs = same = 0
    for start in places[:-1]:
        blocks = (order[start : start + lot] // pictures).numpy()
        one, other = blocks[:, None], blocks[None]
        same += int((one == other).sum()) - lot
        pairs += lot * (lot - 1)
    assert same / pairs == pytest.approx((pictures - 1) / (lot - 1))


def test_the_order_on_disk_says_nothing_of_the_order_seen() -> None:
    """Blocks come in any order: the correlation of place and turn is that of chance."""
    count = 4096
    found = [
        np.corrcoef(np.arange(count), arrange(Blocks(16, 32), torch.arange(count), seed)[0].numpy())[0, 1]
        for seed in range(40)
    ]
    assert abs(np.mean(found)) < 0.06  # of 256 blocks: one has 0.0625, the mean of forty 0.01
    assert np.std(found) < 0.12


def test_a_class_sorted_folder_is_spread_as_promised() -> None:
    """Pictures of a class in a batch vary by 1 + (B − 1) / (M/2) of what whole shuffling gives, and no more."""
    count, batch, blocks = 20_000, 64, Blocks(25, 128)  # 800 blocks, 64 mixed
    labels = torch.arange(count) * 10 // count
    spread = []
    for seed in range(6):
        order, _ = arrange(blocks, torch.arange(count), seed)
        of_first = (labels[order][: count // batch * batch].view(-1, batch) == 0).sum(1).float()
        spread.append(float(of_first.var()))
    whole = batch * 0.1 * 0.9
    assert whole * 0.8 < np.mean(spread) < whole * (1 + (batch - 1) / 64) * 1.25


@settings(deadline=None)
@given(st.integers(1 << 16, 1 << 40), st.integers(1, 4096 * 4096 * 3))
def test_what_is_held_stays_within_half_of_the_allowance(allowance: int, picture: int) -> None:
    blocks = Blocks.within(allowance, picture)
    room = min(allowance // 2, MOST_HELD_BYTES)
    assert blocks.held * blocks.pictures * picture <= max(room, 2 * picture)  # two pictures are the least
    assert blocks.pictures == 1 or blocks.pictures * picture <= MOST_HELD_BYTES // WANTED_BLOCKS
    assert blocks.held >= min(512, room // picture)


def test_an_order_is_written_and_read() -> None:
    assert Blocks.parse(str(Blocks(85, 1024))) == Blocks(85, 1024) and str(Blocks(85, 1024)) == "blocks:85,1024"
    for text in ("auto", "whole", "blocks", "blocks:1,2"):
        assert check_order(text) == text
    for text in ("block", "blocks:", "blocks:3", "blocks:0,4", "blocks:3,4,5", "blocks:a,b"):
        with pytest.raises(ValueError, match="an order is"):
            check_order(text)
    for text in ("blocks:1,1", "blocks:x"):
        with pytest.raises(UsageError):
            Blocks.parse(text)
