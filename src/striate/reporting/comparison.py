"""Runs side by side: their figures, McNemar's test of each pair, and a page of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from striate.data.dataset import Dataset
from striate.errors import DataError, StriateError
from striate.evaluation.comparison import Answered, compare_answers, read_predictions
from striate.files import write_text
from striate.report.compare_page import Difference, compare_page
from striate.runs.folder import RunFolder, open_run
from striate.runs.journal import read_results
from striate.runs.model_file import read_card
from striate.training.pictures import own_parts
from striate.training.records import read_config

MOST_DIFFERENCES = 24  # pictures shown of each pair of runs


def compare(runs: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Put runs side by side: one row each with data, net, parameters, MACs, accuracy, time, speed and memory.

    `top1` {value, low, high} is the test accuracy with its 95 % interval, or None where the run was not tested.
    """
    rows = []
    for run in runs:
        folder = open_run(run)
        settings, card, results = read_config(folder), read_card(folder.path), read_results(folder.path)
        tested = folder.file("evaluation.json").is_file()
        rows.append(
            {
                "name": folder.name,
                "folder": str(folder),
                "data": settings.data,
                "model": card.name or card.class_name,
                "parameters": card.metrics.get("parameters"),
                "macs": card.metrics.get("macs"),
                "top1": folder.read_json("evaluation.json")["top1"] if tested else None,
                "epochs": results[-1].epoch if results else 0,
                "seconds": results[-1].seconds if results else None,
                "images_per_second": results[-1].images_per_second if results else None,
                "peak_memory_mb": results[-1].peak_memory_mb if results else None,
            }
        )
    return rows


def compare_pairs(runs: Sequence[str | Path], names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Test each pair of runs with McNemar's test on the test pictures that both answered.

    One entry a pair: `first`, `second`, and what `evaluation.comparison.compare_answers` gives, or `problem`: why they
    cannot be compared. The p-values are of single tests, not corrected for their number. `names` stand for the runs.
    """
    folders = [open_run(run) for run in runs]
    named = list(names or [folder.name for folder in folders])
    answers = [_answers(folder) for folder in folders]
    pairs = []
    for i, j in combinations(range(len(folders)), 2):
        pair: dict[str, Any] = {"first": named[i], "second": named[j]}
        problem = _problem(folders[i], folders[j], answers[i], answers[j])
        try:
            pair |= {"problem": problem} if problem else compare_answers(answers[i], answers[j])  # type: ignore[arg-type]
        except DataError as error:
            pair["problem"] = error.cause
        pairs.append(pair)
    return pairs


def write_comparison(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    data: Any = None,
    note: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write runs side by side as one HTML file: figures, curves, McNemar's test and pictures on which they differ."""
    folders = [open_run(run) for run in runs]
    named = list(names or [folder.name for folder in folders])
    rows, pairs = compare(runs), compare_pairs(runs, named)
    problems: list[tuple[tuple[str, str], str]] = []
    tested = _test_part(folders[0], data, data_root, note, problems)
    answers = {name: _answers(folder) for name, folder in zip(named, folders, strict=True)}
    facts = {
        "names": named,
        "rows": rows,
        "pairs": [
            {**pair, "differences": _differences(answers[pair["first"]], answers[pair["second"]], tested)}
            if "problem" not in pair
            else pair
            for pair in pairs
        ],
        "results": {
            name: [asdict(row) for row in read_results(folder.path)]
            for name, folder in zip(named, folders, strict=True)
        },
        "evaluations": {
            name: folder.read_json("evaluation.json") if folder.file("evaluation.json").is_file() else None
            for name, folder in zip(named, folders, strict=True)
        },
        "problems": problems,
    }
    write_text(Path(out), compare_page(facts))
    return Path(out)


def _answers(folder: RunFolder) -> list[Answered] | str:
    """Return predictions.csv, or why there is none."""
    try:
        return read_predictions(folder.file("predictions.csv"))
    except DataError as error:
        return f"{error.what}: {error.cause}"


def _problem(first: RunFolder, second: RunFolder, one: list[Answered] | str, other: list[Answered] | str) -> str:
    for answers in (one, other):
        if isinstance(answers, str):
            return answers
    parts = [folder.read_json("data.json")["fingerprints"] for folder in (first, second)]
    held = [found.get("test", found.get("train")) for found in parts]
    return "they were trained on different data" if held[0] != held[1] else ""


def _test_part(
    folder: RunFolder,
    data: Any,
    data_root: str | Path | None,
    note: Callable[[str], None],
    problems: list[tuple[tuple[str, str], str]],
) -> Dataset | None:
    try:
        parts, split = own_parts(folder, read_config(folder), note, data=data, data_root=data_root)
        return split.of(parts, "test")[0]
    except StriateError as error:
        why = "; ".join(part for part in (error.what, error.cause) if part)
        problems.append((("The pictures could not be shown:", "无法显示图片："), why))
        return None


def _differences(first: Any, second: Any, part: Dataset | None) -> list[Difference]:
    """Return pictures that just one of two nets answers rightly, those of the surest answers first."""
    if part is None:
        return []
    pairs = [(one, other) for one, other in zip(first, second, strict=True) if one.is_right != other.is_right]
    pairs.sort(key=lambda pair: -max(pair[0].probability, pair[1].probability))
    return [
        Difference(
            part.images[one.index],
            one.label,
            one.source,
            ((one.prediction, one.probability), (other.prediction, other.probability)),
        )
        for one, other in pairs[:MOST_DIFFERENCES]
        if one.index < len(part)
    ]
