"""A split by content: each picture's place follows from its own bytes, and a group of pictures is never divided."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from striate.errors import UsageError

Indices = NDArray[np.int64]
LEAST_GROUPS = 3  # a class with so many is in every split


def cut_by_content(
    labels: NDArray[np.int64],
    digests: Sequence[str],
    groups: NDArray[np.int64],
    pool: Indices,
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, Indices]:
    """Divide `pool` into `train` and the splits named in `shares` (each a share of the pool, or a number of pictures).

    Each group (equal numbers in `groups`) falls at a point of 0 … 1 that is a hash of the seed and the smallest of its
    pictures' `digests`; the shares divide that line. So pictures that are added later move none of the old ones, unless
    they join their groups. Every class is met in proportion on average, not exactly. Two exceptions, for small classes:
    a class always keeps a group to train on, and a class of three groups or more has one in every split.
    Raises UsageError where nothing would be left to train on.
    """
    lengths = {name: share if share < 1 else share / max(1, len(pool)) for name, share in shares.items()}
    if sum(lengths.values()) >= 1:
        asked = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise UsageError(f"{asked} of {len(pool)} pictures leave none to train on", "", "lower --validation or --test")
    # The groups of the pool, numbered from 0; where each falls; which classes are in each.
    _, numbers = np.unique(groups[pool], return_inverse=True)
    points = _points([digests[i] for i in pool], numbers, seed)
    names = ["train", *lengths]
    borders = np.cumsum([0.0, *lengths.values()])
    place = np.zeros(len(points), dtype=np.int64)  # by position in `names`
    for position in range(1, len(names)):
        place[(points >= borders[position - 1]) & (points < borders[position])] = position
    used = [position for position, name in enumerate(names) if position == 0 or lengths[name] > 0]
    classes = [np.unique(numbers[labels[pool] == label]) for label in np.unique(labels[pool])]
    classes = [members[np.argsort(points[members], kind="stable")] for members in classes]
    for members in classes:
        if len(members) >= LEAST_GROUPS:
            _serve(members, place, used)
    for members in classes:  # last, as a group of several classes may have been moved for one of them
        if not (place[members] == 0).any():
            place[members[-1]] = 0
    of_picture = place[numbers]
    return {name: np.sort(pool[of_picture == position]) for position, name in enumerate(names)}


def _points(digests: Sequence[str], numbers: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return where each group falls, 0 … 1, by its smallest digest."""
    smallest: dict[int, str] = {}
    for number, digest in zip(numbers.tolist(), digests, strict=True):
        smallest[number] = min(digest, smallest.get(number, digest))
    points = np.empty(len(smallest))
    for number, digest in smallest.items():
        hashed = hashlib.blake2b(f"{seed}/split/{digest}".encode(), digest_size=8).digest()
        points[number] = int.from_bytes(hashed, "little") / 2**64
    return points


def _serve(members: NDArray[np.int64], place: NDArray[np.int64], used: Sequence[int]) -> None:
    """Move groups of one class (in the order of their points) until every used split has one."""
    for position in used:
        counts = np.bincount(place[members], minlength=max(used) + 1)
        if counts[position] == 0:
            giver = int(counts.argmax())
            if counts[giver] > 1:
                place[members[place[members] == giver][0]] = position
