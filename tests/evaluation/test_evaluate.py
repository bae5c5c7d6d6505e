"""Evaluation of a predictor: every picture once, in data order, and the same numbers as predict gives."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from striate.data.builtin import load_named
from striate.data.dataset import Dataset
from striate.data.preprocess import Preprocess
from striate.errors import DataError
from striate.evaluation.evaluate import evaluate_pictures, write_predictions
from striate.predictor.augmented import ask_with
from striate.predictor.predictor import Predictor
from striate.predictor.torch_backend import predictor_of

DIGITS = load_named("digits").train
INDICES = np.arange(3, 1203, 2)


def made(output: str = "softmax", temperature: float = 1.0) -> Predictor:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return predictor_of(
        net, Preprocess((8, 8), channels=1), DIGITS.classes, output=output, temperature=temperature, name="made"
    )


def test_every_picture_counts_once() -> None:
    predictor = made(temperature=0.5)
    found = evaluate_pictures(predictor, DIGITS, DIGITS.images[INDICES], INDICES, split="test")
    record = found.record
    assert record["samples"] == 600 and np.sum(record["confusion"]) == 600
    assert (record["data"], record["split"], record["weights"]) == (DIGITS.name, "test", "best")
    assert np.array_equal(found.labels, DIGITS.labels[INDICES]) and found.sources[1] == f"{DIGITS.name}#5"
    logits = predictor.logits(DIGITS.images[INDICES])
    assert record["top1"]["value"] == accuracy_score(found.labels, logits.argmax(1))
    raw = torch.from_numpy(logits).double().softmax(1).numpy()
    assert record["loss"] == pytest.approx(log_loss(found.labels, raw)), "the loss is of raw logits"


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_evaluate_and_predict_give_the_same_answers(output: str) -> None:
    predictor = made(output, temperature=1.7)
    found = evaluate_pictures(
        predictor, DIGITS, DIGITS.images[INDICES], INDICES, split="test", loss_kind="binary-cross-entropy"
    )
    answers = predictor.predict([DIGITS.images[index] for index in INDICES])
    assert [answer.label for answer in answers] == [DIGITS.classes[number] for number in found.predictions]
    rows = np.array([list(answer.probabilities.values()) for answer in answers])
    assert np.abs(rows - found.probabilities).max() < 1e-6


def test_test_time_augmentation_is_one_more_row_and_changes_no_other() -> None:
    predictor = made()
    plain = evaluate_pictures(predictor, DIGITS, DIGITS.images[INDICES], INDICES, split="test")
    found = evaluate_pictures(predictor, DIGITS, DIGITS.images[INDICES], INDICES, split="test", tta="mirror-shift")
    row = found.record.pop("top1_tta")
    assert found.record == plain.record and np.array_equal(found.logits, plain.logits)
    assert set(row) == {"value", "low", "high", "kind"} and row["kind"] == "mirror-shift"
    answers = predictor.logits(DIGITS.images[INDICES], ask=ask_with("mirror-shift")).argmax(1)
    assert row["value"] == accuracy_score(found.labels, answers) != plain.record["top1"]["value"]
    assert (row["low"], row["high"]) == pytest.approx(proportion_by_hand(row["value"], 600))


def proportion_by_hand(share: float, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's interval, as its two roots."""
    roots = np.roots([count + z * z, -2 * count * share - z * z, count * share * share])
    return float(min(roots)), float(max(roots))


def test_predictions_csv_is_in_data_order_and_keeps_odd_names(tmp_path: Path) -> None:
    classes = ("a,b", 'say "c"', "七")
    images = np.zeros((4, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0] = (255, 0, 255, 0)
    part = Dataset("made", images, np.array([2, 0, 1, 1]), classes, ("x.png", "y,z.png", "ü.png", "w.png"))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        net[1].weight.zero_()  # type: ignore[union-attr, operator]
        net[1].weight[2, 0] = 5.0  # type: ignore[index]
        net[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # type: ignore[union-attr, operator]
    predictor = predictor_of(net, Preprocess((8, 8), channels=1), classes)
    indices = np.array([0, 1, 3])
    found = evaluate_pictures(predictor, part, part.images[indices], indices, split="test")
    write_predictions(tmp_path / "predictions.csv", found, classes)
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["index"] for row in rows] == ["0", "1", "3"]
    assert [row["source"] for row in rows] == ["x.png", "y,z.png", "w.png"]
    assert [row["label"] for row in rows] == ["七", "a,b", 'say "c"']
    assert [row["prediction"] for row in rows] == ["七", 'say "c"', 'say "c"']
    wanted = torch.tensor([0.0, 1.0, 5.0]).double().softmax(0)[2]
    assert float(rows[0]["probability"]) == pytest.approx(float(wanted), abs=1e-6)


def test_no_picture_and_answers_that_are_not_finite() -> None:
    predictor = made()
    with pytest.raises(DataError, match="zero samples"):
        evaluate_pictures(predictor, DIGITS, DIGITS.images[:0], np.empty(0, np.int64), split="test")
    with torch.no_grad():
        predictor.net[1].weight[0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(DataError, match="not finite"):
        evaluate_pictures(predictor, DIGITS, DIGITS.images[:9], np.arange(9), split="test")
