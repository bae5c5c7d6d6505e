"""Where a run's first weights come from: another run, a file, or what timm and torchvision publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from striate.data.preprocess import Preprocess
from striate.errors import DataError, UsageError
from striate.files import sha256_file
from striate.models.joining import head_names, layers_of, take_over
from striate.models.timm_nets import is_timm, timm_version, weights_card, with_weights
from striate.models.torchvision_weights import PUBLISHED, Published, published
from striate.runs.folder import RunFolder, open_run
from striate.runs.foreign import read_foreign
from striate.runs.model_file import check_finite, is_packed
from striate.runs.packed import KEY, open_model
from striate.runs.tensors import read_head, read_tensors, write_tensors
from striate.settings.train import TrainSettings
from striate.training.fetching import fetch_timm, fetch_torchvision
from striate.training.material import Material, Report

FILE, WEIGHTS = "start.json", "weights/start.safetensors"
AUTO, TORCHVISION = "auto", "torchvision"
SHOWN = 6


@dataclass(frozen=True)
class Start:
    """First weights that are known but not read yet.

    `name`: the net's in the registry, None for a class of the user's; `classes` in label order, empty where the
    weights answer for others than any run can have, None where nobody knows; `numbers`: the settings of pictures and
    net that come with the weights; `read(most bytes)` gives the state dict.
    """

    kind: str
    origin: str
    name: str | None
    class_name: str
    numbers: dict[str, Any]
    read: Callable[[int, bool, Report], dict[str, Tensor]]
    channels: int | None = None
    classes: tuple[str, ...] | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return what of a run's settings follows from the start where nothing else is given."""
        named = {"model": self.name} if self.name is not None else {}
        return {**named, **self.numbers}


@dataclass(frozen=True)
class FirstWeights:
    """What a net begins with: tensors that were taken, names of those that are new, and what start.json says."""

    tensors: Mapping[str, Tensor]
    new: tuple[str, ...]
    record: Mapping[str, Any]
    channels: int | None = None

    def told(self) -> str:
        """Say in one line where the weights are from, and which layers are new."""
        taken, new = layers_of(self.tensors), layers_of(self.new)
        shown = ", ".join(new[:SHOWN]) + (" …" if len(new) > SHOWN else "")
        told = f"new: {shown}" if new else "none new"
        return f"first weights from {self.record['from']}: {len(taken)} layers taken, {told}"


def settings_of_start(init_from: str | None, model: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that come with first weights, {} where they are drawn; see `find_start`."""
    start = find_start(init_from, model, options)
    return {} if start is None else start.settings()


def find_start(init_from: str | None, model: str | None, options: Mapping[str, Any]) -> Start | None:
    """Find first weights: `auto`, None, `torchvision`, a run, a packed model or a file of weights.

    Nothing is downloaded and no tensor read. Raises UsageError for what is not there or does not go together, DataError
    for a damaged card, MissingExtra.
    """
    if init_from is None or (init_from == AUTO and not is_timm(model)):
        return None
    if init_from == AUTO:
        assert model is not None
        return _of_timm(model)
    if init_from == TORCHVISION:
        if model is None:
            raise UsageError("--init-from torchvision needs a net", "", "name it: --model resnet18")
        return _of_torchvision(model, published(model, options))
    path = Path(init_from).expanduser()
    if path.is_file() and path.name != "latest" and not _has_card(path):
        return _of_file(path, model)
    start = _of_model(str(path))
    if model is not None and start.name is not None and model != start.name:
        raise UsageError(f"{init_from} is a {start.name}", f"--model {model} has other layers", "leave out --model")
    if model is None and start.name is None:
        raise UsageError(
            f"{init_from} is a net of your own class {start.class_name}",
            "its file holds weights, never code",
            f"give the class: --model net.py:{start.class_name}",
        )
    return start


def absolute(init_from: str | None) -> str | None:
    """Return `init_from` as it can be found from any folder, and `runs/latest` as the run that it is now."""
    if init_from is None or init_from in (AUTO, TORCHVISION):
        return init_from
    path = Path(init_from).expanduser()
    return str((path if path.is_file() and path.name != "latest" else open_run(path).path).absolute())


def take(start: Start, net: nn.Module, settings: TrainSettings, material: Material, report: Report) -> FirstWeights:
    """Read the weights of a start and join them with a net that is made for these data. Raises StriateError."""
    classes, preprocess = material.parts.train.classes, material.preprocess
    shape = (preprocess.channels, *preprocess.size)
    state = start.read(sum(tensor.nbytes for tensor in net.state_dict().values()), settings.download, report)
    name = settings.model if start.name is not None else None
    if start.kind == "timm":
        assert name is not None
        state = with_weights(name, state, len(classes), shape[0], preprocess.size, **settings.model_option)
    head = head_names(net, name, shape, len(classes), **settings.model_option)
    known = start.classes
    keep = known is None or known == classes
    taken = take_over(net, name, state, head, keep_head=keep, origin=start.origin)
    record = {
        "format": 1,
        "kind": start.kind,
        "from": start.origin,
        **start.record,
        "classes": None if known is None else list(known),
        "input": {"size": list(preprocess.size), "channels": shape[0], "fit": preprocess.fit},
        "taken": taken.layers,
        "new": taken.new_layers,
        "new_tensors": list(taken.new),
    }
    return FirstWeights(taken.tensors, taken.new, record, start.channels)


def write_first(folder: RunFolder, first: FirstWeights) -> None:
    """Keep what a run began with in its folder: the start may be gone when the run goes on or is verified."""
    digest = write_tensors(folder.file(WEIGHTS), first.tensors)
    folder.write_json(FILE, {**first.record, "weights": {"file": WEIGHTS, "sha256": digest}})


def read_first(folder: RunFolder) -> FirstWeights | None:
    """Return what a run began with, None where its first weights were drawn. Raises DataError where it is damaged."""
    if not folder.file(FILE).is_file():
        return None
    record = folder.read_json(FILE)
    try:
        digest, new, channels = record["weights"]["sha256"], tuple(record["new_tensors"]), record["input"]["channels"]
    except (KeyError, TypeError) as error:
        told = f"it lacks {error}"
        raise DataError(f"{folder.file(FILE)} is incomplete", told, "restore it or train again") from error
    return FirstWeights(read_tensors(folder.file(WEIGHTS), sha256=digest), new, record, channels)


def _has_card(path: Path) -> bool:
    return is_packed(path) and KEY in read_head(path)[1]


def _of_model(target: str) -> Start:
    """Return the start that a run or a packed model is."""
    stored = open_model(target)
    card = stored.card
    preprocess = Preprocess.from_json(card.preprocess)
    return Start(
        kind="packed" if stored.packed else "run",
        origin=str(stored.weights if stored.packed else stored.card_path.parent),
        name=card.name,
        class_name=card.class_name,
        numbers={
            "model_option": dict(card.options),
            "size": preprocess.size,
            **_numbers([value / 255 for value in preprocess.mean], [value / 255 for value in preprocess.std]),
        },
        read=lambda most, download, say: stored.read(),
        channels=preprocess.channels,
        classes=tuple(card.classes),
        record={
            "sha256": stored.sha256(),
            "epoch": card.weights.get("epoch"),
            "model": card.name or card.class_name,
            "licence": card.licence,
        },
    )


def _of_file(path: Path, model: str | None) -> Start:
    """Return the start that a file of weights alone is. What torchvision publishes for the net tells of pictures."""
    if model is None:
        raise UsageError(f"{path} holds weights without their model", "", "name the net: --model resnet18")
    own = ".py:" in model or model.startswith("own:")
    numbers, channels = {}, None
    if is_timm(model):
        card = weights_card(model)
        numbers, channels = _pictures(card.size, card.mean, card.std), card.channels
    elif model in PUBLISHED:
        file = PUBLISHED[model][0]
        numbers, channels = _pictures((file.side, file.side), file.mean, file.std), 3
    return Start(
        kind="timm" if is_timm(model) else "file",
        origin=str(path),
        name=None if own else model,
        class_name="",
        numbers=numbers,
        read=partial(_read_file, path),
        channels=channels,
        classes=() if is_timm(model) else None,
        record={"sha256": sha256_file(path), "model": model},
    )


def _of_torchvision(model: str, file: Published) -> Start:
    return Start(
        kind=TORCHVISION,
        origin=f"torchvision's {file.file}",
        name=model,
        class_name="",
        numbers={"model_option": dict(file.options), **_pictures((file.side, file.side), file.mean, file.std)},
        read=partial(_read_published, file),
        channels=3,
        classes=(),
        record={"model": model, "shown": f"short side {file.resized}, of which {file.side}"},
    )


def _of_timm(model: str) -> Start:
    card = weights_card(model)
    return Start(
        kind="timm",
        origin=f"timm's {card.name}",
        name=model,
        class_name="",
        numbers=_pictures(card.size, card.mean, card.std),
        read=lambda most, download, say: _read_safe(fetch_timm(card, download, say)),
        channels=card.channels,
        classes=(),
        record={
            "model": model,
            "library": timm_version(),
            "shown": f"{card.interpolation}, {100 * card.crop:g} % of the short side",
            "licence": card.licence,
        },
    )


def _pictures(size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    return {"size": size, "fit": "crop", **_numbers(mean, std)}


def _numbers(mean: Any, std: Any) -> dict[str, Any]:
    return {"mean": tuple(mean), "std": tuple(std)}


def _read_file(path: Path, most: int, download: bool, say: Report) -> dict[str, Tensor]:
    state = read_foreign(path, most)
    check_finite(state, path)
    return state


def _read_published(file: Published, most: int, download: bool, say: Report) -> dict[str, Tensor]:
    return _read_file(fetch_torchvision(file, download, say), most, download, say)


def _read_safe(path: Path) -> dict[str, torch.Tensor]:
    state = read_tensors(path)
    check_finite(state, path)
    return state
