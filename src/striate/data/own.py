"""Pictures of one's own: from a folder, table or archive to pictures at the size that the net sees, in their parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from striate.data.cache import Cache
from striate.data.dataset import Dataset, Parts
from striate.data.disk import take
from striate.data.doctor import Checkup, check_up
from striate.data.fixes import apply_fixes, find_fixes, read_fixes
from striate.data.hashes import Duplicates, join
from striate.data.loading import Progress, no_progress
from striate.data.lookup import Report, silent
from striate.data.opening import MAX_PIXELS
from striate.data.records import Record, Source, class_order, few, match_classes
from striate.data.sources import open_source
from striate.errors import DataError

Stage = Callable[[str], Progress]  # gets the name of a pass over all pictures, returns what is told how far it is


def no_stage(name: str) -> Progress:
    """Show no progress."""
    return no_progress


def look(
    target: str | Path,
    *,
    size: tuple[int, int] | None = None,
    fit: str = "auto",
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
    group: str | None = None,
    fixes: Path | None = None,
    follow_links: bool = False,
    threads: int | None = None,
    cache: Cache | None = None,
    allowance: int | None = None,
    report: Report = silent,
    stage: Stage = no_stage,
) -> Checkup:
    """Find the pictures of a target, apply the fixes, and look at each once (doctor.py): at its header, then decoded.

    `fixes`: a table of what to drop, relabel or merge; without one, `striate.fixes.csv` at the top of the folder is
    used where it is. `stage` gets the name of each pass and returns what is told its progress. The other options are
    those of `open_source` and `check_up`. Raises DataError where no picture can be read, and what open_source raises.
    """
    source = open_source(target, follow_links=follow_links, group=group, allowance=allowance, report=report)
    with source:
        return check_up(
            with_fixes(source, fixes),
            allowance=allowance,
            size=size,
            fit=None if fit == "auto" else fit,
            channels=channels,
            max_pixels=max_pixels,
            threads=threads,
            cache=cache,
            report=report,
            header_progress=stage("reading headers"),
            decode_progress=stage("decoding"),
        )


def with_fixes(source: Source, given: Path | None) -> Source:
    """Apply the fixes that are given, or those at the top of the source's folder; its notes say what changed."""
    path = given or find_fixes(source)
    if path is None:
        return source
    source, told = apply_fixes(source, read_fixes(path))
    return replace(source, notes=(*source.notes, *(f"{path.name}: {line}" for line in told)))


def as_parts(checkup: Checkup, *, for_training: bool = True) -> Parts:
    """Return the pictures that could be read as train, validation and test sets, as the source states them.

    Not `for_training`: where none is stated to be for training, all of them together are the train set.

    Class names are those of these pictures, in their fixed order. Pictures of one group are duplicates of each other,
    or their group was stated. Raises DataError where no picture is left to train on.
    """
    loaded, name = checkup.loaded, checkup.source.name
    records = [checkup.source.records[number] for number in loaded.good]
    classes = class_order(record.label for record in records if record.label is not None)
    numbers = {label: index for index, label in enumerate(classes)}
    labels = np.array([numbers[record.label or ""] for record in records], dtype=np.int64)
    splits = np.array([record.split or "train" for record in records])
    if not for_training and not (splits == "train").any():
        splits[:] = "train"
    groups = _groups(records, checkup.duplicates)

    def chosen(split: str) -> Dataset | None:
        indices = np.flatnonzero(splits == split)
        if len(indices) == 0:
            return None
        images = take(loaded.images, indices)  # a copy only where those of several splits are mixed
        sources = tuple(records[index].source for index in indices)
        digests = tuple(loaded.digests[loaded.good[index]] for index in indices)
        return Dataset(name, images, labels[indices], classes, sources, digests, groups[indices])

    train = chosen("train")
    if train is None:
        raise DataError(
            f"{name} has no train pictures",
            f"{len(records):,} pictures can be read, all of them stated to be for validation or test",
            "put some into a folder train, or leave the split out",
        )
    return Parts(name, train, chosen("validation"), chosen("test"))


def as_known(parts: Parts, classes: tuple[str, ...]) -> tuple[Parts, list[str]]:
    """Give pictures the label numbers of a net's `classes`, matched by name, and say what did not match.

    Pictures of classes that the net does not know are left out. Raises DataError where no picture is left.
    """
    indices, told = match_classes(parts.train.classes, classes)

    def matched(part: Dataset | None) -> Dataset | None:
        if part is None:
            return None
        known = np.flatnonzero([part.classes[label] in indices for label in part.labels])
        labels = np.array([indices[part.classes[label]] for label in part.labels[known]], dtype=np.int64)
        return replace(part.take(known), labels=labels, classes=classes) if len(known) else None

    train = matched(parts.train)
    if train is None:
        raise DataError(
            f"no picture of {parts.name} has a class that the net knows",
            f"they have {few(parts.train.classes)}, the net {few(classes)}",
            "evaluate on data with the classes the net was trained on",
        )
    return Parts(parts.name, train, matched(parts.validation), matched(parts.test), parts.licence), told


def _groups(records: Sequence[Record], duplicates: Duplicates) -> NDArray[np.int64]:
    """Join duplicates and pictures of the same stated group."""
    pairs = [*map(tuple, duplicates.same), *map(tuple, duplicates.alike)]
    first: dict[str, int] = {}
    for index, record in enumerate(records):
        if record.group is not None:
            pairs.append((first.setdefault(record.group, index), index))
    return join(len(records), pairs)
