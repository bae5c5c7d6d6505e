"""`striate export`: what is printed, the exit code, and what the other verbs make of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from striate import shipping
from striate.exporting import onnx as exporting
from striate.exporting import parity


@pytest.fixture(autouse=True)
def few_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "ROUNDS", 3)


def test_to_onnx(striate: Any, digits_run: Path) -> None:
    outcome = striate("export", str(digits_run), "--out", "m.onnx")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "proved on 153 validation pictures of digits, against torch"
    assert any(line.split() == ["answers", "that", "agree", "100.00", "%"] for line in lines)
    assert lines[-2].startswith("saved  m.onnx, ") and lines[-1] == "next   striate predict m.onnx picture.png"
    again = striate("export", str(digits_run), "--out", "m.onnx")
    assert again.code == 2 and "--force" in again.error_lines()["fix"]
    document = json.loads(striate("export", str(digits_run), "--out", "m.onnx", "--force", "--json").out)
    assert document["format"] == 1 and document["agreement"] == 1.0
    asked = ("--data", "digits", "--split", "train", "--index", "0:3", "--json")
    answers, from_run = (json.loads(striate("predict", model, *asked).out) for model in ("m.onnx", str(digits_run)))
    for one, other in zip(answers["results"], from_run["results"], strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_to_striate(striate: Any, digits_run: Path) -> None:
    outcome = striate("export", str(digits_run), "--to", "striate", "--out", "m.safetensors")
    assert (outcome.code, outcome.err) == (0, "") and len(outcome.out.splitlines()) == 2
    asked = ("--data", "digits", "--split", "train", "--index", "0:3", "--csv", "--device", "cpu")
    answers, from_run = striate("predict", "m.safetensors", *asked), striate("predict", str(digits_run), *asked)
    assert answers.code == 0 and answers.out == from_run.out
    counted = striate("eval", "m.safetensors", "--data", "digits", "--split", "train", "--json")
    assert counted.code == 0 and json.loads(counted.out)["samples"] == 1797
    alone = striate("eval", "m.safetensors")
    assert alone.code == 2 and "--data" in alone.error_lines()["fix"]


def test_a_proof_that_fails_ends_with_5(striate: Any, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        model = exporting.build_graph(*arguments)
        weights = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
        weights.raw_data = b"\0\0\x80?" + weights.raw_data[4:]  # the first is 1.0
        del model.metadata_props[-1]
        return model

    monkeypatch.setattr(shipping, "build_graph", broken)
    outcome = striate("export", str(digits_run), "--out", "m.onnx")
    told = outcome.error_lines()
    assert outcome.code == 5 and "m.onnx was not written" in told["error"] and "rounding" in told["cause"]
    assert "largest difference of a probability" in outcome.out and "saved" not in outcome.out
    document = striate("export", str(digits_run), "--out", "m.onnx", "--json")
    assert document.code == 5 and json.loads(document.out)["largest_difference"]["probability"] > 1e-5
    assert not list(Path().iterdir())


def test_flags_that_do_nothing_are_refused(striate: Any, digits_run: Path) -> None:
    for flags in (["--to", "striate", "--pictures", "5"], ["--most-loss", "0.1"], ["--calibration", "5"]):
        outcome = striate("export", str(digits_run), *flags)
        assert outcome.code == 2 and "no effect" in outcome.error_lines()["error"]
    assert striate("export", str(digits_run), "--to", "striate", "--int8").code == 2
    assert striate("export", "nothing").code == 2


def test_a_missing_extra_ends_with_4(striate: Any, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    outcome = striate("export", str(digits_run))
    assert outcome.code == 4 and outcome.error_lines()["fix"] == "pip install 'striate[export]'"
