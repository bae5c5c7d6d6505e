"""Edits: nothing at strength zero, what their names say at the others, and the answers to exactly those pictures."""

from __future__ import annotations

import numpy as np
import pytest

from striate.errors import UsageError
from striate.explain.edits import EDITS, edit_curves, erased, shifted, turned

RANDOM = np.random.default_rng(0)


def brightness(images: np.ndarray) -> np.ndarray:
    """Answer as a net of two classes would: by the mean of the picture, whose own place in the batch does not count."""
    light = images.reshape(len(images), -1).mean(1) / 255
    return np.stack([light, 1 - light], axis=1)


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (33, 20, 3), (1, 5, 4), (224, 150, 3)])
def test_at_strength_zero_the_picture_is_the_very_same(shape: tuple[int, ...]) -> None:
    picture = RANDOM.integers(0, 256, shape).astype(np.uint8)
    picture.flags.writeable = False  # as a decoded picture is
    curves = edit_curves(brightness, picture, EDITS, fill=100)
    assert [curve.edit for curve in curves] == ["shift right", "shift down", "rotate", "flip", "scale", "erase"]
    for curve in curves:
        assert len(curve.strengths) == len(curve.images) == len(curve.probabilities)
        assert curve.images.shape[1:] == shape and curve.images.dtype == np.uint8
        assert np.array_equal(curve.images[curve.none], picture), curve.edit
        np.testing.assert_array_equal(curve.probabilities, brightness(curve.images))
        assert curve.strengths[curve.none] == (1 if curve.edit == "scale" else 0)
        assert list(curve.strengths) == sorted(curve.strengths)


def test_each_edit_does_what_its_name_says() -> None:
    picture = RANDOM.integers(0, 256, (9, 9, 1)).astype(np.uint8)
    right, down, rotate, flip, scale, erase = edit_curves(brightness, picture, EDITS, fill=7)
    assert right.strengths == (-2, -1, 0, 1, 2)
    assert np.array_equal(right.images[-1][:, 2:], picture[:, :-2])
    assert np.array_equal(right.images[-1][:, 0], picture[:, 0])  # the edge is repeated
    assert np.array_equal(down.images[0][:-2], picture[2:])
    by_angle = dict(zip(rotate.strengths, rotate.images))
    assert np.array_equal(by_angle[90], np.rot90(picture))
    assert np.array_equal(by_angle[-90], np.rot90(picture, -1))
    assert np.array_equal(by_angle[180], by_angle[-180]) and np.array_equal(by_angle[180], picture[::-1, ::-1])
    assert np.array_equal(flip.images[1], picture[:, ::-1]) and np.array_equal(flip.images[2], picture[::-1])
    assert len(flip.strengths) == len(flip.names) == 3
    assert scale.strengths[0] == 0.5 and scale.strengths[-1] == 2
    assert (erase.images[-1] == 7).all() and (erase.images[3][3:6, 3:6] == 7).all()


def test_turning_keeps_the_shape_of_what_is_not_square() -> None:
    picture = np.zeros((41, 81, 1), np.uint8)
    picture[18:23, 38:43] = 255  # a square in the middle
    turn = turned(picture, degrees=90)
    assert np.array_equal(turn, picture)
    wide = turned(picture, factor=2.0)
    rows, columns = np.nonzero(wide[..., 0] > 200)
    assert np.ptp(rows) == np.ptp(columns) == 8
    assert np.array_equal(shifted(picture, 0, 100)[:, :, 0], np.zeros((41, 81)))


def test_colours_are_filled_channel_by_channel() -> None:
    picture = np.full((4, 4, 3), 9, np.uint8)
    assert erased(picture, 0.5, np.array([1, 2, 3.6]))[1, 1].tolist() == [1, 2, 4]
    assert (picture == 9).all()


def test_an_unknown_edit_is_refused_with_the_near_names() -> None:
    with pytest.raises(UsageError, match="unknown edit 'rotat'") as caught:
        edit_curves(brightness, np.zeros((4, 4, 1), np.uint8), ["rotat"])
    assert "rotate" in caught.value.cause
