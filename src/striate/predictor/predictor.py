"""Predictor: net, preprocessing and class names; the one way from a picture to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from striate.data.dataset import Images
from striate.data.decode import decode
from striate.data.preprocess import Preprocess
from striate.device import choose_device
from striate.errors import DataError, StriateError, UsageError
from striate.models.dry_run import set_mode
from striate.models.registry import create_model
from striate.models.user import instantiate, load_class, take_logits
from striate.predictor.probabilities import probabilities
from striate.runs.folder import open_run
from striate.runs.model_file import ModelCard, read_card, read_weights

Logits = NDArray[np.float32]
OwnNet = torch.nn.Module | type[torch.nn.Module] | str | None

# A batch large enough to fill the cores and small enough to stay in tens of megabytes for common nets.
BATCH_PICTURES = 500


@dataclass(frozen=True)
class Answer:
    """What the net says of one picture, or why it could not be asked.

    `probabilities` in class order; `error` {code, cause, fix} where the picture could not be read;
    `steps` what was done to the picture on its way to the net.
    """

    source: str
    label: str = ""
    probability: float = 0.0
    probabilities: dict[str, float] = field(default_factory=dict)
    rejected: bool = False
    steps: tuple[str, ...] = ()
    error: dict[str, str] | None = None
    seen: Images | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the `results` of predict --json."""
        if self.error is not None:
            return {"source": self.source, "error": self.error}
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "rejected": self.rejected,
            "steps": list(self.steps),
        }


class Predictor:
    """Answers for pictures in any form: path, bytes, PIL image, numpy array.

    `net` gives logits for normalised pictures; `output` says how probabilities are made of them.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        preprocess: Preprocess,
        classes: Sequence[str],
        *,
        output: str = "softmax",
        temperature: float = 1.0,
        name: str = "",
        device: torch.device | None = None,
        channels_last: bool = True,
    ) -> None:
        self.net = net
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.output = output
        self.temperature = temperature
        self.name = name
        self.device = device or torch.device("cpu")
        self.channels_last = channels_last

    def logits(self, images: Images, batch_size: int = BATCH_PICTURES) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size.

        fp32, evaluation mode, no test-time augmentation; the net's mode is put back afterwards.
        """
        was_training = self.net.training
        set_mode(self.net, False)
        parts = []
        try:
            with torch.inference_mode():
                for start in range(0, len(images), batch_size):
                    batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
                    pictures = self.preprocess.normalise(batch.to(self.device), self.channels_last)  # (B, C, H, W)
                    parts.append(self.net(pictures).float().cpu().numpy())
        finally:
            set_mode(self.net, was_training)
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)

    def probabilities(self, logits: Logits) -> NDArray[np.float64]:
        """Return float64 probabilities (N, K) of logits: temperature, then softmax or sigmoid."""
        return probabilities(logits, self.output, self.temperature)

    def predict(self, sources: Any) -> Any:
        """Answer for one picture or for a list of them.

        A source is a path, bytes, a PIL image or a numpy array (H, W) or (H, W, C). One source gives one Answer;
        a list or tuple gives a list in the same order. A picture that cannot be read gets an Answer whose `error`
        names the cause; the others are answered.
        """
        if not isinstance(sources, (list, tuple)):
            return next(iter(self.predict_many([sources])))
        return self.predict_many(sources)

    def predict_many(self, sources: Sequence[Any]) -> list[Answer]:
        """Answer for a list of pictures, in order; see `predict`."""
        answers: list[Answer] = []
        for start in range(0, len(sources), BATCH_PICTURES):
            answers += self._predict_batch(sources[start : start + BATCH_PICTURES], start)
        return answers

    def _predict_batch(self, sources: Sequence[Any], first: int) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(sources)
        readable, pictures, steps = [], [], []
        for position, source in enumerate(sources):
            name = source_name(source, first + position)
            notes: list[str] = []
            try:
                picture = decode(source, channels=self.preprocess.channels, notes=notes)
                pictures.append(self.preprocess.geometry(picture))
                readable.append((position, name))
                steps.append(tuple(notes))
            except DataError as error:
                detail = {"code": "unreadable", "cause": error.cause or error.what, "fix": error.fix}
                answers[position] = Answer(name, error=detail)
        if pictures:
            logits = self.logits(np.stack(pictures))
            rows = zip(readable, logits, self.probabilities(logits), steps, pictures, strict=True)
            for (position, name), scores, row, notes_of, seen in rows:
                answers[position] = self.answer(name, int(scores.argmax()), row, notes_of, seen)
        return [answer for answer in answers if answer is not None]

    def answer(
        self, source: str, best: int, probabilities: NDArray[np.float64], steps: tuple[str, ...] = (), seen: Any = None
    ) -> Answer:
        """Build the Answer for one row of probabilities; `best` is the class of the highest logit."""
        named = {name: float(p) for name, p in zip(self.classes, probabilities, strict=True)}
        return Answer(source, self.classes[best], float(probabilities[best]), named, False, steps, None, seen)


def load_predictor(path: str | Path, *, device: str = "auto", model: OwnNet = None) -> Predictor:
    """Load the model of a run for answering.

    `path` is a run folder, its name under runs/, or runs/latest; `model` is needed for a user's own module.
    Raises UsageError for a run that is not there, DataError for files that are damaged or do not fit the net.
    """
    folder = open_run(path)
    card = read_card(folder.path)
    chosen, _ = choose_device(device)
    net = build_net(card, model)
    load_weights(net, read_weights(folder.path, card), str(folder.path / card.weights["file"]))
    return Predictor(
        net.to(chosen),
        Preprocess.from_json(card.preprocess),
        card.classes,
        output=card.output,
        temperature=card.temperature,
        name=folder.name,
        device=chosen,
        channels_last=card.name is not None,
    )


def build_net(card: ModelCard, model: OwnNet = None) -> torch.nn.Module:
    """Build the net that a card describes; a user's own module must be given, for no file may name code to run.

    `model`: the module, its class, or `net.py:MyNet` as the user typed it.
    """
    if isinstance(model, str):
        model = load_class(model) if ".py:" in model or card.name is None else None
    if card.name is not None:
        if model is not None:
            raise UsageError(f"this run's net is {card.name}", "it needs no model", "leave out --model")
        return create_model(card.name, card.num_classes, card.in_channels, card.input_size, **card.options)
    if model is None:
        raise UsageError(
            f"this run's net is your own class {card.class_name}",
            "a run folder holds weights, never code",
            f"give it: --model net.py:{card.class_name}, or model={card.class_name}() in Python",
        )
    if isinstance(model, torch.nn.Module):
        net = model
    else:
        net = instantiate(model, card.num_classes, card.in_channels, card.input_size, **card.options)
    take_logits(net, (card.in_channels, *card.input_size))
    return net


def load_weights(net: torch.nn.Module, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Copy weights into a net; every name and shape must match. Raises DataError listing what does not."""
    own = net.state_dict()
    missing = sorted(set(own) - set(tensors))
    unexpected = sorted(set(tensors) - set(own))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        told = [
            f"{kind}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
            for kind, names in (("missing", missing), ("not in the net", unexpected), ("shape", shapes))
            if names
        ]
        raise DataError(f"{origin} does not fit the net", "; ".join(told), "give the net these weights were saved from")
    net.load_state_dict(tensors)


def source_name(source: Any, position: int) -> str:
    """Name a picture for the answer: its path, or its place in the list."""
    if isinstance(source, (str, Path)):
        return str(source)
    filename = getattr(source, "filename", None) or getattr(source, "name", None)
    return str(filename) if filename else f"picture {position}"


__all__ = ["Answer", "Predictor", "StriateError", "build_net", "load_predictor", "load_weights", "source_name"]
