"""A run as an ONNX graph in memory, for a server: proved on random pictures, and knowing what is unlike its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from striate.device import denormals_flushed
from striate.errors import VerificationError
from striate.exporting import parity
from striate.exporting.nearest import add_cosine
from striate.exporting.onnx import build_graph, check_installed, describe
from striate.exporting.parity import Answers
from striate.predictor.onnx_backend import card_of, predictor_of
from striate.predictor.onnx_file import parse_onnx
from striate.predictor.predictor import Predictor
from striate.predictor.torch_backend import load_run
from striate.runs.packed import open_model

PICTURES = 16
# Of a distance, which divides a difference of cosines by a small one.
_DISTANCE_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ServingGraph:
    """The run's name, the ONNX file, the digest of the weights, and `net.py:MyNet` where the net needs it."""

    name: str
    content: bytes
    sha256: str
    own: str | None


@denormals_flushed()
def graph_of_run(target: str, own: str | None = None) -> ServingGraph:
    """Return the graph of a run or of a packed file; `own` is `net.py:MyNet` for a net of the user's.

    Raises VerificationError where it does not answer as torch does, MissingExtra without onnx, and as `load_run` does.
    """
    check_installed()
    stored = open_model(target)
    own = own if stored.card.name is None else None
    sha256 = stored.sha256()
    predictor = load_run(target, device="cpu", model=own, precision="fp32", expect_sha256=sha256)
    source = f"{stored.name}, weights with SHA-256 {sha256}"
    graph = build_graph(predictor.net, stored.card, source)
    kept = None if predictor.doubt is None else predictor.doubt.kept
    plain = graph.SerializeToString()
    if kept is not None and add_cosine(graph, kept):
        describe(graph, stored.card, source)
        content = graph.SerializeToString()
        if _proves(predictor, content, stored.name):
            return ServingGraph(stored.name, content, sha256, own)
    _proves(predictor, plain, stored.name)
    return ServingGraph(stored.name, plain, sha256, own)


def _proves(predictor: Predictor, content: bytes, name: str) -> bool:
    """Say whether the graph tells the same distances as torch. Raises VerificationError for other probabilities."""
    file = parse_onnx(content, Path(name))
    other = predictor_of(file, card_of(file))
    shape = (PICTURES, *predictor.preprocess.size, predictor.preprocess.channels)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    logits, distances = predictor.logits_and_distances(images)
    found, others = other.logits_and_distances(images)
    wanted = Answers(predictor.probabilities(logits), logits)
    compared = parity.compare(wanted, Answers(other.probabilities(found), found))
    if not parity.is_same(compared, parity.tolerances(wanted)):
        raise VerificationError(
            f"the graph made of {name} does not answer as torch does",
            f"largest difference: {compared['largest_difference']}",
            "if the net is your own: does it draw random numbers, or do more in evaluation than torch.onnx can see?",
        )
    told = [(one, two) for one, two in zip(distances, others, strict=True) if one is not None]
    return all(two is not None and abs(one - two) <= _DISTANCE_TOLERANCE * max(1.0, abs(one)) for one, two in told)
