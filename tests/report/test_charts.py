"""Series are reduced and smoothed without changing what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from striate.report import charts


@given(st.integers(1, 10_000), st.integers(1, 3000))
def test_reduced_series_is_short_and_keeps_the_mean(count: int, most: int) -> None:
    steps, values = np.arange(count, dtype=float), np.random.default_rng(count).normal(size=count)
    where, means, block = charts.reduce_series(steps, values, most)
    assert len(where) == len(means) <= most
    sizes = np.full(len(means), block)
    sizes[-1] = count - block * (len(means) - 1)
    assert (means * sizes).sum() == pytest.approx(values.sum(), abs=1e-6)
    assert means[0] == pytest.approx(values[:block].mean())
    assert (np.diff(where) > 0).all() and where[0] >= 0 and where[-1] <= count - 1


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.integers(0, 20))
def test_smoothed_values_are_means_of_their_neighbours(values: list[float], window: int) -> None:
    series, half = np.array(values), window // 2
    smoothed = charts.smooth(series, window)
    assert len(smoothed) == len(series)
    for place in range(len(series)):
        before = min(half, place)
        after = min(before, len(series) - 1 - place)
        assert smoothed[place] == pytest.approx(series[place - before : place + after + 1].mean(), abs=1e-9)


def losses(values: list[float]) -> Figure:
    figure = Figure()
    charts.draw_losses(figure.subplots(), (range(len(values)), values), [])
    return figure


@pytest.mark.parametrize(("values", "scale"), [([2.3, 1.0, 0.9], "linear"), ([2.3, 0.5, 0.01], "log")])
def test_the_loss_axis_is_logarithmic_from_a_factor_of_ten(values: list[float], scale: str) -> None:
    axes = losses(values).axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low < min(values) and max(values) < high


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0], [0.0, 5.0], [-1.0, 3.0], [float("nan"), 1.0, float("inf")]])
def test_odd_losses_are_drawn_on_a_finite_axis(values: list[float]) -> None:
    low, high = losses(values).axes[0].get_ylim()
    assert np.isfinite([low, high]).all() and low < high


def test_the_label_says_how_many_steps_a_point_stands_for() -> None:
    labels = [str(line.get_label()) for line in losses([1.0] * 4001).axes[0].lines]
    assert labels[0] == "train, means of 3 steps"
    assert len(losses([1.0] * 4001).axes[0].lines[0].get_xdata()) == 1334  # type: ignore[arg-type]


def test_validation_loss_stands_at_its_steps() -> None:
    figure = Figure()
    rows = [{"step": "10", "val_loss": "0.5"}, {"step": "20", "val_loss": ""}, {"step": "30", "val_loss": "0.4"}]
    charts.draw_losses(figure.subplots(), ([], []), rows)
    line = figure.axes[0].lines[0]
    assert line.get_xydata().tolist() == [[10, 0.5], [30, 0.4]]  # type: ignore[union-attr]


def test_bars_stand_in_the_given_order_and_the_highest_is_marked() -> None:
    figure = Figure()
    charts.bars(figure.subplots(), ["a", "b", "c"], {"a": 0.2, "b": 0.7}, "title")
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, 70, 0])  # type: ignore[attr-defined]
    assert [text.get_text() for text in axes.texts] == ["20.0 %", "70.0 %", "unknown here"]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] == colours[2] != colours[1]
