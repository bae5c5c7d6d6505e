"""The report of one run: what its folder holds, and what its net and pictures still tell, put on one page."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.dataset import Dataset
from striate.data.disk import in_pieces
from striate.data.rows import Rows
from striate.errors import StriateError, UsageError
from striate.evaluation.baselines import baselines
from striate.evaluation.calibration import reliability
from striate.evaluation.diagnosis import diagnose
from striate.evaluation.metrics import confusion, predictions, wilson
from striate.explain.cam import class_maps
from striate.files import write_text
from striate.models.summary import summarise
from striate.predictor.predictor import Predictor, load_predictor
from striate.report.model_card import model_card
from striate.report.run_page import Asked, Shown, run_page
from striate.reporting.advice import evidence_of, next_command
from striate.runs.folder import RunFolder, open_run
from striate.runs.journal import read_results, read_steps
from striate.runs.model_file import read_card
from striate.settings.train import TrainSettings
from striate.training.pictures import own_parts
from striate.training.records import read_config

Report = Callable[[str], None]
Problem = tuple[tuple[str, str], str]  # what is missing, in both languages, and why

PAGE, CARD = "report.html", "MODEL_CARD.md"
TRAIN_AGAIN = 1_000  # train pictures that are asked again, for an accuracy without augmentation or dropout
WITH_MAPS = 12  # most confident mistakes that get a class activation map
SAMPLES_A_CLASS, SAMPLED_CLASSES = 3, 12


@dataclass
class _Looked:
    """What asking the net about its pictures gave; the parts that could not be had are None or empty."""

    asked: Asked | None = None
    samples: list[Shown] | None = None
    baseline: dict[str, Any] | None = None
    train_again: dict[str, float] | None = None
    copies: int = 0


def write_report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    data: Any = None,
    data_root: str | Path | None = None,
    model: Any = None,
    device: str = "auto",
    predictor: Predictor | None = None,
    note: Report = lambda line: None,
) -> Path:
    """Write the report of a run as one HTML file, and its MODEL_CARD.md; return the report's path.

    `out`: the file; default report.html in the run's folder. `data` and `model` are needed again where they were arrays
    or a module of your own. Where the pictures or the net are no longer to be had, the report says so and tells the
    rest. Raises StriateError where the folder itself cannot be read.
    """
    folder = open_run(run)
    settings = read_config(folder)
    problems: list[Problem] = []
    predictor = predictor or _predictor(folder, device, model, problems)
    looked = _look(folder, settings, predictor, data, data_root, note, problems) if predictor else _Looked()
    plain = settings.model_dump(mode="json")
    given = bool(folder.read_json("data.json").get("given"))
    evidence = evidence_of(folder, settings.model_dump(), copies=looked.copies, train_again=looked.train_again)
    facts = {
        **folder_facts(folder),
        "settings": [
            (name, value, TrainSettings.model_fields[name].description)
            for name, value in plain.items()
            if name != "out"
        ],
        "in_force": {**settings.model_dump(), "decoupled": settings.decay_is_decoupled},
        "summary": summarise(predictor.net, (predictor.preprocess.channels, *predictor.preprocess.size))
        if predictor
        else None,
        "asked": looked.asked,
        "samples": looked.samples or [],
        "baseline": looked.baseline,
        "train_again": looked.train_again,
        "copies": looked.copies,
        "diagnoses": [(found, next_command(found, folder.path, plain, given=given)) for found in diagnose(evidence)],
        "problems": problems,
    }
    path = Path(out) if out is not None else folder.file(PAGE)
    write_text(path, run_page(facts))
    write_card_page(folder, facts)
    return path


def folder_facts(folder: RunFolder) -> dict[str, Any]:
    """Return what a run folder alone tells, as plain data."""
    command = folder.file("command.txt")
    tested = folder.file("evaluation.json").is_file()
    weights = folder.file("weights/best.safetensors")
    return {
        "name": folder.name,
        "folder": str(folder),
        "status": dict(folder.status()),
        "command": command.read_text(encoding="utf-8", errors="replace").strip() if command.is_file() else "",
        "data": folder.read_json("data.json"),
        "environment": folder.read_json("env.json"),
        "start": folder.read_json("start.json") if folder.file("start.json").is_file() else None,
        "card": asdict(read_card(folder.path)) if folder.file("model.json").is_file() else None,
        "bytes": weights.stat().st_size if weights.is_file() else None,
        "results": [asdict(row) for row in read_results(folder.path)],
        "steps": read_steps(folder.path),
        "evaluation": folder.read_json("evaluation.json") if tested else None,
    }


def write_card_page(folder: RunFolder, facts: Mapping[str, Any] | None = None) -> None:
    """Write MODEL_CARD.md from the run folder; `facts` of a report add baselines and diagnoses."""
    if facts is None:
        settings = read_config(folder).model_dump()
        given = bool(folder.read_json("data.json").get("given"))
        found = diagnose(evidence_of(folder, settings))
        told = [(one, next_command(one, folder.path, settings, given=given)) for one in found]
        facts = {**folder_facts(folder), "diagnoses": told, "baseline": None}
    write_text(folder.file(CARD), model_card(facts))


def _predictor(folder: RunFolder, device: str, model: Any, problems: list[Problem]) -> Predictor | None:
    try:
        return load_predictor(folder.path, device=device, model=model)
    except StriateError as error:
        if isinstance(error, UsageError) and model is not None:
            raise
        problems.append((("The net could not be asked:", "无法询问网络："), _in_a_line(error)))
        return None


def _look(
    folder: RunFolder,
    settings: TrainSettings,
    predictor: Predictor,
    data: Any,
    data_root: str | Path | None,
    note: Report,
    problems: list[Problem],
) -> _Looked:
    try:
        parts, split = own_parts(folder, settings, note, data=data, data_root=data_root)
    except StriateError as error:
        problems.append((("The pictures could not be shown:", "无法显示图片："), _in_a_line(error)))
        return _Looked()
    train = parts.train
    looked = _Looked(samples=_samples(train, split.train))
    again = split.train[np.linspace(0, len(split.train) - 1, min(TRAIN_AGAIN, len(split.train))).astype(np.int64)]
    right = int((_logits(predictor, train, again).argmax(1) == train.labels[again]).sum())
    low, high = wilson(right, len(again))
    looked.train_again = {"value": right / len(again), "low": low, "high": high}
    if not len(split.test):
        return looked
    test, indices = split.of(parts, "test")
    began = time.perf_counter()
    logits = _logits(predictor, test, indices)
    seconds = time.perf_counter() - began
    looked.asked = _asked(predictor, test, indices, logits, seconds)
    looked.copies = _copies(train, split.train, test, indices)
    key = [folder.read_json("data.json")["fingerprints"], folder.read_json("split.json")]
    looked.baseline = baselines(
        (Rows(train.images, split.train), train.labels[split.train]),
        (Rows(test.images, indices), test.labels[indices]),
        key,
        note=note,
    )
    recorded = folder.read_json("evaluation.json")["confusion"] if folder.file("evaluation.json").is_file() else None
    if recorded is not None and not np.array_equal(looked.asked.confusion, recorded):
        said = "This machine answers some test pictures otherwise than evaluation.json records."
        problems.append(((said, "本机对部分测试图片的回答与 evaluation.json 的记录不同。"), ""))
    return looked


def _logits(predictor: Predictor, part: Dataset, indices: np.ndarray) -> Any:
    return predictor.logits(Rows(part.images, indices, predictor.preprocess))


def _asked(predictor: Predictor, part: Dataset, indices: np.ndarray, logits: Any, seconds: float) -> Asked:
    labels, answers = part.labels[indices], predictions(logits)
    sure = predictor.probabilities(logits)[np.arange(len(labels)), answers]
    output, temperature = predictor.output, predictor.temperature
    worst = [int(row) for row in np.lexsort((np.arange(len(sure)), -sure)) if answers[row] != labels[row]][:WITH_MAPS]
    return Asked(
        labels=labels,
        answers=answers,
        sure=sure,
        confusion=confusion(labels, answers, len(part.classes)),
        picture=lambda row: part.images[indices[row]],
        source=lambda row: part.source(int(indices[row])),
        maps=_maps(predictor, part.images[indices[worst]], answers[worst]) if worst else None,
        worst=worst,
        before=reliability(logits, labels, output, 1.0),
        after=reliability(logits, labels, output, temperature),
        temperature=temperature,
        seconds=seconds,
    )


def _maps(predictor: Predictor, images: np.ndarray, answers: np.ndarray) -> Any:
    """Return pictures as the net sees them and where each speaks for its answer; None for a net without maps."""
    import torch

    seen = predictor.preprocess.geometry_all(images)
    batch = predictor.preprocess.normalise(torch.from_numpy(seen))
    try:
        return seen, class_maps(predictor.net, batch, [int(answer) for answer in answers])
    except UsageError:  # a net without maps, such as an MLP
        return None


def _samples(part: Dataset, indices: np.ndarray) -> list[Shown]:
    shown = []
    labels = part.labels[indices]
    for label in range(min(len(part.classes), SAMPLED_CLASSES)):
        for index in indices[labels == label][:SAMPLES_A_CLASS]:
            shown.append(Shown(part.images[index], part.classes[label], part.source(int(index))))
    return shown


def _copies(train: Dataset, train_rows: np.ndarray, test: Dataset, test_rows: np.ndarray) -> int:
    """Count the test pictures that are also train pictures, pixel by pixel; those of one colour are passed over."""
    known = {_digest(one) for some in in_pieces(train.images, train_rows) for one in some}
    tested = (one for some in in_pieces(test.images, test_rows) for one in some)
    return sum(_digest(one) in known and int(np.ptp(one)) > 0 for one in tested)


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).data).digest()


def _in_a_line(error: StriateError) -> str:
    return "; ".join(part for part in (error.what, error.cause, error.fix) if part)
