"""Pieces, windows and paper, each against the slow way of doing it."""

from __future__ import annotations

import numpy as np
import pytest

from striate.data.ink import find_ink, find_pieces, highest, is_dark_on_light, smoothed


def flood(marks: np.ndarray) -> np.ndarray:
    labels, count = np.zeros(marks.shape, int), 0
    for start in zip(*np.nonzero(marks), strict=True):
        if labels[start]:
            continue
        count += 1
        labels[start], waiting = count, [start]
        while waiting:
            row, column = waiting.pop()
            for down in range(max(0, row - 1), min(marks.shape[0], row + 2)):
                for across in range(max(0, column - 1), min(marks.shape[1], column + 2)):
                    if marks[down, across] and not labels[down, across]:
                        labels[down, across] = count
                        waiting.append((down, across))
    return labels


@pytest.mark.parametrize("seed", range(60))
def test_pieces_are_those_that_a_flood_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    marks = random.random(random.integers(1, 20, 2)) < random.random()
    found, wanted = find_pieces(marks), flood(marks)
    assert len(found.areas) == wanted.max(initial=0)
    pairs = set(zip(found.labels.reshape(-1).tolist(), wanted.reshape(-1).tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    for piece, (area, box) in enumerate(zip(found.areas, found.boxes, strict=True), 1):
        rows, columns = np.nonzero(found.labels == piece)
        assert area == len(rows)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("side", [3, 5, 9, 11, 15])
def test_windows_against_the_slow_way(side: int) -> None:
    levels = np.random.default_rng(side).random((30, 41)).astype(np.float32)
    half = side // 2
    outside = np.pad(levels, half, constant_values=-1)
    shifted = [outside[down : down + 30, across : across + 41] for down in range(side) for across in range(side)]
    assert np.array_equal(highest(levels, side), np.max(shifted, axis=0))
    outside = np.pad(levels, half, mode="edge")
    shifted = [outside[down : down + 30, across : across + 41] for down in range(side) for across in range(side)]
    assert np.abs(smoothed(levels, half) - np.mean(shifted, axis=0)).max() < 1e-5


def cross(side: int = 60) -> np.ndarray:
    levels = np.full((side, side), 0.9, np.float32)
    levels[side // 2 - 3 : side // 2 + 3, 10:-10] = 0.1
    levels[10:-10, side // 2 - 3 : side // 2 + 3] = 0.1
    return levels


def test_polarity_is_that_of_the_strokes() -> None:
    assert is_dark_on_light(cross()) and not is_dark_on_light(1 - cross())
    shaded = cross() * np.linspace(1, 0.3, 60, dtype=np.float32)
    assert is_dark_on_light(shaded) and not is_dark_on_light(1 - shaded)


def test_even_paper_gives_the_levels_back_and_a_shadow_goes() -> None:
    even = find_ink(cross(), follow=True)
    assert not even.uneven and even.noise == 0
    assert np.abs(even.amount - (cross() < 0.5)).max() < 1e-6
    shadow = np.where(np.arange(60) < 40, 1.0, 0.4).astype(np.float32)
    found = find_ink(cross() * shadow, follow=True)
    assert found.uneven
    assert np.array_equal(found.amount > 0.5, cross() < 0.5)
    assert not np.array_equal(find_ink(cross() * shadow, follow=False).amount > 0.5, cross() < 0.5)
