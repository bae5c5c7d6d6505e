"""The lessons `linear-as-conv`, `head` and `activation`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from striate.errors import UsageError
from striate.lessons.activation import ACTIVATIONS, measure
from striate.lessons.catalogue import lesson
from striate.lessons.linear import compare_layers, layers


def test_both_cases_of_a_linear_layer_are_convolutions() -> None:
    made = lesson("linear-as-conv")
    small, alexnet = made.part("cases").numbers["cases"]
    assert small["linear_parameters"] == small["convolution_parameters"] == (3 * 3 * 5 + 1) * 4096 == 188_416
    assert alexnet["linear_parameters"] == alexnet["convolution_parameters"] == 37_752_832
    for case in (small, alexnet):
        assert case["largest_difference"] == 0 and case["convolution_output"] == [4096, 1, 1]
        assert any(case["first_outputs"])  # the equality is not one of zeros


def test_the_two_layers_are_told_apart_where_a_weight_differs() -> None:
    linear, convolution = layers((2, 3, 4), 5)
    field = torch.randn(2, 4, 2, 3)
    with torch.no_grad():
        assert torch.allclose(linear(field.flatten(1)), convolution(field).flatten(1), atol=1e-5)
        convolution.weight = nn.Parameter(convolution.weight + 1)
        assert not torch.allclose(linear(field.flatten(1)), convolution(field).flatten(1), atol=1e-5)


def test_the_small_sum_by_hand() -> None:
    part = lesson("linear-as-conv").part("small")
    assert part.numbers["output"][0] == 0 * 0 + 1 * 1 + 2 * 2 + 3 * 3 + 4 * 4 + 5 * 0 + 6 * 1 + 7 * 2
    assert part.scene.frames[1].sums == "0·0 + 1·1 + 2·2 + 3·3 + 4·4 + 5·0 + 6·1 + 7·2 = 50"


def test_a_larger_map_slides_and_the_linear_layer_says_what_torch_says() -> None:
    part = lesson("linear-as-conv", input="3x3x5", outputs=7).part("slide").numbers
    assert part["output"] == [7, 2, 2] and part["largest_difference"] == 0
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(45, 7)(torch.zeros(1, 4 * 4 * 5))
    assert part["refused"] == str(caught.value)
    assert compare_layers((2, 2, 1), 3)["linear_parameters"] == 15


@pytest.mark.parametrize("name", ["linear-as-conv", "head"])
def test_layers_that_take_too_much_memory_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="weights"):
        lesson(name, input="500x500x500", **({"outputs": 10} if name == "linear-as-conv" else {"classes": 10}))


def test_head_parameters() -> None:
    numbers = lesson("head").part("parameters").numbers
    assert numbers["fully_connected"] == (6 * 6 * 256 + 1) * 10
    assert numbers["average"] == 257 * 10
    assert numbers["alexnet"] == 58_631_144 and numbers["resnet50"] == 2_049_000
    table = lesson("head", input="7x7x512", classes=3).part("parameters").table
    assert table.rows[0][1:] == ("(25088 + 1)·3", f"{25089 * 3:,}")


def test_head_sizes_and_places() -> None:
    made = lesson("head")
    for size, (flat, mean) in made.part("sizes").numbers.items():
        assert mean.en == "10 scores"
        assert flat == mean if size == "6×6" else "cannot be multiplied" in flat
    places = made.part("places").numbers
    assert places["fully_connected"] > 1 and places["average"] < 1e-9


def test_head_by_hand() -> None:
    numbers = lesson("head").part("small").numbers
    assert numbers["means"].tolist() == [1.5, 7.5]
    assert numbers["scores"].tolist() == [2 * 1.5 - 7.5, -1.5 + 7.5, 0.5 * 7.5]


def test_layers_without_activation_collapse() -> None:
    numbers = lesson("activation").part("collapse").numbers
    assert numbers["layers"].tolist() == numbers["one_matrix"].tolist() == [-1, 8]
    assert numbers["with_relu"].tolist() == [5, 5]
    assert numbers["f_a_plus_f_b"].tolist() != numbers["f_of_sum"].tolist()


def test_slopes_by_formula() -> None:
    numbers = lesson("activation").part("saturation").numbers
    places = np.array([-10, -5, -2, -1, 0, 1, 2, 5, 10.0])
    sigmoid = 1 / (1 + np.exp(-places))
    assert np.allclose(numbers["slopes"]["sigmoid"], sigmoid * (1 - sigmoid))
    assert np.allclose(numbers["slopes"]["tanh"], 1 - np.tanh(places) ** 2)
    assert numbers["slopes"]["relu"] == [0] * 5 + [1] * 4
    assert numbers["slopes"]["leaky relu"] == [0.01] * 5 + [1] * 4
    assert numbers["steepest_sigmoid"] == 0.25 and math.isclose(numbers["bound_20"], 0.25**20)


def test_gradients_fade_through_sigmoids_and_not_through_relus() -> None:
    part = lesson("activation").part("gradients")
    measured = part.numbers
    assert list(measured) == list(ACTIVATIONS) and list(measured["relu"]) == [2, 5, 10, 20]
    sigmoid = list(measured["sigmoid"].values())
    assert sigmoid == sorted(sigmoid, reverse=True) and sigmoid[-1] < 1e-10
    assert all(0.1 < left < 10 for name in ("relu", "leaky relu") for left in measured[name].values())
    assert sigmoid[-1] < measured["tanh"][20] < measured["relu"][20]
    assert [row[0] for row in part.table.rows] == list(ACTIVATIONS)


def test_a_measured_gradient_is_that_of_a_chain_of_matrices() -> None:
    """For a ReLU the way back is a product of masked matrices, which NumPy can multiply."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(256, 8, dtype=torch.float64, generator=generator).numpy()
    masks, weights, after = [], [], x
    for _ in range(2):
        weight = torch.randn(8, 8, dtype=torch.float64, generator=generator).numpy() * (2 / 8) ** 0.5
        after = after @ weight.T
        masks.append(after > 0)
        weights.append(weight)
        after = after * masks[-1]
    back = torch.randn(256, 8, dtype=torch.float64, generator=generator).numpy()
    gradient = back
    for mask, weight in zip(reversed(masks), reversed(weights)):
        gradient = (gradient * mask) @ weight
    expected = np.linalg.norm(gradient) / np.linalg.norm(back)
    assert math.isclose(measure("relu", (2,), 8, 3)[2], expected, rel_tol=1e-9)


def test_depth_width_and_seed_are_heeded() -> None:
    first = lesson("activation", depth=4, width=8, seed=1).part("gradients").numbers
    assert list(first["tanh"]) == [2, 4]
    assert lesson("activation", depth=4, width=8, seed=1).part("gradients").numbers == first
    assert lesson("activation", depth=4, width=8, seed=2).part("gradients").numbers != first
