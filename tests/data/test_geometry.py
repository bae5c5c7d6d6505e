"""Size and fit chosen from headers: one sentence of reason each, never larger than a net from scratch can use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.geometry import PIXELS, Geometry, choose_geometry, shown_areas, spread
from striate.data.loading import Header
from striate.data.preprocess import Preprocess
from striate.errors import DataError


def headers(*sizes: tuple[int, int], times: int = 1, channels: int = 3) -> list[Header | DataError]:
    """Headers of pictures (width, height)."""
    mode = "L" if channels == 1 else "RGB"
    return [Header(width, height, channels, mode, "JPEG", 1) for width, height in sizes] * times


@pytest.mark.parametrize(
    ("files", "size", "fit", "channels"),
    [
        (headers((28, 28), times=50, channels=1), (28, 28), "crop", 1),
        (headers((32, 32), times=50), (32, 32), "crop", 3),
        (headers((48, 20), times=50), (20, 48), "crop", 3),
        (headers((8, 8), times=50, channels=1), (8, 8), "crop", 1),
        (headers((40, 44), (52, 50), (44, 45), (60, 60)), (40, 40), "crop", 3),
        (headers((9, 9), (10, 12)), (16, 16), "crop", 3),
        (headers((500, 375), (375, 500), (500, 333), (333, 500), times=90), (128, 128), "crop", 3),
        (headers((4000, 3000), times=90), (128, 128), "stretch", 3),
        (headers((640, 480), times=9_000), (96, 96), "stretch", 3),
        (headers((640, 480), times=50_000), (64, 64), "stretch", 3),
        (headers((100, 100), (101, 99), times=90), (96, 96), "crop", 3),
        (headers((1000, 200), (900, 300), (200, 800), (400, 390), times=20), (128, 128), "pad", 3),
        (headers((1000, 80), times=20), (64, 64), "stretch", 3),
        ([*headers((64, 64), times=9), *headers((64, 64), channels=1)], (64, 64), "crop", 3),
    ],
    ids=lambda value: str(value) if not isinstance(value, list) else f"{len(value)} of {value[0].width}",
)
def test_what_is_chosen(files: list[Header], size: tuple[int, int], fit: str, channels: int) -> None:
    geometry = choose_geometry(files)
    assert (geometry.size, geometry.fit, geometry.channels) == (size, fit, channels)
    assert [reason.split(" ")[0] for reason in geometry.reasons] == ["size", "fit", "channels"]
    assert all("\n" not in reason and len(reason) < 110 for reason in geometry.reasons)
    assert geometry.preprocess().size == size


def test_the_reasons_name_what_decided() -> None:
    photographs = headers((500, 375), (375, 500), (500, 333), times=4000)
    assert choose_geometry(photographs).reasons == (
        "size 64×64: 12,000 pictures, shorter side 375 pixels (median); 128 would make over 100 million pixels",
        "fit crop: the shapes differ; half of the pictures lose 25 % or less at their edges",
        "channels 3: 12,000 of 12,000 pictures are in colour",
    )


def test_given_values_win_and_say_so() -> None:
    geometry = choose_geometry(headers((500, 375)), size=(96, 128), fit="pad", channels=1)
    assert geometry == Geometry(
        (96, 128),
        "pad",
        1,
        ("size 96×128 (height × width): given", "fit pad: given", "channels 1: 1 in colour become gray"),
    )


def test_a_given_size_of_the_pictures_own_shape_loses_nothing_to_crop() -> None:
    assert choose_geometry(headers((400, 300), times=5), size=(96, 128)).fit == "crop"


def test_unreadable_headers_do_not_count_but_one_must_be_there() -> None:
    broken = DataError("a.jpg cannot be decoded")
    assert choose_geometry([broken, *headers((30, 30))]).size == (30, 30)
    with pytest.raises(DataError, match="no picture can be read"):
        choose_geometry([broken])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 70), st.integers(1, 70))
def test_what_a_padded_picture_covers(width: int, height: int, goal_height: int, goal_width: int) -> None:
    preprocess = Preprocess((goal_height, goal_width), "pad", 1)
    padded = preprocess.geometry(np.full((height, width, 1), 255, np.uint8))
    top, bottom, left, right = shown_areas(headers((width, height)), preprocess)[0]
    assert padded[top:bottom, left:right].min() == 255
    assert padded.sum() == 255 * (bottom - top) * (right - left)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=30), st.integers(1, 200))
def test_whatever_the_pictures_the_choice_is_sensible(sizes: list[tuple[int, int]], times: int) -> None:
    geometry = choose_geometry(headers(*sizes, times=times))
    height, width = geometry.size
    assert max(height, width) <= 128 and geometry.fit in ("crop", "pad", "stretch")
    assert height * width <= 64 * 64 or height * width * len(sizes) * times <= PIXELS
    assert geometry == choose_geometry(headers(*reversed(sizes), times=times))


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=40), st.integers(1, 12))
def test_the_sample_goes_from_the_widest_to_the_narrowest(sizes: list[tuple[int, int]], count: int) -> None:
    files = [DataError("broken"), *headers(*sizes)]
    chosen = spread(files, count)
    aspects = [files[index].width / files[index].height for index in chosen]  # type: ignore[union-attr]
    assert len(set(chosen)) == min(count, len(sizes)) and aspects == sorted(aspects, reverse=True)
    assert aspects[0] == max(width / height for width, height in sizes)
    assert spread([DataError("broken")], 3) == []
