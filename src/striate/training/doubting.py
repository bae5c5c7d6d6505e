"""What a run says of its doubt at its end: measured on validation, with features of train pictures kept beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from striate.data.rows import Rows
from striate.predictor.predictor import Predictor
from striate.runs.doubt import LEAST_PICTURES, MOST_KEPT, MOST_NUMBERS, Doubt, nearest, unit
from striate.runs.folder import RunFolder
from striate.runs.model_file import write_features
from striate.training.material import Material

FEATURE_BYTES = 32 << 20  # of validation pictures that are compared at a time


def measure_doubt(predictor: Predictor, material: Material, folder: RunFolder) -> Doubt | None:
    """Return the doubt of a trained net, and write the features that it needs beside the weights.

    None of a run with too few validation pictures. Nothing random is drawn that training could notice.
    """
    part, images, indices = material.pictures("validation")
    if len(images) < LEAST_PICTURES:
        return None
    labels, give, batch = part.labels[indices], predictor.backend.features, predictor.batch_pictures  # type: ignore[attr-defined]
    logits, features = give(images[:batch], batch)
    kept = None
    if features is not None:
        count = min(MOST_KEPT, max(1, MOST_NUMBERS // features.shape[1]), len(material.split.train))
        chosen = np.sort(np.random.default_rng(0).choice(material.split.train, count, replace=False))
        train = Rows(material.parts.train.images, chosen, material.preprocess, material.threads)
        kept = unit(give(train, batch)[1])
    together = batch if features is None else max(1, FEATURE_BYTES // (4 * features.shape[1] * batch)) * batch
    answered, cosines = [], []
    for start in range(0, len(images), together):  # the features of them all might fill the memory
        some = replace(images, indices=images.indices[start : start + together])  # still read a batch at a time
        logits, features = give(some, batch)
        answered.append(logits)
        if kept is not None and features is not None and np.isfinite(features).all():
            cosines.append(nearest(features, kept))
    logits = np.concatenate(answered)
    probabilities = predictor.probabilities(logits)
    if kept is None or sum(map(len, cosines)) < len(images):
        return Doubt.measure(logits, probabilities, labels, None)
    doubt = Doubt.measure(logits, probabilities, labels, np.concatenate(cosines))
    if doubt is None:
        return None
    return replace(doubt, features=write_features(folder.path, kept), kept=kept)
