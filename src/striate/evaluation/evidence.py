"""What the rules of diagnosis.py go by and what they give: a run's record of itself, and one thing found in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]

STUCK_SKILL = 0.1  # skill: 0 for always answering the commonest class, 1 for no mistake


@dataclass(frozen=True)
class Diagnosis:
    """One thing that a rule found.

    `numbers` are those the rule went by. `what` and `what_zh`: a sentence each. `verb` and `flags`: what to try next,
    `striate train` with these settings changed, `resume` or `check`. `epoch`: when it was seen; `gone`: the epoch at
    whose end it was no longer there.
    """

    code: str
    what: str
    what_zh: str
    numbers: Mapping[str, float]
    verb: str = "train"
    flags: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    gone: int | None = None


@dataclass(frozen=True)
class Evidence:
    """What a run recorded of itself. Shares and accuracies are fractions.

    `epochs`: the rows of results.csv; `health`: what health.json measured; `step_losses`: of steps.csv, needed only for
    runs of a few epochs. `commonest`: the share of the commonest class among the train pictures; `validated`: number of
    validation pictures. `finished`: trained to its end; `whole`: epochs it is to have; `broke`: why it failed, where
    the loss left the finite numbers. `test`, `train_again`: {value, low, high}, the second measured after training.
    `copies`: test pictures that are also train pictures, of `tested`; `conflicts`: pictures with two labels.
    """

    epochs: Sequence[Row]
    classes: int
    commonest: float
    settings: Mapping[str, Any]
    health: Sequence[Row] = ()
    step_losses: Sequence[float] = ()
    trained: int = 0
    validated: int = 0
    finished: bool = False
    whole: int | None = None
    broke: str = ""
    test: Mapping[str, float] | None = None
    tested: int = 0
    train_again: Mapping[str, float] | None = None
    copies: int = 0
    conflicts: int = 0

    def skill(self, accuracy: float) -> float:
        """Return how far an accuracy is from that of the commonest class (0) to that of no mistake (1)."""
        return (accuracy - self.commonest) / max(1e-9, 1 - self.commonest)

    @property
    def chance_loss(self) -> float:
        """The loss of a net that answers each class alike: ln K for cross-entropy."""
        return chance_loss(str(self.settings["loss"]), self.classes)

    @property
    def last(self) -> Row:
        """The row of the newest epoch."""
        return self.epochs[-1]

    @property
    def is_late(self) -> bool:
        """Whether at least half of the training is over: what is slow at first may only be warming up."""
        return self.finished or (self.whole is not None and 2 * self.last["epoch"] > self.whole)


def chance_loss(loss: str, classes: int) -> float:
    """Return the mean loss of a net that gives each of K classes the probability 1/K."""
    share = 1 / classes
    if loss == "cross-entropy":
        return math.log(classes)
    if loss == "binary-cross-entropy":
        return -(share * math.log(share) + (1 - share) * math.log1p(-share)) if classes > 1 else 0.0
    return share * (1 - share)


def is_stuck(evidence: Evidence, row: Row) -> bool:
    """Say whether the net has learned next to nothing by this epoch."""
    return evidence.skill(row["train_accuracy"]) < STUCK_SKILL


def other_rate(evidence: Evidence, times: float) -> dict[str, str]:
    """Return the flag for so many times the learning rate."""
    return {"lr": f"{rate_of(evidence) * times:.2g}"}


def rate_of(evidence: Evidence) -> float:
    """Return the run's learning rate."""
    return float(evidence.settings["lr"])


def percent(fraction: float) -> str:
    """Return 0.9876 as 98.8 %."""
    return f"{100 * fraction:.1f} %"
