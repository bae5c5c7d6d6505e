"""A run folder from weights that another program trained: all that eval and predict need, and no record of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from striate.data.lookup import find_named
from striate.data.preprocess import Preprocess
from striate.device import environment
from striate.errors import DataError, UsageError
from striate.files import sha256_file, write_text
from striate.models.key_maps import COUNTER, rename
from striate.models.registry import create_model, native_shape
from striate.models.summary import summarise
from striate.predictor.nets import State, check_fit, expected_state, load_weights
from striate.runs.folder import RunFolder, claim_run
from striate.runs.foreign import read_foreign
from striate.runs.journal import Journal
from striate.runs.model_file import ModelCard, first_not_finite, size_problem, write_card
from striate.runs.tensors import write_tensors
from striate.settings.base import build
from striate.settings.train import TrainSettings
from striate.settings.verbs import ImportSettings
from striate.training.material import Report
from striate.training.records import config_text

#: What stands for the data set where nobody named one.
UNKNOWN_DATA = "unknown"


def import_model(path: str | Path, *, model: str, report: Report = lambda line: None, **settings: Any) -> Path:
    """Make a run folder of weights that another program saved; return the folder, for striate.load or evaluate.

    `path`: what torch.save wrote of a state dict, or a safetensors file; `settings`: any of ImportSettings, such as
    `classes` or `data`. Raises as `import_weights`.
    """
    resolved, _ = build(ImportSettings, [("argument", {**settings, "model": model})])
    call = f"striate.import_model({str(path)!r}, model={model!r})"
    return import_weights(Path(path), resolved, report, call).path


def data_of_import(folder: RunFolder, settings: TrainSettings) -> str:
    """Return the data set that was named for an imported run. Raises UsageError where none was."""
    if settings.data == UNKNOWN_DATA:
        raise UsageError(
            f"{folder} was imported", "nothing says what data it is for", "name data of its classes: --data NAME"
        )
    return settings.data


def import_weights(path: Path, settings: ImportSettings, report: Report, command: str = "") -> RunFolder:
    """Check a file of weights against a net of the registry, and write both as a run folder.

    Every name and shape has to match. Raises DataError for a file that is no weights, holds code, or does not fit;
    UsageError for settings that do not go together. Nothing is written then.
    """
    assert settings.model is not None
    notes: list[str] = []
    classes, preprocess = _classes(settings, notes.append), _preprocess(settings, notes.append)
    shape = (preprocess.channels, *preprocess.size)
    net_of = (settings.model, len(classes), preprocess.channels, preprocess.size)
    problem = size_problem(*net_of[1:], settings.model_option)
    if problem:
        raise UsageError(problem)
    own = expected_state(*net_of, settings.model_option)
    found = read_foreign(path, sum(tensor.nbytes for tensor in own.values()), settings.expect_sha256)
    state = _as_own(found, own, settings.model, path, notes.append)
    net = create_model(*net_of, **settings.model_option)
    load_weights(net, state, str(path))
    summary = summarise(net, shape)
    for note in notes:
        report(note)

    folder = claim_run(settings.data or "imported", settings.model, settings.out)
    digest = write_tensors(folder.weights / "best.safetensors", state)
    card = ModelCard(
        name=settings.model,
        class_name=type(net).__name__,
        options=settings.model_option,
        num_classes=len(classes),
        in_channels=preprocess.channels,
        input_size=preprocess.size,
        classes=list(classes),
        preprocess=preprocess.to_json(),
        output=settings.output,
        temperature=1.0,
        weights={"file": "weights/best.safetensors", "sha256": digest, "epoch": 0},
        metrics=summary.sizes,
    )
    write_card(folder.path, card)
    _describe(folder, settings, card, path, command)
    return folder


def _classes(settings: ImportSettings, report: Report) -> tuple[str, ...]:
    assert settings.model is not None
    if settings.classes is not None:
        return settings.classes
    if settings.data is not None:
        return find_named(settings.data).classes
    count = native_shape(settings.model)[0]
    report(f"classes are called 0 to {count - 1}: name them with --classes, or their data set with --data")
    return tuple(str(number) for number in range(count))


def _preprocess(settings: ImportSettings, report: Report) -> Preprocess:
    assert settings.model is not None
    _, channels, size = native_shape(settings.model)
    channels = settings.channels or channels
    if settings.mean is None or settings.std is None:
        report("pictures reach the net as values of 0 to 1: if it was trained on others, add --mean and --std")
    mean, std = (
        tuple(255.0 * number for number in (values * channels if len(values) == 1 else values))
        for values in (settings.mean or (0.0,), settings.std or (1.0,))
    )
    return Preprocess(settings.input_size or size, settings.fit, channels, mean, std)


def _as_own(found: State, own: State, net: str, path: Path, report: Report) -> dict[str, torch.Tensor]:
    """Return tensors by the net's names, in its order and types; refuse what does not fit or is not finite."""
    names = rename(net, found, own)
    changed = [f"{old} → {new}" for old, new in names.items() if old != new]
    if changed:
        report(f"names changed by a known map: {', '.join(changed[:4])}{' …' if len(changed) > 4 else ''}")
    state = {new: found[old] for old, new in names.items()}
    for name in own.keys() - state.keys():
        if name.endswith(COUNTER):  # as torch does when it loads a file from before there were counters
            state[name] = torch.zeros((), dtype=own[name].dtype)
    for name, tensor in state.items():
        if name in own and tensor.is_floating_point() and own[name].is_floating_point():
            state[name] = tensor.to(own[name].dtype)
    check_fit(own, state, str(path))
    broken = first_not_finite(state)
    if broken is not None:
        raise DataError(f"{path}: {broken} holds values that are not finite", "its training had failed")
    return {name: state[name] for name in own}


def _describe(folder: RunFolder, settings: ImportSettings, card: ModelCard, path: Path, command: str) -> None:
    """Write what else stands in a run folder: settings, data, environment, empty logs, and where the weights are of."""
    in_force: dict[str, Any] = {
        "data": settings.data or UNKNOWN_DATA,
        "model": settings.model,
        "model_option": settings.model_option,
        "size": card.input_size,
        "fit": settings.fit,
        "mean": settings.mean or (0.0,),
        "std": settings.std or (1.0,),
        "loss": "cross-entropy" if settings.output == "softmax" else "binary-cross-entropy",
    }
    write_text(folder.file("config.yaml"), config_text(TrainSettings(**in_force)))
    write_text(folder.file("command.txt"), command + "\n")
    folder.write_json("env.json", environment(torch.device("cpu")))
    origin = {"file": path.name, "sha256": sha256_file(path)}
    folder.write_json(
        "data.json",
        {
            "format": 1,
            "name": in_force["data"],
            "licence": "",
            "given": False,
            "imported": origin,
            "fingerprints": {},  # nothing is known of what it was trained on
            "counts": {},
            "classes": card.classes,
            "picture": {"size": list(card.input_size), "channels": card.in_channels},
            "mean": card.preprocess["mean"],
            "std": card.preprocess["std"],
            "findings": [],
        },
    )
    Journal(folder.path).start()
    folder.set_status("finished", epoch=0, step=0, imported=origin, sha256=folder.digests())
