"""The rules of the diagnosis over plain numbers: each speaks where it must, and none over a healthy record."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from striate.evaluation.diagnosis import diagnose
from striate.evaluation.evidence import Diagnosis, Evidence, chance_loss
from striate.report.words_zh import NUMBERS

SETTINGS = {"loss": "cross-entropy", "lr": 0.01, "augment": "none", "model": "lenet5", "model_option": {}}


Row = dict[str, Any]


def row(epoch: int, loss: float, train: float, val: float | None = None, val_loss: float | None = None) -> Row:
    held = {"val_accuracy": val, "val_loss": val_loss}
    return {"epoch": epoch, "train_loss": loss, "train_accuracy": train, **held, "lr": 0.01}


def learning(epochs: int = 10) -> list[dict[str, Any]]:
    """Loss and accuracies as of a run in which nothing is wrong."""
    losses = [2.0 * 0.6**i + 0.05 for i in range(epochs)]
    return [row(i + 1, x, 1 - x / 4, 0.97 - x / 4, x + 0.02) for i, x in enumerate(losses)]


def measured(epoch: int, *, kind: str = "relu", reach: float = 0.5, **numbers: float) -> dict[str, Any]:
    one = {"layer": "act1", "kind": kind, "units": 16, "dead": 0.0, "saturated": 0.0, "slope": 0.5, "spread": 0.3}
    weights = [
        {"layer": "conv1", "weight": 0.1, "gradient": 0.01 * reach},
        {"layer": "fc", "weight": 0.1, "gradient": 0.01},
    ]
    return {"epoch": epoch, "step": epoch, "loss": 2.3, "activations": [{**one, **numbers}], "weights": weights}


def evidence(epochs: list[dict[str, Any]], **more: Any) -> Evidence:
    given: dict[str, Any] = {"settings": SETTINGS, "finished": True, "validated": 1000, "trained": 9000} | more
    return Evidence(epochs=epochs, classes=10, commonest=0.1, **given)


def codes(found: list[Diagnosis]) -> list[str]:
    return [one.code for one in found]


STUCK = [row(i, 2.303, 0.1, 0.1, 2.303) for i in range(1, 5)]


def test_a_healthy_run_gets_none_at_any_of_its_epochs() -> None:
    rows = learning()
    for end in range(1, len(rows) + 1):
        seen = evidence(rows[:end], finished=end == len(rows), whole=len(rows), health=[measured(1), measured(2)])
        assert diagnose(seen) == [], end


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("dead-relu", evidence(STUCK, health=[measured(4, dead=0.6)])),
        ("dead-relu", evidence(learning(), health=[measured(8, dead=0.95)])),
        ("saturated-sigmoids", evidence(STUCK, health=[measured(4, kind="sigmoid", saturated=0.8)])),
        ("saturated-sigmoids", evidence(STUCK, health=[measured(4, kind="tanh", spread=0.0004, reach=0.01)])),
        ("vanishing-gradients", evidence(STUCK, health=[measured(4, reach=1e-5)])),
        ("lr-too-high", evidence([], broke="the loss became nan at step 40 (epoch 2)")),
        ("lr-too-high", evidence([row(1, 9.0, 0.1, 0.1, 9.0), row(2, 5.0, 0.1, 0.1, 4.0)])),
        ("lr-too-high", evidence([*learning(6), row(7, 1.9, 0.4, 0.4, 2.0)])),
        ("lr-too-low", evidence([row(i, 2.303 - 0.01 * i, 0.12, 0.12, 2.303 - 0.01 * i) for i in range(1, 9)])),
        ("labels-suspect", evidence(STUCK, health=[measured(4)])),
        ("labels-suspect", evidence([row(i, 2.3 / i, 0.2 * i, 0.1, 2 + i) for i in range(1, 6)])),
        (
            "labels-suspect",
            evidence([row(1, 1.5, 0.6, 0.7, 1.0), row(2, 1.0, 0.75, 0.62, 1.5), *[row(3, 0.5, 0.9, 0.5, 2.0)] * 3]),
        ),
        ("labels-suspect", evidence(learning(), conflicts=200)),
        ("overfitting", evidence([*learning(), row(11, 0.01, 1.0, 0.86, 0.9)])),
        ("overfitting", evidence([*learning(), row(11, 0.01, 1.0, 0.7, 0.1)])),
        ("overfitting", evidence([row(1, 0.1, 0.99)], validated=0, test={"value": 0.7, "low": 0.69, "high": 0.71})),
        ("plateau", evidence([row(i, 1.2, 0.6, 0.6, 1.2) for i in range(1, 14)])),
        ("underfitting", evidence([row(1, 2.2, 0.2, 0.3, 2.0), row(2, 1.9, 0.35, 0.36, 1.9)])),
        ("leak-suspected", evidence(learning(), test={"value": 0.99, "low": 0.98, "high": 1.0}, tested=500, copies=6)),
        ("leak-suspected", evidence(learning(), test={"value": 0.9, "low": 0.88, "high": 0.92}, tested=500, copies=30)),
        (
            "leak-suspected",
            evidence(
                learning(),
                test={"value": 0.9, "low": 0.88, "high": 0.92},
                train_again={"value": 0.8, "low": 0.78, "high": 0.82},
            ),
        ),
    ],
)  # fmt: skip
def test_each_rule(expected: str, found: Evidence) -> None:
    told = diagnose(found)
    assert codes(told) == [expected]
    [one] = told
    assert (
        one.gone is None and one.numbers and one.what and any("\u4e00" <= letter <= "\u9fff" for letter in one.what_zh)
    )
    assert one.verb == "check" or one.flags
    assert set(one.numbers) <= set(NUMBERS)


def test_saturation_that_is_gone_later_says_when() -> None:
    rows = [*STUCK[:2], row(3, 1.2, 0.5, 0.6, 1.0), *[row(i, 0.3, 0.9, 0.9, 0.3) for i in (4, 5)]]
    looks = [measured(1, kind="sigmoid", spread=0.0003, reach=0.01), measured(4, kind="sigmoid", spread=0.3)]
    [one] = diagnose(evidence(rows, health=looks))
    assert (one.code, one.epoch, one.gone) == ("saturated-sigmoids", 1, 4)
    assert "ln 10 = 2.303" in one.what and "ln 10 = 2.303" in one.what_zh


def test_nothing_slow_is_told_before_half_of_the_run() -> None:
    slow = [row(i, 2.303 - 0.01 * i, 0.12, 0.12, 2.303 - 0.01 * i) for i in range(1, 9)]
    assert diagnose(evidence(slow, finished=False, whole=20)) == []
    assert codes(diagnose(evidence(slow, finished=False, whole=12))) == ["lr-too-low"]


def test_the_loss_of_knowing_nothing() -> None:
    assert chance_loss("cross-entropy", 10) == pytest.approx(math.log(10))
    assert chance_loss("mean-squared-error", 10) == pytest.approx(0.09)  # one of ten is 1: 0.1 · 0.81 + 0.9 · 0.01
    assert chance_loss("binary-cross-entropy", 2) == pytest.approx(math.log(2))


@pytest.mark.parametrize(("last", "expected"), [(0.39, []), (0.26, ["labels-suspect"])])
def test_a_net_that_begins_to_learn_late_is_not_said_to_have_wrong_labels(last: float, expected: list[str]) -> None:
    rows = [row(i + 1, 1.39 - i / 50, 0.27 + i / 18, val) for i, val in enumerate((0.25, 0.29, last))]
    found = replace(evidence(rows, validated=133, finished=False, whole=4), classes=4, commonest=0.27)
    assert codes(diagnose(found)) == expected
