"""From settings to data: found, split, and the train pictures brought to the net's size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from striate.data import augment, own
from striate.data.builtin import load_named
from striate.data.cache import Cache
from striate.data.dataset import Dataset, Images, Parts
from striate.data.disk import copied, is_on_disk, memory_allowance
from striate.data.doctor import Checkup
from striate.data.findings import must_be_decided
from striate.data.order import PREFIX, Blocks
from striate.data.preprocess import Preprocess, measure
from striate.data.rows import Rows
from striate.data.sources import looks_like_pictures
from striate.data.split import Split, make_split
from striate.data.style import measure_style
from striate.device import available_threads
from striate.errors import DataError, UsageError
from striate.settings.train import TrainSettings
from striate.settings.values import parse_bytes, parse_range, told_bytes

Report = Callable[[str], None]
UNEVEN = 2

# What is said about pictures of one's own; without them these settings would do nothing.
OF_OWN_PICTURES = ("max_pixels", "group", "fixes", "follow_links", "strict", "cache")


@dataclass(frozen=True)
class Opened:
    """Data as `settings.data` names them; `settings` with the size and fit that were chosen; what the doctor found."""

    parts: Parts
    settings: TrainSettings
    checkup: Checkup | None = None


def open_data(settings: TrainSettings, report: Report, stage: own.Stage = own.no_stage) -> Opened:
    """Open a named data set, or look at the pictures of a folder, table or archive.

    Raises UsageError for a setting that does nothing with these data, DataError for data that cannot be used.
    """
    if not looks_like_pictures(settings.data):
        fields = TrainSettings.model_fields
        idle = [name for name in OF_OWN_PICTURES if getattr(settings, name) != fields[name].default]
        if idle:
            flag = "--" + idle[0].replace("_", "-")
            raise UsageError(f"{flag} has no effect here", "it is for pictures of your own", f"leave out {flag}")
        parts = load_named(settings.data, settings.data_root, settings.download, report, settings.class_names)
        return Opened(within(parts, allowance_of(settings), report), settings)
    checkup = own.look(
        settings.data,
        size=settings.size,
        fit=settings.fit,
        max_pixels=settings.max_pixels,
        group=settings.group,
        fixes=settings.fixes,
        follow_links=settings.follow_links,
        threads=settings.threads or None,
        cache=Cache(report=report) if settings.cache else None,
        allowance=allowance_of(settings),
        report=report,
        stage=stage,
    )
    open_questions = must_be_decided(checkup.findings)
    if settings.strict and open_questions:
        raise DataError(
            f"{settings.data}: {', '.join(f'{found.code} ({found.count:,})' for found in open_questions)}",
            "with --strict nothing is trained while something must be decided",
            f"see: striate check {settings.data}",
        )
    for line in checkup.source.notes:
        report(line)
    chosen = {"size": checkup.geometry.size, "fit": checkup.geometry.fit}
    return Opened(own.as_parts(checkup), settings.model_copy(update=chosen), checkup)


@dataclass
class Material:
    """The data of a run: as their maker gives them, split, and the train pictures as Batches wants them.

    That is at the net's size, or larger where the augmentation holds `crop`. `blocks`: how they are shuffled where they
    lie on disk; None shuffles all of them.
    """

    parts: Parts
    split: Split
    preprocess: Preprocess
    train_images: Images
    threads: int
    allowance: int
    blocks: Blocks | None = None

    @property
    def train_counts(self) -> np.ndarray:
        """Train pictures of each class that has some, int64."""
        counts = np.bincount(self.parts.train.labels[self.split.train])
        return counts[counts > 0]

    @property
    def is_uneven(self) -> bool:
        """Whether the largest class has at least twice the train pictures of the smallest."""
        return bool(self.train_counts.max() >= UNEVEN * self.train_counts.min())

    def pictures(self, split: str) -> tuple[Dataset, Rows, np.ndarray]:
        """Return the part that holds `split`, its pictures at the net's size (n, H, W, C), and their indices."""
        part, indices = self.split.of(self.parts, split)
        fits = part is self.parts.train and self.train_images.shape[1:3] == self.preprocess.size
        return part, Rows(self.train_images if fits else part.images, indices, self.preprocess, self.threads), indices


def open_other(
    target: str, settings: TrainSettings, preprocess: Preprocess, classes: tuple[str, ...], report: Report
) -> Parts:
    """Open data for a net that is trained: a named set, or pictures of one's own at the size that the net sees.

    `settings`: those of its run. Classes of one's own pictures are matched by name. Raises DataError.
    """
    if not looks_like_pictures(target):
        parts = load_named(target, settings.data_root, settings.download, report, settings.class_names)
        return within(parts, allowance_of(settings), report)
    checkup = own.look(
        target,
        size=preprocess.size,
        fit=preprocess.fit,
        channels=preprocess.channels,
        max_pixels=settings.max_pixels,
        follow_links=settings.follow_links,
        cache=Cache(report=report) if settings.cache else None,
        allowance=allowance_of(settings),
        report=report,
    )
    for reason in checkup.loaded.failures.values():
        report(f"left out: {reason.what}")
    parts, told = own.as_known(own.as_parts(checkup, for_training=False), classes)
    for line in (*checkup.source.notes, *told):
        report(line)
    return parts


def prepare_material(
    settings: TrainSettings, parts: Parts, split: Split | None, report: Report, channels: int | None = None
) -> Material:
    """Split the data, bring them to the net's size, and measure mean and std on the train split.

    `split` given (by resume): used as it is. `channels`: those that the net sees, where they are not the pictures' own.
    """
    if split is None:
        split = make_split(
            parts,
            validation=settings.validation,
            test=settings.test,
            seed=settings.seed,
            **{name: _range(getattr(settings, name)) for name in ("train_range", "validation_range", "test_range")},
        )
        if parts.validation is not None and parts.test is None:
            report(f"{parts.name} has no test set: {len(split.test):,} of the train pictures were set apart as one")
    if settings.batch_size > len(split.train):
        whole = f"a step takes all {len(split.train)} train pictures"
        report(f"batch {settings.batch_size} is larger than the data: {whole}")
    channels = channels or parts.train.channels
    size = settings.size or parts.train.size
    threads = settings.threads or available_threads()
    fit = "stretch" if settings.fit == "auto" else settings.fit
    unmeasured = Preprocess(size, fit, channels, (0.0,) * channels, (255.0,) * channels)
    allowance = allowance_of(settings)
    train_images = _settled(unmeasured.geometry_all(parts.train.images, threads, allowance), allowance)
    if settings.mean is not None and settings.std is not None:
        mean, std = (_per_channel(name, getattr(settings, name), channels) for name in ("mean", "std"))
    else:
        mean, std = measure(train_images, split.train)
    style = measure_style(train_images, split.train)
    preprocess = Preprocess(size, fit, channels, tuple(mean), tuple(std), style)
    store = augment.store_size(augment.parse(settings.augment), size)
    if store != size:
        larger = replace(unmeasured, size=store).geometry_all(parts.train.images, threads, allowance)
        train_images = _settled(larger, allowance)
    blocks = _order(settings.order, train_images, allowance, report)
    return Material(parts, split, preprocess, train_images, threads, allowance, blocks)


def as_parts(data: Any, name: str = "arrays") -> Parts:
    """Turn what striate.train accepts as data into Parts: Parts, a Dataset, or (images, labels).

    Raises DataError for anything else.
    """
    if isinstance(data, Parts):
        return data
    if isinstance(data, Dataset):
        return Parts(data.name, data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Parts(name, Dataset.from_arrays(data[0], data[1], name=name))
    raise DataError(
        f"cannot train on a {type(data).__name__}",
        "expected the name of a data set, (images, labels), a striate.Dataset or striate.Parts",
        'write striate.train((images, labels)), or striate.train("mnist")',
    )


def _range(text: str | None) -> slice | None:
    return None if text is None else parse_range(text)


def _per_channel(name: str, given: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(given) not in (1, channels):
        raise UsageError(
            f"--{name} has {len(given)} numbers",
            f"the pictures have {channels} channels",
            f"give one number, or {channels} with commas",
        )
    numbers = given if len(given) == channels else given * channels
    return tuple(number * 255.0 for number in numbers)


def allowance_of(settings: TrainSettings) -> int:
    """Return the bytes that the pictures of a run may take in memory."""
    return memory_allowance() if settings.memory is None else parse_bytes(settings.memory)


def within(parts: Parts, allowance: int, report: Report) -> Parts:
    """Move the pictures of a named data set, which were read whole, to disk where they take more than is allowed."""
    given = (parts.train, parts.validation, parts.test)
    size = sum(part.images.nbytes for part in given if part is not None)
    if size <= allowance:
        return parts
    report(f"{parts.name} takes {told_bytes(size)}: it lies on disk (memory is allowed for {told_bytes(allowance)})")
    train, validation, test = (part and replace(part, images=copied(part.images, 0)) for part in given)
    assert train is not None
    return replace(parts, train=train, validation=validation, test=test)


def _settled(images: Images, allowance: int) -> Images:
    """Bring pictures on disk into memory where they are allowed to be, and make those in memory writable."""
    # torch.from_numpy wants writable memory.
    small = images.nbytes <= allowance
    if (is_on_disk(images) and small) or not (images.flags.writeable or is_on_disk(images)):
        return copied(images, allowance)
    return images


def _order(wanted: str, images: Images, allowance: int, report: Report) -> Blocks | None:
    """Return the blocks in which pictures are shuffled: those that are named, or by default where they lie on disk."""
    if wanted.startswith(PREFIX):
        return Blocks.parse(wanted)
    if wanted == "auto" and not is_on_disk(images):
        return None
    if wanted == "whole":
        if is_on_disk(images):
            report(
                "train pictures lie on disk and are shuffled whole: each is read from another place (--order blocks)"
            )
        return None
    blocks = Blocks.within(allowance, images[:1].nbytes)
    size, held = told_bytes(images.nbytes), min(blocks.held, math.ceil(len(images) / blocks.pictures))
    report(
        f"train pictures take {size}, and {told_bytes(allowance)} of memory are allowed: shuffled in blocks of"
        f" {blocks.pictures:,}, {held:,} held at once (--order whole: all of them)"
    )
    return blocks
