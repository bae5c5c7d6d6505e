"""Predictor: preprocessing, class names and a backend that computes; the one way from a picture to probabilities."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Images
from striate.data.decode import decode_fitted
from striate.data.preprocess import Preprocess
from striate.errors import DataError, UsageError
from striate.predictor.onnx_file import is_onnx
from striate.predictor.probabilities import probabilities

if TYPE_CHECKING:
    import torch

    from striate.predictor.augmented import Ask
    from striate.predictor.nets import OwnNet

Logits = NDArray[np.float32]
_Reading = tuple[Images, tuple[str, ...]]  # a picture at the net's size, and what was done to it
_Batch = tuple[Sequence[str], Iterator["_Reading | DataError"]]  # the pictures' names, and the readings as they come

# A batch large enough to fill the cores, and small enough for its maps to stay near the cache: at 500 pictures of
# 32 × 32 convolutional nets are a fifth to a third slower, at 25 a tenth to a fifth (benchmarks/answers.py --sizes).
BATCH_PICTURES = 250
# Larger pictures go fewer at a time: VGG's first maps then take half a gigabyte, and not six.
BATCH_PIXELS = 2**21


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


class Backend(Protocol):
    """What computes logits: torch (torch_backend.py) or onnxruntime (onnx_backend.py), imported when it is used."""

    @property
    def precision(self) -> str:
        """Number format that it computes in: fp32 or bf16."""

    @property
    def threads(self) -> int:
        """How many threads it computes with; pictures are decoded with as many."""

    def logits(self, images: Images, batch_size: int, ask: Ask | None = None) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size; see Predictor.logits."""

    def in_precision(self, precision: str) -> Backend:
        """Return this backend computing in fp32 or bf16. Raises UsageError where it cannot."""


class Predictor:
    """Answers for pictures in any form: path, bytes, PIL image, numpy array.

    `backend` gives logits for pictures at the net's size; `output` says how probabilities are made of them.
    """

    def __init__(
        self,
        backend: Backend,
        preprocess: Preprocess,
        classes: Sequence[str],
        *,
        output: str = "softmax",
        temperature: float = 1.0,
        name: str = "",
    ) -> None:
        self.backend = backend
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.output = output
        self.temperature = temperature
        self.name = name

    def in_precision(self, precision: str) -> Predictor:
        """Return this predictor computing in fp32 or bf16. Raises UsageError where its backend cannot."""
        other = copy.copy(self)
        other.backend = self.backend.in_precision(precision)
        return other

    @property
    def net(self) -> torch.nn.Module:
        """The net as a torch module. Raises UsageError for an ONNX file, which has none."""
        net = getattr(self.backend, "net", None)
        if net is None:
            raise UsageError(f"{self.name} has no torch net", "an ONNX file is a graph", "name the run it was made of")
        return net

    @property
    def batch_pictures(self) -> int:
        """How many pictures are asked at once."""
        return max(1, min(BATCH_PICTURES, BATCH_PIXELS // math.prod(self.preprocess.size)))

    def logits(self, images: Images, batch_size: int = 0, ask: Ask | None = None) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size.

        `batch_size` 0 chooses; `ask` may augment the pictures (predictor/augmented.py), where the backend is torch.
        """
        if len(images) == 0:
            return np.empty((0, len(self.classes)), np.float32)
        return self.backend.logits(images, batch_size or self.batch_pictures, ask)

    def change_against_fp32(self, images: Images | Sequence[Images]) -> str:
        """Say how far the answers on the first batch of `images` (N, H, W, C) are from those in fp32."""
        images = np.asarray(images[: self.batch_pictures])
        exact = self.in_precision("fp32").logits(images)
        found = self.logits(images)
        largest = np.abs(self.probabilities(found) - self.probabilities(exact)).max(initial=0.0)
        changed = int((found.argmax(1) != exact.argmax(1)).sum())
        return (
            f"{self.backend.precision} against fp32, first {len(images):,} pictures: probabilities differ by"
            f" {largest:.2g} at most, {changed:,} answers change"
        )

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
        return list(self.answers(sources))

    def answers(self, sources: Iterable[Any]) -> Iterator[Answer]:
        """Answer for pictures as they come, in order; see `predict`.

        The next batch is read by several threads while one is asked. However many pictures there are, two batches of
        them at the net's size are held in memory.
        """
        coming, asked = iter(sources), 0
        pool = ThreadPoolExecutor(self.backend.threads)  # Pillow lets other threads work while it decodes and scales
        try:
            before: _Batch = ([], iter(()))
            while batch := list(itertools.islice(coming, self.batch_pictures)):
                names = [source_name(source, number) for number, source in enumerate(batch, asked)]
                # A PIL image or a stream may stand in the list twice, and no two threads may read one at once.
                independent = all(isinstance(source, (str, Path, bytes, np.ndarray)) for source in batch)
                after = names, (pool.map if independent else map)(self._read, batch)
                yield from self._answer(*before)
                before, asked = after, asked + len(batch)
            yield from self._answer(*before)
        finally:
            pool.shutdown(cancel_futures=True)

    def _answer(self, names: Sequence[str], readings: Iterator[_Reading | DataError]) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(names)
        readable = []
        for position, reading in enumerate(readings):
            if isinstance(reading, DataError):
                detail = {"code": "unreadable", "cause": reading.cause or reading.what, "fix": reading.fix}
                answers[position] = Answer(names[position], error=detail)
            else:
                readable.append((position, *reading))
        if readable:
            logits = self.logits(np.stack([picture for _, picture, _ in readable]))
            rows = zip(readable, logits, self.probabilities(logits), strict=True)
            for (position, picture, notes), scores, row in rows:
                answers[position] = self.answer(names[position], int(scores.argmax()), row, notes, picture)
        return [answer for answer in answers if answer is not None]

    def _read(self, source: Any) -> _Reading | DataError:
        """Return a picture uint8 (H, W, C) at the net's size with what was done to it, or why it cannot be read."""
        notes: list[str] = []
        try:
            return decode_fitted(source, self.preprocess, notes=notes, tell_fit=True), tuple(notes)
        except DataError as error:
            return error

    def answer(
        self, source: str, best: int, probabilities: NDArray[np.float64], steps: tuple[str, ...] = (), seen: Any = None
    ) -> Answer:
        """Build the Answer for one row of probabilities; `best` is the class of the highest logit."""
        named = {name: float(p) for name, p in zip(self.classes, probabilities, strict=True)}
        return Answer(source, self.classes[best], float(probabilities[best]), named, False, steps, None, seen)


def load_predictor(
    path: str | Path,
    *,
    device: str = "auto",
    model: OwnNet = None,
    precision: str = "fp32",
    expect_sha256: str | None = None,
) -> Predictor:
    """Load the model of a run, or of a file that `striate export` wrote, for answering.

    `path` is a run folder, its name under runs/, runs/latest, a file called *.safetensors, or one called *.onnx, which
    needs no torch. For all but the last: `device`; `model`, needed for a user's own module; `precision` fp32 or bf16.
    `expect_sha256` is the digest that the file, or a run's file of weights, must have.
    Raises UsageError for a run that is not there, or for what an ONNX file cannot do; DataError for files that are
    damaged, not what was expected, or do not fit the net.
    """
    if is_onnx(path):
        from striate.predictor.onnx_backend import load_onnx

        return load_onnx(path, device=device, model=model, precision=precision, expect_sha256=expect_sha256)
    from striate.predictor.torch_backend import load_run

    return load_run(path, device=device, model=model, precision=precision, expect_sha256=expect_sha256)


def source_name(source: Any, position: int) -> str:
    """Name a picture for the answer: its path, or its place in the list."""
    if isinstance(source, (str, Path)):
        return str(source)
    filename = getattr(source, "filename", None) or getattr(source, "name", None)
    return str(filename) if filename else f"picture {position}"
