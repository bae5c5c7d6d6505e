"""The lesson `pool`: by hand, by torch, and on shifted digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from striate.data.builtin import load_named
from striate.errors import UsageError
from striate.lessons.catalogue import lesson


def test_the_default_by_hand() -> None:
    part = lesson("pool").part("worked")
    assert part.numbers["max"].ravel().tolist() == [4, 5, 7, 8]
    assert part.numbers["average"].ravel().tolist() == [2, 3, 5, 6]
    assert part.numbers["sum"].ravel().tolist() == [8, 12, 20, 24]
    assert part.numbers["parameters"] == 0 and "1 before, 1 after" in part.says[1].en
    assert part.scene.frames[1].sums == "max(0, 1, 3, 4) = 4;  0 + 1 + 3 + 4 = 8;  8/4 = 2"
    for language in part.says[2]:
        assert "4, 5; 7, 8" in language and "2, 3; 5, 6" in language


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1), (2, 3), (5, 5)])
def test_any_window_equals_torch(size: int, stride: int) -> None:
    cells = np.random.default_rng(0).integers(-9, 10, (3, 8, 7)).astype(float)
    made = lesson("pool", input=cells, size=size, stride=stride).part("worked").numbers
    field = torch.from_numpy(cells)[None]
    assert np.array_equal(made["max"], max_pool2d(field, size, stride)[0])
    assert np.allclose(made["average"], avg_pool2d(field, size, stride)[0])
    assert np.allclose(made["sum"], size**2 * avg_pool2d(field, size, stride)[0])
    assert len(made["max"]) == 3  # channels stay


def test_the_stride_is_the_window_unless_given() -> None:
    assert lesson("pool", input="4x4").part("worked").numbers["max"].shape == (1, 2, 2)
    assert lesson("pool", input="6x6x2", size=3).part("worked").numbers["max"].shape == (2, 2, 2)


def test_usual_sizes() -> None:
    sizes = lesson("pool").part("sizes").numbers
    assert [sizes[key] for key in ("28, 2, 2", "55, 3, 2", "27, 3, 2", "13, 3, 2")] == [14, 27, 13, 6]


def test_a_cell_within_its_window_is_forgiven_and_no_other() -> None:
    assert lesson("pool").part("one-pixel").numbers["same_as_unshifted"] == [True, True, False]


def test_shifted_digits_change_the_answer() -> None:
    part = lesson("pool").part("shift")
    picture, largest, average = (part.numbers[name] for name in ("picture", "max", "average"))
    assert picture[0] == largest[0] == average[0] == 0
    assert all(0 < pooled < whole for whole, pooled in zip(picture[1:], largest[1:]))
    assert largest[1] > 0.25  # far from invariant
    assert part.numbers["shift_by_stride"] == 0
    digits = torch.from_numpy(load_named("digits").train.images[:100, :, :, 0].astype(float))
    room = torch.nn.functional.pad(digits, (4, 6, 3, 3))  # on the same grid of windows
    there, here = (max_pool2d(images[:, None], 2)[:, 0] for images in (torch.roll(room, 1, 2), room))
    change = ((there - here).flatten(1).norm(dim=1) / here.flatten(1).norm(dim=1)).mean()
    assert abs(float(change) - largest[1]) < 1e-9
    assert f"{100 * largest[1]:.0f} %" in part.says[1].en and f"{100 * largest[1]:.0f} %" in part.says[1].zh


def test_a_window_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match="does not fit into 3×3"):
        lesson("pool", size=4)
