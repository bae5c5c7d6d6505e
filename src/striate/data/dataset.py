"""Pictures in memory or on disk: uint8 arrays with labels, class names and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.disk import pieces, room_like, take
from striate.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==; the fingerprint compares contents
class Dataset:
    """Pictures with labels.

    `images` uint8 (N, H, W, C), contiguous, so that `permute(0, 3, 1, 2)` is channels-last for free;
    `labels` int64 (N,), each in 0 … len(classes) − 1. Pictures from files also have `sources` (where each came from),
    `digests` (SHA-256 of each file, in hex) and `groups` int64 (N,): pictures with the same number belong together, and
    a split does not divide them. Raises DataError where these do not hold.
    """

    name: str
    images: Images
    labels: Labels
    classes: tuple[str, ...]
    sources: tuple[str, ...] | None = None
    digests: tuple[str, ...] | None = None
    groups: Labels | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or not self.images.flags.c_contiguous:
            raise DataError(
                f"{self.name}: pictures have shape {self.images.shape} and type {self.images.dtype}",
                "a Dataset holds uint8 pictures of shape (N, H, W, C), contiguous in memory",
                "build it with Dataset.from_arrays, which converts by a stated rule",
            )
        if self.labels.ndim != 1 or self.labels.dtype != np.int64:
            raise DataError(
                f"{self.name}: labels have shape {self.labels.shape} and type {self.labels.dtype}",
                "a Dataset holds int64 labels of shape (N,)",
                "build it with Dataset.from_arrays, which converts by a stated rule",
            )
        if len(self.labels) != len(self.images):
            raise DataError(
                f"{self.name}: {len(self.images)} pictures but {len(self.labels)} labels",
                "every picture has one label",
                "give arrays of the same length",
            )
        check_labels(self.name, self.labels, len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def channels(self) -> int:
        """Number of colour channels."""
        return int(self.images.shape[3])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pictures, labels and class names, as hex."""
        digest = hashlib.sha256()
        digest.update(repr((self.images.shape, self.classes)).encode())
        for _, some in pieces(self.images):
            digest.update(some.data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def take(self, indices: NDArray[np.int64] | slice) -> Dataset:
        """Return the pictures at `indices`, in that order."""
        positions = np.arange(len(self))[indices]
        sources, digests = (
            None if values is None else tuple(values[i] for i in positions) for values in (self.sources, self.digests)
        )
        groups = None if self.groups is None else self.groups[indices]
        images = take(self.images, indices)
        return Dataset(self.name, images, self.labels[indices], self.classes, sources, digests, groups)

    def source(self, index: int) -> str:
        """Say where picture `index` came from."""
        return self.sources[index] if self.sources is not None else f"{self.name}#{index}"

    @classmethod
    def from_arrays(
        cls, images: Any, labels: Any, classes: Sequence[str] | None = None, name: str = "arrays"
    ) -> Dataset:
        """Build a Dataset from arrays or tensors.

        Pictures: uint8 0–255, or floats in 0–1 (scaled by 255 and rounded); shape (N, H, W), (N, H, W, C) or
        (N, C, H, W) with C in {1, 3, 4}. The last axis is the channel if it has 1, 3 or 4 entries and the second
        has not; where both could be it, the array is refused. Labels: integers (N,) from 0, or one-hot (N, K);
        without `classes` they must begin at 0, and the classes are named by their numbers.
        Raises DataError for anything else: nothing is guessed.
        """
        pictures = _as_channels_last(_as_array(images, "pictures", name), name)
        pictures = _as_uint8(pictures, name)
        numbers = _as_numbers(_as_array(labels, "labels", name), name)
        if classes is None:
            classes = _numbered_classes(numbers, name)
        return cls(name, pictures, numbers, tuple(str(c) for c in classes))


@dataclass(frozen=True, eq=False)
class Parts:
    """A data set as its maker gives it: a train set, and a validation and a test set if there are official ones.

    Raises DataError where their class names differ: a label would mean another thing in each.
    """

    name: str
    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part is not None and part.classes != self.train.classes:
                raise DataError(
                    f"{self.name}: the {name} set has classes {', '.join(part.classes[:5])} …",
                    f"the train set has {', '.join(self.train.classes[:5])} …",
                    "give every part the same class names in the same order",
                )

    def part(self, name: str) -> Dataset:
        """Return `train`, `validation` or `test`. Raises DataError where the maker gave none."""
        chosen = {"train": self.train, "validation": self.validation, "test": self.test}.get(name)
        if chosen is None:
            raise DataError(f"{self.name} has no part {name!r}", "its maker gives none", "use --split train")
        return chosen


def check_labels(name: str, labels: Labels, num_classes: int) -> None:
    """Raise DataError unless every label is in 0 … num_classes − 1."""
    if len(labels) == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = int(((labels < 0) | (labels >= num_classes)).sum())
        hint = "labels that start at 1 need 1 subtracted" if low == 1 and high == num_classes else "check the labels"
        raise DataError(
            f"{name}: {wrong} labels out of range (smallest {low}, largest {high})",
            f"{num_classes} classes are numbered 0 to {num_classes - 1}",
            hint,
        )


def _as_array(value: Any, kind: str, name: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor, perhaps on another device or with a gradient
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise DataError(f"{name}: the {kind} are no array", cause, "pass an array of one shape and type") from error


def _numbered_classes(numbers: Labels, name: str) -> list[str]:
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, -1)
    if low > 0 or high >= max(len(numbers), 2):
        raise DataError(
            f"{name}: labels run from {low} to {high} for {len(numbers)} pictures",
            "without class names, labels are numbered from 0 and no class is left out at the start",
            (f"subtract {low} from each label, or " if low > 0 else "")
            + "give the names: Dataset.from_arrays(images, labels, classes=[…])",
        )
    return [str(number) for number in range(high + 1)]


def _as_channels_last(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim == 3:
        return images[..., None]
    if images.ndim != 4:
        raise DataError(
            f"{name}: pictures have shape {images.shape}",
            "expected (N, H, W), (N, H, W, C) or (N, C, H, W)",
            "reshape the array; one picture still needs its first axis: images[None]",
        )
    last, second = images.shape[3] in (1, 3, 4), images.shape[1] in (1, 3, 4)
    if last and second:
        raise DataError(
            f"{name}: shape {images.shape} can be read as (N, H, W, C) and as (N, C, H, W)",
            "both the second and the last axis could be the channels",
            "pass (N, H, W, C) pictures larger than 4 pixels, or a striate Dataset",
        )
    if not last and not second:
        raise DataError(
            f"{name}: shape {images.shape} has no axis of 1, 3 or 4 channels",
            "expected (N, H, W, C) or (N, C, H, W)",
            "check the order of the axes",
        )
    return images if last else images.transpose(0, 2, 3, 1)


def _as_uint8(images: np.ndarray, name: str) -> Images:
    """Return pictures as contiguous uint8: themselves, or a copy, on disk where they are."""
    if images.dtype == np.uint8 and images.flags.c_contiguous:
        return images
    if images.dtype not in (np.uint8, bool) and not np.issubdtype(images.dtype, np.floating):
        raise DataError(
            f"{name}: pictures have type {images.dtype}",
            "expected uint8 0–255 or floats 0–1",
            "convert them: images.astype('uint8') if the values are 0–255",
        )
    if np.issubdtype(images.dtype, np.floating):
        _check_floats(images, name)
    out = room_like(images, images.shape)
    for start, some in pieces(images):
        if some.dtype == bool:
            some = some.astype(np.uint8) * np.uint8(255)
        out[start : start + len(some)] = some if some.dtype == np.uint8 else np.rint(some * 255.0)
    return out


def _check_floats(images: np.ndarray, name: str) -> None:
    low, high = 0.0, 0.0
    for _, some in pieces(images):
        if not np.isfinite(some).all():
            raise DataError(f"{name}: pictures hold NaN or infinite values", "expected floats 0–1", "clean the array")
        low, high = min(low, float(some.min(initial=0))), max(high, float(some.max(initial=0)))
    if low < 0.0 or high > 1.0:
        low, high = (float(f) for f in (images.min(), images.max()))
        raise DataError(
            f"{name}: float pictures range from {low:g} to {high:g}",
            "float pictures must lie in 0–1; striate normalises them itself",
            "divide by 255 if they are 0–255, or undo the normalisation",
        )


def _as_numbers(labels: np.ndarray, name: str) -> Labels:
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()
        if not one_hot:
            raise DataError(f"{name}: labels of shape {labels.shape} are not one-hot", "", "pass class numbers (N,)")
        return labels.argmax(axis=1).astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    whole = labels.dtype.kind in "iub" or (
        labels.dtype.kind == "f" and labels.size > 0 and bool((np.isfinite(labels) & (labels == np.rint(labels))).all())
    )
    if labels.ndim != 1 or not whole:
        raise DataError(
            f"{name}: labels have shape {labels.shape} and type {labels.dtype}",
            "expected integers of shape (N,) from 0, or one-hot (N, K)",
            "convert names to numbers and pass classes=[…] with the names",
        )
    return labels.astype(np.int64)
