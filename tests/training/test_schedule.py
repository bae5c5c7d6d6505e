"""Learning rates as functions of the step, against hand values and by property."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.training.schedule import fading_rate, rate

SCHEDULES = ["constant", "step", "linear", "cosine", "one-cycle", "triangular"]


@given(
    st.sampled_from(SCHEDULES), st.integers(1, 500), st.floats(1e-5, 10), st.sampled_from([0.0, 0.1, 0.5]), st.data()
)
def test_a_rate_is_positive_and_never_above_its_peak(
    schedule: str, total: int, peak: float, warmup: float, data: Any
) -> None:
    step = data.draw(st.integers(0, total - 1))
    value = rate(step, total, schedule=schedule, peak=peak, warmup=warmup, steps_per_epoch=max(1, total // 5))
    assert 0 < value <= peak * (1 + 1e-12)


def test_rates_by_hand() -> None:
    assert [rate(s, 4, schedule="constant", peak=2.0) for s in range(4)] == [2.0] * 4
    falls = [rate(s, 6, schedule="step", peak=1.0, steps_per_epoch=1, step_epochs=2, step_factor=0.5) for s in range(6)]
    assert falls == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert rate(50, 100, schedule="cosine", peak=1.0) == pytest.approx(0.5)
    assert rate(60, 100, schedule="triangular", peak=1.0) == pytest.approx(0.5)  # 0.2 up, then down to 0
    rising = [rate(s, 100, schedule="constant", peak=1.0, warmup=0.1) for s in range(10)]
    assert rising == sorted(rising) and rising[0] == pytest.approx(1 / 11)
    assert rate(99, 100, schedule="one-cycle", peak=1.0) < 0.01


@given(st.sampled_from(SCHEDULES), st.integers(1, 400), st.sampled_from([0.0, 0.05, 0.3, 0.9]))
def test_a_rate_rises_to_one_top_and_then_falls_to_almost_nothing(schedule: str, total: int, warmup: float) -> None:
    options: dict[str, Any] = {"schedule": schedule, "peak": 2.0, "warmup": warmup, "steps_per_epoch": 7}
    rates = [rate(step, total, step_epochs=3, **options) for step in range(total)]
    top = rates.index(max(rates))
    rising, falling = itertools.pairwise(rates[: top + 1]), itertools.pairwise(rates[top:])
    assert all(one < two for one, two in rising) and all(one >= two for one, two in falling)
    if warmup and schedule != "step":
        assert abs(top - warmup * total) <= 1
    if schedule in ("linear", "cosine", "one-cycle", "triangular") and total > 100 and warmup < 0.9:
        assert rates[-1] < 0.06


def test_one_cycle_is_a_warm_up_and_then_a_cosine() -> None:
    rates = [rate(step, 100, schedule="one-cycle", peak=2.0) for step in range(100)]
    assert rates[:30] == pytest.approx([2.0 * (step + 1) / 31 for step in range(30)]) and rates[30] == 2.0
    assert rates[30:] == pytest.approx([rate(step, 70, schedule="cosine", peak=2.0) for step in range(70)])
    assert rates[65] == pytest.approx(1.0)


def test_linear_falls_from_the_first_step_and_after_a_warm_up_if_asked() -> None:
    assert [rate(step, 4, schedule="linear", peak=2.0) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]
    warm = [rate(step, 100, schedule="linear", peak=1.0, warmup=0.2) for step in range(100)]
    assert warm == [rate(step, 100, schedule="triangular", peak=1.0) for step in range(100)]


def test_a_fading_rate_comes_to_its_end_and_stays() -> None:
    assert [fading_rate(step, 4, peak=2.0) for step in range(6)] == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]
    assert fading_rate(0, 0, peak=2.0) == 0.0


@given(st.integers(0, 300), st.integers(301, 400), st.sampled_from(SCHEDULES), st.floats(1e-3, 100))
def test_another_peak_is_another_scale_and_nothing_else(step: int, total: int, schedule: str, peak: float) -> None:
    one = rate(step, total, schedule=schedule, peak=1.0, steps_per_epoch=20)
    assert rate(step, total, schedule=schedule, peak=peak, steps_per_epoch=20) == pytest.approx(peak * one, rel=1e-12)
