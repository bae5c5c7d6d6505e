"""Copies and near copies: photographs saved again are found, different ones are not, digits are not all alike."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from striate.data import hashes
from striate.data.builtin import load_named
from striate.data.geometry import shown_areas
from striate.data.hashes import Duplicates, clusters, find_duplicates, join
from striate.data.loading import Header
from striate.data.preprocess import Preprocess
from striate.errors import DataError

PREPROCESS = Preprocess((64, 64), "crop", 3)


def seen(image: Image.Image) -> np.ndarray:
    return PREPROCESS.geometry(np.asarray(image.convert("RGB")))


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": lambda image: saved_again(image, 25),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "a little brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.07),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "a pixel trimmed": lambda image: image.crop((1, 1, image.width, image.height)),
}


def texture(seed: int, side: int = 320) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)


def pairs_of(found: Duplicates) -> set[tuple[int, int]]:
    return {(int(one), int(other)) for one, other in found.alike}


@pytest.mark.parametrize("change", list(CHANGES))
def test_generated_pictures_saved_again_are_found_and_no_others(change: str) -> None:
    originals = [texture(seed) for seed in range(60)]
    changed = [CHANGES[change](image) for image in originals[:30]]
    images = np.stack([seen(image) for image in [*originals, *changed]])
    found = find_duplicates(images, [""] * len(images))
    assert pairs_of(found) == {(index, 60 + index) for index in range(30)}


def test_photographs_saved_again_are_found_and_no_others(data_root: Path) -> None:
    files = sorted((data_root / "hymenoptera" / "train").rglob("*.jpg"))[::5]
    originals = [Image.open(file).convert("RGB") for file in files]
    for image in originals:
        image.thumbnail((500, 500))
    images = [seen(image) for image in originals]
    for change in CHANGES.values():
        images += [seen(change(image)) for image in originals]
    found = find_duplicates(np.stack(images), [""] * len(images))
    count = len(originals)
    assert all(one % count == other % count for one, other in found.alike), "two different photographs"
    missed = (found.groups != np.arange(len(images)) % count).mean()
    assert missed <= 0.01


def test_digits_and_clothes_are_not_all_alike(data_root: Path) -> None:
    for name in ("mnist", "fashion-mnist"):
        images = load_named(name, data_root, False, lambda line: None).train.images[:4000]
        found = find_duplicates(images, [""] * len(images))
        assert len(found.alike) <= 2 and not found.blank.any(), name


def test_a_digit_saved_again_is_found(data_root: Path) -> None:
    images = load_named("mnist", data_root, False, lambda line: None).train.images[:300]
    again = np.stack([np.asarray(saved_again(Image.fromarray(image[..., 0]), 90))[..., None] for image in images])
    found = find_duplicates(np.concatenate([images, again]), [""] * 600)
    assert pairs_of(found) == {(index, 300 + index) for index in range(300)}


def test_the_search_by_neighbours_finds_what_comparing_all_pairs_finds() -> None:
    originals = [texture(seed) for seed in range(40)]
    changed = [change(image) for change in CHANGES.values() for image in originals[:8]]
    images = np.stack([seen(image) for image in [*originals, *changed]])
    small = hashes._small(images, np.tile([0, 64, 0, 64], (len(images), 1)))
    ones, others = np.triu_indices(len(small), 1)
    first, second = (small[side].astype(np.float32) for side in (ones, others))
    correlation, _ = hashes._compare(hashes._detail(first), hashes._detail(second))
    alike = (correlation >= hashes._ALIKE) & hashes._as_bright(first, second)
    everything = set(zip(ones[alike].tolist(), others[alike].tolist(), strict=True))
    found = find_duplicates(images, [""] * len(images))
    exact = {tuple(pair) for pair in found.same.tolist()}
    assert pairs_of(found) <= everything
    assert (
        join(len(images), found.alike.tolist() + sorted(exact)).tolist()
        == join(len(images), sorted(everything | exact)).tolist()
    )


def test_hundreds_of_copies_of_one_picture_are_one_group() -> None:
    image = texture(1)
    images = np.stack([seen(saved_again(image, 30 + index % 60)) for index in range(120)] + [seen(texture(2))])
    groups = find_duplicates(images, [""] * 121).groups
    assert set(groups[:120]) == {0} and groups[120] == 120


def test_padding_counts_for_nothing() -> None:
    """On black bars nothing is blank, and pictures of one shape have the bars in common."""
    originals = [texture(seed).resize((320, 100)) for seed in range(12)]
    blank = Image.new("RGB", (320, 100), "white")
    files = [*originals, *(saved_again(image, 30) for image in originals), blank, texture(50)]
    padded = Preprocess((64, 64), "pad", 3)
    images = np.stack([padded.geometry(np.asarray(image)) for image in files])
    headers: list[Header | DataError] = [Header(*image.size, 3, "RGB", "JPEG", 1) for image in files]
    found = find_duplicates(images, [""] * 26, shown_areas(headers, padded))
    assert pairs_of(found) == {(index, 12 + index) for index in range(12)}
    assert found.blank.nonzero()[0].tolist() == [24]


def test_same_bytes_or_same_pixels_are_the_same_and_blank_pictures_are_not() -> None:
    images = np.stack([seen(texture(seed)) for seed in (1, 2, 1, 3)] + [np.full((64, 64, 3), 200, np.uint8)] * 2)
    images[3, 0, 0] ^= 1
    found = find_duplicates(images, ["a", "b", "c", "b", "d", "d"])
    assert found.same.tolist() == [[0, 2], [1, 3]]
    assert found.blank.tolist() == [False, False, False, False, True, True]
    assert found.groups.tolist() == [0, 1, 0, 1, 4, 5]


def test_what_sets_pictures_apart() -> None:
    """Another colour, smooth pictures, another brightness: alike in outline or gray, and not the same picture."""
    disc = np.hypot(*np.mgrid[-32:32, -32:32])[..., None] < 20
    red, blue = (np.where(disc, np.array(colour), 255).astype(np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    down = np.linspace(100, 220, 64)[:, None, None]
    sky, other_sky = (np.broadcast_to(down + shift, (64, 64, 3)).astype(np.uint8) for shift in (0, 4))
    bright, dark = (np.asarray(ImageEnhance.Brightness(texture(5)).enhance(by).resize((64, 64))) for by in (1, 0.4))
    found = find_duplicates(np.stack([red, blue, sky, other_sky, bright, dark]), [""] * 6)
    assert pairs_of(found) == set()


def test_smooth_pictures_are_compared_for_equality_only() -> None:
    slopes = [np.linspace(10 * index, 250, 64 * 64).reshape(64, 64, 1).astype(np.uint8) for index in (0, 1, 0)]
    found = find_duplicates(np.stack(slopes), [""] * 3)
    assert found.same.tolist() == [[0, 2]] and len(found.alike) == 0


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 64, 64, 3), (5, 8, 8, 1), (5, 1, 40, 3), (7, 17, 90, 3)])
def test_any_shape_is_taken(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = find_duplicates(images, [""] * len(images))
    assert found.groups.tolist() == list(range(len(images)))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_joining_gives_connected_components(pairs: list[tuple[int, int]]) -> None:
    ones, others = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
    _, expected = connected_components(coo_array((np.ones(len(pairs)), (ones, others)), shape=(12, 12)), directed=False)
    groups = join(12, pairs)
    assert all((groups[i] == groups[j]) == (expected[i] == expected[j]) for i in range(12) for j in range(12))
    assert all(groups[i] == min(np.flatnonzero(groups == groups[i])) for i in range(12))
    used = sorted({index for pair in pairs for index in pair})
    assert sorted(index for group in clusters(pairs) for index in group) == used


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=8))
def test_bits_are_counted(words: list[int]) -> None:
    rows = np.array(words, dtype=np.uint64)[:, None]
    assert hashes._count_bits(rows).tolist() == [word.bit_count() for word in words]


def test_reducing_is_the_mean_over_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 7, 3), dtype=np.uint8)
    fine = image.repeat(4, axis=0).repeat(5, axis=1).astype(float)  # every area is a whole number of these pixels
    wanted = fine.reshape(4, 10, 5, 7, 3).mean(axis=(1, 3))
    assert np.allclose(hashes._resized(image[None].astype(np.float32), 4, 5)[0], wanted, atol=1e-3)
    assert np.allclose(hashes._enlarged(np.full((1, 8, 8, 1), 7.0, np.float32), 30, 31), 7)
