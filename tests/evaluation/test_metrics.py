"""The numbers of an evaluation against scikit-learn, scipy and torch, and by property."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special, stats

from striate.errors import DataError, UsageError
from striate.evaluation import metrics

finite = st.floats(-50, 50, allow_nan=False, width=32)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits with many equal values among them, and labels."""
    samples, classes = draw(st.integers(1, 30)), draw(st.integers(2, 8))
    values = st.one_of(finite, st.sampled_from([-1.0, 0.0, 1.0]))
    logits = draw(arrays.arrays(np.float32, (samples, classes), elements=values))
    labels = draw(arrays.arrays(np.int64, samples, elements=st.integers(0, classes - 1)))
    return logits, labels


def random_answers(samples: int, classes: int, spread: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that lean to the label, wrong about one time in three."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, samples)
    logits = generator.normal(0, spread, (samples, classes)).astype(np.float32)
    logits[np.arange(samples), labels] += np.float32(spread * 1.5)
    return logits, labels


# -- probabilities ---------------------------------------------------------------------------------------------------


@given(answers(), st.floats(0.05, 20))
def test_probabilities_agree_with_scipy(pair: tuple[np.ndarray, np.ndarray], temperature: float) -> None:
    scaled = pair[0].astype(np.float64) / temperature
    np.testing.assert_allclose(
        metrics.probabilities(pair[0], "softmax", temperature), special.softmax(scaled, axis=1), rtol=1e-10, atol=1e-300
    )
    np.testing.assert_allclose(
        metrics.probabilities(pair[0], "sigmoid", temperature), special.expit(scaled), rtol=1e-10, atol=1e-300
    )


def test_probabilities_of_huge_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert metrics.probabilities(logits).tolist() == [[1.0, 0.0, 0.0]]
        assert metrics.probabilities(logits, "sigmoid").tolist() == [[1.0, 0.0, 0.5]]
        assert metrics.probabilities(logits[0], "sigmoid").shape == (3,)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        metrics.probabilities(np.zeros((1, 2)), "softmax", temperature)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="softmax, sigmoid"):
        metrics.probabilities(np.zeros((1, 2)), "tanh")
    with pytest.raises(UsageError, match="unknown loss 'hinge'"):
        metrics.loss(np.zeros((1, 2)), np.zeros(1, np.int64), "hinge")


# -- top-k -----------------------------------------------------------------------------------------------------------


@given(answers())
def test_top_1_counts_what_argmax_answers_and_more_guesses_never_count_less(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = pair
    assert metrics.top_k(logits, labels, 1) == int((logits.argmax(1) == labels).sum())
    counts = [metrics.top_k(logits, labels, k) for k in range(1, logits.shape[1] + 3)]
    assert counts == sorted(counts)
    assert counts[logits.shape[1] - 1 :] == [len(labels)] * 3


@given(answers(), st.integers(1, 8))
def test_top_k_is_the_stable_order_of_the_logits(pair: tuple[np.ndarray, np.ndarray], k: int) -> None:
    logits, labels = pair
    first_k = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    assert metrics.top_k(logits, labels, k) == sum(int(label in row) for label, row in zip(labels, first_k))


def test_top_k_agrees_with_scikit_learn() -> None:
    logits, labels = random_answers(500, 12)
    for k in (1, 3, 5):
        expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(12), normalize=False)
        assert metrics.top_k(logits, labels, k) == expected


def test_top_0_is_refused() -> None:
    with pytest.raises(UsageError, match="top-0"):
        metrics.top_k(np.zeros((1, 2)), np.zeros(1, np.int64), 0)


# -- Wilson ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "samples", "low", "high"),
    # table I of R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statist. Med. 17 (1998)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published_values(successes: int, samples: int, low: float, high: float) -> None:
    assert metrics.wilson(successes, samples) == pytest.approx((low, high), abs=5e-5)
    mirrored = metrics.wilson(samples - successes, samples)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(st.integers(1, 100_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_agrees_with_scipy_and_holds_the_fraction(samples: int, fraction: float, confidence: float) -> None:
    successes = round(samples * fraction)
    low, high = metrics.wilson(successes, samples, confidence)
    assert 0 <= low <= successes / samples <= high <= 1
    expected = stats.binomtest(successes, samples).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_refuses_what_cannot_be() -> None:
    with pytest.raises(DataError, match="zero samples"):
        metrics.wilson(0, 0)
    with pytest.raises(UsageError):
        metrics.wilson(11, 10)
    with pytest.raises(UsageError):
        metrics.wilson(1, 10, 1.0)


# -- confusion, precision, recall, F1 --------------------------------------------------------------------------------


@given(answers())
def test_confusion_and_per_class_agree_with_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = pair
    classes = logits.shape[1]
    predicted = metrics.predictions(logits)
    counts = metrics.confusion(labels, predicted, classes)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(classes)))
    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    table = metrics.per_class(counts)
    for key, column in zip(("precision", "recall", "f1", "samples"), expected):
        np.testing.assert_allclose(table[key], column, atol=1e-12)
    macro = sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert metrics.macro_f1(counts) == pytest.approx(macro, abs=1e-12)


def test_macro_f1_leaves_out_classes_that_occur_nowhere() -> None:
    counts = np.zeros((5, 5), np.int64)
    counts[0, 0], counts[1, 2] = 3, 1  # class 0 right; 1 is never right, 2 answered wrongly; 3 and 4 occur nowhere
    assert metrics.macro_f1(counts) == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="zero samples"):
        metrics.macro_f1(np.zeros((2, 2), np.int64))


# -- calibration -----------------------------------------------------------------------------------------------------


def guo(confidences: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """Equation 3 of Guo et al. 2017, bin by bin, as written there."""
    total, edges = 0.0, np.linspace(0, 1, bins + 1)
    for index in range(bins):
        inside = (confidences > edges[index]) & (confidences <= edges[index + 1])
        if index == 0:
            inside |= confidences == 0
        if inside.any():
            gap = abs(correct[inside].mean() - confidences[inside].mean())
            total += inside.sum() / len(confidences) * gap
    return float(total)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_is_the_papers_equation(pairs: list[tuple[float, bool]], bins: int) -> None:
    confidences, correct = np.array([p for p, _ in pairs]), np.array([c for _, c in pairs])
    value = metrics.expected_calibration_error(confidences, correct, bins)
    assert value == pytest.approx(guo(confidences, correct, bins), abs=1e-12)
    assert 0 <= value <= 1


def test_calibration_error_by_hand_and_refusals() -> None:
    confidences, correct = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True])
    # |0.5 − 0.9| and |1 − 0.6|, half the samples each
    assert metrics.expected_calibration_error(confidences, correct, 10) == pytest.approx(0.4)
    for wrong in (np.array([1.5]), np.array([math.nan]), np.array([-0.1])):
        with pytest.raises(DataError, match="0–1"):
            metrics.expected_calibration_error(wrong, np.array([True]))
    with pytest.raises(DataError, match="zero samples"):
        metrics.expected_calibration_error(np.zeros(0), np.zeros(0, bool))


# -- losses ----------------------------------------------------------------------------------------------------------


@given(answers())
def test_losses_agree_with_torch(pair: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = pair
    tensor, target = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).double()
    expected = {
        "cross-entropy": torch.nn.functional.cross_entropy(tensor, target),
        "binary-cross-entropy": torch.nn.functional.binary_cross_entropy_with_logits(tensor, one_hot),
        "mean-squared-error": torch.nn.functional.mse_loss(torch.sigmoid(tensor), one_hot),
    }
    for kind, value in expected.items():
        assert metrics.loss(logits, labels, kind) == pytest.approx(value.item(), rel=1e-9, abs=1e-12)


def test_losses_of_huge_logits_stay_finite() -> None:
    logits, labels = np.array([[1e6, -1e6]]), np.array([1])
    with np.errstate(over="raise", invalid="raise"):
        assert metrics.loss(logits, labels) == 2e6
        assert metrics.loss(logits, labels, "binary-cross-entropy") == 1e6
        assert metrics.loss(logits, labels, "mean-squared-error") == 1.0


# -- temperature -----------------------------------------------------------------------------------------------------


def drawn_from_their_logits(samples: int, classes: int, output: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the softmax of the logits: T = 1 is the truth, but for the noise of the draw."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (samples, classes))
    labels = (special.softmax(logits, axis=1).cumsum(axis=1) > generator.random((samples, 1))).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_temperature_undoes_a_factor_on_the_logits(factor: float) -> None:
    logits, labels = drawn_from_their_logits(20_000, 5, "softmax")
    assert metrics.fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("spread", [0.3, 1.0, 6.0])
def test_temperature_is_the_best_of_a_fine_grid(output: Any, spread: float) -> None:
    logits, labels = random_answers(400, 6, spread)
    kind: Any = "cross-entropy" if output == "softmax" else "binary-cross-entropy"
    fitted = metrics.fit_temperature(logits, labels, output)
    assert 0.05 <= fitted <= 20
    grid = np.geomspace(0.05, 20, 400)
    best = min(metrics.loss(logits / value, labels, kind) for value in grid)
    assert metrics.loss(logits / fitted, labels, kind) <= best + 1e-9


@given(st.integers(0, 1000), st.floats(0.01, 30), st.sampled_from(["softmax", "sigmoid"]))
def test_temperature_is_never_worse_than_one(seed: int, spread: float, output: Any) -> None:
    generator = np.random.default_rng(seed)
    logits, labels = generator.normal(0, spread, (120, 4)), generator.integers(0, 4, 120)
    kind: Any = "cross-entropy" if output == "softmax" else "binary-cross-entropy"
    fitted = metrics.fit_temperature(logits, labels, output)
    assert metrics.loss(logits / fitted, labels, kind) <= metrics.loss(logits, labels, kind) + 1e-12


def test_temperature_stays_one_where_nothing_can_be_learnt() -> None:
    logits, labels = random_answers(99, 4, 6.0)
    assert metrics.fit_temperature(logits, labels) == 1.0  # too few samples
    sure = np.eye(4)[np.arange(400) % 4] * 2 - 1
    assert metrics.fit_temperature(sure, np.arange(400) % 4) == 1.0  # all right: no best temperature
    assert metrics.fit_temperature(sure, np.arange(400) % 4, "sigmoid") == 1.0
    assert metrics.fit_temperature(np.zeros((400, 4)), np.arange(400) % 4) == 1.0  # no temperature changes anything


# -- the record ------------------------------------------------------------------------------------------------------


def record(logits: np.ndarray, labels: np.ndarray, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"data": "digits", "split": "test", "weights": "best"}
    settings["classes"] = [f"class {index}" for index in range(logits.shape[1])]
    return metrics.evaluation_record(logits=logits, labels=labels, **(settings | changes))


def test_record_holds_the_designs_keys_and_survives_json() -> None:
    logits, labels = random_answers(300, 10)
    written = record(logits, labels, temperature=2.0)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert list(written) == [
        *("format", "data", "split", "weights", "samples", "top1", "top5", "loss", "macro_f1", "ece"),
        *("per_class", "confusion"),
    ]
    assert written["format"] == 1 and written["samples"] == 300
    assert written["top1"]["value"] == sklearn.metrics.accuracy_score(labels, logits.argmax(1))
    assert written["top1"]["low"] < written["top1"]["value"] < written["top1"]["high"]
    assert written["top5"] == metrics.top_k(logits, labels, 5) / 300
    assert written["per_class"][3]["class"] == "class 3"
    assert written["per_class"][3]["samples"] == sum(written["confusion"][3]) == int((labels == 3).sum())


def test_record_temperature_changes_the_calibration_error_alone() -> None:
    logits, labels = random_answers(300, 10, 8.0)
    raw, cooled = record(logits, labels), record(logits, labels, temperature=4.0)
    assert raw.pop("ece") != cooled.pop("ece")
    assert raw == cooled
    confidences = special.softmax(logits.astype(np.float64) / 4, axis=1).max(axis=1)
    expected = guo(confidences, logits.argmax(1) == labels, 15)
    assert record(logits, labels, temperature=4.0)["ece"] == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "is_null"), [(2, True), (5, True), (6, False)])
def test_record_top5_is_null_below_six_classes(classes: int, is_null: bool) -> None:
    logits, labels = random_answers(50, classes)
    assert (record(logits, labels)["top5"] is None) is is_null


def test_record_of_a_sigmoid_net() -> None:
    logits, labels = random_answers(200, 4)
    written = record(logits, labels, output="sigmoid", loss_kind="binary-cross-entropy")
    assert written["loss"] == metrics.loss(logits, labels, "binary-cross-entropy")
    assert written["ece"] == pytest.approx(guo(special.expit(logits).max(1), logits.argmax(1) == labels, 15), abs=1e-6)


# -- bad input -------------------------------------------------------------------------------------------------------


def test_zero_samples_are_refused_everywhere() -> None:
    logits, labels = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    for call in (
        lambda: metrics.top_k(logits, labels, 1),
        lambda: metrics.loss(logits, labels),
        lambda: metrics.fit_temperature(logits, labels),
        lambda: metrics.confusion(labels, labels, 3),
        lambda: record(logits, labels),
    ):
        with pytest.raises(DataError, match="zero samples"):
            call()


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_named(label: int) -> None:
    with pytest.raises(DataError, match=f"label {label} of sample 1 is out of range"):
        metrics.loss(np.zeros((2, 3)), np.array([0, label]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits = np.zeros((4, 3))
    logits[2, 1] = value
    with pytest.raises(DataError, match=r"1 of 4 samples[\s\S]*sample 2"):
        record(logits, np.zeros(4, np.int64))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="2 rows of logits but 3 labels"):
        metrics.loss(np.zeros((2, 3)), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="samples, classes"):
        metrics.loss(np.zeros(3), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="whole numbers"):
        metrics.loss(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(DataError, match="2 class names but 3 logits"):
        record(np.zeros((2, 3)), np.zeros(2, np.int64), classes=["a", "b"])
    with pytest.raises(DataError, match="2 labels but 1 predictions"):
        metrics.confusion(np.zeros(2, np.int64), np.zeros(1, np.int64), 3)
