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

from striate.data.augment import apply, describe, parse, split, store_size
from striate.data.colours import Colour
from striate.data.moves import AlternatingFlip, Cutout, Flip, Shift, scramble
from striate.data.operation import Change, Context
from striate.data.warps import WIDEST, Affine, Crop
from striate.errors import UsageError
from striate.settings.recipes import list_recipes

sides = st.integers(5, 14)
operations = st.sampled_from(
    [
        Shift(0), Shift(3), Shift(4, "reflect"), Flip(), Cutout(0), Cutout(3), Cutout(4, 200), Cutout(30), Affine(15.0),
        Affine(10.0, 0.2, 8.0), Affine(), Colour(0.4), Colour(0.3, 0.7), Colour(1.0, 1.0), Colour(), AlternatingFlip(),
        Crop(0.2), Crop(0.5, (7, 9)), Crop(1.0), Crop(1.0, (6, 5)), Colour(0.2, 0.2, 0.5), Colour(saturation=1.0),
    ]
)  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(count: int, seed: int = 0, epoch: int = 0) -> Context:
    """A whole batch of pictures number 100, 101, …"""
    return Context(generator(seed), torch.arange(100, 100 + count), epoch, seed)


def pictures(count: int, height: int, width: int, channels: int, floats: bool = False) -> torch.Tensor:
    values = np.random.default_rng(count + height).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(values).float() if floats else torch.from_numpy(values)


@settings(max_examples=150, deadline=None)
@given(operations, st.integers(0, 6), sides, sides, st.sampled_from([1, 3, 4]), st.booleans(), st.integers(0, 9))
def test_every_operation_keeps_form_range_and_input_and_repeats(
    operation: Change, count: int, height: int, width: int, channels: int, floats: bool, seed: int
) -> None:
    channels = 3 if isinstance(operation, Colour) and operation.saturation else channels
    batch = pictures(count, height, width, channels, floats)
    kept = batch.clone()
    first, second = (operation(batch, generator(seed)) for _ in range(2))
    size = operation.size if isinstance(operation, Crop) and operation.size else (height, width)
    assert first.shape == (count, *size, channels) and first.dtype == batch.dtype
    assert torch.equal(first, second), "the same seed must give the same bits"
    assert torch.equal(batch, kept), "the batch given must not be changed"
    assert count == 0 or (first.min() >= 0 and first.max() <= 255)
    strided = batch.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    assert torch.equal(operation(strided, generator(seed)), first), "strides must not matter"


@settings(max_examples=80, deadline=None)
@given(st.lists(operations, max_size=4), st.sets(st.integers(0, 9), min_size=1), st.integers(0, 9), st.integers(0, 3))
def test_some_rows_of_a_batch_become_what_they_become_in_the_whole(
    chain: list[Change], chosen: set[int], seed: int, epoch: int
) -> None:
    batch, rows = pictures(10, 9, 8, 3), torch.tensor(sorted(chosen))
    share = apply(chain, batch[rows], whole(10, seed, epoch), rows)
    assert torch.equal(share, apply(chain, batch, whole(10, seed, epoch))[rows])


@pytest.mark.parametrize(
    "operation",
    [Shift(3), Flip(), AlternatingFlip(), Cutout(4), Affine(20.0, 0.2, 10.0), Crop(0.5), Colour(0.5, 0.5, 0.5)],
    ids=lambda o: o.name,
)
def test_another_seed_gives_another_batch(operation: Change) -> None:
    batch = pictures(16, 12, 12, 3)
    assert not torch.equal(apply((operation,), batch, whole(16, 1)), apply((operation,), batch, whole(16, 2)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.sampled_from(["zero", "reflect"]), st.integers(1, 6), sides, sides, st.integers(1, 3))
def test_shift_takes_windows_of_the_padded_picture(
    pixels: int, fill: str, count: int, height: int, width: int, channels: int
) -> None:
    batch = pictures(count, height, width, channels)
    drawn = Shift(pixels).draw(whole(count, count), (height, width))
    got = Shift(pixels, fill)(batch, generator(count))
    pad = ((pixels, pixels), (pixels, pixels), (0, 0))
    for picture, result, (down, across) in zip(batch.numpy(), got.numpy(), drawn.tolist()):
        padded = np.pad(picture, pad, mode="constant" if fill == "zero" else "reflect")
        assert np.array_equal(result, padded[down : down + height, across : across + width])


def test_shift_by_nothing_is_identity_and_all_offsets_occur() -> None:
    batch = pictures(5, 8, 8, 3)
    assert torch.equal(Shift(0)(batch, generator()), batch)
    point = torch.zeros(2000, 9, 9, 1, dtype=torch.uint8)
    point[:, 4, 4] = 1
    counts = Shift(2)(point, generator()).sum(dim=0)[..., 0]
    assert int((counts > 0).sum()) == 25 and int(counts.sum()) == 2000
    assert int(counts[2:7, 2:7].min()) >= 40 and int(counts.max()) <= 130  # 80 expected, deviation 8.8


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), sides, sides, st.sampled_from([1, 3]), st.integers(0, 99))
def test_flip_is_an_involution_per_picture(count: int, height: int, width: int, channels: int, seed: int) -> None:
    batch = pictures(count, height, width, channels)
    once = Flip()(batch, generator(seed))
    for picture, result in zip(batch, once):
        assert torch.equal(result, picture) or torch.equal(result, picture.flip(1))
    assert torch.equal(Flip()(once, generator(seed)), batch)


def test_flip_turns_about_half_of_the_pictures() -> None:
    batch = torch.zeros(2000, 1, 2, 1, dtype=torch.uint8)
    batch[:, 0, 0] = 1
    assert 900 <= int(Flip()(batch, generator())[:, 0, 1].sum()) <= 1100


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(1, 6), sides, sides, st.sampled_from([1, 3]), st.integers(0, 255))
def test_cutout_covers_one_square_cut_off_at_the_border(
    side: int, count: int, height: int, width: int, channels: int, fill: int
) -> None:
    batch = pictures(count, height, width, channels)
    centres = Cutout(side, fill).draw(whole(count, 7), (height, width))
    got = Cutout(side, fill)(batch, generator(7))
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
    drawn = operation.draw(whole(6, 3), shape[:2]).tolist()
    for picture, result, (turn, size, slant) in zip(batch, got, drawn):
        expected = theirs.affine(
            picture.permute(2, 0, 1).float(), angle=turn * 25.0, translate=[0.0, 0.0], scale=1 + size * 0.3,
            shear=[slant * 15.0, 0.0], interpolation=InterpolationMode.BILINEAR, fill=0.0,
        ).permute(1, 2, 0)  # fmt: skip
        # Where the picture ends torchvision blends with its fill by a mask, so only the inside has to agree closely.
        middle = (slice(shape[0] // 3, -shape[0] // 3), slice(shape[1] // 3, -shape[1] // 3))
        worst = (result.float() - expected)[middle].abs().max()
        assert worst <= (0.02 if floats else 0.52)


@pytest.mark.parametrize(
    "operation", [Affine(20, 0.1, 5), Colour(0.3, 0.3, 0.3), Crop(0.4, (7, 9))], ids=lambda o: o.name
)
def test_in_pieces_is_as_in_one(monkeypatch: pytest.MonkeyPatch, operation: Change) -> None:
    batch = pictures(9, 10, 12, 3)
    at_once = operation(batch, generator())
    monkeypatch.setattr("striate.data.operation.PIECE", 1000)  # two pictures at a time
    assert torch.equal(operation(batch, generator()), at_once)


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_the_threads(threads: int) -> None:
    batch = pictures(3, 40, 40, 3)
    before = torch.get_num_threads()
    chain, _ = split(parse("shift:3:reflect,flip,cutout:5,affine:10:0.1:5,crop:0.5,colour:0.3:0.3:0.3"), (40, 40))
    expected = apply(chain, batch, whole(3))
    try:
        torch.set_num_threads(threads)
        assert torch.equal(apply(chain, batch, whole(3)), expected)
    finally:
        torch.set_num_threads(before)


def test_colour_is_the_stated_arithmetic() -> None:
    batch = pictures(7, 6, 5, 3)
    drawn = Colour(0.4, 0.6).draw(whole(7, 2), (6, 5)).double().numpy()
    got = Colour(0.4, 0.6)(batch, generator(2)).numpy()
    for picture, result, (bright, contrast) in zip(batch.double().numpy(), got, drawn):
        lit = picture * (1 + 0.4 * bright)
        expected = np.clip((lit - lit.mean()) * (1 + 0.6 * contrast) + lit.mean(), 0, 255)
        assert np.abs(result - expected).max() <= 0.501


@pytest.mark.parametrize("operation", [Shift(0), Cutout(0), Affine(), Colour(), Crop(1.0)], ids=lambda o: o.name)
def test_strength_zero_changes_nothing(operation: Change) -> None:
    for floats in (False, True):
        batch = pictures(3, 9, 7, 3, floats)
        assert torch.equal(operation(batch, generator()), batch)


def test_parse_reads_the_documented_settings() -> None:
    assert parse("shift:2,flip,cutout:8,rotate:10") == (Shift(2), Flip(), Cutout(8), Affine(10.0))
    assert parse(" shift:4:reflect , cutout:6:128 ") == (Shift(4, "reflect"), Cutout(6, 128))
    assert parse("rotate:10,scale:0.1,shear:5") == parse("affine:10:0.1:5") == (Affine(10.0, 0.1, 5.0),)
    assert parse("brightness:0.2,contrast:0.3") == parse("colour:0.2:0.3") == (Colour(0.2, 0.3),)
    assert parse("rotate:10,flip,scale:0.1") == (Affine(10.0), Flip(), Affine(scale=0.1))
    assert parse("rotate:10,rotate:5") == (Affine(10.0), Affine(5.0))
    assert (
        parse("brightness:0.2,contrast:0.3,saturation:0.4") == parse("colour:0.2:0.3:0.4") == (Colour(0.2, 0.3, 0.4),)
    )
    assert parse("altflip,crop:0.35") == (AlternatingFlip(), Crop(0.35))
    assert parse("") == parse("none") == parse(" ") == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(operations, max_size=4))
def test_describe_is_read_back_and_does_the_same(chain: list[Change]) -> None:
    once = parse(describe(chain))
    assert parse(describe(once)) == once
    batch = pictures(2, 9, 9, 3)
    if len(once) == len(chain):  # no two were joined
        read, given = (apply(split(each, (9, 9))[0], batch, whole(2)) for each in (once, chain))
        assert torch.equal(read, given)


def test_describe_of_each_operation_is_short_and_exact() -> None:
    chain = (Shift(2), Shift(4, "reflect"), Flip(), Cutout(8), Cutout(8, 128), Affine(10.0), Colour(0.2, 0.3))
    assert describe(chain) == "shift:2,shift:4:reflect,flip,cutout:8,cutout:8:128,affine:10.0,colour:0.2:0.3"
    assert describe((AlternatingFlip(), Crop(0.35, (9, 9)))) == "altflip,crop:0.35"
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
        ("brightness:2", "not from 0 to 1"), ("saturation", "write saturation:0.2"), ("altflip:1", "altflip with 1"),
        ("crop:0", "not from 0.01 to 1"), ("altflp", "did you mean altflip"), ("mixup", "write mixup:0.2"),
        ("mixup:-1", "not from 0 to 100"), ("mixup:0.2,flip", "write mixup:0.2 at the end"),
        ("cutmix:1,mixup:0.2", "leave one: cutmix:1.0 or mixup:0.2"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_right_form(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert told in str(caught.value)


def test_what_cannot_be_done_is_refused() -> None:
    batch = pictures(2, 5, 9, 1)
    with pytest.raises(UsageError, match="at most 4"):
        Shift(5, "reflect")(batch, generator())
    with pytest.raises(UsageError, match="fill of shift"):
        Shift(1, "edge")(batch, generator())
    with pytest.raises(UsageError, match="pixels -1"):
        Shift(-1)
    with pytest.raises(UsageError, match="degrees nan"):
        Affine(math.nan)
    with pytest.raises(UsageError, match="pictures of 1 channels"):
        Colour(saturation=0.5)(batch, generator())
    with pytest.raises(UsageError, match="expects"):
        apply((Flip(),), batch[0], whole(2))


def splitmix64(state: int) -> int:
    """The function as published, in Python's whole numbers."""
    mixed = state
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) % 2**64
    return mixed ^ (mixed >> 31)


def test_the_hash_is_splitmix64() -> None:
    # The first five numbers of the published generator with the seed 1234567.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [n % 2**64 for n in scramble(torch.arange(1, 6), 1234567).tolist()] == known


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(0, 2**63 - 1))
def test_the_hash_of_a_number_does_not_depend_on_its_neighbours(numbers: list[int], seed: int) -> None:
    found = [n % 2**64 for n in scramble(torch.tensor(numbers), seed).tolist()]
    assert found == [splitmix64((n * 0x9E3779B97F4A7C15 + seed) % 2**64) for n in numbers]


def turned(indices: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
    return AlternatingFlip().draw(Context(generator(), indices, epoch, seed), (8, 8))[:, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30), st.integers(0, 10**6), st.integers(0, 2**63 - 1))
def test_altflip_shows_each_picture_both_ways_in_two_epochs(numbers: list[int], epoch: int, seed: int) -> None:
    indices = torch.tensor(numbers)
    first, second, third = (turned(indices, epoch + later, seed) for later in range(3))
    assert torch.equal(first + second, torch.ones_like(first)) and torch.equal(first, third)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_altflip_begins_with_half_of_the_pictures_independent_of_their_neighbours(seed: int) -> None:
    count = 40_000
    begins = turned(torch.arange(count), 0, seed)
    assert set(begins.unique().tolist()) == {0, 1}
    five_deviations = 5 * math.sqrt(count) / 2
    assert abs(int(begins.sum()) - count / 2) < five_deviations
    for apart in (1, 2, 3, 8, 10, 1000):
        agree = int((begins[apart:] == begins[:-apart]).sum())
        assert abs(agree - (count - apart) / 2) < five_deviations, apart
    agree = int((begins == turned(torch.arange(count), 0, seed - 1 if seed else 7)).sum())
    assert abs(agree - count / 2) < five_deviations, "another seed must begin with other pictures"


def test_altflip_mirrors_what_it_drew_and_draws_nothing_from_the_generator() -> None:
    batch, context = pictures(12, 4, 5, 3), whole(12, epoch=1)
    before = context.generator.get_state()
    got = apply((AlternatingFlip(),), batch, context)
    for picture, result, mirrored in zip(batch, got, turned(context.indices, 1).tolist()):
        assert torch.equal(result, picture.flip(1) if mirrored else picture)
    assert torch.equal(context.generator.get_state(), before)


def windows(operation: Crop, count: int, height: int, width: int) -> np.ndarray:
    """Tops, lefts, heights and widths (4, count) in shares of the sides, read off slopes that were cropped."""
    goal_height, goal_width = operation.size or (height, width)
    slope = torch.zeros(count, height, width, 2)
    slope[..., 0], slope[..., 1] = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    cut = operation(slope, generator(5)).double().numpy()
    middle = (goal_height // 2, goal_width // 2)  # at the border values are clamped, in the middle they are linear
    tall = (cut[:, middle[0], middle[1], 0] - cut[:, middle[0] - 1, middle[1], 0]) * goal_height
    wide = (cut[:, middle[0], middle[1], 1] - cut[:, middle[0], middle[1] - 1, 1]) * goal_width
    top = cut[:, middle[0], middle[1], 0] - tall * (middle[0] + 0.5) / goal_height
    left = cut[:, middle[0], middle[1], 1] - wide * (middle[1] + 0.5) / goal_width
    return np.stack((top / height, left / width, tall / height, wide / width))


@pytest.mark.parametrize(("least", "size"), [(0.35, None), (0.08, (20, 24)), (0.9, (15, 11)), (1.0, (20, 24))])
def test_crop_takes_windows_of_the_stated_area_and_shape(least: float, size: tuple[int, int] | None) -> None:
    top, left, tall, wide = windows(Crop(least, size), 4000, 23, 28)
    near = 1e-3
    assert min(top.min(), left.min()) > -near and max((top + tall).max(), (left + wide).max()) < 1 + near
    area, shape = tall * wide, wide / tall
    assert least - near < area.min() and area.max() < 1 + near
    assert 1 / WIDEST - near < shape.min() and shape.max() < WIDEST + near
    assert area.mean() == pytest.approx((1 + least) / 2, abs=6 * (1 - least) / math.sqrt(12 * 4000) + near)
    free = 1 - tall > 0.05
    assert least == 1 or np.corrcoef(top[free] / (1 - tall[free]), area[free])[0, 1] == pytest.approx(0, abs=0.1)
    assert abs(np.log(shape)).max() > 0.8 * math.log(WIDEST) or least > 0.8


@pytest.mark.parametrize("floats", [True, False])
def test_crop_agrees_with_torchvision_where_a_window_begins_at_a_pixel(floats: bool) -> None:
    batch = pictures(5, 16, 16, 3, floats)
    drawn = torch.tensor(
        [[0.0, 0.5, down / 8, across / 8] for down, across in ((0, 0), (3, 1), (4, 4), (8, 0), (5, 8))]
    )
    got = Crop(0.25, (12, 10)).change(batch, drawn)  # a quarter of the area is 8 × 8
    for picture, result, (_, _, down, across) in zip(batch, got, drawn.tolist()):
        expected = theirs.resized_crop(
            picture.permute(2, 0, 1).float(), round(8 * down), round(8 * across), 8, 8, [12, 10], antialias=False
        ).permute(1, 2, 0)
        # torchvision ends the picture where the window ends, so only the inside has to agree.
        worst = (result.float() - expected)[1:-1, 1:-1].abs().max()
        assert worst <= (0.01 if floats else 0.51)


def test_crop_of_everything_only_scales_and_keeps_uint8_bits_at_the_same_size() -> None:
    batch = pictures(4, 9, 7, 3)
    everything = torch.tensor([[1.0, 0.3, 0.2, 0.9]]).expand(4, 4)
    assert torch.equal(Crop(0.2).change(batch, everything), batch)
    expected = torch.nn.functional.interpolate(batch.permute(0, 3, 1, 2).float(), (12, 5), mode="bilinear")
    got = Crop(1.0, (12, 5))(batch, generator()).permute(0, 3, 1, 2).float()
    assert (got - expected).abs().max() <= 0.51


def test_pictures_are_kept_larger_for_crop_alone_which_gives_the_size_of_the_net() -> None:
    assert store_size(parse("flip,shift:2,mixup:0.2"), (32, 48)) == (32, 48)
    assert store_size(parse("flip,crop:0.35"), (32, 48)) == (37, 55)
    changes, mixing = split(parse("flip,crop:0.35,cutmix:1"), (32, 48))
    assert changes == (Flip(), Crop(0.35, (32, 48))) and str(mixing) == "cutmix:1.0"
    assert apply(changes, pictures(2, 37, 55, 3), whole(2)).shape == (2, 32, 48, 3)


def test_saturation_agrees_with_torchvision() -> None:
    batch = pictures(7, 6, 5, 3)
    drawn = Colour(saturation=0.8).draw(whole(7, 4), (6, 5))
    got = Colour(saturation=0.8)(batch, generator(4))
    for picture, result, (_, _, number) in zip(batch, got, drawn.tolist()):
        expected = theirs.adjust_saturation(picture.permute(2, 0, 1).float() / 255, 1 + 0.8 * number).permute(1, 2, 0)
        assert (result - 255 * expected).abs().max() <= 0.6  # its weights have four digits, and the result is rounded


def test_saturation_leaves_the_numbers_of_brightness_and_contrast_as_they_were() -> None:
    both = Colour(0.2, 0.3).draw(whole(5, 3), (6, 5))
    assert torch.equal(both, torch.rand((5, 2), generator=generator(3)) * 2 - 1)
    assert Colour(0.2, 0.3, 0.1).draw(whole(5, 3), (6, 5)).shape == (5, 3)


def test_no_recipe_mirrors_digits_or_letters() -> None:
    for name, recipe in list_recipes().items():
        flips = any(isinstance(operation, Flip) for operation in parse(str(recipe.values.get("augment", "none"))))
        generic = name.startswith("generic")
        assert not (flips and (generic or recipe.values.get("data") in ("digits", "mnist", "kmnist"))), name
