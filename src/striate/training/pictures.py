"""Which pictures an evaluation counts: a split of the run's own data, or other data with the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from striate.data.dataset import Dataset
from striate.data.split import Split
from striate.errors import DataError, UsageError
from striate.predictor.predictor import Predictor
from striate.runs.folder import RunFolder
from striate.settings.train import TrainSettings
from striate.training.importing import data_of_import
from striate.training.material import Report, as_parts, open_data, open_other


def pictures_of(
    folder: RunFolder,
    predictor: Predictor,
    settings: TrainSettings,
    report: Report,
    *,
    split: str,
    data: Any = None,
    data_root: str | Path | None = None,
) -> tuple[Dataset, Any, Any]:
    """Return part, pictures at the net's size and indices of a split of a run's own data, or of other data.

    Other data are counted as their maker splits them, and whole where no test set is set apart: none of them trained
    this net. Raises DataError where the run's own data are no longer what they were, or where the classes differ.
    """
    record = folder.read_json("data.json")
    if data is None and "imported" in record:
        data = data_of_import(folder, settings)
    if data is None and record["given"]:
        raise UsageError(f"{folder} was trained on arrays", "a run folder does not hold them", "pass data=…")
    if data is None or isinstance(data, str):
        if data_root is not None:
            settings = settings.model_copy(update={"data_root": Path(data_root)})
        if data is None:
            parts = open_data(settings, report).parts
        else:
            parts = open_other(data, settings, predictor.preprocess, predictor.classes, report)
    else:
        parts = as_parts(data)
    own = parts.train.classes
    if own != predictor.classes:
        raise DataError(
            f"{parts.name} has classes {', '.join(own[:5])} …, the net {', '.join(predictor.classes[:5])} …",
            "an accuracy over different classes says nothing",
            "evaluate on data with the classes the net was trained on",
        )
    present = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    found = {name: part.fingerprint for name, part in present.items() if part is not None}
    if found == record["fingerprints"]:
        part, indices = Split.from_json(folder.read_json("split.json")).of(parts, split)
    elif data is None:
        raise DataError(
            f"{settings.data} changed since the run began",
            "its split no longer says which pictures were trained on",
            "restore the data, or name other data with --data",
        )
    else:
        part = parts.train if split == "test" and parts.test is None else parts.part(split)
        indices = np.arange(len(part))
    return part, predictor.preprocess.geometry_all(part.images[indices]), indices
