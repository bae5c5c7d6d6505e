"""Batches: every picture once an epoch, the same ones for the same seed, from any step on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data import augment, batches
from striate.data.batches import Batches
from striate.data.preprocess import Preprocess

CPU = torch.device("cpu")
COUNT, HEIGHT, WIDTH = 90, 6, 5
PREPROCESS = Preprocess((HEIGHT, WIDTH), channels=3, mean=(10.0, 120.5, 200.0), std=(60.0, 70.5, 255.0))
Pairs = list[tuple[torch.Tensor, torch.Tensor]]

# A picture tells its own index: the first pixel's red is the index, and the label is the index modulo 7.
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3)).astype(np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(COUNT)
LABELS = np.arange(COUNT, dtype=np.int64) % 7
USED = np.setdiff1d(np.arange(COUNT, dtype=np.int64), [0, 17, 60])


def make(batch_size: int = 8, seed: int = 0, text: str = "none", indices: np.ndarray = USED) -> Batches:
    return Batches(
        IMAGES,
        LABELS,
        indices,
        PREPROCESS,
        batch_size=batch_size,
        seed=seed,
        device=CPU,
        operations=augment.parse(text),
    )


def pairs(source: Batches, epoch: int = 0, first_step: int = 0) -> Pairs:
    return [(images.clone(), labels.clone()) for images, labels in source.epoch(epoch, first_step)]


def indices_of(found: Pairs) -> list[int]:
    return [round(float(value) * 60.0 + 10.0) for images, _ in found for value in images[:, 0, 0, 0]]


def assert_same(first: Pairs, second: Pairs) -> None:
    assert len(first) == len(second)
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 100), st.integers(0, 2**60), st.integers(0, 5))
def test_every_index_once_an_epoch_and_every_label_with_its_picture(batch_size: int, seed: int, epoch: int) -> None:
    source = make(batch_size, seed)
    found = pairs(source, epoch)
    assert len(found) == len(source)
    assert sorted(indices_of(found)) == USED.tolist()
    assert [len(labels) for _, labels in found[:-1]] == [batch_size] * (len(found) - 1)
    assert indices_of(found) == source.order(epoch).tolist()
    assert [int(label) for _, labels in found for label in labels] == [i % 7 for i in indices_of(found)]


def test_the_same_seed_the_same_batches_another_seed_or_epoch_others() -> None:
    assert_same(pairs(make(seed=3), 2), pairs(make(seed=3), 2))
    orders = [tuple(make(seed=seed).order(epoch).tolist()) for seed, epoch in ((3, 2), (3, 3), (4, 2))]
    assert len(set(orders)) == 3


@pytest.mark.parametrize("text", ["none", "shift:1,flip,cutout:2", "rotate:20,brightness:0.3"])
@pytest.mark.parametrize("first_step", [1, 4, 10, 11])
def test_from_any_step_on_the_remaining_batches_are_the_very_same(text: str, first_step: int) -> None:
    whole = pairs(make(text=text), 1)
    assert len(whole) == 11
    assert_same(pairs(make(text=text), 1, first_step), whole[first_step:])


@pytest.mark.parametrize("chunk_bytes", [1, 3000, 10_000, 1 << 30])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, batch_size: int) -> None:
    wanted = pairs(make(batch_size))
    monkeypatch.setattr(batches, "CHUNK_BYTES", chunk_bytes)
    assert_same(pairs(make(batch_size)), wanted)
    assert_same(pairs(make(batch_size), first_step=1), wanted[1:])


def test_the_numbers_are_those_worked_out_by_hand() -> None:
    for images, labels in make().epoch(0):
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.shape[1:] == (3, HEIGHT, WIDTH) and images.is_contiguous(memory_format=torch.channels_last)
    source = make()
    first, _ = pairs(source)[0]
    raw = IMAGES[source.order(0)[:8].numpy()].astype(np.float32)
    wanted = (raw - np.float32((10.0, 120.5, 200.0))) * (1 / np.array((60.0, 70.5, 255.0))).astype(np.float32)
    assert np.array_equal(first.numpy(), wanted.transpose(0, 3, 1, 2))


def test_augmentation_changes_pictures_but_not_order_or_labels() -> None:
    plain, augmented = pairs(make()), pairs(make(text="flip"))
    for (images, labels), (other, other_labels) in zip(plain, augmented, strict=True):
        assert torch.equal(labels, other_labels)
        flipped = images.flip(3)
        for one, two, mirrored in zip(images, other, flipped, strict=True):
            assert torch.equal(two, one) or torch.equal(two, mirrored)
    assert any(not torch.equal(one, two) for (one, _), (two, _) in zip(plain, augmented, strict=True))
    assert any(
        not torch.equal(one, two)
        for (one, _), (two, _) in zip(pairs(make(text="shift:2"), 0), pairs(make(text="shift:2"), 1), strict=True)
    )


def test_the_pictures_in_memory_are_never_changed() -> None:
    before = IMAGES.copy()
    pairs(make(text="shift:1,cutout:3,contrast:0.5"))
    pairs(make())
    assert np.array_equal(IMAGES, before)


@pytest.mark.parametrize(("pictures", "batch_size", "sizes"), [(64, 16, [16] * 4), (33, 16, [16, 16]), (500, 64, [64])])
def test_a_sample_is_of_different_pictures_without_augmentation(
    pictures: int, batch_size: int, sizes: list[int]
) -> None:
    source = make(text="flip,shift:2", batch_size=batch_size)
    found = [(images.clone(), labels) for images, labels in source.sample(3, pictures)]
    assert [len(labels) for _, labels in found] == sizes
    chosen = indices_of(found)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(USED.tolist())
    wanted = PREPROCESS.normalise(torch.from_numpy(IMAGES[chosen]))
    assert torch.equal(torch.cat([images for images, _ in found]), wanted)


def test_a_sample_of_the_only_picture() -> None:
    found: Any = list(make(indices=np.array([5])).sample(0, 100))
    assert len(found) == 1 and indices_of(found) == [5]
