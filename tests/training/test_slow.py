"""Whole trainings with the default recipes; marked slow and run by .ci/run alone."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import striate

pytestmark = pytest.mark.slow


def test_the_default_digits_recipe_over_three_seeds(tmp_path: Path) -> None:
    runs = [striate.train("digits", seed=seed, quiet=True, out=tmp_path / str(seed)) for seed in range(3)]
    assert statistics.mean(run.evaluation["top1"]["value"] for run in runs) > 0.94


def test_a_third_of_mnist_in_two_epochs(data_root: Path, tmp_path: Path) -> None:
    run = striate.train("mnist", data_root=data_root, epochs=2, train_range="0:20000", quiet=True, out=tmp_path / "run")
    assert run.evaluation["samples"] == 10_000 and run.evaluation["top1"]["value"] > 0.97
