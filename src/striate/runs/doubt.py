"""Doubt: from which probability on a model's answers are right often enough, and which pictures are unlike its own.

Both are measured on the validation pictures at the end of training and stored in model.json. What a picture is compared
with, features of train pictures, is a file beside the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError, UsageError

Numbers = NDArray[Any]

#: The share of validation pictures that are flagged as unlike the training data.
FALSE_ALARMS = 0.01
MOST_ROWS = 200
LEAST_PICTURES = 50
#: Train pictures whose features are kept: so many, and so many numbers in all, which is 8 MB.
MOST_KEPT, MOST_NUMBERS = 5_000, 1 << 21


@dataclass(frozen=True)
class Scale:
    """Turns a measure into a distance: 0 at its median, 1 where FALSE_ALARMS of the validation pictures begin."""

    typical: float
    limit: float

    @classmethod
    def of(cls, values: Numbers) -> Scale:
        typical, limit = short(np.median(values)), short(np.quantile(values, FALSE_ALARMS, method="lower"))
        return cls(typical, min(limit, short(typical - 1e-6)))

    def distance(self, values: Numbers) -> Numbers:
        return (self.typical - np.asarray(values, np.float64)) / (self.typical - self.limit)


@dataclass(frozen=True)
class Doubt:
    """`pictures` of the validation; `rows` of (probability, precision, share answered), the surest first.

    A row says that of the answers with at least that probability, which are that share of all, so many are right. Rows
    that a lower probability beats are left out.

    A picture is unlike the training data where one of two measures says so: its energy, the log of the sum of
    exp(logits) (Liu et al. 2020, arXiv:2010.03759), or the cosine between what its last layer takes and the nearest of
    the train pictures' (Sun et al. 2022, arXiv:2204.06507): `kept`, from the file `features` {file, sha256}. Each
    fails for some nets; docs/drawing.md has the figures, also of other measures. `common` divides the larger of both
    distances, so that FALSE_ALARMS of the validation pictures are above 1.
    """

    pictures: int
    rows: tuple[tuple[float, float, float], ...]
    energy: Scale
    cosine: Scale | None
    common: float
    features: Mapping[str, str] | None = None
    kept: Numbers | None = field(default=None, repr=False, compare=False)

    @classmethod
    def measure(cls, logits: Numbers, probabilities: Numbers, labels: Numbers, cosines: Numbers | None) -> Doubt | None:
        """Measure it on validation pictures: logits and probabilities (N, K), labels (N,), `nearest` cosines (N,).

        None of too few pictures. `cosines` is None for a net whose last layer takes no features.
        """
        if len(labels) < LEAST_PICTURES:
            return None
        best = logits.argmax(axis=1)
        rows = _rows(probabilities[np.arange(len(best)), best], best == labels)
        cosine = None if cosines is None else Scale.of(cosines)
        found = cls(len(labels), rows, Scale.of(energies(logits)), cosine, 1.0)
        largest = found.distance(logits, cosines)
        return replace(found, common=max(short(np.quantile(largest, 1 - FALSE_ALARMS, method="higher")), 1e-6))

    def least_probability(self, wanted: float) -> float:
        """Return the lowest probability from which on answers have the wanted precision (0–1) on validation.

        Raises UsageError where none has.
        """
        if not 0 < wanted < 1:
            raise UsageError(f"a precision of {wanted} cannot be wanted", "it is a share of the answers", "0.99 is one")
        fit = [probability for probability, precision, _ in self.rows if precision >= wanted]
        if not fit:
            most = max(precision for _, precision, _ in self.rows)
            raise UsageError(
                f"no answers of this model are right {wanted:.2%} of the time",
                f"on its {self.pictures:,} validation pictures the surest were right {most:.2%} of the time",
                f"use --reject {math.floor(most * 1000) / 1000:g} or less, or train a better model",
            )
        return min(fit)

    def distance(self, logits: Numbers, cosines: Numbers | None) -> Numbers:
        """Return how far the pictures of logits (N, K) are from the training data: 0 is typical, above 1 is unlike."""
        found = self.energy.distance(energies(logits))
        if self.cosine is not None and cosines is not None:
            found = np.maximum(found, self.cosine.distance(cosines))
        return np.maximum(found, 0.0) / self.common

    def to_json(self) -> dict[str, Any]:
        """Return plain data for model.json."""
        return {
            "pictures": self.pictures,
            "precision": [list(row) for row in self.rows],
            "unlike": {
                "energy": [self.energy.typical, self.energy.limit],
                "cosine": None if self.cosine is None else [self.cosine.typical, self.cosine.limit],
                "common": self.common,
                "false_alarms": FALSE_ALARMS,
                "features": None if self.features is None else dict(self.features),
            },
        }

    @classmethod
    def from_json(cls, data: Any) -> Doubt | None:
        """Build it from what `to_json` gave; None of None. Raises DataError."""
        if data is None:
            return None
        try:
            unlike, features = data["unlike"], data["unlike"]["features"]
            found = cls(
                int(data["pictures"]),
                tuple((float(p), float(precision), float(share)) for p, precision, share in data["precision"]),
                Scale(*map(float, unlike["energy"])),
                None if unlike["cosine"] is None else Scale(*map(float, unlike["cosine"])),
                float(unlike["common"]),
                None if features is None else {"file": features["file"], "sha256": features["sha256"]},
            )
            problem = found._problem()
            if problem:
                raise ValueError(problem)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            cause = f"{type(error).__name__}: {error}"[:200]
            raise DataError("doubt is not what this version of striate writes", cause) from error
        return found

    def _problem(self) -> str:
        if not 1 <= len(self.rows) <= MOST_ROWS or not all(0 <= part <= 1 for row in self.rows for part in row):
            return "its rows are no shares from 0 to 1"
        for scale in (self.energy, self.cosine):
            if scale is not None and not -math.inf < scale.limit < scale.typical < math.inf:
                return "the limit of what is unlike is not below what is typical"
        if not 0 < self.common < math.inf:
            return f"common is {self.common}"
        if self.features is not None and not all(isinstance(value, str) for value in self.features.values()):
            return "features do not name a file and its sha256"
        return ""


def short(number: Any) -> float:
    """Return a number with 12 digits: any other digit then is another number, so that model.json's digest finds it."""
    return float(f"{float(number):.12g}")


def energies(logits: Numbers) -> Numbers:
    """Return the log of the sum of exp(logits), float64 (N,), of logits (N, K)."""
    exact = np.asarray(logits, np.float64)
    most = exact.max(axis=1, keepdims=True)
    return most[:, 0] + np.log(np.exp(exact - most).sum(axis=1))


def unit(features: Numbers) -> Numbers:
    """Return features (N, D) as float32 of length 1; those of length 0 stay so."""
    exact = np.asarray(features, np.float32)
    return exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), np.float32(1e-12))


def nearest(features: Numbers, kept: Numbers) -> Numbers:
    """Return for features (N, D) the cosine of the nearest of `kept` (n, D), which have length 1; float32 (N,)."""
    found = [(part @ kept.T).max(axis=1) for part in np.array_split(unit(features), -(-len(features) // 500))]
    return np.concatenate(found)


def _rows(probabilities: Numbers, right: Numbers) -> tuple[tuple[float, float, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    sorted_p, count = probabilities[order], len(order)
    precision = right[order].cumsum() / np.arange(1, count + 1)
    ends = np.flatnonzero(np.append(sorted_p[1:] != sorted_p[:-1], True))  # equal answers are taken together
    later = np.maximum.accumulate(precision[ends][::-1])[::-1]
    beaten = np.append(precision[ends][:-1] <= later[1:], False)
    kept = ends[~beaten]
    if len(kept) > MOST_ROWS:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, MOST_ROWS).round().astype(int))]
    last = count - 1  # all answers: no probability is too low
    lowest = np.floor(sorted_p * 1e12) / 1e12  # never above the answer it stands for
    return tuple((short(lowest[k]) if k < last else 0.0, short(precision[k]), short((k + 1) / count)) for k in kept)
