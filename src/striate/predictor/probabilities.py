"""From logits to probabilities: the one place where that is done; numpy alone, so it needs no torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import UsageError

OUTPUTS = ("softmax", "sigmoid")


def probabilities(logits: NDArray[Any], output: str = "softmax", temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn logits into probabilities, after dividing them by the temperature.

    logits `(N, K)` or `(K,)` → float64 of the same shape. Softmax rows sum to 1; sigmoid entries each stand alone.
    Raises UsageError for an unknown output or a temperature that is not above zero.
    """
    if output not in OUTPUTS:
        raise UsageError(f"unknown output {output!r}", "known: " + ", ".join(OUTPUTS))
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"temperature {temperature} cannot be used", "it divides the logits", "give a number above 0")
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    if output == "sigmoid":
        # exp is only ever taken of a number that is not above zero, so it cannot overflow
        small = np.exp(-np.abs(scaled))
        return np.where(scaled >= 0, 1.0, small) / (1.0 + small)
    raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
