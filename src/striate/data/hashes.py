"""Pictures that are the same, or nearly: found by a perceptual hash, confirmed on small versions of the pictures.

Nearly the same: saved again with more compression, at another size, a little brighter or with a trimmed edge. Whether
two pictures are alike depends on those two alone, so that adding pictures makes no others alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.data.disk import PIECE_BYTES, let_go, pieces, room_like, take

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]

# The limits were set on the photographs of ants and bees against copies of them (JPEG quality 20, half and a quarter of
# the size, 10 % brighter, a pixel trimmed), and on MNIST, Fashion-MNIST and CIFAR-10 (docs/check.md).
BLANK = 2.0  # levels: a picture whose standard deviation is below it shows nothing
_SIDE, _COARSE = 32, 8  # pixels of the small versions
_LEAST_SIDE = 16  # pixels: smaller pictures hold too little to be compared but for equality
_LEAST_DETAIL = 4.0  # levels: one smooth sky is like any other
_ALIKE = 0.9  # correlation of the details; two different photographs reach 0.67
_EMPTY = 0.15  # share of a picture that is flat: on an empty ground pictures are alike by their outline alone
_SAME_LEVELS = 8.0  # and must agree in their levels, too; two handwritten ones differ by 9.5
_BRIGHTER, _CONTRAST = 40.0, 1.5
_MARGIN = 2.0  # levels: less is compression noise, and must not decide a bit
_MOST_BITS = 10  # of 128
_WINDOW = 24  # neighbours compared in each order of the hashes
_CHUNK = 1024  # pictures, or pairs, at a time


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found among n pictures.

    `blank` bool (n,): shows nothing; such pictures are compared with no other. `same` int64 (m, 2): pairs with the same
    bytes or, at the net's size, the same pixels. `alike` int64 (k, 2): pairs that are nearly the same, where one
    picture stands for all that are the same as it.
    """

    blank: NDArray[np.bool_]
    same: Numbers
    alike: Numbers

    @property
    def groups(self) -> Numbers:
        """int64 (n,): equal where `same` or `alike` join pictures, directly or through others: the smallest index."""
        return join(len(self.blank), np.concatenate([self.same, self.alike]))


def find_duplicates(images: Pixels, digests: Sequence[str], areas: Numbers | None = None) -> Duplicates:
    """Find the same and the nearly same pictures.

    `images` uint8 (n, H, W, C) at the net's size; `digests` of their files, "" where not known. `areas` int64 (n, 4):
    top, bottom, left and right of what a picture covers of its array, where that is not all. The time grows as
    n · log n: each picture is compared with its neighbours in eight orders of its hash, never with all others.
    """
    if areas is None:
        areas = np.tile([0, images.shape[1], 0, images.shape[2]], (len(images), 1))
    small = _small(images, areas)  # (n, h, w, C)
    blank = np.empty(len(small), dtype=bool)
    for start in range(0, len(small), _CHUNK):
        here = slice(start, start + _CHUNK)
        blank[here] = small[here].std(axis=(1, 2)).max(axis=1, initial=0.0) < BLANK
    for index in np.flatnonzero(blank):  # fine patterns may have vanished in the small version
        top, bottom, left, right = areas[index]
        blank[index] = images[index, top:bottom, left:right].std(axis=(0, 1)).max() < BLANK
    same = _same_pairs(images, digests, blank)
    lone = ~blank
    lone[same[:, 1]] = False
    candidates = np.flatnonzero(lone)
    alike = candidates[_alike_pairs(take(small, candidates))]
    return Duplicates(blank, same, alike)


def _chunks(pairs: Numbers, length: int) -> Iterator[Numbers]:
    return (pairs[start : start + length] for start in range(0, len(pairs), length))


def join(count: int, pairs: Iterable[Sequence[int]]) -> Numbers:
    """Return int64 (count,): for each number the smallest one that `pairs` join it to, directly or through others."""
    root = list(range(count))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for one, other in pairs:
        low, high = sorted((find(int(one)), find(int(other))))
        root[high] = low
    return np.array([find(index) for index in range(count)], dtype=np.int64)


def clusters(pairs: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the sets of numbers that `pairs` join, each sorted, in the order of their smallest numbers."""
    pairs = [(int(one), int(other)) for one, other in pairs]
    members: dict[int, list[int]] = {}
    used = sorted({index for pair in pairs for index in pair})
    for index, smallest in zip(used, join(max(used, default=-1) + 1, pairs)[used], strict=True):
        members.setdefault(int(smallest), []).append(index)
    return tuple(tuple(group) for group in members.values())


def _same_pairs(images: Pixels, digests: Sequence[str], blank: NDArray[np.bool_]) -> Numbers:
    """Return (m, 2): each picture that is the same as an earlier one, behind the first such."""
    pairs = []
    by_content: dict[str | bytes, int] = {}
    for start, some in pieces(images):
        for index in (start + np.flatnonzero(~blank[start : start + len(some)])).tolist():
            pixels = hashlib.sha256(np.ascontiguousarray(some[index - start]).data).digest()
            keys = [key for key in (digests[index], pixels) if key]
            first = min([by_content.get(key, index) for key in keys])
            by_content.update({key: min(first, by_content.get(key, first)) for key in keys})
            if first != index:
                pairs.append((first, index))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _alike_pairs(small: Pixels) -> Numbers:
    """Return (k, 2): pairs of small pictures (n, h, w, C) that are alike."""
    if min(small.shape[1:3]) < _LEAST_SIDE:
        return np.empty((0, 2), dtype=np.int64)
    coarse, empty, detailed = _describe(small)
    kept = np.flatnonzero(detailed)
    pairs = kept[_near_in_hash(small, kept)]
    found = [np.empty((0, 2), dtype=np.int64)]
    for chunk in _chunks(pairs, 64 * _CHUNK):  # a quick look first: pictures of a stroke or an outline have many pairs
        _, residual = _compare(coarse[chunk[:, 0]], coarse[chunk[:, 1]])
        found.append(chunk[~empty[chunk].any(axis=1) | (residual <= _SAME_LEVELS)])
    pairs, found = np.concatenate(found), found[:1]
    for chunk in _chunks(pairs, _CHUNK):
        one, other = (small[chunk[:, side]].astype(np.float32) for side in (0, 1))
        correlation, _ = _compare(_detail(one), _detail(other))
        _, residual = _compare(one, other)
        alike = (correlation >= _ALIKE) & (~empty[chunk].any(axis=1) | (residual <= _SAME_LEVELS))
        found.append(chunk[alike & _as_bright(one, other)])
    return np.concatenate(found)


def _describe(small: Pixels) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return still smaller pictures (n, 8, 8, C), and (n,) whether each is flat in parts and whether it has detail."""
    # Four bytes of it are one number: float32 (n, 8, 8, C), on disk where the pictures are.
    coarse: Floats = room_like(small, (len(small), _COARSE, _COARSE, small.shape[3] * 4)).view(np.float32)
    empty, detailed = np.empty(len(small), dtype=bool), np.empty(len(small), dtype=bool)
    for start in range(0, len(small), _CHUNK):
        here = slice(start, start + _CHUNK)
        pictures = small[here].astype(np.float32)
        across, down = (np.abs(np.diff(pictures, axis=axis)).max(axis=3) < _MARGIN for axis in (2, 1))
        empty[here] = (across.mean(axis=(1, 2)) + down.mean(axis=(1, 2))) / 2 > _EMPTY
        detailed[here] = _detail(pictures).std(axis=(1, 2, 3)) >= _LEAST_DETAIL
        coarse[here] = _resized(pictures, _COARSE, _COARSE)
    return coarse, empty, detailed


def _detail(pictures: Floats) -> Floats:
    """Take out of pictures (n, h, w, C) what 8×8 pixels show."""
    coarse = _resized(pictures, _COARSE, _COARSE)
    return pictures - _enlarged(coarse, pictures.shape[1], pictures.shape[2])


def _near_in_hash(small: Pixels, kept: Numbers) -> Numbers:
    """Return (k, 2): pairs of the n `kept` of pictures (…, h, w, C) whose difference hashes of 128 bits differ in few.

    The hashes are sorted eight times, beginning with another sixteen bits each time, and compared with their neighbours
    in each order: two that differ in up to seven bits agree in one of the sixteens, and stand near each other there.
    """
    count = len(kept)
    bits = np.empty((count, 128), dtype=bool)
    for start in range(0, count, _CHUNK):
        gray = small[kept[start : start + _CHUNK]].mean(axis=3, dtype=np.float32)[..., None]
        across = np.diff(_resized(gray, 8, 9), axis=2) > _MARGIN  # (n, 8, 8, 1)
        down = np.diff(_resized(gray, 9, 8), axis=1) > _MARGIN
        bits[start : start + _CHUNK] = np.stack([across, down], axis=1).reshape(-1, 128)
    words = np.packbits(bits, axis=1).view(">u8").astype(np.uint64)  # (n, 2)
    codes = [np.empty(0, dtype=np.int64)]
    for turn in range(0, 128, 16):
        turned = np.packbits(np.roll(bits, turn, axis=1), axis=1).view(">u8")  # (n, 2)
        order = np.lexsort((turned[:, 1], turned[:, 0]))
        ordered = words[order]
        found = []
        for step in range(1, min(_WINDOW, count - 1) + 1):
            near = np.flatnonzero(_count_bits(ordered[:-step] ^ ordered[step:]) <= _MOST_BITS)
            one, other = order[near], order[near + step]
            found.append(np.minimum(one, other) * count + np.maximum(one, other))
        codes = [np.unique(np.concatenate(codes + found))]
    return np.stack(np.divmod(codes[0], max(count, 1)), axis=1)


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return (n,): the ones in each row of (n, k), by adding neighbouring fields (Hacker's Delight, 5-1)."""
    halves = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    quarters = (halves & np.uint64(0x3333333333333333)) + ((halves >> np.uint64(2)) & np.uint64(0x3333333333333333))
    eighths = (quarters + (quarters >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((eighths * np.uint64(0x0101010101010101)) >> np.uint64(56)).sum(axis=1)


def _compare(ones: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return correlation, and what differs when brightness and contrast are evened out, in levels: each (n,)."""
    ones, others = (part.reshape(len(part), -1) for part in (ones, others))
    ones, others = (part - part.mean(axis=1, keepdims=True) for part in (ones, others))
    spread, other_spread = ones.std(axis=1), others.std(axis=1)
    correlation = (ones * others).mean(axis=1) / np.maximum(spread * other_spread, 1e-6)
    return correlation, np.sqrt(np.maximum(1 - correlation**2, 0)) * np.maximum(spread, other_spread)


def _as_bright(ones: Floats, others: Floats) -> NDArray[np.bool_]:
    """Say for each pair whether brightness, of each colour, and contrast are about the same."""
    ones, others = (part.reshape(len(part), -1, part.shape[3]) for part in (ones, others))
    spread, other_spread = (part.std(axis=(1, 2)) for part in (ones, others))
    contrast = np.maximum(spread, other_spread) / np.maximum(np.minimum(spread, other_spread), 1e-6)
    brighter = np.abs(ones.mean(axis=1) - others.mean(axis=1)).max(axis=1)
    return (brighter <= _BRIGHTER) & (contrast <= _CONTRAST)


def _small(images: Pixels, areas: Numbers) -> Pixels:
    """Return the areas (n, 4) of pictures as uint8 (n, h, w, C) of at most 32 pixels a side."""
    height, width = (min(_SIDE, length) for length in images.shape[1:3])
    out = room_like(images, (len(images), height, width, images.shape[3]))
    kinds, which = np.unique(areas, axis=0, return_inverse=True)
    for kind, (top, bottom, left, right) in enumerate(kinds):
        for chunk in _chunks(np.flatnonzero(which.reshape(-1) == kind), _CHUNK):
            for rows in _chunks(chunk, max(1, PIECE_BYTES // (4 * max(1, images[:1].nbytes)))):
                pictures = images[rows, top:bottom, left:right].astype(np.float32)
                out[rows] = np.rint(_resized(pictures, height, width))
            let_go(images)
    return out


def _resized(pictures: Floats, height: int, width: int) -> Floats:
    """Average pictures (n, h, w, C) over areas: (n, height, width, C)."""
    return _weighted(pictures, _areas(pictures.shape[1], height), _areas(pictures.shape[2], width))


def _enlarged(pictures: Floats, height: int, width: int) -> Floats:
    """Enlarge pictures (n, h, w, C) to (n, height, width, C), linearly between the middles of their pixels."""
    return _weighted(pictures, _between(pictures.shape[1], height), _between(pictures.shape[2], width))


def _weighted(pictures: Floats, down: Floats, across: Floats) -> Floats:
    """Apply weights (height, h) and (width, w) to pictures (n, h, w, C), in two matrix products."""
    count, before, width, channels = pictures.shape
    rows = down @ pictures.reshape(count, before, width * channels)  # (n, height, w · C)
    flat = rows.reshape(count * len(down), width * channels) @ np.kron(across.T, np.eye(channels, dtype=np.float32))
    return flat.reshape(count, len(down), len(across), channels)


def _areas(before: int, after: int) -> Floats:
    """Return weights (after, before): the share that each of `before` pixels has in each of `after` wider ones."""
    edges = np.arange(after + 1) * before / after
    left, right = np.arange(before), np.arange(1, before + 1)
    overlap = np.minimum(right, edges[1:, None]) - np.maximum(left, edges[:-1, None])
    return (np.maximum(overlap, 0) * after / before).astype(np.float32)


def _between(before: int, after: int) -> Floats:
    """Return weights (after, before) of linear interpolation."""
    places = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(before)), 0).astype(np.float32)
