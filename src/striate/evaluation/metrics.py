"""The numbers of an evaluation: pure functions of logits and labels.

Everything here takes numpy arrays (logits float32 or float64 `(N, K)`, labels int64 `(N,)`), computes in float64 and
touches no file and no net. Every function raises DataError for zero samples, for labels outside `0 … K − 1` and for
logits that are not finite: a number made from those would look like a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError, UsageError
from striate.predictor.probabilities import OUTPUTS, probabilities

Array = NDArray[Any]

LOSSES = ("cross-entropy", "binary-cross-entropy", "mean-squared-error")
TOP5_NEEDS_CLASSES = 6  # top-5 of five classes is always right and says nothing
TEMPERATURE_NEEDS_SAMPLES = 100  # with fewer the fitted number is mostly noise
TEMPERATURE_LIMITS = (0.05, 20.0)


def predictions(logits: Array) -> NDArray[np.int64]:
    """Return the class with the highest logit, `(N, K)` → int64 `(N,)`; among equals the one with the lowest number."""
    return np.asarray(logits).argmax(axis=-1).astype(np.int64)


def top_k(logits: Array, labels: Array, k: int) -> int:
    """Count the samples whose label is among the k highest logits.

    Classes with equal logits are ranked by their number, lowest first, so that `top_k(…, 1)` counts exactly the
    samples where `predictions` equals the label. With k ≥ K every sample counts. Raises UsageError for k < 1.
    """
    if k < 1:
        raise UsageError(f"top-{k} cannot be counted", "k is the number of guesses", "give k = 1 or more")
    logits, labels = _checked(logits, labels)
    own = logits[np.arange(len(labels)), labels][:, None]  # (N, 1)
    lower_number = np.arange(logits.shape[1])[None, :] < labels[:, None]  # (N, K)
    rank = ((logits > own) | ((logits == own) & lower_number)).sum(axis=1)  # (N,)
    return int((rank < k).sum())


def wilson(successes: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval (low, high) of a fraction, both in 0–1.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    Raises DataError for zero samples, UsageError for counts or a confidence that cannot be.
    """
    if samples == 0:
        raise _no_samples()
    if not 0 <= successes <= samples:
        raise UsageError(f"{successes} successes of {samples} samples cannot be", "", "successes lie in 0 … samples")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence} cannot be", "it is a fraction between 0 and 1", "0.95 is usual")
    z_squared = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    fraction = successes / samples
    centre = fraction + z_squared / (2 * samples)
    half = math.sqrt(z_squared * (fraction * (1 - fraction) / samples + z_squared / (4 * samples**2)))
    scale = 1 + z_squared / samples
    # The formula gives exactly 0 and 1 at the ends; rounding would leave 1e-18 there.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == samples else min(1.0, (centre + half) / scale)
    return low, high


def confusion(labels: Array, predictions: Array, num_classes: int) -> NDArray[np.int64]:
    """Count the samples of each (true, predicted) pair: int64 `(K, K)`, rows are the truth, columns the answer."""
    labels = _checked_labels(labels, num_classes)
    predictions = _checked_labels(predictions, num_classes, "prediction")
    if len(labels) != len(predictions):
        raise DataError(f"{len(labels)} labels but {len(predictions)} predictions", "one of each is needed per sample")
    pairs = np.bincount(labels * num_classes + predictions, minlength=num_classes * num_classes)
    return pairs.reshape(num_classes, num_classes).astype(np.int64)


def per_class(confusion: Array) -> dict[str, Array]:
    """Return precision, recall, f1 (float64 `(K,)`) and samples (int64 `(K,)`) from a confusion matrix.

    A value whose denominator is zero is 0, as scikit-learn's `zero_division=0`.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    right = counts.diagonal().astype(np.float64)
    samples, answered = counts.sum(axis=1), counts.sum(axis=0)
    return {
        "precision": _divide(right, answered),
        "recall": _divide(right, samples),
        "f1": _divide(2 * right, samples + answered),
        "samples": samples,
    }


def macro_f1(confusion: Array) -> float:
    """Return the plain mean of F1 over the classes that occur in the labels or in the predictions.

    A class that was neither shown nor answered has no F1 and is left out: scikit-learn's
    `f1_score(labels, predictions, average="macro", zero_division=0)` without its `labels` argument.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    occurs = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    if not occurs.any():
        raise _no_samples()
    return float(per_class(counts)["f1"][occurs].mean())


def expected_calibration_error(confidences: Array, correct: Array, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the samples in each bin.

    confidences float `(N,)` in 0–1, correct bool `(N,)`. Bins have equal width and hold their upper edge; 0 lies in
    the first. Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    confidences = np.asarray(confidences, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.float64)
    if bins < 1:
        raise UsageError(f"{bins} bins cannot be", "", "15 is usual")
    if confidences.size == 0:
        raise _no_samples()
    if confidences.shape != correct.shape or confidences.ndim != 1:
        raise DataError(f"confidences have shape {confidences.shape}, correct {correct.shape}", "both are (N,)")
    if not (np.isfinite(confidences).all() and confidences.min() >= 0 and confidences.max() <= 1 + 1e-9):
        raise DataError("a confidence lies outside 0–1", "confidences are probabilities")
    inner_edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    which = np.searchsorted(inner_edges, confidences, side="left")
    gaps = np.bincount(which, correct, minlength=bins) - np.bincount(which, confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def loss(logits: Array, labels: Array, kind: str = "cross-entropy") -> float:
    """Return the mean loss per sample of raw logits (no temperature, no label smoothing).

    cross-entropy: minus the log of the label's softmax, as torch's `cross_entropy`. binary-cross-entropy: of each
    logit's sigmoid against one-hot, mean over samples and classes, as torch's `BCEWithLogitsLoss`.
    mean-squared-error: of the sigmoids against one-hot, mean over samples and classes.
    """
    _one_of("loss", kind, LOSSES)
    logits, labels = _checked(logits, labels)
    if kind == "mean-squared-error":
        off = probabilities(logits, "sigmoid")
        off[np.arange(len(labels)), labels] -= 1.0
        return float(np.square(off).mean())
    return _negative_log_likelihood(logits, labels, "softmax" if kind == "cross-entropy" else "sigmoid")


def fit_temperature(logits: Array, labels: Array, output: str = "softmax") -> float:
    """Return the temperature within 0.05–20 that gives the labels the highest likelihood.

    Golden-section search in log T, to a ten-thousandth: the negative log likelihood is convex in 1/T, so it has one
    valley. Never worse than T = 1. Returns 1.0 for fewer than 100 samples, and when every answer is right: the
    likelihood then has no best temperature, it only rises as T falls to zero.
    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    _one_of("output", output, OUTPUTS)
    logits, labels = _checked(logits, labels)
    if len(labels) < TEMPERATURE_NEEDS_SAMPLES or _separated(logits, labels, output):
        return 1.0

    def cost(log_temperature: float) -> float:
        return _negative_log_likelihood(logits / math.exp(log_temperature), labels, output)

    low, high = (math.log(limit) for limit in TEMPERATURE_LIMITS)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    cost_left, cost_right = cost(left), cost(right)
    while high - low > 1e-4:
        if cost_left <= cost_right:
            high, right, cost_right = right, left, cost_left
            left = high - golden * (high - low)
            cost_left = cost(left)
        else:
            low, left, cost_left = left, right, cost_right
            right = low + golden * (high - low)
            cost_right = cost(right)
    best = (low + high) / 2
    return math.exp(best) if cost(best) < cost(0.0) else 1.0


def evaluation_record(
    *,
    data: str,
    split: str,
    weights: str,
    logits: Array,
    labels: Array,
    classes: Sequence[str],
    output: str = "softmax",
    loss_kind: str = "cross-entropy",
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Return everything evaluation.json holds (format 1) as plain Python values; fractions, not percent.

    top1 carries its 95 % Wilson interval; top5 is null with fewer than six classes; loss is of raw logits; ece (15
    bins) is of the answered class's probability after the temperature; confusion rows are the truth. A loss too large
    for a float64 is null.
    """
    logits, labels = _checked(logits, labels)
    num_classes = logits.shape[1]
    if len(classes) != num_classes:
        raise DataError(f"{len(classes)} class names but {num_classes} logits", "each class has one name and one logit")
    answers = predictions(logits)
    correct = answers == labels
    confidences = probabilities(logits, output, temperature)[np.arange(len(labels)), answers]
    counts = confusion(labels, answers, num_classes)
    table = per_class(counts)
    low, high = wilson(int(correct.sum()), len(labels))
    mean_loss = loss(logits, labels, loss_kind)
    return {
        "format": 1,
        "data": data,
        "split": split,
        "weights": weights,
        "samples": len(labels),
        "top1": {"value": float(correct.mean()), "low": low, "high": high},
        "top5": top_k(logits, labels, 5) / len(labels) if num_classes >= TOP5_NEEDS_CLASSES else None,
        "loss": mean_loss if math.isfinite(mean_loss) else None,
        "macro_f1": macro_f1(counts),
        "ece": expected_calibration_error(confidences, correct),
        "per_class": [
            {
                "class": str(name),
                "samples": int(table["samples"][index]),
                "precision": float(table["precision"][index]),
                "recall": float(table["recall"][index]),
                "f1": float(table["f1"][index]),
            }
            for index, name in enumerate(classes)
        ],
        "confusion": counts.tolist(),
    }


def _negative_log_likelihood(logits: Array, labels: Array, output: str) -> float:
    rows = np.arange(len(labels))
    if output == "sigmoid":
        # log(1 + e^x) for the wrong classes, log(1 + e^-x) for the right one: no difference of large numbers
        away = logits.copy()
        away[rows, labels] *= -1.0
        return float(np.logaddexp(0.0, away).mean())
    away = logits - logits[rows, labels][:, None]  # the label's own entry is exactly 0
    highest = away.max(axis=1)
    return float((highest + np.log(np.exp(away - highest[:, None]).sum(axis=1))).mean())


def _separated(logits: Array, labels: Array, output: str) -> bool:
    rows = np.arange(len(labels))
    if output == "sigmoid":
        positive = np.zeros(logits.shape, dtype=bool)
        positive[rows, labels] = True
        return bool(np.where(positive, logits > 0, logits < 0).all())
    return bool((logits.max(axis=1) == logits[rows, labels]).all())


def _checked(logits: Array, labels: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return logits as float64 `(N, K)` and labels as int64 `(N,)`, or raise DataError saying what is wrong."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2:
        raise DataError(f"logits have shape {logits.shape}", "they are (samples, classes)")
    labels = _checked_labels(labels, logits.shape[1])
    if len(logits) != len(labels):
        raise DataError(f"{len(logits)} rows of logits but {len(labels)} labels", "one of each is needed per sample")
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise DataError(
            f"the net's answer is not finite for {int((~finite).sum())} of {len(labels)} samples",
            f"sample {int(np.argmin(finite))} is the first",
            "use weights saved before the loss became non-finite",
        )
    return logits, labels


def _checked_labels(labels: Array, num_classes: int, noun: str = "label") -> NDArray[np.int64]:
    labels = np.asarray(labels)
    if labels.size == 0:
        raise _no_samples()
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{noun}s are {labels.dtype} of shape {labels.shape}", "they are whole numbers, one per sample")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        index = int(np.argmax(outside))
        raise DataError(
            f"{noun} {int(labels[index])} of sample {index} is out of range",
            f"with {num_classes} classes a {noun} lies in 0 … {num_classes - 1}",
        )
    return labels.astype(np.int64)


def _divide(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros(len(above), dtype=np.float64), where=below > 0)


def _no_samples() -> DataError:
    return DataError("there are zero samples to evaluate", "the split is empty", "choose another split or range")


def _one_of(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(f"unknown {kind} {name!r}", "known: " + ", ".join(known))
