"""Two nets on the same test pictures: who is right where the other is wrong, and whether that could be chance."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.errors import DataError

EXACT_UP_TO = 1_000  # pictures on which two nets differ; beyond, the chi-squared distribution is the same to 3 digits


@dataclass(frozen=True)
class Answered:
    """One row of predictions.csv: a test picture, its label, and what a net answered with which probability."""

    index: int
    source: str
    label: str
    prediction: str
    probability: float

    @property
    def is_right(self) -> bool:
        """Whether the answer is the label."""
        return self.prediction == self.label


def read_predictions(path: Path) -> list[Answered]:
    """Read predictions.csv. Raises DataError naming the file where it is missing or damaged."""
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        return [
            Answered(int(row["index"]), row["source"], row["label"], row["prediction"], float(row["probability"]))
            for row in rows
        ]
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "the run was not tested", "let it finish: striate resume") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read", str(error), "restore it, or train again") from error


def mcnemar(only_first: int, only_second: int) -> tuple[float, str]:
    """Return the two-sided p-value of McNemar's test, and how it was computed: `exact` or `chi-squared`.

    Of the pictures on which just one of two nets is right, `only_first` are the first's. Under equal nets each is a
    coin's throw: exact binomial for up to 1,000 of them, else chi-squared with continuity correction. 1 for none.
    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12
    (1947); A. Edwards, Psychometrika 13 (1948), for the correction.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    if count <= EXACT_UP_TO:
        tail = sum(math.comb(count, k) for k in range(fewer + 1))
        return (min(1.0, tail / 2 ** (count - 1)) if count else 1.0), "exact"
    statistic = (abs(only_first - only_second) - 1) ** 2 / count
    return math.erfc(math.sqrt(statistic / 2)), "chi-squared"


def compare_answers(first: Sequence[Answered], second: Sequence[Answered]) -> dict[str, Any]:
    """Return how two nets answer the same pictures: counts, McNemar's test, and where they differ.

    {pictures, both_right, both_wrong, only_first, only_second, p, method}. Raises DataError where the pictures or their
    labels are not the same: then nothing can be compared picture by picture.
    """
    problem = _why_not(first, second)
    if problem:
        raise DataError("the runs cannot be compared picture by picture", problem)
    pairs = [(one.is_right, other.is_right) for one, other in zip(first, second, strict=True)]
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    p, method = mcnemar(only_first, only_second)
    return {
        "pictures": len(pairs),
        "both_right": pairs.count((True, True)),
        "both_wrong": pairs.count((False, False)),
        "only_first": only_first,
        "only_second": only_second,
        "p": p,
        "method": method,
    }


def _why_not(first: Sequence[Answered], second: Sequence[Answered]) -> str:
    if len(first) != len(second):
        return f"one was tested on {len(first):,} pictures, the other on {len(second):,}"
    if any((one.index, one.source) != (other.index, other.source) for one, other in zip(first, second, strict=True)):
        return "they were tested on different pictures"
    if any(one.label != other.label for one, other in zip(first, second, strict=True)):
        return "the same pictures had different labels"
    return ""
