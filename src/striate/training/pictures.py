"""Which pictures an evaluation counts: a split of the run's own data, or other data with the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.dataset import Dataset, Parts
from striate.data.rows import Rows
from striate.data.split import Split
from striate.errors import DataError, UsageError
from striate.predictor.onnx_file import is_onnx
from striate.predictor.predictor import Predictor
from striate.runs.folder import RunFolder, open_run
from striate.runs.model_file import is_packed
from striate.settings.train import TrainSettings
from striate.training.importing import data_of_import
from striate.training.material import Report, as_parts, open_data, open_other
from striate.training.records import fingerprints, read_config


def run_of(target: str | Path, output: str, report: Report) -> tuple[RunFolder | None, TrainSettings]:
    """Return the run that `target` names, and its settings; of a file None, and what follows from the net's output."""
    if is_onnx(target) or is_packed(target):
        loss = "cross-entropy" if output == "softmax" else "binary-cross-entropy"
        return None, TrainSettings(**{"loss": loss})  # type: ignore[arg-type]
    folder = open_run(target)
    state = folder.status().get("state")
    if state != "finished":
        report(f"{folder} is not finished ({state}): these are its best weights so far")
    return folder, read_config(folder)


def pictures_of(
    folder: RunFolder | None,
    predictor: Predictor,
    settings: TrainSettings,
    report: Report,
    *,
    split: str,
    data: Any = None,
    data_root: str | Path | None = None,
) -> tuple[Dataset, Rows, Any]:
    """Return part, pictures at the net's size and indices of a split of a run's own data, or of other data.

    Other data are counted as their maker splits them, and whole where no test set is set apart: none of them trained
    this net. `folder` None: a model in a file, which has no data of its own. Raises DataError where the run's data are
    no longer what they were, or where the classes differ.
    """
    parts, own = parts_of(folder, predictor, settings, report, data=data, data_root=data_root)
    if own is not None:
        part, indices = own.of(parts, split)
    else:
        part = parts.train if split == "test" and parts.test is None else parts.part(split)
        indices = np.arange(len(part))
    return part, Rows(part.images, indices, predictor.preprocess), indices


def parts_of(
    folder: RunFolder | None,
    predictor: Predictor,
    settings: TrainSettings,
    report: Report,
    *,
    data: Any = None,
    data_root: str | Path | None = None,
) -> tuple[Parts, Split | None]:
    """Return a run's own data with its split, or other data with None; raises as `pictures_of`."""
    record = {"given": False, "fingerprints": None} if folder is None else folder.read_json("data.json")
    if data is None and folder is None:
        raise UsageError(f"{predictor.name} is a model alone", "it holds no data", "name data of its classes: --data")
    if data is None and folder is not None and "imported" in record:
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
    if folder is not None and found == record["fingerprints"]:
        return parts, Split.from_json(folder.read_json("split.json"))
    if data is None:
        raise DataError(
            f"{settings.data} changed since the run began",
            "its split no longer says which pictures were trained on",
            "restore the data, or name other data with --data",
        )
    return parts, None


def sample(
    parts: Parts, own: Split | None, predictor: Predictor, splits: Sequence[str], most: int
) -> tuple[str, Dataset, Any, Any]:
    """Return at most `most` pictures, spread evenly over the first of `splits` that holds any.

    Gives that split's name, its part, the pictures at the net's size and their indices.
    """
    for split in splits:
        if own is not None:
            try:
                part, indices = own.of(parts, split)
            except DataError:  # no picture was set apart for it
                continue
        elif split == "train" or getattr(parts, split) is not None:
            part = parts.part(split)
            indices = np.arange(len(part))
        else:
            continue
        chosen = indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(np.int64)]
        return split, part, predictor.preprocess.geometry_all(part.images[chosen]), chosen
    raise DataError(f"{parts.name} holds no picture")


def own_parts(
    folder: RunFolder,
    settings: TrainSettings,
    report: Report,
    *,
    data: Any = None,
    data_root: str | Path | None = None,
) -> tuple[Parts, Split]:
    """Return a run's own data as its maker splits them, and the run's split; `data`: arrays that it was trained on.

    Raises UsageError for a run of arrays that are not given and of imported weights, DataError where the data are no
    longer what they were.
    """
    record = folder.read_json("data.json")
    if "imported" in record:
        raise UsageError(f"{folder} was imported", "nothing is known of the pictures that it was trained on")
    if data is None and record["given"]:
        raise UsageError(f"{folder} was trained on arrays", "a run folder does not hold them", "pass data=…")
    if data_root is not None:
        settings = settings.model_copy(update={"data_root": Path(data_root)})
    parts = open_data(settings, report).parts if data is None else as_parts(data)
    if fingerprints(parts) != record["fingerprints"]:
        raise DataError(
            f"{settings.data} changed since the run began",
            "its split no longer says which pictures were trained on",
            "restore the data, or name their folder with --data-root",
        )
    return parts, Split.from_json(folder.read_json("split.json"))
