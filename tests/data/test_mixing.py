"""Mixup and cutmix: which pictures and labels are mixed, in which shares, and the same in a share of the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.augment import describe, parse
from striate.data.mixing import Cutmix, Mixing, Mixup, mix_labels
from striate.data.operation import Context
from striate.errors import UsageError

kinds = st.sampled_from([Mixup(0.2), Mixup(1.0), Mixup(0.0), Cutmix(1.0), Cutmix(0.3), Cutmix(0.0)])
sides = st.integers(1, 12)


def context(count: int, seed: int = 0) -> Context:
    return Context(torch.Generator().manual_seed(seed), torch.arange(count))


def pictures(count: int, height: int, width: int, channels: int, floats: bool = False) -> torch.Tensor:
    values = np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(values).float() if floats else torch.from_numpy(values)


def mixed(
    mixing: Mixing, batch: torch.Tensor, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pictures, the share of each that is itself, the rows of the partners and the numbers drawn."""
    whole = context(len(batch), seed)
    partners = mixing.partners(whole)
    drawn = mixing.draw(whole, (batch.shape[1], batch.shape[2]))
    return *mixing.mix(batch, batch[partners], drawn), partners, drawn


@settings(max_examples=80, deadline=None)
@given(kinds, st.integers(1, 9), sides, sides, st.sampled_from([1, 3, 4]), st.booleans(), st.integers(0, 9))
def test_form_range_partners_and_repetition(
    mixing: Mixing, count: int, height: int, width: int, channels: int, floats: bool, seed: int
) -> None:
    batch = pictures(count, height, width, channels, floats)
    kept = batch.clone()
    got, share, partners, _ = mixed(mixing, batch, seed)
    again, same_share, _, _ = mixed(mixing, batch, seed)
    assert got.shape == batch.shape and share.shape == (count,) and share.dtype == torch.float32
    assert got.dtype == (torch.float32 if isinstance(mixing, Mixup) else batch.dtype)
    assert sorted(partners.tolist()) == list(range(count))
    assert torch.equal(got, again) and torch.equal(share, same_share) and torch.equal(batch, kept)
    assert got.min() >= 0 and got.max() <= 255 and share.min() >= 0 and share.max() <= 1
    if mixing.alpha == 0:
        assert torch.equal(got, batch.to(got.dtype)) and torch.equal(share, torch.ones(count))
    strided = batch.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    assert torch.equal(mixed(mixing, strided, seed)[0], got)


@settings(max_examples=40, deadline=None)
@given(kinds, st.sets(st.integers(0, 7), min_size=1), st.integers(0, 9))
def test_some_rows_become_what_they_become_in_the_whole(mixing: Mixing, chosen: set[int], seed: int) -> None:
    batch, rows = pictures(8, 6, 7, 3), torch.tensor(sorted(chosen))
    got, share, partners, drawn = mixed(mixing, batch, seed)
    some, their_share = mixing.mix(batch[rows], batch[partners[rows]], drawn[rows])
    assert torch.equal(some, got[rows]) and torch.equal(their_share, share[rows])


def test_mixup_is_the_weighted_mean() -> None:
    batch = pictures(40, 5, 6, 3)
    got, share, partners, _ = mixed(Mixup(1.0), batch)
    weight = share.double().numpy()[:, None, None, None]
    expected = weight * batch.double().numpy() + (1 - weight) * batch[partners].double().numpy()
    assert np.abs(got.numpy() - expected).max() < 1e-4
    assert len(set(share.tolist())) == 40, "each picture has a share of its own"


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_drawn_from_beta(alpha: float) -> None:
    _, share, _, _ = mixed(Mixup(alpha), torch.zeros(20_000, 1, 1, 1))
    assert float(share.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(share.double().var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_cutmix_pastes_one_box_and_its_share_counts_the_pixels() -> None:
    count, height, width = 300, 11, 14
    # Each picture is filled with its own number, so that every pixel tells where it comes from.
    batch = torch.arange(count).view(-1, 1, 1, 1).expand(count, height, width, 3).float().contiguous()
    got, share, partners, _ = mixed(Cutmix(1.0), batch)
    assert torch.equal(got[..., 0], got[..., 2])
    covered_sides = set()
    for number, (picture, partner) in enumerate(zip(got[..., 0].numpy(), partners.tolist())):
        if partner == number:
            continue
        pasted = picture == partner
        assert (pasted | (picture == number)).all()
        rows, columns = pasted.any(1), pasted.any(0)
        assert np.array_equal(pasted, rows[:, None] & columns) and np.diff(rows).sum() <= 2
        assert all(np.abs(np.diff(line.astype(int), prepend=0, append=0)).sum() in (0, 2) for line in (rows, columns))
        assert float(share[number]) == pytest.approx(1 - pasted.mean(), abs=1e-6)
        covered_sides.add((int(rows.sum()), int(columns.sum())))
    assert len(covered_sides) > 50


def test_a_box_has_the_shape_of_the_picture_and_may_lie_anywhere() -> None:
    drawn = Cutmix(1.0).draw(context(5000), (20, 40))
    top, bottom, left, right = drawn.unbind(1)
    inner = (top > 0) & (bottom < 20) & (left > 0) & (right < 40) & (bottom > top)
    ratio = ((right - left) / (bottom - top))[inner]
    assert float(ratio.median()) == pytest.approx(2, abs=0.2)
    touched = torch.zeros(20, 40)
    for first_row, end_row, first_column, end_column in drawn.tolist():
        touched[first_row:end_row, first_column:end_column] += 1
    assert touched.min() > 0.2 * touched.max()  # a corner is covered a quarter as often as the middle


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0, 1, width=32)), min_size=1, max_size=9))
def test_labels_get_the_shares_of_their_pictures(rows: list[tuple[int, int, float]]) -> None:
    own, partners, shares = (torch.tensor(values) for values in zip(*rows))
    got = mix_labels(own, partners, shares, 5)
    assert got.shape == (len(rows), 5) and got.dtype == torch.float32
    for line, (first, second, share) in zip(got.tolist(), rows):
        expected = [0.0] * 5
        expected[first] += share
        expected[second] += 1 - share
        assert line == pytest.approx(expected, abs=1e-6) and math.isclose(sum(line), 1, abs_tol=1e-6)


def test_how_mixing_is_written() -> None:
    assert parse("shift:2,mixup:0.2")[-1] == Mixup(0.2) and parse("cutmix:1") == (Cutmix(1.0),)
    assert describe(parse("flip,cutmix:1")) == "flip,cutmix:1.0"
    with pytest.raises(UsageError, match="alpha -1"):
        Mixup(-1.0)
