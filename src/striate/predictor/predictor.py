"""Predictor: net, preprocessing and class names; the one way from a picture to probabilities."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from striate.data.dataset import Images
from striate.data.decode import decode_fitted
from striate.data.preprocess import Preprocess
from striate.device import Plan, available_threads, check_precision, choose_device, denormals_flushed, processor_flags
from striate.errors import DataError, StriateError
from striate.models.dry_run import set_mode
from striate.predictor.augmented import Ask, ask_once
from striate.predictor.folding import fold_batchnorm
from striate.predictor.nets import OwnNet, build_net, load_net, load_weights
from striate.predictor.probabilities import probabilities
from striate.runs.folder import open_run
from striate.runs.model_file import read_card

Logits = NDArray[np.float32]

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


class Predictor:
    """Answers for pictures in any form: path, bytes, PIL image, numpy array.

    `net` gives logits for normalised pictures; `output` says how probabilities are made of them. It computes in fp32
    on all cores unless `precision` (bf16) and `threads` say otherwise. `fold`: BatchNorm is folded into a copy of the
    net's weights once, now; for a net that is trained no more.
    Raises UsageError for bf16 on a processor that does not compute in it.
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
        precision: str = "fp32",
        threads: int = 0,
        fold: bool = False,
    ) -> None:
        self.net = net
        self._answering = fold_batchnorm(net) if fold else net
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.output = output
        self.temperature = temperature
        self.name = name
        self.device = device or torch.device("cpu")
        check_precision(precision, self.device, processor_flags())
        self.plan = Plan(precision, channels_last, threads or available_threads(), True, "")

    def in_precision(self, precision: str) -> Predictor:
        """Return this predictor computing in fp32 or bf16. Raises UsageError as the constructor does."""
        check_precision(precision, self.device, processor_flags())
        other = copy.copy(self)
        other.plan = replace(self.plan, precision=precision)
        return other

    @property
    def batch_pictures(self) -> int:
        """How many pictures are asked at once."""
        return max(1, min(BATCH_PICTURES, BATCH_PIXELS // math.prod(self.preprocess.size)))

    def logits(self, images: Images, batch_size: int = 0, ask: Ask = ask_once) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size.

        In evaluation mode; the net's mode is put back afterwards. `batch_size` 0 chooses; `ask` may augment the
        pictures (predictor/augmented.py).
        """
        net, plan = self._answering, self.plan
        batch_size = batch_size or self.batch_pictures
        was_training = net.training
        set_mode(net, False)
        parts = []
        try:
            with torch.inference_mode(), plan.active():
                for start in range(0, len(images), batch_size):
                    batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
                    pictures = self.preprocess.normalise(batch.to(self.device), plan.channels_last)  # (B, C, H, W)
                    with plan.autocast(self.device):
                        logits = ask(net, pictures)  # (B, K)
                    parts.append(logits.float().cpu().numpy())
        finally:
            set_mode(net, was_training)
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)

    def change_against_fp32(self, images: Images | Sequence[Images]) -> str:
        """Say how far the answers on the first batch of `images` (N, H, W, C) are from those in fp32."""
        images = np.asarray(images[: self.batch_pictures])
        exact = self.in_precision("fp32").logits(images)
        found = self.logits(images)
        largest = np.abs(self.probabilities(found) - self.probabilities(exact)).max(initial=0.0)
        changed = int((found.argmax(1) != exact.argmax(1)).sum())
        return (
            f"{self.plan.precision} against fp32, first {len(images):,} pictures: probabilities differ by"
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
        answers: list[Answer] = []
        batch = self.batch_pictures
        # Pillow lets other threads work while it decodes and scales.
        with ThreadPoolExecutor(self.plan.threads) as pool:
            for start in range(0, len(sources), batch):
                answers += self._predict_batch(sources[start : start + batch], start, pool)
        return answers

    def _predict_batch(self, sources: Sequence[Any], first: int, pool: ThreadPoolExecutor) -> list[Answer]:
        names = [source_name(source, first + position) for position, source in enumerate(sources)]
        # A PIL image or a stream may stand in the list twice, and no two threads may read one at once.
        independent = all(isinstance(source, (str, Path, bytes, np.ndarray)) for source in sources)
        readings = list((pool.map if independent else map)(self._read, sources))
        answers: list[Answer | None] = [None] * len(sources)
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

    def _read(self, source: Any) -> tuple[Images, tuple[str, ...]] | DataError:
        """Return a picture uint8 (H, W, C) at the net's size with what was done to it, or why it cannot be read."""
        notes: list[str] = []
        try:
            return decode_fitted(source, self.preprocess, notes=notes), tuple(notes)
        except DataError as error:
            return error

    def answer(
        self, source: str, best: int, probabilities: NDArray[np.float64], steps: tuple[str, ...] = (), seen: Any = None
    ) -> Answer:
        """Build the Answer for one row of probabilities; `best` is the class of the highest logit."""
        named = {name: float(p) for name, p in zip(self.classes, probabilities, strict=True)}
        return Answer(source, self.classes[best], float(probabilities[best]), named, False, steps, None, seen)


@denormals_flushed()
def load_predictor(
    path: str | Path,
    *,
    device: str = "auto",
    model: OwnNet = None,
    precision: str = "fp32",
    expect_sha256: str | None = None,
) -> Predictor:
    """Load the model of a run for answering.

    `path` is a run folder, its name under runs/, or runs/latest; `model` is needed for a user's own module;
    `precision` fp32 or bf16; `expect_sha256` the digest that the file of weights must have.
    Raises UsageError for a run that is not there, DataError for files that are damaged, not what was expected, or do
    not fit the net.
    """
    folder = open_run(path)
    card = read_card(folder.path)
    chosen, _ = choose_device(device)
    net = load_net(folder.path, card, model, expect_sha256)
    # A net of the user's own gets pictures laid out as a DataLoader gives them: in channels-last a `view` would fail.
    channels_last = card.name is not None and chosen.type != "mps"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return Predictor(
        net.to(device=chosen, memory_format=layout),  # type: ignore[call-overload]
        Preprocess.from_json(card.preprocess),
        card.classes,
        output=card.output,
        temperature=card.temperature,
        name=folder.name,
        device=chosen,
        channels_last=channels_last,
        precision=precision,
        fold=True,
    )


def source_name(source: Any, position: int) -> str:
    """Name a picture for the answer: its path, or its place in the list."""
    if isinstance(source, (str, Path)):
        return str(source)
    filename = getattr(source, "filename", None) or getattr(source, "name", None)
    return str(filename) if filename else f"picture {position}"


__all__ = ["Answer", "Predictor", "StriateError", "build_net", "load_predictor", "load_weights", "source_name"]
