"""The data doctor: looks at every picture of a source once, and says what is wrong, how badly, and what to do.

First a pass over all headers, which decides size and fit; then one full decode at that size, kept in the cache so that
training need not decode again. Nothing of the user's is changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from striate.data.cache import Cache
from striate.data.findings import Finding, finding, found
from striate.data.geometry import Geometry, choose_geometry, shown_areas
from striate.data.hashes import Duplicates, clusters, find_duplicates
from striate.data.loading import Header, Loaded, Progress, load_pictures, no_progress, read_headers
from striate.data.lookup import silent
from striate.data.opening import MAX_PIXELS
from striate.data.preprocess import Preprocess
from striate.data.records import Record, Source
from striate.data.symptoms import (
    Headers,
    Labels,
    class_findings,
    header_findings,
    left_out_findings,
    name_findings,
    note_findings,
    unreadable_finding,
)
from striate.errors import DataError

Splits = Sequence[str | None]
Pairs = Iterable[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Checkup:
    """What is known of a source after every picture was looked at.

    `headers`: one for each record, or why there is none. `duplicates` counts in rows of `loaded.images`.
    """

    source: Source
    headers: list[Header | DataError]
    geometry: Geometry
    loaded: Loaded
    duplicates: Duplicates
    findings: list[Finding]


def check_up(
    source: Source,
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    cache: Cache | None = None,
    allowance: int | None = None,
    report: Callable[[str], None] = silent,
    header_progress: Progress = no_progress,
    decode_progress: Progress = no_progress,
) -> Checkup:
    """Look at every picture of an open source.

    `size`, `fit` and `channels` that are given are not chosen. The other options are those of `load_pictures`.
    Raises DataError where not one picture can be read.
    """
    headers = read_headers(source.records, max_pixels=max_pixels, threads=threads, progress=header_progress)
    geometry = choose_geometry(headers, size=size, fit=fit, channels=channels)
    loaded = load_pictures(
        source.records,
        geometry.preprocess(),
        max_pixels=max_pixels,
        threads=threads,
        cache=cache,
        allowance=allowance,
        report=report,
        progress=decode_progress,
    )
    duplicates = copies_in(headers, loaded, geometry.preprocess())
    return Checkup(source, headers, geometry, loaded, duplicates, examine(source, headers, loaded, duplicates))


def copies_in(headers: Headers, loaded: Loaded, preprocess: Preprocess) -> Duplicates:
    """Find the same and the nearly same pictures among those loaded, in rows of `loaded.images`."""
    areas = shown_areas([headers[index] for index in loaded.good], preprocess)
    return find_duplicates(loaded.images, [loaded.digests[index] for index in loaded.good], areas)


def examine(
    source: Source,
    headers: Headers,
    loaded: Loaded,
    duplicates: Duplicates,
    labels: Labels | None = None,
    splits: Splits | None = None,
) -> list[Finding]:
    """Return all findings about a source that was loaded, errors first.

    `duplicates` as `copies_in` gives them. `labels` and `splits`: one for each record; by default what the records
    state.
    """
    records = source.records
    labels = [record.label for record in records] if labels is None else labels
    splits = [record.split for record in records] if splits is None else splits
    return found(
        [
            unreadable_finding(records, loaded.failures, source.left_out),
            *left_out_findings(source.left_out),
            *name_findings(records, labels),
            *class_findings(labels, splits, loaded.good.tolist()),
            *header_findings(records, headers),
            *note_findings(records, loaded.notes),
            finding("blank", [records[index].source for index in loaded.good[duplicates.blank]]),
            *_copies(records, labels, splits, loaded.good, duplicates),
        ]
    )


def _copies(
    records: Sequence[Record], labels: Labels, splits: Splits, good: np.ndarray, duplicates: Duplicates
) -> Iterator[Finding]:
    """Yield the findings about pictures that are there twice: in several classes, in several splits, or neither."""

    def told(code: str, groups: Iterable[Sequence[int]], joined_by: str) -> Finding:
        named = [sorted(records[index].source for index in group) for group in groups]
        sources = [source for group in named for source in group]
        return finding(code, sources, groups=named, joined_by=joined_by)

    same = [[int(good[row]) for row in group] for group in clusters(duplicates.same)]
    conflicts = [group for group in same if len({labels[index] for index in group}) > 1]
    leaks = [group for group in same if len({splits[index] for index in group}) > 1]
    yield told("label-conflict", conflicts, " = ")
    yield told("leak", leaks, " = ")
    yield told("duplicates", [group for group in same if group not in conflicts and group not in leaks], " = ")
    stands_for: dict[int, list[int]] = defaultdict(list)
    for group in same:
        # One picture of each class and split: a hundred copies need not be paired with a hundred others.
        stands_for[group[0]] = list({(labels[index], splits[index]): index for index in reversed(group)}.values())
    pairs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, other_row in duplicates.alike:
        first, second = int(good[row]), int(good[other_row])
        for one in stands_for[first] or [first]:
            for other in stands_for[second] or [second]:
                across_classes, across_splits = labels[one] != labels[other], splits[one] != splits[other]
                if across_classes:
                    pairs["near-label-conflict"].append((one, other))
                if across_splits:
                    pairs["near-leak"].append((one, other))
                if not across_classes and not across_splits:
                    pairs["near-duplicates"].append((one, other))
    for code, of_kind in pairs.items():
        yield told(code, clusters(of_kind), " ≈ ")
