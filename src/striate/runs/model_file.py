"""A model on disk: weights/best.safetensors beside model.json, which says how to build and use it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from striate.errors import DataError
from striate.files import sha256_file, write_json
from striate.runs.folder import RunFolder
from striate.runs.tensors import read_tensors

FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """model.json: all that is needed to build a net, prepare a picture for it and name its answers.

    `name` is the registry's, or None for a user's own module, of which only the class name is kept.
    `input_size` (H, W) in pixels; `preprocess` as Preprocess.to_json gives it; `output` softmax or sigmoid;
    `weights` {file, sha256, epoch}.
    """

    name: str | None
    class_name: str
    options: dict[str, Any]
    num_classes: int
    in_channels: int
    input_size: tuple[int, int]
    classes: list[str]
    preprocess: dict[str, Any]
    output: str
    temperature: float
    weights: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return model.json's content."""
        value = asdict(self)
        model = {key: value.pop(key) for key in ("name", "options", "num_classes", "in_channels", "input_size")}
        model["class"] = value.pop("class_name")
        model["input_size"] = list(self.input_size)
        return {"format": FORMAT, "model": model, **value}

    @classmethod
    def from_json(cls, value: dict[str, Any], path: Path) -> ModelCard:
        """Read model.json's content. Raises DataError naming the file and what is wrong with it."""
        try:
            if int(value["format"]) > FORMAT:
                raise DataError(
                    f"{path} has format {value['format']}",
                    f"this striate reads up to {FORMAT}",
                    "install a newer striate",
                )
            model = dict(value["model"])
            height, width = model["input_size"]
            card = cls(
                name=model["name"],
                class_name=str(model["class"]),
                options=dict(model["options"]),
                num_classes=int(model["num_classes"]),
                in_channels=int(model["in_channels"]),
                input_size=(int(height), int(width)),
                **{key: value[key] for key in ("classes", "preprocess", "output", "temperature", "weights")},
                metrics=value.get("metrics", {}),
                licence=value.get("licence", ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is not a model card", f"{type(error).__name__}: {error}", "restore it or train again"
            ) from error
        problem = card.problem()
        if problem:
            raise DataError(f"{path} is not a model card", problem, "restore it or train again")
        return card

    def problem(self) -> str:
        """Say what cannot be in this card, or nothing."""
        if len(self.classes) != self.num_classes:
            return f"it names {len(self.classes)} classes for a net of {self.num_classes}"
        if self.output not in ("softmax", "sigmoid"):
            return f"output is {self.output!r}, not softmax or sigmoid"
        if not isinstance(self.temperature, (int, float)) or not 0 < self.temperature < float("inf"):
            return f"temperature is {self.temperature!r}, not a number above 0"
        named = self.weights if isinstance(self.weights, dict) else {}
        if not all(isinstance(named.get(key), str) for key in ("file", "sha256")):
            return "weights do not name a file and its sha256"
        return ""


def write_card(folder: Path, card: ModelCard) -> None:
    """Write model.json, atomically."""
    write_json(folder / "model.json", card.to_json())


def read_card(folder: Path) -> ModelCard:
    """Read model.json."""
    path = folder / "model.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing", *_why_no_model(folder)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read", str(error), "restore it or train again") from error
    return ModelCard.from_json(value, path)


def read_weights(folder: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    """Read the weights that the card names, after checking their digest.

    Raises DataError where the file is missing, damaged, not finite, or not the one the card was written for.
    """
    name = str(card.weights.get("file", ""))
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{folder / 'model.json'} names weights outside its folder: {name}")
    if path.is_file() and sha256_file(path) != card.weights.get("sha256"):
        raise DataError(
            f"{path} is damaged", "its SHA-256 differs from the one in model.json", "restore it or train again"
        )
    tensors = read_tensors(path)
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{path}: {key} holds values that are not finite", "", "train again with a lower --lr")
    return tensors


def _why_no_model(folder: Path) -> tuple[str, str]:
    status = RunFolder(folder).status() if (folder / "status.json").is_file() else {}
    if status.get("state") == "failed":
        return f"the run failed: {status.get('reason', '')}", "mend the cause and train again"
    return "the run has no finished model yet", f"finish it with striate resume {folder}"
