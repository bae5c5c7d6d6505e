"""The pictures that excite a channel most: the same as by sorting all of them, wherever the batches are cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.explain.nets import twisted
from torch import nn

from striate.data.builtin import load_named
from striate.data.preprocess import Preprocess
from striate.errors import UsageError
from striate.explain.exciting import exciting_pictures, most_exciting
from striate.explain.features import feature_maps
from striate.models import create_model
from striate.predictor.torch_backend import predictor_of


@pytest.mark.parametrize("size", [1, 4, 50])
def test_the_same_as_sorting_all_maps(size: int) -> None:
    net, _ = twisted()
    pictures = torch.randn(30, 1, 12, 14)
    (maps,) = feature_maps(net, pictures, ["relu#2"])
    found = most_exciting(net, pictures.split(size), "relu#2", count=7)
    assert list(found) == list(range(8))
    for channel, excited in found.items():
        greatest = maps.maps[:, channel].reshape(30, -1).max(1)
        order = np.argsort(-greatest, kind="stable")[:7]
        assert [one.picture for one in excited] == order.tolist()
        for one in excited:
            assert maps.maps[one.picture, channel][one.place] == pytest.approx(one.value, abs=1e-6)
            assert one.value == pytest.approx(greatest[one.picture], abs=1e-6)


def test_batches_are_asked_for_one_by_one_and_few_pictures_are_all_there_are() -> None:
    net, _ = twisted()
    alive = []

    def batches() -> Iterator[torch.Tensor]:
        for _ in range(3):
            alive.append(torch.randn(2, 1, 12, 14))
            yield alive.pop()

    found = most_exciting(net, batches(), "conv2", [5], count=9)
    assert list(found) == [5] and sorted(one.picture for one in found[5]) == [0, 1, 2, 3, 4, 5]


def test_of_equal_values_the_earlier_picture() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten())
    found = most_exciting(net, torch.ones(6, 1, 3, 3).split(2), "0", count=3)
    assert [one.picture for one in found[0]] == [0, 1, 2]


def test_units_have_one_place_and_fields_are_the_pixels_behind_it() -> None:
    digits = load_named("digits").train
    torch.manual_seed(0)
    net = create_model("three-conv", 10, 1, 8)
    predictor = predictor_of(net, Preprocess((8, 8), "stretch", 1, (77.9,), (95.9,)), digits.classes)
    layers = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    units = exciting_pictures(predictor, digits.images[:40], layers[0], [0], 2)
    assert all(one.place == (0, 0) for one in units[0])
    first = next(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    for one in exciting_pictures(predictor, digits.images[:40], first, [1], 3)[1]:
        assert one.field is not None
        top, left, bottom, right = one.field
        assert 0 <= top < bottom <= 8 and 0 <= left < right <= 8


def test_what_is_not_there_is_refused() -> None:
    net, pictures = twisted()
    for words, arguments in {
        "unknown layer 'conv3'": ([pictures], "conv3"),
        "layer conv2 has no channel 8": ([pictures], "conv2", [0, 8]),
        "there are no pictures": ([], "conv2"),
    }.items():
        with pytest.raises(UsageError, match=words):
            most_exciting(net, *arguments)
