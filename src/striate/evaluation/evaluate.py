"""Evaluation: the numbers of one pass in which every picture counts once."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.dataset import Dataset
from striate.data.rows import Pictures
from striate.evaluation.metrics import evaluation_record, top_k, wilson
from striate.files import write_text
from striate.predictor.augmented import ask_with
from striate.predictor.predictor import Logits, Predictor


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split: `record` is evaluation.json; logits (N, K) and indices (N,) are in data order."""

    record: dict[str, Any]
    logits: Logits
    probabilities: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    sources: Sequence[str]

    @property
    def predictions(self) -> np.ndarray:
        """Class numbers answered, int64 (N,)."""
        return self.logits.argmax(1)


def evaluate_pictures(
    predictor: Predictor,
    part: Dataset,
    images: Pictures,
    indices: np.ndarray,
    *,
    split: str,
    weights: str = "best",
    loss_kind: str = "cross-entropy",
    tta: str = "none",
) -> Evaluation:
    """Evaluate a predictor on `images` (N, H, W, C) at the net's size, which are `indices` of `part`.

    `tta` (mirror, shift, mirror-shift) adds one row, `top1_tta`: the accuracy with test-time augmentation; every other
    number is without. Raises DataError where there is no picture.
    """
    ask = ask_with(tta)
    logits = predictor.logits(images)
    labels = part.labels[indices]
    record = evaluation_record(
        data=part.name,
        split=split,
        weights=weights,
        logits=logits,
        labels=labels,
        classes=predictor.classes,
        output=predictor.output,
        loss_kind=loss_kind,
        temperature=predictor.temperature,
    )
    if tta != "none":
        correct = top_k(predictor.logits(images, ask=ask), labels, 1)
        low, high = wilson(correct, len(labels))
        record["top1_tta"] = {"value": correct / len(labels), "low": low, "high": high, "kind": tta}
    sources = [part.source(int(index)) for index in indices]
    return Evaluation(record, logits, predictor.probabilities(logits), labels, indices, sources)


def write_predictions(path: Path, evaluation: Evaluation, classes: Sequence[str]) -> None:
    """Write predictions.csv: index, source, label, prediction, probability, in data order."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("index", "source", "label", "prediction", "probability"))
    best = evaluation.predictions
    for row, (index, source) in enumerate(zip(evaluation.indices, evaluation.sources, strict=True)):
        probability = evaluation.probabilities[row, best[row]]
        writer.writerow((index, source, classes[evaluation.labels[row]], classes[best[row]], f"{probability:.6f}"))
    write_text(path, stream.getvalue())
