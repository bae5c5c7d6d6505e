"""McNemar's test against exact numbers, and when runs cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from striate.errors import DataError
from striate.evaluation.comparison import Answered, compare_answers, mcnemar, read_predictions
from striate.report.words_zh import reason


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 20), (400, 600)])
def test_few_differences_are_tested_exactly(first: int, second: int) -> None:
    p, method = mcnemar(first, second)
    expected = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert method == "exact" and p == pytest.approx(expected)


def test_many_are_tested_by_chi_squared() -> None:
    p, method = mcnemar(700, 600)
    assert method == "chi-squared" and p == pytest.approx(chi2.sf(99**2 / 1300, 1))
    assert p == pytest.approx(binomtest(700, 1300, 0.5).pvalue, rel=0.02)


def answers(predictions: str) -> list[Answered]:
    return [Answered(i, f"digits#{i}", "abab"[i % 4], answer, 0.9) for i, answer in enumerate(predictions)]


def test_counts() -> None:
    found = compare_answers(answers("abaaabab"), answers("abbabbab"))
    counted = {name: found[name] for name in ("pictures", "both_right", "both_wrong", "only_first", "only_second")}
    assert counted == {"pictures": 8, "both_right": 5, "both_wrong": 1, "only_first": 2, "only_second": 0}
    assert found["p"] == 0.5


def test_other_pictures_or_labels_are_not_compared() -> None:
    one = answers("abab")
    for other, why in (
        (one[:3], "one was tested on 4 pictures, the other on 3"),
        ([replace(one[0], source="other"), *one[1:]], "they were tested on different pictures"),
        ([replace(one[0], label="b"), *one[1:]], "the same pictures had different labels"),
    ):
        with pytest.raises(DataError) as error:
            compare_answers(one, other)
        assert error.value.cause == why and reason(why) != why


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    with pytest.raises(DataError, match="is missing"):
        read_predictions(path)
    path.write_text("index,source\n1,a\n")
    with pytest.raises(DataError, match=r"predictions\.csv cannot be read"):
        read_predictions(path)


def test_the_test_holds_its_level() -> None:
    random = np.random.default_rng(0)
    p = [mcnemar(wins, 60 - wins)[0] for wins in random.binomial(60, 0.5, 2_000)]
    assert (np.array(p) < 0.05).mean() <= 0.05
