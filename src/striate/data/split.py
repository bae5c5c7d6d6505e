"""Train, validation and test: seeded, stratified, saved as plain indices."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Dataset, Parts
from striate.data.grouped import cut_by_content
from striate.errors import DataError, UsageError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Which pictures train, validate and test.

    Each is a sorted int64 array of indices into the part named beside it: `validation_of` and `test_of` are `train`
    where the pictures were cut from the train set, and `validation` or `test` where their maker set them apart.
    """

    train: Indices
    validation: Indices
    test: Indices
    validation_of: str
    test_of: str
    seed: int

    def of(self, parts: Parts, name: str) -> tuple[Dataset, Indices]:
        """Return the part that holds `name` (train, validation or test) and the indices into it.

        Raises DataError where that split is empty.
        """
        known = {
            "train": ("train", self.train),
            "validation": (self.validation_of, self.validation),
            "test": (self.test_of, self.test),
        }
        if name not in known:
            raise UsageError(f"unknown split {name!r}", "known: train, validation, test")
        part, indices = known[name]
        if len(indices) == 0:
            raise DataError(f"the {name} split of {parts.name} is empty", "no picture was set apart for it")
        return parts.part(part), indices

    def to_json(self) -> dict[str, Any]:
        """Return split.json's content."""
        return {
            "format": 1,
            "seed": self.seed,
            "train": {"of": "train", "indices": self.train.tolist()},
            "validation": {"of": self.validation_of, "indices": self.validation.tolist()},
            "test": {"of": self.test_of, "indices": self.test.tolist()},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Split:
        """Read split.json's content back. Raises DataError where it is damaged."""
        try:
            train, validation, test = (
                np.asarray(value[name]["indices"], dtype=np.int64) for name in ("train", "validation", "test")
            )
            return cls(train, validation, test, value["validation"]["of"], value["test"]["of"], int(value["seed"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "split.json is damaged", f"{type(error).__name__}: {error}", "restore it or train again"
            ) from error


def make_split(
    parts: Parts,
    *,
    validation: float = 0.1,
    test: float = 0.15,
    seed: int = 0,
    train_range: slice | None = None,
    validation_range: slice | None = None,
    test_range: slice | None = None,
) -> Split:
    """Choose the pictures that train, validate and test.

    `validation` and `test`: a share under 1 or a number of pictures. An official set is used as it is; otherwise
    pictures are cut from the train set, every class in proportion, at random by `seed`. Given train and validation
    without test, the given validation set validates and `test` is cut from train. Pictures from files are cut by their
    contents and never within a group (grouped.py); their shares are of the whole train set. A range names pictures by
    their place in the part and wins over a share; validation pictures named by a range never train.
    Raises UsageError or DataError where a split comes out empty or ranges overlap.
    """
    labels = parts.train.labels
    pool = _in_range(len(labels), train_range, "train")
    test_of = "train" if parts.test is None else "test"
    validation_of = "train" if parts.validation is None else "validation"
    # Ranges first, so that what is cut at random afterwards keeps clear of them.
    named = {} if train_range is None else {"train": pool}
    test_indices = validation_indices = pool[:0]
    if test_range is not None or parts.test is not None:
        test_indices = _in_range(len(parts.part(test_of)), test_range, "test")
        if test_of == "train":
            pool = _apart(pool, test_indices, named, "test")
    if validation_range is not None or parts.validation is not None:
        validation_indices = _in_range(len(parts.part(validation_of)), validation_range, "validation")
        if validation_of == "train":
            pool = _apart(pool, validation_indices, named, "validation")
    shares = {}
    if test_range is None and parts.test is None:
        shares["test"] = test
    if validation_range is None and parts.validation is None:
        shares["validation"] = validation
    cut = _cut_apart(parts.train, pool, shares, seed)
    pool, test_indices, validation_indices = (
        cut.get(name, kept)
        for name, kept in (("train", pool), ("test", test_indices), ("validation", validation_indices))
    )
    if len(pool) == 0:
        raise DataError(
            f"{parts.name}: no picture is left to train on",
            f"{len(validation_indices)} validate and {len(test_indices)} test",
            "lower --validation or --test",
        )
    return Split(pool, validation_indices, test_indices, validation_of, test_of, seed)


def _cut_apart(train: Dataset, pool: Indices, shares: dict[str, float], seed: int) -> dict[str, Indices]:
    """Cut the splits that `shares` names from the pool: by content where the pictures' digests are known."""
    if train.digests is not None and train.groups is not None:
        return cut_by_content(train.labels, train.digests, train.groups, pool, shares, seed)
    cut = {}
    for name, share in shares.items():
        cut[name] = _cut(train.labels, pool, share, seed, name)
        pool = np.setdiff1d(pool, cut[name])
    return {"train": pool, **cut}


def _apart(pool: Indices, indices: Indices, named: dict[str, Indices], name: str) -> Indices:
    """Take a range out of the pool. Raises UsageError where it shares pictures with one named before."""
    for other, taken in named.items():
        if len(np.intersect1d(indices, taken)):
            raise UsageError(
                f"the {other} and {name} ranges overlap", "a picture may be in one split only", "change one range"
            )
    named[name] = indices
    return np.setdiff1d(pool, indices)


def _in_range(total: int, chosen: slice | None, name: str) -> Indices:
    if chosen is None:
        return np.arange(total, dtype=np.int64)
    start, stop = chosen.start or 0, total if chosen.stop is None else chosen.stop
    if start >= total or stop > total:
        raise UsageError(
            f"the {name} range {start}:{'' if chosen.stop is None else stop} leaves the data",
            f"it has {total} pictures, numbered 0 to {total - 1}",
            f"use --{name}-range {start if start < total else 0}:{total}",
        )
    return np.arange(start, stop, dtype=np.int64)


def _cut(labels: NDArray[np.int64], pool: Indices, amount: float, seed: int, name: str) -> Indices:
    """Choose `amount` of `pool` with every class in proportion (largest remainders), by a key of seed and name."""
    wanted = round(amount * len(pool)) if amount < 1 else int(amount)
    if amount > 0 and (wanted < 1 or wanted >= len(pool)):
        raise UsageError(
            f"{name} {amount:g} of {len(pool)} pictures leaves a split empty",
            f"that is {wanted} pictures for {name} and {len(pool) - wanted} for the rest",
            f"choose another --{name}, or --{name} 0 for none",
        )
    if wanted == 0:
        return np.empty(0, dtype=np.int64)
    number = int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")
    random = np.random.Generator(np.random.PCG64(number))
    present, counts = np.unique(labels[pool], return_counts=True)
    exact = counts * (wanted / len(pool))
    # A class keeps at least one picture to train on.
    take = np.minimum(np.floor(exact).astype(np.int64), counts - 1)
    for position in np.argsort(take - exact, kind="stable"):
        if take.sum() >= wanted:
            break
        if take[position] < counts[position] - 1:
            take[position] += 1
    if take.sum() == 0:
        raise UsageError(
            f"{name} {amount:g} of {len(pool)} pictures leaves a split empty",
            "every class has one picture, and keeps it to train on",
            f"use --{name} 0 for none, or --{name}-range",
        )
    chosen = []
    for label, number_taken in zip(present, take, strict=True):
        members = pool[labels[pool] == label]
        chosen.append(random.permutation(members)[:number_taken])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
