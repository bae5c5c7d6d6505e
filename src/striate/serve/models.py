"""The models that are served: each a name, an ONNX graph that onnxruntime answers with, and for a run its torch net."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.dataset import Images
from striate.errors import MissingExtra, UsageError, near_names
from striate.predictor.onnx_backend import card_of, predictor_of
from striate.predictor.onnx_file import is_onnx, parse_onnx, read_onnx
from striate.predictor.predictor import Logits, Predictor
from striate.serve.batching import Answered, Batcher
from striate.serve.refusals import Refused

MOST_NAME = 100
_VERSION_DIGITS = 12


@dataclass(frozen=True)
class Prepared:
    """A model ready to be asked by any process: its name, and an ONNX file with its card inside.

    `sha256` is the digest of the run's weights, or of the file that was named. `run` is what torch loads for
    explaining: a run or a packed file, None for an ONNX file; `own` is `net.py:MyNet`, as the user typed it.
    """

    name: str
    content: bytes
    sha256: str
    run: str | None = None
    own: str | None = None


class Served:
    """One model on the server. All but `torch_predictor` belongs to the event loop."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        thread: ThreadPoolExecutor,
        threads: int = 0,
        told: Callable[[str, int, float], None] = lambda name, pictures, seconds: None,
        max_batch: int = 64,
        **queue: Any,
    ) -> None:
        """`thread` asks the net, one batch at a time; `threads` as in OnnxBackend; `queue` as in Batcher."""
        file = parse_onnx(prepared.content, Path(prepared.name))
        self.name = prepared.name
        self.sha256 = prepared.sha256
        self.version = prepared.sha256[:_VERSION_DIGITS]
        self.card = card_of(file)
        self.predictor: Predictor = predictor_of(file, self.card, threads)
        self.batcher = Batcher(
            self._ask,
            thread=thread,
            max_batch=min(max_batch, self.predictor.batch_pictures),
            told=lambda pictures, seconds: told(prepared.name, pictures, seconds),
            **queue,
        )
        self._prepared = prepared
        self._torch: Predictor | None = None
        self._lock = threading.Lock()

    async def answer(self, images: Images) -> Logits:
        """Return float32 logits (n, K) for pictures uint8 (n, H, W, C) at the net's size. Raises Busy."""
        with self.batcher.place(len(images)):
            return (await self.batcher.answer(images)).logits

    def _ask(self, images: Images) -> Answered:
        logits, distances = self.predictor.logits_and_distances(images)
        style = self.predictor.preprocess.drawing
        return Answered(logits, distances, np.ones(len(images), bool) if style is None else style.holds_each(images))

    def warm(self) -> None:
        """Ask the net once: the first answer takes longer."""
        shape = (1, *self.predictor.preprocess.size, self.predictor.preprocess.channels)
        self.predictor.logits(np.zeros(shape, np.uint8))

    @property
    def explains(self) -> bool:
        """Whether there is a run that torch could load."""
        return self._prepared.run is not None

    def torch_predictor(self) -> Predictor:
        """Return the run's torch predictor, loaded at the first call, which takes seconds; for any thread.

        Raises MissingExtra for an ONNX file and without torch, DataError where the run is no longer the one served.
        """
        if self._prepared.run is None:
            raise MissingExtra(
                f"{self.name} is served from an ONNX file", "looking inside a net needs the net itself", "serve its run"
            )
        with self._lock:
            if self._torch is None:
                try:
                    from striate.predictor.torch_backend import load_run
                except ModuleNotFoundError as error:
                    raise MissingExtra("cannot look inside a net", "torch is not installed", "install it") from error
                self._torch = load_run(
                    self._prepared.run,
                    device="cpu",
                    model=self._prepared.own,
                    precision="fp32",
                    expect_sha256=self.sha256,
                )
        return self._torch

    def to_json(self) -> dict[str, Any]:
        """Return one entry of GET /models."""
        card = self.card
        return {
            "name": self.name,
            "version": self.version,
            "classes": list(card.classes),
            "input_size": list(card.input_size),
            "in_channels": card.in_channels,
            "output": card.output,
            "net": {"class": card.class_name, "parameters": card.metrics.get("parameters")},
            "drawing": self.predictor.preprocess.drawing is not None,
            "unlike": card.doubt is not None,
            "explain": self.explains,
            "backend": "onnxruntime",
            "sha256": self.sha256,
            "metrics": card.metrics,
            "licence": card.licence,
        }


def choose(models: Sequence[Served], name: str | None, version: str | None = None) -> Served:
    """Return the model called `name`, or the first. Raises Refused (404) with the near names."""
    if name is None:
        return models[0]
    for model in models:
        if model.name == name and version in (None, model.version):
            return model
    if version is not None and any(model.name == name for model in models):
        raise Refused(404, f"model {name!r} has no version {version[:MOST_NAME]!r}", code="unknown-version")
    known = [model.name for model in models]
    near = near_names(name[:MOST_NAME], known) or known[:20]
    raise Refused(404, f"there is no model {name[:MOST_NAME]!r}", f"served: {', '.join(near)}", code="unknown-model")


def prepare(targets: Sequence[str], own: str | None = None) -> list[Prepared]:
    """Make models of targets: a run, runs/latest, model.onnx or a packed file, each perhaps as NAME=TARGET.

    `own` is `net.py:MyNet` for the runs whose net is the user's own. Raises UsageError for names that are not
    distinct, and as `load_predictor` and `striate.export` do.
    """
    named = [split_name(target) for target in targets]
    found: list[Prepared] = []
    for name, target in named:
        one = _prepare_onnx(Path(target), name) if is_onnx(target) else _prepare_run(target, name, own)
        twin = next((number for number, other in enumerate(found) if other.name == one.name), None)
        if twin is not None:
            raise UsageError(
                f"two models are called {one.name}",
                f"{named[twin][1]} and {target}",
                f"give one of them another name: other={target}",
            )
        found.append(one)
    return found


def split_name(target: str) -> tuple[str | None, str]:
    """Return the name and the target of NAME=TARGET; a path that is there is a target. Raises UsageError."""
    name, equals, rest = target.partition("=")
    if not equals or "/" in name or "\\" in name or Path(target).exists():
        return None, target
    return _checked(name), rest


def _checked(name: str) -> str:
    if not 0 < len(name) <= MOST_NAME or not name.isprintable() or "/" in name or name != name.strip():
        raise UsageError(
            f"{name[:MOST_NAME]!r} cannot be a model's name", "a name is one word of an address", "write digits=TARGET"
        )
    return name


def _prepare_onnx(path: Path, name: str | None) -> Prepared:
    content = read_onnx(path).content
    # `striate export` calls the file model.onnx and leaves it in the run: the run's name tells more.
    own = path.resolve().parent.name if path.stem == "model" else path.stem
    return Prepared(name or _checked(own), content, hashlib.sha256(content).hexdigest())


def _prepare_run(target: str, name: str | None, own: str | None) -> Prepared:
    """Export a run in memory, and prove on random pictures that the graph answers as torch does."""
    try:
        from striate.exporting.serving import graph_of_run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("torch", "onnx", "onnxscript"):
            raise
        raise MissingExtra(
            f"cannot serve {target}", f"a run needs {error.name} to be served", "pip install 'striate[serve]'"
        ) from error
    graph = graph_of_run(target, own)
    return Prepared(name or _checked(graph.name), graph.content, graph.sha256, target, graph.own)
