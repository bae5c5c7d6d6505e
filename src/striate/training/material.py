"""From settings to data: found, split, and the train pictures brought to the net's size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.data.builtin import load_named
from striate.data.dataset import Dataset, Images, Parts
from striate.data.preprocess import Preprocess, measure
from striate.data.split import Split, make_split
from striate.device import available_threads
from striate.errors import DataError, UsageError
from striate.settings.train import TrainSettings, parse_range

Report = Callable[[str], None]


@dataclass
class Material:
    """The data of a run: as their maker gives them, split, and the train pictures at the net's size."""

    parts: Parts
    split: Split
    preprocess: Preprocess
    train_images: Images
    threads: int

    def pictures(self, split: str) -> tuple[Dataset, Images, np.ndarray]:
        """Return the part that holds `split`, its pictures at the net's size (n, H, W, C), and their indices."""
        part, indices = self.split.of(self.parts, split)
        if part is self.parts.train:
            return part, self.train_images[indices], indices
        return part, self.preprocess.geometry_all(part.images[indices], self.threads), indices


def prepare_material(settings: TrainSettings, data: Parts | None, split: Split | None, report: Report) -> Material:
    """Find the data, split them, bring them to the net's size, and measure mean and std on the train split.

    `data` given: used as they are; `split` given (by resume): used as it is.
    """
    parts = data or load_named(settings.data, settings.data_root, settings.download, report, settings.class_names)
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
        raise UsageError(
            f"a batch of {settings.batch_size} is larger than the data",
            f"{len(split.train)} pictures are left to train on",
            f"use --batch-size {len(split.train)} or less",
        )
    channels = parts.train.channels
    size = settings.size or parts.train.size
    threads = settings.threads or available_threads()
    unmeasured = Preprocess(size, settings.fit, channels, (0.0,) * channels, (255.0,) * channels)
    train_images = _writable(unmeasured.geometry_all(parts.train.images, threads))
    if settings.mean is not None and settings.std is not None:
        mean, std = (_per_channel(name, getattr(settings, name), channels) for name in ("mean", "std"))
    else:
        mean, std = measure(train_images[split.train])
    preprocess = Preprocess(size, settings.fit, channels, tuple(mean), tuple(std))
    return Material(parts, split, preprocess, train_images, threads)


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


def _writable(images: Images) -> Images:
    # torch.from_numpy wants writable memory; a map of a file is not.
    return images if images.flags.writeable else images.copy()
