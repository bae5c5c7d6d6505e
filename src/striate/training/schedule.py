"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math
import sys

# The total number of steps of a run with --time, until they are counted.
UNKNOWN = sys.maxsize
# Until then a schedule stands still where it will be halfway through the first 3 %, which is when they are counted.
HELD = (15, 1_000)


def rate(
    step: int,
    total: int,
    *,
    schedule: str,
    peak: float,
    warmup: float = 0.0,
    steps_per_epoch: int = 1,
    step_epochs: int = 10,
    step_factor: float = 0.1,
) -> float:
    """Return the learning rate of step `step` of `total`, counted from 0: a pure function.

    `warmup`: share of all steps in which the rate rises linearly to `peak`. constant; step (times `step_factor` every
    `step_epochs` epochs); linear and cosine (to 0); one-cycle (warm-up of 0.3 unless given, then cosine to 0; Smith and
    Topin 2018, arXiv:1708.07120); triangular (warm-up of 0.2 unless given, then linear to 0). With a total that is
    UNKNOWN, what hangs on it is as at HELD.
    """
    if warmup == 0.0:
        warmup = {"one-cycle": 0.3, "triangular": 0.2}.get(schedule, 0.0)
    at, total = HELD if total == UNKNOWN else (step, total)
    rising = warmup * total
    if at < rising:
        return peak * (at + 1) / (rising + 1)
    progress = (at - rising) / max(1.0, total - rising)
    if schedule in ("cosine", "one-cycle"):
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule in ("linear", "triangular"):
        return peak * (1.0 - progress)
    if schedule == "step":
        return peak * step_factor ** (step // (steps_per_epoch * step_epochs))
    return peak


def fading_rate(step: int, end: int, *, peak: float) -> float:
    """Return a rate that falls linearly from `peak` at step 0 to 0 at step `end`, and stays there."""
    return peak * (1.0 - step / end) if step < end else 0.0
