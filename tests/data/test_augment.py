"""Augmentation by property (same seed same bits, windows of the padded input, involution) and against torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as theirs

from striate.data.augment import (
    Affine,
    Colour,
    Cutout,
    Flip,
    Operation,
    Shift,
    affine,
    apply,
    colour,
    cutout,
    describe,
    flip,
    parse,
    shift,
)
from striate.errors import UsageError

sides = st.integers(5, 14)
operations = st.sampled_from(
    [
        Shift(0), Shift(3), Shift(4, "reflect"), Flip(), Cutout(0), Cutout(3), Cutout(4, 200), Cutout(30), Affine(15.0),
        Affine(10.0, 0.2, 8.0), Affine(), Colour(0.4), Colour(0.3, 0.7), Colour(1.0, 1.0), Colour(),
    ]
)  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, height: int, width: int, channels: int, floats: bool = False) -> torch.Tensor:
    values = np.random.default_rng(count + height).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(values).float() if floats else torch.from_numpy(values)


@settings(max_examples=120, deadline=None)
@given(operations, st.integers(0, 6), sides, sides, st.sampled_from([1, 3, 4]), st.booleans(), st.integers(0, 9))
def test_every_operation_keeps_form_range_and_input_and_repeats(
    operation: Operation, count: int, height: int, width: int, channels: int, floats: bool, seed: int
) -> None:
    batch = pictures(count, height, width, channels, floats)
    kept = batch.clone()
    first, second = (operation(batch, generator(seed)) for _ in range(2))
    assert first.shape == batch.shape and first.dtype == batch.dtype
    assert torch.equal(first, second), "the same seed must give the same bits"
    assert torch.equal(batch, kept), "the batch given must not be changed"
    assert count == 0 or (first.min() >= 0 and first.max() <= 255)
    strided = batch.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    assert torch.equal(operation(strided, generator(seed)), first), "strides must not matter"


@settings(max_examples=60, deadline=None)
@given(st.lists(operations, max_size=4), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.integers(0, 9))
def test_a_share_of_a_batch_is_those_rows_of_the_whole(
    chain: list[Operation], count: int, before: int, after: int, seed: int
) -> None:
    whole = pictures(before + count + after, 9, 8, 3)
    share = apply(chain, whole[before : before + count], generator(seed), start=before, total=len(whole))
    assert torch.equal(share, apply(chain, whole, generator(seed))[before : before + count])


@pytest.mark.parametrize(
    "operation", [Shift(3), Flip(), Cutout(4), Affine(20.0, 0.2, 10.0), Colour(0.5, 0.5)], ids=lambda o: o.name
)
def test_another_seed_gives_another_batch(operation: Operation) -> None:
    batch = pictures(16, 12, 12, 1)
    assert not torch.equal(operation(batch, generator(1)), operation(batch, generator(2)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.sampled_from(["zero", "reflect"]), st.integers(1, 6), sides, sides, st.integers(1, 3))
def test_shift_takes_windows_of_the_padded_picture(
    pixels: int, fill: str, count: int, height: int, width: int, channels: int
) -> None:
    batch = pictures(count, height, width, channels)
    drawn = Shift(pixels).draw(count, (height, width), generator(count))
    got = shift(batch, pixels, generator(count), fill)
    pad = ((pixels, pixels), (pixels, pixels), (0, 0))
    for picture, result, (down, across) in zip(batch.numpy(), got.numpy(), drawn.tolist()):
        padded = np.pad(picture, pad, mode="constant" if fill == "zero" else "reflect")
        assert np.array_equal(result, padded[down : down + height, across : across + width])


def test_shift_by_nothing_is_identity_and_all_offsets_occur() -> None:
    batch = pictures(5, 8, 8, 3)
    assert torch.equal(shift(batch, 0, generator()), batch)
    point = torch.zeros(2000, 9, 9, 1, dtype=torch.uint8)
    point[:, 4, 4] = 1
    counts = shift(point, 2, generator()).sum(dim=0)[..., 0]
    assert int((counts > 0).sum()) == 25 and int(counts.sum()) == 2000
    assert int(counts[2:7, 2:7].min()) >= 40 and int(counts.max()) <= 130  # 80 expected, deviation 8.8


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), sides, sides, st.sampled_from([1, 3]), st.integers(0, 99))
def test_flip_is_an_involution_per_picture(count: int, height: int, width: int, channels: int, seed: int) -> None:
    batch = pictures(count, height, width, channels)
    once = flip(batch, generator(seed))
    for picture, result in zip(batch, once):
        assert torch.equal(result, picture) or torch.equal(result, picture.flip(1))
    assert torch.equal(flip(once, generator(seed)), batch)


def test_flip_turns_about_half_of_the_pictures() -> None:
    batch = torch.zeros(2000, 1, 2, 1, dtype=torch.uint8)
    batch[:, 0, 0] = 1
    assert 900 <= int(flip(batch, generator())[:, 0, 1].sum()) <= 1100


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(1, 6), sides, sides, st.sampled_from([1, 3]), st.integers(0, 255))
def test_cutout_covers_one_square_cut_off_at_the_border(
    side: int, count: int, height: int, width: int, channels: int, fill: int
) -> None:
    batch = pictures(count, height, width, channels)
    centres = Cutout(side, fill).draw(count, (height, width), generator(7))
    got = cutout(batch, side, generator(7), fill)
    for picture, result, (row, column) in zip(batch.numpy(), got.numpy(), centres.tolist()):
        expected = picture.copy()
        top, left = row - side // 2, column - side // 2
        expected[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = fill
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 32, 3)])
@pytest.mark.parametrize("floats", [True, False])
def test_affine_agrees_with_torchvision(shape: tuple[int, int, int], floats: bool) -> None:
    batch = pictures(6, *shape, floats=floats)
    operation = Affine(25.0, 0.3, 15.0)
    got = operation(batch, generator(3))
    drawn = operation.draw(6, shape[:2], generator(3)).tolist()
    for picture, result, (turn, size, slant) in zip(batch, got, drawn):
        expected = theirs.affine(
            picture.permute(2, 0, 1).float(), angle=turn * 25.0, translate=[0.0, 0.0], scale=1 + size * 0.3,
            shear=[slant * 15.0, 0.0], interpolation=InterpolationMode.BILINEAR, fill=0.0,
        ).permute(1, 2, 0)  # fmt: skip
        # Where the picture ends torchvision blends with its fill by a mask, so only the inside has to agree closely.
        middle = (slice(shape[0] // 3, -shape[0] // 3), slice(shape[1] // 3, -shape[1] // 3))
        worst = (result.float() - expected)[middle].abs().max()
        assert worst <= (0.02 if floats else 0.52)


def test_affine_in_pieces_is_affine_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pictures(9, 10, 12, 3)
    whole = affine(batch, generator(), 20, 0.1, 5), colour(batch, generator(), 0.3, 0.3)
    monkeypatch.setattr("striate.data.augment._PIECE", 1000)  # two pictures at a time
    pieces = affine(batch, generator(), 20, 0.1, 5), colour(batch, generator(), 0.3, 0.3)
    assert torch.equal(whole[0], pieces[0]) and torch.equal(whole[1], pieces[1])


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_the_threads(threads: int) -> None:
    batch = pictures(3, 40, 40, 3)
    before = torch.get_num_threads()
    chain = parse("shift:3:reflect,flip,cutout:5,affine:10:0.1:5,colour:0.3:0.3")
    expected = apply(chain, batch, generator())
    try:
        torch.set_num_threads(threads)
        assert torch.equal(apply(chain, batch, generator()), expected)
    finally:
        torch.set_num_threads(before)


def test_colour_is_the_stated_arithmetic() -> None:
    batch = pictures(7, 6, 5, 3)
    drawn = Colour(0.4, 0.6).draw(7, (6, 5), generator(2)).double().numpy()
    got = colour(batch, generator(2), 0.4, 0.6).numpy()
    for picture, result, (bright, contrast) in zip(batch.double().numpy(), got, drawn):
        lit = picture * (1 + 0.4 * bright)
        expected = np.clip((lit - lit.mean()) * (1 + 0.6 * contrast) + lit.mean(), 0, 255)
        assert np.abs(result - expected).max() <= 0.501


def test_strength_zero_changes_nothing() -> None:
    for floats in (False, True):
        batch = pictures(3, 9, 7, 3, floats)
        assert torch.equal(affine(batch, generator()), batch)
        assert torch.equal(colour(batch, generator()), batch)
        assert torch.equal(cutout(batch, 0, generator()), batch)


def test_parse_reads_the_documented_settings() -> None:
    assert parse("shift:2,flip,cutout:8,rotate:10") == (Shift(2), Flip(), Cutout(8), Affine(10.0))
    assert parse(" shift:4:reflect , cutout:6:128 ") == (Shift(4, "reflect"), Cutout(6, 128))
    assert parse("rotate:10,scale:0.1,shear:5") == parse("affine:10:0.1:5") == (Affine(10.0, 0.1, 5.0),)
    assert parse("brightness:0.2,contrast:0.3") == parse("colour:0.2:0.3") == (Colour(0.2, 0.3),)
    assert parse("rotate:10,flip,scale:0.1") == (Affine(10.0), Flip(), Affine(scale=0.1))
    assert parse("rotate:10,rotate:5") == (Affine(10.0), Affine(5.0))
    assert parse("") == parse("none") == parse(" ") == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(operations, max_size=4))
def test_describe_is_read_back_and_does_the_same(chain: list[Operation]) -> None:
    once = parse(describe(chain))
    assert parse(describe(once)) == once
    batch = pictures(2, 9, 9, 1)
    if len(once) == len(chain):  # no two were joined
        assert torch.equal(apply(once, batch, generator()), apply(chain, batch, generator()))


def test_describe_of_each_operation_is_short_and_exact() -> None:
    chain = (Shift(2), Shift(4, "reflect"), Flip(), Cutout(8), Cutout(8, 128), Affine(10.0), Colour(0.2, 0.3))
    assert describe(chain) == "shift:2,shift:4:reflect,flip,cutout:8,cutout:8:128,affine:10.0,colour:0.2:0.3"
    assert parse(describe(chain)) == chain
    assert describe(()) == "none"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flop", "did you mean flip"), ("shifft:2", "did you mean shift"), ("color:0.1", "did you mean colour"),
        ("shift", "write shift:2"), ("shift:x", "not a whole number"), ("shift:1.5", "not a whole number"),
        ("shift:-1", "not from 0"), ("shift:2:mirror", "fill of shift"), ("shift:2:zero:1", "shift:2:zero:1"),
        ("flip:1", "flip with 1 numbers"), ("cutout", "write cutout"), ("cutout:8:256", "not from 0 to 255"),
        ("rotate:181", "not from 0 to 180"), ("rotate:nan", "not from 0"), ("rotate:inf", "not from 0"),
        ("scale:1", "not from 0 to 0.9"), ("affine:1:2", "affine"), ("flip,,flip", "unknown augmentation ''"),
        ("brightness:2", "not from 0 to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_right_form(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert told in str(caught.value)


def test_what_cannot_be_done_is_refused() -> None:
    batch = pictures(2, 5, 9, 1)
    with pytest.raises(UsageError, match="at most 4"):
        shift(batch, 5, generator(), "reflect")
    with pytest.raises(UsageError, match="fill of shift"):
        shift(batch, 1, generator(), "edge")
    with pytest.raises(UsageError, match="pixels -1"):
        shift(batch, -1, generator())
    with pytest.raises(UsageError, match="degrees nan"):
        affine(batch, generator(), math.nan)
    with pytest.raises(UsageError, match="expects"):
        flip(batch[0], generator())
