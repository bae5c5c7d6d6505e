"""Batches: every picture once an epoch, the same ones for the same seed, from any step on."""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data import ahead, augment, batches
from striate.data.batches import Batches, versions
from striate.data.order import Blocks
from striate.data.preprocess import Preprocess
from striate.errors import UsageError

CPU = torch.device("cpu")
COUNT, HEIGHT, WIDTH = 90, 6, 5
PREPROCESS = Preprocess((HEIGHT, WIDTH), channels=3, mean=(10.0, 120.5, 200.0), std=(60.0, 70.5, 255.0))
Pairs = list[tuple[torch.Tensor, torch.Tensor]]

# A picture tells its own index: the first pixel's red is the index, and the label is the index modulo 7.
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3)).astype(np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(COUNT)
LABELS = np.arange(COUNT, dtype=np.int64) % 7
USED = np.setdiff1d(np.arange(COUNT, dtype=np.int64), [0, 17, 60])


def make(
    batch_size: int = 8,
    seed: int = 0,
    text: str = "none",
    indices: np.ndarray = USED,
    images: np.ndarray = IMAGES,
    **more: Any,
) -> Batches:
    return Batches(
        images,
        LABELS,
        indices,
        PREPROCESS,
        batch_size=batch_size,
        seed=seed,
        device=CPU,
        operations=augment.parse(text),
        num_classes=7,
        **more,
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


@pytest.mark.parametrize("text", ["none", "shift:1,flip,cutout:2", "rotate:20,altflip", "mixup:1"])
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
    wanted = (raw - np.array((10.0, 120.5, 200.0), np.float32)) * (1 / np.array((60.0, 70.5, 255.0))).astype(np.float32)
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


CHAINS = ("none", "shift:2:reflect,altflip", "cutout:3,colour:0.2:0.2:0.2", "flip,mixup:0.4", "rotate:9,cutmix:1")


@pytest.mark.parametrize("text", CHAINS)
@pytest.mark.parametrize(("batch_size", "processes"), [(8, 2), (10, 3), (87, 2)])
def test_processes_with_a_share_each_see_what_one_would(text: str, batch_size: int, processes: int) -> None:
    whole = pairs(make(batch_size, text=text), 1)
    shares = [pairs(make(batch_size, text=text, share=(rank, processes)), 1) for rank in range(processes)]
    joined = [tuple(torch.cat(parts) for parts in zip(*step)) for step in zip(*shares, strict=True)]
    assert_same([(images, labels) for images, labels in joined], whole)


def images_of(indices: torch.Tensor) -> torch.Tensor:
    return PREPROCESS.normalise(torch.from_numpy(IMAGES)[indices])


@pytest.mark.parametrize("text", ["mixup:1", "cutmix:1"])
def test_labels_become_shares_where_pictures_are_mixed(text: str) -> None:
    source = make(batch_size=20, text=text)
    for (images, soft), (plain, labels) in zip(pairs(source), pairs(make(batch_size=20)), strict=True):
        assert soft.shape == (len(images), 7) and soft.dtype == torch.float32 and images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last) and images.shape == plain.shape
        assert torch.allclose(soft.sum(1), torch.ones(len(soft)))
        assert bool((soft > 0)[torch.arange(len(labels)), labels].float().mean() > 0.8), "a picture keeps its label"


def test_mixing_before_mean_and_std_is_mixing_after_them() -> None:
    source = make(batch_size=30, text="mixup:1")
    (images, soft), (plain, labels) = pairs(source)[0], pairs(make(batch_size=30))[0]
    for number in range(30):
        weights = soft[number]
        if int((weights > 0).sum()) < 2:
            continue
        share = weights[labels[number]]
        candidates = share * plain[number] + (1 - share) * plain  # (30, C, H, W): with each as the partner
        assert (candidates - images[number]).abs().amax((1, 2, 3)).min() < 1e-4


def test_altflip_shows_every_picture_both_ways_in_two_epochs() -> None:
    source = make(text="altflip", batch_size=13)
    shown: dict[int, list[bool]] = {}
    for epoch in (4, 5):
        for index, image in zip(source.order(epoch).tolist(), torch.cat([images for images, _ in source.epoch(epoch)])):
            as_it_is = images_of(torch.tensor([index]))[0]
            assert torch.equal(image, as_it_is) or torch.equal(image, as_it_is.flip(2))
            shown.setdefault(index, []).append(torch.equal(image, as_it_is))
    assert all(sorted(ways) == [False, True] for ways in shown.values()) and len(shown) == len(USED)


def test_crop_takes_larger_pictures_and_gives_the_size_of_the_net() -> None:
    larger = np.random.default_rng(1).integers(0, 256, (COUNT, 7, 6, 3)).astype(np.uint8)
    source = make(text="crop:0.5,flip", images=larger)
    assert all(images.shape[1:] == (3, HEIGHT, WIDTH) for images, _ in pairs(source))
    assert_same(pairs(source, 2, 3), pairs(source, 2)[3:])
    ((images, _),) = source.sample(0, 8)
    scaled = PREPROCESS.geometry_all(larger[source.order(0)[:8].numpy()])
    assert torch.equal(images, PREPROCESS.normalise(torch.from_numpy(scaled)))


def test_what_is_too_strong_or_lacks_the_number_of_classes_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="shift:5:reflect on pictures of 6×5"):
        make(text="shift:5:reflect")
    with pytest.raises(UsageError, match="without num_classes"):
        Batches(
            IMAGES, LABELS, USED, PREPROCESS, batch_size=8, seed=0, device=CPU, operations=augment.parse("mixup:0.2")
        )


@pytest.mark.parametrize("text", ["shift:0", "altflip", "crop:0.5", "mixup:1", "shift:1,cutmix:1"])
def test_versions_are_what_training_shows(text: str) -> None:
    operations = augment.parse(text)
    made = versions(IMAGES[:10], operations, 3)
    assert made.shape == (3, 10, HEIGHT, WIDTH, 3) and made.dtype == np.uint8
    assert np.array_equal(made, versions(IMAGES[:10], operations, 3))
    if text == "shift:0":
        assert all(np.array_equal(epoch, IMAGES[:10]) for epoch in made)
    else:
        assert not np.array_equal(made[0], made[1])
    if text == "altflip":
        assert np.array_equal(made[0], made[1, :, :, ::-1]) and np.array_equal(made[0], made[2])


def test_the_very_numbers_of_a_batch() -> None:
    """Published accuracies hang on these bits: shift, flip and cutout as they have been since the first release."""
    images = torch.cat([images for images, _ in make(text="shift:2:reflect,flip,cutout:3", seed=5).epoch(1)])
    assert (
        hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()
        == "1fe293e4df4e3d512d3a9409fead0003adb08e37c4bfedb83e1b076f82c60d0b"
    )


# --- pictures on disk: in blocks that are read ahead ---------------------------------------------------------------

BLOCKS = Blocks(4, 6)


@pytest.mark.parametrize("text", ["none", "flip,shift:1", "mixup:0.5", "cutmix:1"])
@pytest.mark.parametrize("batch_size", [1, 8, 200])
def test_blocks_are_read_in_their_order_whatever_becomes_of_them(text: str, batch_size: int) -> None:
    """The batches are those of a whole shuffle that happens to have this order."""
    source, whole = (make(batch_size, text=text, blocks=blocks) for blocks in (BLOCKS, None))
    order, _ = source._arranged(1)
    whole._arranged = lambda epoch: (order, torch.tensor([len(order)]))  # type: ignore[method-assign]
    assert_same(pairs(source, 1), pairs(whole, 1))
    assert sorted(order.tolist()) == USED.tolist()


@pytest.mark.parametrize("text", ["none", "mixup:0.5"])
def test_blocks_from_any_step_and_in_shares(text: str) -> None:
    source = make(8, text=text, blocks=BLOCKS)
    whole = pairs(source, 3)
    for first in (1, 5, len(source) - 1, len(source)):
        assert_same(pairs(source, 3, first), whole[first:])
    shares = [pairs(make(8, text=text, blocks=BLOCKS, share=(rank, 3)), 3) for rank in range(3)]
    joined = [
        (torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))
        for parts in zip(*shares, strict=True)
    ]
    assert_same(joined, whole)


def test_balanced_blocks_show_every_class_as_often_all_the_time() -> None:
    labels = np.repeat(np.arange(3), (600, 60, 30)).astype(np.int64)  # sorted, as a folder is
    images = np.zeros((690, 2, 2, 3), np.uint8)
    source = Batches(
        images, labels, np.arange(690), replace(PREPROCESS, size=(2, 2)), batch_size=46, seed=0, device=CPU,
        balanced=True, blocks=Blocks(5, 40),
    )  # fmt: skip
    seen = torch.stack([labels.bincount(minlength=3) for _, labels in source.epoch(0)])
    assert seen.sum(0).tolist() == [230, 230, 230]
    assert seen.min() > 0 and seen.max() < 35  # of 46, by chance 15 ± 3


def test_the_reading_thread_ends_with_the_epoch_and_when_it_is_left() -> None:
    def reading() -> int:
        return sum(thread.name == "striate-read" for thread in threading.enumerate())

    source = make(4, blocks=BLOCKS)
    for batches_wanted in (1, 3, 1000):
        found = source.epoch(0)
        for _ in range(batches_wanted):
            if next(found, None) is None:
                break
            assert reading() <= 1
        found.close()
        assert reading() == 0


def test_what_goes_wrong_while_reading_is_raised_by_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(images: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ahead, "will_need", broken)
    with pytest.raises(OSError, match="Input/output"):
        pairs(make(4, blocks=BLOCKS))


def test_no_more_than_the_held_blocks_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lots of half of them each: one is drawn from while the next is read, and no third one is begun."""
    alive: list[weakref.ref[np.ndarray]] = []
    read = ahead.Ahead._read

    def counted(self: ahead.Ahead, numbers: np.ndarray) -> np.ndarray:
        assert len(numbers) <= 3 * 4
        assert sum(ref() is not None for ref in alive) <= 1
        out = read(self, numbers)
        alive.append(weakref.ref(out))
        return out

    monkeypatch.setattr(ahead.Ahead, "_read", counted)
    for _ in make(8, blocks=BLOCKS).epoch(0):
        time.sleep(0.01)  # time enough to read too far
    assert len(alive) == 8  # of 23 blocks, three at a time


def test_a_read_only_map_is_read_whole_and_in_blocks(tmp_path: Any) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", mode="r")
    for blocks in (None, BLOCKS):
        assert_same(pairs(make(8, images=mapped, blocks=blocks)), pairs(make(8, blocks=blocks)))
        assert_same(
            list(make(8, images=mapped, blocks=blocks).sample(0, 30)), list(make(8, blocks=blocks).sample(0, 30))
        )


def test_pictures_on_a_gpu_are_gathered_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is at hand: the meta device knows where things are, and holds nothing."""
    images, labels = np.zeros((6, 4, 4, 1), np.uint8), np.zeros(6, np.int64)
    monkeypatch.setattr("striate.data.batches.fits", lambda device, content: device.type == "meta" and content == 96)
    preprocess = Preprocess((4, 4), channels=1)
    common: dict[str, Any] = {"batch_size": 4, "seed": 0, "device": torch.device("meta")}
    there = Batches(images, labels, np.arange(6), preprocess, **common)
    assert there._gather(torch.tensor([1, 2])).device.type == "meta"
    augmented = Batches(images, labels, np.arange(6), preprocess, operations=augment.parse("shift:1"), **common)
    assert augmented._gather(torch.tensor([1, 2])).device.type == "cpu"
