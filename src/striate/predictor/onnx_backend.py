"""The onnxruntime backend: a net in one ONNX file, on the CPU, without torch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from striate.data.preprocess import Preprocess
from striate.data.rows import Pictures
from striate.errors import DataError, MissingExtra, UsageError
from striate.predictor.onnx_file import CARD_KEY, MEND, OnnxFile, read_onnx
from striate.predictor.predictor import Logits, Predictor
from striate.runs.doubt import Doubt
from striate.runs.model_file import MOST_CARD_BYTES, ModelCard, parse_card

if TYPE_CHECKING:
    from striate.predictor.augmented import Ask

INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"
#: What a graph for serving gives beside them, float32 (N,): how near a picture's features are to a train picture's.
COSINE = "cosine"
LEVEL_OF_LOG = 4  # fatal: what goes wrong is told in our errors


class OnnxBackend:
    """A graph that is asked through onnxruntime; it takes uint8 (N, H, W, C) and normalises inside.

    `threads`: how many it computes with; 0 for one per processor core that this process may use.
    """

    precision = "fp32"

    def __init__(self, content: bytes, label: str, threads: int = 0) -> None:
        self.label = label
        self.threads = threads or available_cores()
        self.session = _open_session(content, label, self.threads)
        self.gives_cosines = any(end.name == COSINE for end in self.session.get_outputs())

    def in_precision(self, precision: str) -> OnnxBackend:
        """Return itself. Raises UsageError for another precision: that of the graph is what it was exported in."""
        if precision != self.precision:
            raise UsageError(
                f"precision {precision} is not for an ONNX file",
                "its graph computes in the precision that it was exported in",
                "leave out --precision, or name the run",
            )
        return self

    def logits(self, images: Pictures, batch_size: int, ask: Ask | None = None) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size."""
        if ask is not None:
            raise UsageError(
                f"{self.label} answers pictures as they are", "augmenting them needs torch", "name the run"
            )
        return self._ask([LOGITS], images, batch_size)[0]

    def cosines(self, images: Pictures, batch_size: int) -> tuple[Logits, Logits | None]:
        """Return logits (N, K), and the cosine (N,) of each picture's nearest train picture if the graph has it."""
        if not self.gives_cosines:
            return self.logits(images, batch_size), None
        logits, cosines = self._ask([LOGITS, COSINE], images, batch_size)
        return logits, cosines

    def _ask(self, names: list[str], images: Pictures, batch_size: int) -> list[Logits]:
        parts = []
        for start in range(0, len(images), batch_size):
            batch = np.ascontiguousarray(images[start : start + batch_size])
            try:
                found = self.session.run(names, {INPUT: batch})  # (B, K), (B,)
            except Exception as error:  # onnxruntime's own kinds have no common ancestor
                raise DataError(f"{self.label} does not answer", _first_line(error), MEND) from error
            if found[0].ndim != 2 or len(found[0]) != len(batch):
                raise DataError(f"{self.label} answers {len(batch)} pictures with shape {found[0].shape}", "", MEND)
            parts.append(found)
        return parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]


def load_onnx(
    path: str | Path,
    *,
    device: str = "auto",
    model: Any = None,
    precision: str = "fp32",
    expect_sha256: str | None = None,
    threads: int = 0,
) -> Predictor:
    """Load a model from one ONNX file; see `load_predictor`.

    Raises UsageError for what an ONNX file cannot do, DataError for a file that was not exported by striate, is
    damaged, or could do more than answer, MissingExtra without onnxruntime.
    """
    path = Path(path)
    if model is not None:
        raise UsageError(f"{path} holds its net", "it needs no model", "leave out --model")
    if device not in ("auto", "cpu"):
        raise UsageError(f"device {device} is not for an ONNX file", "onnxruntime answers on the CPU", "--device cpu")
    file = read_onnx(path)
    if expect_sha256 is not None and hashlib.sha256(file.content).hexdigest() != expect_sha256.lower():
        raise DataError(
            f"{path} is not the file that was expected",
            f"its SHA-256 is {hashlib.sha256(file.content).hexdigest()}, not {expect_sha256}",
            "ask its maker which of the two is right",
        )
    predictor = predictor_of(file, card_of(file), threads)
    predictor.backend.in_precision(precision)
    return predictor


def card_of(file: OnnxFile) -> ModelCard:
    """Return the card in an ONNX file's metadata. Raises DataError where there is none, or it is damaged."""
    text = file.metadata.get(CARD_KEY, "")
    if not text:
        raise DataError(
            f"{file.path} was not exported by striate",
            "it does not say how a picture is prepared for it and what its classes are called",
            "export a run: striate export RUN --to onnx",
        )
    if len(text) > MOST_CARD_BYTES:
        raise DataError(f"{file.path} is not a model", f"its metadata has more than {MOST_CARD_BYTES:,} letters", MEND)
    return parse_card(text, file.path)


def predictor_of(file: OnnxFile, card: ModelCard, threads: int = 0) -> Predictor:
    """Return a Predictor that asks the graph of a file. Raises DataError unless it takes and gives what `card` says."""
    backend = OnnxBackend(file.content, str(file.path), threads)
    _check_ends(backend.session, card, file.path)
    return Predictor(
        backend,
        Preprocess.from_json(card.preprocess),
        card.classes,
        output=card.output,
        temperature=card.temperature,
        name=file.path.name,
        doubt=Doubt.from_json(card.doubt),
    )


def available_cores() -> int:
    """Return how many threads to compute with: the cores that this process may use, or fewer by OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores


def _open_session(content: bytes, label: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"cannot answer with {label}", "it needs onnxruntime, which is not installed", "pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin while they wait would take the cores from those that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = LEVEL_OF_LOG
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds have no common ancestor
        raise DataError(f"{label} cannot be run", _first_line(error), MEND) from error


def _check_ends(session: Any, card: ModelCard, path: Path) -> None:
    """Raise DataError unless the graph takes and gives what the card says."""
    inputs, outputs = session.get_inputs(), {end.name: end for end in session.get_outputs()}
    wanted = (*card.input_size, card.in_channels)
    if [(end.name, end.type) for end in inputs] != [(INPUT, "tensor(uint8)")] or (
        isinstance(inputs[0].shape[0], int) or tuple(inputs[0].shape[1:]) != wanted
    ):
        told = ", ".join(f"{end.name} {end.type} {end.shape}" for end in inputs)[:200]
        raise DataError(f"{path} takes {told or 'nothing'}", f"its card says {INPUT}, uint8 (N, {wanted})", MEND)
    for name in (LOGITS, PROBABILITIES):
        end = outputs.get(name)
        last = end.shape[-1] if end is not None and end.shape else None
        fits = end is not None and end.type == "tensor(float)" and len(end.shape) == 2
        if not fits or (isinstance(last, int) and last != card.num_classes):
            told = ", ".join(f"{end.name} {end.type} {end.shape}" for end in outputs.values())[:200]
            raise DataError(f"{path} gives {told}", f"its card says {name}, float32 (N, {card.num_classes})", MEND)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
