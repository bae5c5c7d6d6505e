"""A run becomes one file: an ONNX graph that was proved on real pictures, or weights and card together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from striate.device import available_threads, denormals_flushed
from striate.errors import UsageError, VerificationError
from striate.exporting import parity
from striate.exporting.int8 import quantise
from striate.exporting.onnx import OPSET, build_graph, check_installed, describe
from striate.exporting.parity import Answers
from striate.files import sha256_file, staged, write_new
from striate.predictor.nets import OwnNet, load_net
from striate.predictor.predictor import load_predictor
from striate.report.console import note
from striate.runs.packed import StoredModel, open_model, open_packed, pack_model
from striate.settings.base import build
from striate.settings.export import SUFFIXES, ExportSettings
from striate.training.pictures import parts_of, run_of, sample

FORMAT = 1
# The first that holds a picture: what the net was not trained on comes first, and the test set is kept for the end.
PROVED_ON = ("validation", "test", "train")


def export(run: str | Path, *, model: OwnNet = None, data: Any = None, **settings: Any) -> dict[str, Any]:
    """Write a run's model as one file, prove it, and return the proof.

    `settings`: any of ExportSettings, such as to="onnx" or "striate", int8=True, out="model.onnx". `model` is needed
    for a module of your own; `data`, a name or (images, labels), where the run was trained on arrays.
    Returns {format, run, to, file, bytes, sha256}, and of an ONNX file {opset, int8, pictures, agreement,
    largest_difference, tolerance, accuracy, load_seconds, latency_ms} too. Raises VerificationError, whose `record`
    holds as much, where the file does not answer as the run does: then no file is written. MissingExtra without onnx.
    """
    if isinstance(data, str):
        settings["data"], data = data, None
    resolved, _ = build(ExportSettings, [("argument", settings)])
    return export_model(run, resolved, model=model, data=data)


def export_model(
    run: str | Path, settings: ExportSettings, *, model: OwnNet = None, data: Any = None
) -> dict[str, Any]:
    """Export with settings that are already resolved; the command line calls this."""
    stored = open_model(run)
    name = "model.int8" if settings.int8 else "model"
    path = settings.out or stored.card_path.parent / (name + SUFFIXES[settings.to])
    if path.exists() and not (settings.force and path.is_file()):
        raise UsageError(f"{path} is there already", "", "choose another --out, or replace a file with --force")
    if settings.to == "striate":
        return _pack(stored, path, model)
    check_installed()
    return _export_onnx(run, stored, path, settings, model, data if settings.data is None else settings.data)


def _pack(stored: StoredModel, path: Path, model: OwnNet) -> dict[str, Any]:
    """Write weights and card into one file, and read them back from it."""
    tensors = stored.read()
    if stored.card.name is not None or model is not None:
        load_net(stored, model)
    with staged(path) as temporary:
        write_new(temporary, pack_model(stored.card, tensors))
        packed = open_packed(temporary)
        again = packed.read()
        cards = [{**card.to_json(), "weights": None} for card in (stored.card, packed.card)]
        same = tensors.keys() == again.keys() and all(torch.equal(tensors[name], again[name]) for name in tensors)
        if not same or cards[0] != cards[1]:
            raise VerificationError(f"what was written for {path} reads as another model", "", "report this")
        written = {"bytes": temporary.stat().st_size, "sha256": sha256_file(temporary)}
    return {"format": FORMAT, "run": stored.name, "to": "striate", "file": str(path), **written}


@denormals_flushed()
def _export_onnx(
    run: str | Path, stored: StoredModel, path: Path, settings: ExportSettings, model: OwnNet, data: Any
) -> dict[str, Any]:
    """Write the ONNX file under another name, ask it and torch for the same pictures, and only then name it."""
    predictor = load_predictor(run, device="cpu", model=model)
    folder, config = run_of(run, predictor.output, note)
    parts, own = parts_of(folder, predictor, config, note, data=data, data_root=settings.data_root)
    split, part, images, indices = sample(parts, own, predictor, PROVED_ON, settings.pictures)
    logits = predictor.logits(images)
    wanted = Answers(predictor.probabilities(logits), logits)
    labels = part.labels[indices]
    threads = available_threads()

    source = f"{stored.name}, epoch {stored.card.weights['epoch']}, weights with SHA-256 {stored.sha256()}"
    graph = build_graph(predictor.net, stored.card, source)
    record: dict[str, Any] = {
        "format": FORMAT,
        "run": stored.name,
        "to": "onnx",
        "file": str(path),
        "opset": OPSET,
        "pictures": {"data": part.name, "split": split, "count": len(images)},
        "tolerance": parity.tolerances(wanted),
        "accuracy": {"torch": _accuracy(wanted, labels)},
        "int8": None,
    }
    sides: dict[str, Callable[[Any], object]] = {"torch": predictor.logits}
    with staged(path) as temporary:
        content = graph.SerializeToString()
        if not settings.int8:
            write_new(temporary, content)
        session = parity.open_session(content if settings.int8 else temporary, threads)
        sides["onnxruntime"] = lambda pictures: parity.ask_session(session, pictures)
        found = parity.ask_session(session, images)
        record |= parity.compare(wanted, found)
        record["accuracy"]["onnxruntime"] = _accuracy(found, labels)
        if not parity.is_same(record, record["tolerance"]):
            raise _is_another(record)
        if settings.int8:
            _, _, calibration, _ = sample(parts, own, predictor, ("train",), settings.calibration)
            small = quantise(graph, calibration)
            describe(small, stored.card, f"{source}, in 8 bits")
            write_new(temporary, small.SerializeToString())
            quick = parity.open_session(temporary, threads)
            sides["int8"] = lambda pictures: parity.ask_session(quick, pictures)
            answers = parity.ask_session(quick, images)
            record["accuracy"]["int8"] = _accuracy(answers, labels)
            lost = record["accuracy"]["onnxruntime"] - record["accuracy"]["int8"]
            record["int8"] = {
                **parity.compare(wanted, answers),
                "calibration": len(calibration),
                "accuracy_lost": lost,
                "most_loss": settings.most_loss,
                "float32_bytes": len(content),
            }
            if not lost <= settings.most_loss:
                raise _costs_too_much(record)
        record |= {"bytes": temporary.stat().st_size, "sha256": sha256_file(temporary)}
        record["load_seconds"] = parity.load_seconds(temporary, threads)
        record["latency_ms"] = parity.latencies(sides, images)
    return record


def _accuracy(answers: Answers, labels: Any) -> float:
    return float((answers.labels == labels).mean())


def _is_another(record: dict[str, Any]) -> VerificationError:
    largest, tolerance = record["largest_difference"], record["tolerance"]
    which = "probability" if not largest["probability"] <= tolerance["probability"] else "logit"
    error = VerificationError(
        f"the exported graph does not answer as {record['run']} does; {record['file']} was not written",
        f"a {which} differs by {largest[which]:.2g}, and at most {tolerance[which]:.2g} is rounding",
        "if the net is your own: does it draw random numbers, or do more in evaluation than torch.onnx can see?",
    )
    error.record = record
    return error


def _costs_too_much(record: dict[str, Any]) -> VerificationError:
    told = record["int8"]
    error = VerificationError(
        f"in 8 bits {100 * told['accuracy_lost']:.2f} points of accuracy are lost; {record['file']} was not written",
        f"at most {100 * told['most_loss']:.2f} are accepted",
        "use more --calibration pictures, accept it with --most-loss, or leave out --int8",
    )
    error.record = record
    return error
