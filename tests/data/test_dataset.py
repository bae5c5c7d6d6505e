"""Dataset: what is accepted, converted by which rule, and refused with which sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from striate.data.dataset import Dataset, Parts
from striate.errors import DataError

side = st.integers(5, 9)
some_uint8 = stn.arrays(np.uint8, st.tuples(st.integers(1, 4), side, side, st.sampled_from([1, 3, 4])))


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def labels(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64) % 2


def small() -> Dataset:
    return Dataset("small", pictures(6, 5, 4, 3), labels(6), ("no", "yes"), tuple("abcdef"))


@given(some_uint8)
def test_every_layout_gives_the_same_dataset(images: np.ndarray) -> None:
    count = len(images)
    wanted = Dataset.from_arrays(images, labels(count))
    assert np.array_equal(wanted.images, images)
    layouts = [images.transpose(0, 3, 1, 2), torch.from_numpy(images), torch.from_numpy(images).permute(0, 3, 1, 2)]
    if images.shape[3] == 1:
        layouts.append(images[..., 0])
    for layout in layouts:
        made = Dataset.from_arrays(layout, labels(count))
        assert made.images.flags.c_contiguous and made.images.dtype == np.uint8
        assert made.fingerprint == wanted.fingerprint


@given(some_uint8, st.sampled_from([np.float16, np.float32, np.float64]))
def test_floats_in_0_1_come_back_as_the_uint8_they_were(images: np.ndarray, kind: Any) -> None:
    floats = (images / 255.0).astype(kind)
    assert np.array_equal(Dataset.from_arrays(floats, labels(len(images))).images, images)


@given(stn.arrays(bool, (2, 6, 5)))
def test_booleans_are_black_and_white(images: np.ndarray) -> None:
    assert np.array_equal(Dataset.from_arrays(images, labels(2)).images[..., 0], np.where(images, 255, 0))


def test_the_callers_arrays_are_left_alone_and_may_be_read_only() -> None:
    images, numbers = pictures(4, 6, 5), labels(4)
    images.flags.writeable = numbers.flags.writeable = False
    before = images.copy()
    assert Dataset.from_arrays(images, numbers).size == (6, 5)
    assert np.array_equal(images, before)


def test_a_tensor_with_a_gradient() -> None:
    images = torch.rand(3, 1, 6, 5, requires_grad=True)
    assert Dataset.from_arrays(images, torch.tensor([0, 1, 0])).images.shape == (3, 6, 5, 1)


@pytest.mark.parametrize("shape", [(5, 3, 9, 3), (5, 1, 9, 4), (5, 3, 3, 3), (1, 4, 8, 1)])
def test_two_axes_that_could_be_the_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"can be read as \(N, H, W, C\) and as \(N, C, H, W\)"):
        Dataset.from_arrays(pictures(*shape), labels(shape[0]))


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (pictures(5, 8, 8, 2), "no axis of 1, 3 or 4 channels"),
        (pictures(8, 8), r"pictures have shape \(8, 8\)"),
        (pictures(2, 3, 8, 8, 1), r"pictures have shape \(2, 3, 8, 8, 1\)"),
        (pictures(5, 8, 8).astype(np.float32), "float pictures range from 0 to 255"),
        (np.full((5, 8, 8), -0.5), "float pictures range from -0.5 to -0.5"),
        (np.full((5, 8, 8), np.nextafter(1.0, 2.0)), "float pictures range"),
        (np.full((5, 8, 8), np.nan), "NaN or infinite"),
        (np.full((5, 8, 8), np.inf), "NaN or infinite"),
        (pictures(5, 8, 8).astype(np.int64), "pictures have type int64"),
        (np.full((5, 8, 8), "x"), "pictures have type <U1"),
        ([[1, 2], [3]], "pictures are no array"),
        (torch.zeros(5, 8, 8, dtype=torch.bfloat16), "pictures are no array"),
    ],
)
def test_pictures_that_are_refused(images: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        Dataset.from_arrays(images, labels(5), name="mine")
    assert caught.value.what.startswith("mine: ") and caught.value.cause and caught.value.fix


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(5, 7))
def test_labels_of_any_form_are_the_same_numbers(numbers: list[int], classes: int) -> None:
    images = pictures(len(numbers), 6, 6)
    plain = np.array(numbers, dtype=np.int64)
    forms: list[Any] = [numbers, plain.astype(np.int32), plain.astype(np.uint8), plain.astype(np.float32)]
    forms += [torch.tensor(numbers), plain[:, None], np.eye(classes)[plain], np.eye(classes, dtype=bool)[plain]]
    for form in forms:
        made = Dataset.from_arrays(images, form, classes=[f"c{i}" for i in range(classes)])
        assert made.labels.dtype == np.int64 and made.labels.tolist() == numbers
    if min(numbers) == 0 and max(numbers) < max(2, len(numbers)):
        assert Dataset.from_arrays(images, plain).classes == tuple(str(i) for i in range(max(numbers) + 1))
    else:  # labels from 1, or more classes than pictures: names must say what is meant
        with pytest.raises(DataError, match="labels run from"):
            Dataset.from_arrays(images, plain)


def test_yes_and_no_as_booleans() -> None:
    assert Dataset.from_arrays(pictures(2, 6, 6), np.array([True, False])).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ([0, 1, 0.5], "expected integers"),
        ([0, 1, np.nan], "expected integers"),
        ([0, 1, np.inf], "expected integers"),
        (["cat", "dog", "cat"], "convert names to numbers"),
        ([None, 0, 1], "expected integers"),
        ([[0, 1], [1, 1], [1, 0]], "not one-hot"),
        ([[0, 2], [2, 0], [2, 0]], "not one-hot"),
        ([["a", "b"]] * 3, "not one-hot"),
        ([[[0]]] * 3, "expected integers"),
        ([0, 1], "3 pictures but 2 labels"),
        ([0, -1, 1], "1 labels out of range"),
    ],
)
def test_labels_that_are_refused(numbers: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Dataset.from_arrays(pictures(3, 6, 6), numbers)


def test_labels_that_start_at_one() -> None:
    with pytest.raises(DataError) as caught:
        Dataset.from_arrays(pictures(3, 6, 6), [1, 2, 3], classes=["a", "b", "c"])
    assert "1 labels out of range (smallest 1, largest 3)" in caught.value.what
    assert caught.value.cause == "3 classes are numbered 0 to 2" and "need 1 subtracted" in caught.value.fix


@pytest.mark.parametrize(
    ("images", "numbers"),
    [
        (pictures(4, 5, 5), labels(4)),
        (pictures(4, 5, 5, 1).astype(np.float32), labels(4)),
        (pictures(4, 5, 5, 1)[::-1], labels(4)),
        (pictures(4, 5, 5, 1), labels(4).astype(np.int32)),
        (pictures(4, 5, 5, 1), labels(4)[:, None]),
        (pictures(4, 5, 5, 1), labels(3)),
        (pictures(4, 5, 5, 1), labels(4) + 1),
    ],
    ids=["no channel axis", "floats", "not contiguous", "int32 labels", "label column", "too few labels", "range"],
)
def test_a_dataset_holds_only_what_it_says(images: np.ndarray, numbers: np.ndarray) -> None:
    with pytest.raises(DataError):
        Dataset("wrong", images, numbers, ("no", "yes"))


def test_any_changed_byte_changes_the_fingerprint() -> None:
    whole = small()
    seen = {whole.fingerprint}
    for position in range(0, whole.images.size, 37):
        images = whole.images.copy()
        images.reshape(-1)[position] ^= 1
        seen.add(Dataset("small", images, whole.labels, whole.classes).fingerprint)
    for position in range(len(whole)):
        numbers = whole.labels.copy()
        numbers[position] ^= 1
        seen.add(Dataset("small", whole.images, numbers, whole.classes).fingerprint)
    turned = np.ascontiguousarray(whole.images.reshape(6, 4, 5, 3))
    seen.add(Dataset("small", turned, whole.labels, whole.classes).fingerprint)
    seen.add(Dataset("small", whole.images, whole.labels, ("no", "maybe")).fingerprint)
    seen.add(Dataset("small", whole.images, whole.labels, ("no", "yes", "more")).fingerprint)
    assert len(seen) == 1 + len(range(0, whole.images.size, 37)) + 6 + 3


def test_the_fingerprint_is_of_contents_alone() -> None:
    whole = small()
    assert (
        Dataset("other name", whole.images.copy(), whole.labels.copy(), whole.classes).fingerprint == whole.fingerprint
    )
    assert len(whole.fingerprint) == 64


@given(st.lists(st.integers(0, 5), max_size=8))
def test_take_keeps_the_order(chosen: list[int]) -> None:
    whole = small()
    part = whole.take(np.array(chosen, dtype=np.int64))
    assert len(part) == len(chosen) and part.images.flags.c_contiguous
    assert np.array_equal(part.images, whole.images[chosen] if chosen else whole.images[:0])
    assert part.labels.tolist() == [whole.labels[i] for i in chosen]
    assert part.sources == tuple("abcdef"[i] for i in chosen)


def test_take_a_slice_and_name_the_sources() -> None:
    whole = small()
    assert whole.take(slice(1, 5, 2)).sources == ("b", "d")
    assert whole.source(2) == "c"
    assert (whole.size, whole.channels, len(whole)) == ((5, 4), 3, 6)
    assert Dataset("small", whole.images, whole.labels, whole.classes).source(3) == "small#3"


def test_parts_name_what_is_missing() -> None:
    parts = Parts("mine", small(), test=small())
    assert parts.part("train") is parts.train and parts.part("test") is parts.test
    with pytest.raises(DataError, match="mine has no part 'validation'"):
        parts.part("validation")


def test_parts_with_different_classes_are_refused() -> None:
    other = Dataset("other", pictures(2, 5, 4, 3), labels(2), ("yes", "no"))
    with pytest.raises(DataError, match="the test set has classes yes, no"):
        Parts("mine", small(), test=other)
