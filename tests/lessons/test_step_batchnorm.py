"""The lessons `step` and `batchnorm`, and what all lessons share."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from striate.errors import UsageError
from striate.lessons.catalogue import MAKERS, lesson
from striate.lessons.lesson import Text
from striate.lessons.step import largest_rate
from striate.lessons.titles import TITLES
from striate.settings.lesson import OF_LESSON


def test_one_step_by_hand() -> None:
    numbers = lesson("step").part("one-step").numbers
    assert numbers["prediction"].tolist() == [1, 3] and numbers["error"].tolist() == [-2, -4]
    assert numbers["loss"] == (4 + 16) / 2 == 10
    assert numbers["dw"] == 2 / 2 * (-2 * 1 - 4 * 3) == -14 and numbers["db"] == 2 / 2 * (-2 - 4) == -6
    assert numbers["autograd"] == [10, -14, -6]
    assert np.isclose(numbers["w"], 1 + 0.1 * 14) and np.isclose(numbers["b"], 0.6)
    assert np.isclose(numbers["loss_after"], (0**2 + 0.8**2) / 2)
    sums = [frame.sums for frame in lesson("step").part("one-step").scene.frames]
    assert "(4 + 16)/2 = 10" in sums and "2/2·((−2)·1 + (−4)·3) = −14" in sums and "1 − 0.1·(−14) = 2.4" in sums


@pytest.mark.parametrize("seed", range(5))
def test_steps_equal_torchs_sgd(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=4), generator.normal(size=4)
    made = lesson("step", x=x, y=y, w=0.5, b=-0.25, lr=0.05, steps=3).part("path").numbers["path"]
    w, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.5, -0.25))
    descent = torch.optim.SGD([w, b], lr=0.05)
    for row in made:
        loss = ((w * torch.from_numpy(x) + b - torch.from_numpy(y)) ** 2).mean()
        descent.zero_grad()
        loss.backward()
        expected = [value.item() for value in (w, b, loss, w.grad, b.grad)]
        assert np.allclose(row, expected)
        descent.step()
    assert len(made) == 4


def test_the_largest_rate_parts_arriving_from_running_away() -> None:
    limit = largest_rate(np.array([1.0, 3.0]))
    below, above = (lesson("step", lr=limit * share, steps=200).part("path").numbers["path"] for share in (0.98, 1.02))
    assert below[-1][2] < below[0][2] < above[-1][2]
    assert "not below" in lesson("step", lr=limit * 1.02).part("path").says[0].en


def test_a_path_that_leaves_the_finite_ends_there() -> None:
    path = lesson("step", lr=1e30, steps=500).part("path").numbers["path"]
    assert 0 < len(path) < 500 and np.isfinite(path).all()


def test_x_and_y_go_together() -> None:
    with pytest.raises(UsageError, match="--x has 3 numbers and --y 2"):
        lesson("step", x="1,2,3", y="1,2")


def test_batchnorm_equals_torch_batch_by_batch() -> None:
    made = lesson("batchnorm", input="1,3,5,7;2,4;0,2,4,10,-5", momentum=0.3)
    layer = nn.BatchNorm1d(1, momentum=0.3).double().train()
    batches = [[1, 3, 5, 7], [2, 4], [0, 2, 4, 10, -5]]
    for batch, step in zip(batches, made.part("train").numbers["batches"], strict=True):
        normalised = layer(torch.tensor(batch, dtype=torch.float64)[:, None])
        assert np.allclose(step["normalised"], normalised.detach()[:, 0])
        assert np.isclose(step["running_mean"], layer.running_mean.item())
        assert np.isclose(step["running_variance"], layer.running_var.item())
    answered = layer.eval()(torch.tensor(batches[-1], dtype=torch.float64)[:, None])
    assert np.allclose(made.part("eval").numbers["eval"], answered.detach()[:, 0])
    assert not np.allclose(made.part("eval").numbers["eval"], made.part("eval").numbers["train"])


def test_batchnorm_by_hand() -> None:
    first = lesson("batchnorm").part("train").numbers["batches"][0]
    assert (first["mean"], first["variance"]) == (4, 5) and np.isclose(first["unbiased_variance"], 20 / 3)
    assert np.isclose(first["running_mean"], 0.1 * 4) and np.isclose(first["running_variance"], 0.9 + 0.1 * 20 / 3)
    sums = [frame.sums for frame in lesson("batchnorm").part("train").scene.frames]
    assert sums[0] == "(1 + 3 + 5 + 7)/4 = 4" and sums[1] == "((−3)² + (−1)² + 1² + 3²)/4 = 5"
    assert sums[3] == "0.9·0 + 0.1·4 = 0.4"


def test_a_batch_of_one_is_refused_as_torch_refuses_it() -> None:
    numbers = lesson("batchnorm").part("one").numbers
    for field, layer, told in (
        (torch.zeros(1, 8), nn.BatchNorm1d(8), numbers["flat"]),
        (torch.zeros(1, 8, 1, 1), nn.BatchNorm2d(8), numbers["one_by_one"]),
    ):
        with pytest.raises(ValueError) as caught:
            layer(field)
        assert told == str(caught.value)
    assert numbers["difference_to_instance_norm"] < 1e-12
    with pytest.raises(UsageError) as refused:
        lesson("batchnorm", input="1,2;5")
    assert "batch 2" in refused.value.what and "more than 1 value" in refused.value.cause


def test_how_long_running_statistics_take() -> None:
    numbers = lesson("batchnorm").part("momentum").numbers
    assert numbers["for_99_percent"] == 44 and np.isclose(numbers["reached"][10], 1 - 0.9**10)
    layer = nn.BatchNorm1d(1).double().train()
    for _ in range(10):
        layer(torch.tensor([[0.0], [2.0]], dtype=torch.float64))
    assert np.isclose(layer.running_mean.item(), numbers["reached"][10])
    assert lesson("batchnorm", momentum=1.0).part("momentum").numbers["for_99_percent"] == 1


@pytest.mark.parametrize("name", MAKERS)
def test_every_lesson_speaks_both_languages_and_is_plain_data(name: str) -> None:
    made = lesson(name)
    document = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert document["lesson"] == name and document["format"] == 1
    texts = [made.title, made.about]
    for part in made.parts:
        texts += [part.title, *part.says]
        texts += [frame.says for frame in part.scene.frames] if part.scene else []
        for row in (part.table.columns, *part.table.rows) if part.table else ():
            texts += [cell for cell in row if isinstance(cell, Text) and cell.en != cell.zh]
    for text in texts:
        assert text.en and text.zh
        assert not any("\u4e00" <= character <= "\u9fff" for character in text.en), text.en
        assert any(character > "\u2e80" for character in text.zh) or text.zh.startswith("W₂"), text.zh
        assert "  " not in text.en and "nan" not in text.en.split()
    keys = [part.key for part in made.parts]
    assert len(keys) == len(set(keys))


def test_the_tables_of_lessons_agree() -> None:
    assert list(MAKERS) == list(TITLES) == list(OF_LESSON)


def test_a_lesson_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    lesson("head")
    lesson("linear-as-conv", input="2x2x2", outputs=3)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_lesson_names_the_near_ones() -> None:
    with pytest.raises(UsageError, match="batchnorm"):
        lesson("batch-norm")
