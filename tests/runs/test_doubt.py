"""Doubt: the curve of precision against counting, distances against their definition, and files of strangers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from striate.errors import DataError, UsageError
from striate.runs.doubt import FALSE_ALARMS, MOST_ROWS, Doubt, energies, nearest, unit


def answers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, probabilities and labels of a net that is right more often the surer it is."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (count, 4))
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = raised / raised.sum(axis=1, keepdims=True)
    labels = np.array([random.choice(4, p=row) for row in probabilities])
    return logits, probabilities, labels


@pytest.mark.parametrize("seed", range(4))
def test_the_least_probability_is_the_lowest_that_has_the_precision(seed: int) -> None:
    logits, probabilities, labels = answers(150, seed)
    doubt = Doubt.measure(logits, probabilities, labels, None)
    assert doubt is not None
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for wanted in (0.5, 0.7, 0.8, 0.9, 0.95):
        fit = [p for p in top if right[top >= p].mean() >= wanted]
        least = doubt.least_probability(wanted)
        assert right[top >= least].mean() >= wanted
        assert (top >= least).sum() == (top >= min(fit)).sum()


def test_a_precision_that_the_model_cannot_give_is_refused() -> None:
    logits, probabilities, labels = answers(200)
    wrong = np.where(np.arange(200) % 2, labels, (probabilities.argmax(axis=1) + 1) % 4)
    doubt = Doubt.measure(logits, probabilities, wrong, None)
    assert doubt is not None
    with pytest.raises(UsageError, match="validation pictures"):
        doubt.least_probability(0.999)
    for nonsense in (0.0, 1.0, 99.0):
        with pytest.raises(UsageError):
            doubt.least_probability(nonsense)


def test_answers_that_are_all_right_are_all_kept_and_few_pictures_say_nothing() -> None:
    logits, probabilities, _ = answers(100)
    doubt = Doubt.measure(logits, probabilities, probabilities.argmax(axis=1), None)
    assert doubt is not None and doubt.least_probability(0.999) == 0.0
    assert Doubt.measure(logits[:20], probabilities[:20], np.zeros(20, int), None) is None


def test_many_errors_make_few_rows() -> None:
    logits, probabilities, labels = answers(20_000)
    doubt = Doubt.measure(logits, probabilities, labels, None)
    assert doubt is not None and len(doubt.rows) <= MOST_ROWS
    assert doubt.rows[-1][0] == 0.0 and doubt.rows[-1][2] == 1.0


@pytest.mark.parametrize("with_cosines", [True, False])
def test_one_in_a_hundred_validation_pictures_is_unlike(with_cosines: bool) -> None:
    logits, probabilities, labels = answers(2_000)
    cosines = np.random.default_rng(1).beta(9, 2, 2_000) if with_cosines else None
    doubt = Doubt.measure(logits, probabilities, labels, cosines)
    assert doubt is not None
    far = doubt.distance(logits, cosines) > 1
    assert abs(far.mean() - FALSE_ALARMS) <= 0.001
    assert doubt.distance(np.full((1, 4), -40.0), None if cosines is None else np.array([0.9]))[0] > 1
    if cosines is not None:
        assert doubt.distance(np.full((1, 4), 20.0), np.array([0.0]))[0] > 1


def test_energy_and_cosine_by_their_definition() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 5, (7, 3))
    assert energies(logits) == pytest.approx(np.log(np.exp(logits).sum(axis=1)))
    features, kept = random.normal(0, 1, (1_100, 6)), random.normal(0, 1, (50, 6))
    cosines = (features @ kept.T) / np.linalg.norm(features, axis=1)[:, None] / np.linalg.norm(kept, axis=1)
    assert nearest(features, unit(kept)) == pytest.approx(cosines.max(axis=1), abs=1e-5)
    assert nearest(np.zeros((1, 6)), unit(kept)) == pytest.approx([0.0])


def test_plain_data_and_what_strangers_write() -> None:
    logits, probabilities, labels = answers(100)
    doubt = Doubt.measure(logits, probabilities, labels, np.linspace(0.5, 1, 100))
    assert doubt is not None and Doubt.from_json(None) is None
    doubt = replace(doubt, features={"file": "weights/features.safetensors", "sha256": "0" * 64})
    data = doubt.to_json()
    assert Doubt.from_json(data) == doubt
    bad: list[Any] = [[], 7, {}, {**data, "precision": []}, {**data, "precision": [[2, 1, 1]]}]
    wrong_ends = {"energy": [1, 2], "cosine": ["a", 0], "common": 0, "features": {"file": 3, "sha256": "x"}}
    for name, value in [*wrong_ends.items(), ("energy", [float("nan"), 1])]:
        bad.append({**data, "unlike": {**data["unlike"], name: value}})
    for wrong in bad:
        with pytest.raises(DataError, match="doubt"):
            Doubt.from_json(wrong)
