"""What an exported file is worth: its answers beside torch's on real pictures, and how long both take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Images
from striate.errors import DataError, VerificationError
from striate.exporting.onnx import OUTPUTS
from striate.predictor.onnx_backend import INPUT, OnnxBackend, load_onnx

# Both sides compute in float32 and add in another order: on every net of the registry that moves a probability by less
# than a millionth. Ten times that is another computation: a wrong weight, another normalisation.
PROBABILITY_TOLERANCE = 1e-5
# Of the largest logit. Probabilities do not show a shift of all logits; in deep nets roundings add up to some 1e-5.
LOGIT_TOLERANCE = 1e-4
# The first batches are small ones, so that a graph that is right for one number of pictures alone is found out.
FIRST_BATCHES = (1, 2, 7)
BATCH = 64
TIMED_BATCHES = (1, 64)
ROUNDS, LEAST_ROUNDS, SECONDS = 15, 3, 4.0
LOADS = 3

Asked = Callable[[Images], object]


@dataclass(frozen=True)
class Answers:
    """Probabilities and logits (N, K) for the same pictures, in order."""

    probabilities: NDArray[Any]
    logits: NDArray[Any]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of the highest logit, int64 (N,)."""
        return self.logits.argmax(1)


def open_session(model: Path | bytes, threads: int) -> Any:
    """Load a model as striate does to answer with it: a file with all checks, or the bytes of one.

    Raises VerificationError where that is refused.
    """
    try:
        backend: Any = (
            OnnxBackend(model, "the graph", threads)
            if isinstance(model, bytes)
            else load_onnx(model, threads=threads).backend
        )
    except DataError as error:
        raise VerificationError("the exported graph cannot be loaded", error.what, error.cause) from error
    return backend.session


def load_seconds(path: Path, threads: int) -> float:
    """Return how long it takes to load a file: the median of a few times."""
    seconds = []
    for _ in range(LOADS):
        began = time.perf_counter()
        open_session(path, threads)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def ask_session(session: Any, images: Images) -> Answers:
    """Answer for pictures uint8 (N, H, W, C): in a batch of one, of two, of seven, and then of 64 pictures.

    Raises VerificationError where the graph cannot take them, or returns other shapes than it promises.
    """
    ends = [end for end in np.cumsum(FIRST_BATCHES).tolist() if end < len(images)]
    ends += [*range((ends[-1] if ends else 0) + BATCH, len(images), BATCH), len(images)]
    parts = []
    for start, end in zip([0, *ends], ends):
        try:
            found = session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(images[start:end])})
        except Exception as error:  # its own classes have no common parent
            raise VerificationError(
                f"onnxruntime cannot run the exported graph on {end - start} pictures", _first_line(error)
            ) from error
        parts.append(found)
    probabilities, logits = (np.concatenate([part[place] for part in parts]) for place in range(2))
    return Answers(probabilities, logits)


def compare(wanted: Answers, found: Answers) -> dict[str, Any]:
    """Return {agreement, largest_difference: {probability, logit}} of two answers to the same pictures.

    A difference is NaN where a number is not finite. Raises VerificationError for other shapes.
    """
    shapes = wanted.logits.shape, found.probabilities.shape, found.logits.shape
    if len(set(shapes)) > 1:
        raise VerificationError(f"the exported file answers with shapes {shapes[1:]}", f"torch gives {shapes[0]}")
    return {
        "agreement": float((wanted.labels == found.labels).mean()),
        "largest_difference": {
            "probability": float(np.abs(wanted.probabilities - found.probabilities).max()),
            "logit": float(np.abs(wanted.logits - found.logits).max()),
        },
    }


def is_same(compared: Mapping[str, Any], tolerance: Mapping[str, float]) -> bool:
    """Say whether no difference is beyond its tolerance; one that is not a number is."""
    largest = compared["largest_difference"]
    return all(largest[name] <= tolerance[name] for name in ("probability", "logit"))


def tolerances(wanted: Answers) -> dict[str, float]:
    """Return how far a probability and a logit may be from torch's."""
    scale = max(1.0, float(np.abs(wanted.logits).max(initial=0.0)))
    return {"probability": PROBABILITY_TOLERANCE, "logit": LOGIT_TOLERANCE * scale}


def latencies(sides: Mapping[str, Asked], images: Images) -> dict[str, dict[str, dict[str, float]]]:
    """Ask all sides for batches of 1 and 64 pictures, in turn; return {side: {batch: {median, low, high}}}, in ms."""
    told: dict[str, dict[str, dict[str, float]]] = {name: {} for name in sides}
    for batch in TIMED_BATCHES:
        pictures = images[np.arange(batch) % len(images)]
        for ask in sides.values():  # not counted
            ask(pictures)
        found: dict[str, list[float]] = {name: [] for name in sides}
        until = time.perf_counter() + SECONDS
        for number in range(ROUNDS):
            if number >= LEAST_ROUNDS and time.perf_counter() > until:
                break
            for name, ask in sides.items():
                began = time.perf_counter()
                ask(pictures)
                found[name].append(1000 * (time.perf_counter() - began))
        for name, times in found.items():
            told[name][str(batch)] = {"median": statistics.median(times), "low": min(times), "high": max(times)}
    return told


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
