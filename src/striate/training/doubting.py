"""What a run says of its doubt at its end: measured on validation, with features of train pictures kept beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from striate.predictor.predictor import Predictor
from striate.runs.doubt import LEAST_PICTURES, MOST_KEPT, MOST_NUMBERS, Doubt, nearest, unit
from striate.runs.folder import RunFolder
from striate.runs.model_file import write_features
from striate.training.material import Material


def measure_doubt(predictor: Predictor, material: Material, folder: RunFolder) -> Doubt | None:
    """Return the doubt of a trained net, and write the features that it needs beside the weights.

    None of a run with too few validation pictures. Nothing random is drawn that training could notice.
    """
    part, images, indices = material.pictures("validation")
    if len(images) < LEAST_PICTURES:
        return None
    labels, give, batch = part.labels[indices], predictor.backend.features, predictor.batch_pictures  # type: ignore[attr-defined]
    logits, features = give(images, batch)
    if features is None or not np.isfinite(features).all():
        return Doubt.measure(logits, predictor.probabilities(logits), labels, None)
    count = min(MOST_KEPT, max(1, MOST_NUMBERS // features.shape[1]), len(material.split.train))
    chosen = np.sort(np.random.default_rng(0).choice(material.split.train, count, replace=False))
    train = material.parts.train.images[chosen]
    kept = unit(give(material.preprocess.geometry_all(train, material.threads), batch)[1])
    doubt = Doubt.measure(logits, predictor.probabilities(logits), labels, nearest(features, kept))
    if doubt is None:
        return None
    return replace(doubt, features=write_features(folder.path, kept), kept=kept)
