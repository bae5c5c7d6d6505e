"""How far a net's confidence can be believed: the bins of a reliability diagram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.evaluation.metrics import expected_calibration_error, predictions
from striate.predictor.probabilities import probabilities


def reliability(logits: NDArray[Any], labels: NDArray[Any], output: str, temperature: float, bins: int = 15) -> dict:
    """Return {ece, bins} of the answers that logits (N, K) give at a temperature.

    A bin is {low, high, count, confidence, accuracy}: the answers whose confidence lies in (low, high], their mean
    confidence and the share that is right; empty bins are left out. The bins are those of
    `expected_calibration_error`.
    """
    answers = predictions(logits)
    confidences = probabilities(logits, output, temperature)[np.arange(len(labels)), answers]
    right = answers == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.searchsorted(edges[1:-1], confidences, side="left")
    found = [
        {
            "low": float(edges[index]),
            "high": float(edges[index + 1]),
            "count": int((which == index).sum()),
            "confidence": float(confidences[which == index].mean()),
            "accuracy": float(right[which == index].mean()),
        }
        for index in range(bins)
        if (which == index).any()
    ]
    return {"ece": expected_calibration_error(confidences, right, bins), "bins": found}
