"""Predictor: preprocessing, class names and a backend that computes; the one way from a picture to probabilities."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Images
from striate.data.decode import decode_drawn
from striate.data.drawing import STEPS, check_steps
from striate.data.preprocess import Preprocess
from striate.data.rows import Pictures
from striate.errors import DataError, UsageError
from striate.predictor.onnx_file import is_onnx
from striate.predictor.probabilities import probabilities
from striate.runs.doubt import Doubt, nearest

if TYPE_CHECKING:
    import torch

    from striate.predictor.augmented import Ask
    from striate.predictor.nets import OwnNet

Logits = NDArray[np.float32]
Prepared = tuple[str, Images, tuple[str, ...]]  # a picture's name, itself at the net's size, and what was done to it
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
    `steps` what was done to the picture on its way to the net. `distance` how far it is from the training data, where
    the model can tell: 0 is typical, above 1 is `unlike` them. `rejected`: a precision was asked for, and the answer is
    not sure enough for it, or the picture is unlike. `box` (left, top, right, bottom) where one of several digits
    stands in its picture.
    """

    source: str
    label: str = ""
    probability: float = 0.0
    probabilities: dict[str, float] = field(default_factory=dict)
    rejected: bool = False
    steps: tuple[str, ...] = ()
    error: dict[str, str] | None = None
    seen: Images | None = field(default=None, repr=False, compare=False)
    distance: float | None = None
    box: tuple[int, int, int, int] | None = None

    @property
    def unlike(self) -> bool:
        """Whether the picture is unlike the training data."""
        return self.distance is not None and self.distance > 1

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the `results` of predict --json."""
        if self.error is not None:
            return {"source": self.source, "error": self.error}
        more: dict[str, Any] = {} if self.box is None else {"box": list(self.box)}
        if self.distance is not None:
            more.update(unlike=self.unlike, distance=self.distance)
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "rejected": self.rejected,
            **more,
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

    def logits(self, images: Pictures, batch_size: int, ask: Ask | None = None) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size; see Predictor.logits."""

    def in_precision(self, precision: str) -> Backend:
        """Return this backend computing in fp32 or bf16. Raises UsageError where it cannot."""


class Predictor:
    """Answers for pictures in any form: path, bytes, PIL image, numpy array.

    `backend` gives logits for pictures at the net's size; `output` says how probabilities are made of them; `doubt`
    from which probability on answers are right often enough, and which pictures are unlike the training data.
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
        doubt: Doubt | None = None,
    ) -> None:
        self.backend = backend
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.output = output
        self.temperature = temperature
        self.name = name
        self.doubt = doubt
        self.skip: frozenset[str] = frozenset()
        self.least_probability: float | None = None

    def configured(self, *, no_step: Iterable[str] = (), reject: float | None = None) -> Predictor:
        """Return this predictor with steps for drawings left out, or with a wanted precision.

        `no_step`: names of `data.drawing.STEPS`, or `all`. `reject`: answers below the probability from which on that
        share of the validation's answers was right are rejected, and pictures unlike the training data too.
        Raises UsageError for a step that is not known or does nothing here, and for a precision the model cannot give.
        """
        other = copy.copy(self)
        other.skip = check_steps(no_step)
        if other.skip and self.preprocess.drawing is None:
            raise UsageError(
                f"{self.name} takes no steps that could be left out",
                "the pictures that it was trained on are no drawings",
                "leave out --no-step",
            )
        if reject is not None:
            if self.doubt is None:
                raise UsageError(
                    f"{self.name} does not know how sure its answers have to be",
                    "it was trained without validation, or by an older striate",
                    "train it again with --validation 0.1",
                )
            other.least_probability = self.doubt.least_probability(reject)
        return other

    def plain(self) -> Predictor:
        """Return this predictor without steps for drawings: pictures of a data set are answered as evaluate does."""
        other = copy.copy(self)
        other.skip = frozenset(STEPS)
        return other

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

    def logits(self, images: Pictures, batch_size: int = 0, ask: Ask | None = None) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size.

        `batch_size` 0 chooses; `ask` may augment the pictures (predictor/augmented.py), where the backend is torch.
        """
        if len(images) == 0:
            return np.empty((0, len(self.classes)), np.float32)
        return self.backend.logits(images, batch_size or self.batch_pictures, ask)

    def change_against_fp32(self, images: Pictures | Sequence[Images]) -> str:
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
                answers[position] = unreadable(names[position], reading)
            else:
                readable.append((position, *reading))
        if readable:
            asked = self.ask([(names[position], picture, steps) for position, picture, steps in readable])
            for (position, _, _), answer in zip(readable, asked, strict=True):
                answers[position] = answer
        return [answer for answer in answers if answer is not None]

    def _read(self, source: Any) -> _Reading | DataError:
        """Return a picture uint8 (H, W, C) at the net's size with what was done to it, or why it cannot be read."""
        try:
            (drawn,) = decode_drawn(source, self.preprocess, skip=self.skip)
            return drawn.picture, drawn.steps
        except DataError as error:
            return error

    def separate(self, source: Any, name: str = "") -> list[Answer]:
        """Answer for each digit in one picture: lines from above, from left to right in each.

        A picture that cannot be read, or shows no ink, gives one Answer with its `error`. Raises UsageError for a net
        that was not trained on drawings.
        """
        if self.preprocess.drawing is None:
            raise UsageError(
                f"{self.name} cannot find digits in a picture",
                "the pictures that it was trained on are no drawings",
                "ask for one picture at a time, without --separate",
            )
        name = name or source_name(source, 0)
        try:
            drawn = decode_drawn(source, self.preprocess, skip=self.skip, separate=True)
        except DataError as error:
            return [unreadable(name, error)]
        answers = self.ask([(name, one.picture, one.steps) for one in drawn])
        return [replace(answer, box=one.box) for answer, one in zip(answers, drawn, strict=True)]

    def ask(self, prepared: Sequence[Prepared]) -> list[Answer]:
        """Answer for pictures uint8 (H, W, C) at the net's size, each with its name and what was done to it."""
        return self.told(prepared, *self.logits_and_distances(np.stack([picture for _, picture, _ in prepared])))

    def told(self, prepared: Sequence[Prepared], logits: Logits, distances: Sequence[float | None]) -> list[Answer]:
        """Return the answers to pictures, as for `ask`, whose logits and distances are known."""
        best = logits.argmax(axis=1)
        answers = []
        for (name, picture, steps), row, top, distance in zip(
            prepared, self.probabilities(logits), best, distances, strict=True
        ):
            named = {label: float(p) for label, p in zip(self.classes, row, strict=True)}
            label = self.classes[top]
            answer = Answer(name, label, named[label], named, False, steps, None, picture, distance)
            unsure = self.least_probability is not None and (
                answer.probability < self.least_probability or answer.unlike
            )
            answers.append(replace(answer, rejected=unsure))
        return answers

    def logits_and_distances(self, images: Images) -> tuple[Logits, Sequence[float | None]]:
        """Return logits (N, K), and how far each picture is from the training data, or None where that is not known."""
        doubt, unknown = self.doubt, [None] * len(images)
        if doubt is None or doubt.cosine is None:
            logits = self.logits(images)
            return logits, unknown if doubt is None else doubt.distance(logits, None).tolist()
        look = getattr(self.backend, "cosines", None)
        if look is not None:
            logits, cosines = look(images, self.batch_pictures)
            return logits, unknown if cosines is None else doubt.distance(logits, cosines).tolist()
        give = getattr(self.backend, "features", None)
        if doubt.kept is None or give is None:
            return self.logits(images), unknown
        logits, features = give(images, self.batch_pictures)
        if features is None or features.shape[1] != doubt.kept.shape[1]:
            return logits, unknown
        return logits, doubt.distance(logits, nearest(features, doubt.kept)).tolist()


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


def unreadable(name: str, error: DataError) -> Answer:
    """Return the Answer for a picture that could not be read."""
    return Answer(name, error={"code": "unreadable", "cause": error.cause or error.what, "fix": error.fix})


def source_name(source: Any, position: int) -> str:
    """Name a picture for the answer: its path, or its place in the list."""
    if isinstance(source, (str, Path)):
        return str(source)
    filename = getattr(source, "filename", None) or getattr(source, "name", None)
    return str(filename) if filename else f"picture {position}"
