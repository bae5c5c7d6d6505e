"""`striate compare`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import heading, hint, interval, percent, printable, say, say_json, say_table
from striate.cli.pictures import Source, from_data_set, own_net
from striate.errors import DataError, UsageError
from striate.settings.base import build
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT, CompareSettings, refuse_idle

FORMAT = 1
CHANCE = 0.05  # p above which a difference may be chance


def _compare(runs: list[str], **flags: Any) -> None:
    given = from_text(CompareSettings, given_values(flags))
    environment = environment_layers(CompareSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, origins = build(CompareSettings, [*environment, ("flag", given)])
    from_set = ("--data and --index", settings.data is not None)
    a_picture = ("--picture, or --data and --index", settings.data is not None or settings.picture is not None)
    needs_data = ("--data and --index, or --html", from_set[1] or settings.html is not None)
    refuse_idle(origins, {"split": from_set, "data_root": needs_data, "model": a_picture, "device": a_picture})
    if len(runs) < 2:
        raise UsageError("one run alone cannot be compared", "compare needs two or more", "name another run")
    from striate.reporting.comparison import compare as compare_runs
    from striate.reporting.comparison import compare_pairs, write_comparison

    rows = compare_runs(runs)
    names = distinct_names([row["name"] for row in rows])
    pairs = compare_pairs(runs, names)
    draw_curves(settings.out, runs, names)
    if settings.html is not None:
        write_comparison(runs, settings.html, names=names, data_root=settings.data_root, note=hint)
        hint(f"written: {printable(str(settings.html))}")
    source: Source | None = None
    answers: dict[str, Any] = {}
    if a_picture[1]:
        source, answers = ask_all(settings, runs, names)
        first = next(iter(answers.values()))
        drawn = settings.out.with_name(f"{settings.out.stem}-answers{settings.out.suffix or '.png'}")
        _draw_answers(drawn, first.seen, source, answers)
    if settings.as_json:
        say_json(as_document(rows, pairs, source, answers))
        return
    say_runs(names, rows)
    say_pairs(pairs)
    if source is not None:
        say_answers(source, answers)


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return the runs' names; one that stands there twice gets a number."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]


def say_runs(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write the table of runs."""
    columns = ("run", "data", "net", "parameters", "MACs", "test accuracy", "epochs", "seconds", "pictures/s", "MB")
    cells = [
        (
            name,
            row["data"],
            row["model"],
            _count(row["parameters"]),
            _count(row["macs"]),
            interval(row["top1"]),
            _count(row.get("epochs")),
            _rounded(row["seconds"], 1),
            _count(row["images_per_second"]),
            _count(row["peak_memory_mb"]),
        )
        for name, row in zip(names, rows, strict=True)
    ]
    say_table(columns, cells, right=range(3, len(columns)))


def say_pairs(pairs: Sequence[dict[str, Any]]) -> None:
    """Write McNemar's test of each pair of runs: on the pictures that one of them alone gets right."""
    say()
    heading("McNemar's test on the test pictures")
    columns = ("first", "second", "only first right", "only second right", "p", "so")
    cells = []
    for pair in pairs:
        if "problem" in pair:
            cells.append((pair["first"], pair["second"], "-", "-", "-", f"not comparable: {pair['problem']}"))
            continue
        better = pair["first"] if pair["only_first"] > pair["only_second"] else pair["second"]
        said = f"{better} is better, beyond chance" if pair["p"] < CHANCE else "the difference may be chance"
        counts = (f"{pair['only_first']:,}", f"{pair['only_second']:,}", f"{pair['p']:.3g}")
        cells.append((pair["first"], pair["second"], *counts, said))
    say_table(columns, cells, right=(2, 3, 4))


def say_answers(source: Source, answers: dict[str, Any]) -> None:
    """Write what each run answers for one picture."""
    say()
    heading(f"{source.name}" + (f", truth {source.truth}" if source.truth is not None else ""))
    rows = []
    for name, answer in answers.items():
        likely = sorted(answer.probabilities.items(), key=lambda entry: -entry[1])[:3]
        others = ", ".join(f"{label} {percent(p)}" for label, p in likely if label != answer.label)
        rows.append((name, answer.label, percent(answer.probability), others))
    say_table(("run", "answer", "probability", "then"), rows, right=(2,))


def ask_all(settings: CompareSettings, runs: Sequence[str], names: Sequence[str]) -> tuple[Source, dict[str, Any]]:
    """Return the picture and each run's answer. Raises DataError where a run cannot read it."""
    from striate.predictor.predictor import load_predictor
    from striate.runs.folder import open_run
    from striate.runs.model_file import read_card

    if settings.data is not None:
        source = from_data_set(settings, runs)[0]
    else:
        source = Source(str(settings.picture), settings.picture)
    answers = {}
    for run, name in zip(runs, names, strict=True):
        is_own = read_card(open_run(run).path).name is None
        predictor = load_predictor(run, device=settings.device, model=own_net(settings.model) if is_own else None)
        answer = (predictor.plain() if source.truth is not None else predictor).predict(source.content)
        if answer.error is not None:
            raise DataError(source.name, answer.error["cause"], answer.error.get("fix", ""))
        answers[name] = answer
    return source, answers


def draw_curves(path: Path, runs: Sequence[str], names: Sequence[str]) -> None:
    """Draw the runs' curves on the same axes."""
    from dataclasses import asdict

    from striate.report import plots
    from striate.runs.folder import open_run
    from striate.runs.journal import read_results

    results = {}
    for run, name in zip(runs, names, strict=True):
        results[name] = [asdict(row) for row in read_results(open_run(run).path)]
    plots.compare_curves(path, results)
    hint(f"drawn: {printable(str(path))}")


def _draw_answers(path: Path, image: Any, source: Source, answers: dict[str, Any]) -> None:
    from striate.report import plots

    truth = f", truth {source.truth}" if source.truth is not None else ""
    bars = {name: answer.probabilities for name, answer in answers.items()}
    plots.compare_answers(path, image, bars, title=f"{printable(source.name)}{truth}")
    hint(f"drawn: {printable(str(path))}")


def as_document(
    rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]], source: Source | None, answers: dict[str, Any]
) -> dict[str, Any]:
    """Return the JSON document: the runs, the tests of their pairs, and with a picture their answers."""
    document: dict[str, Any] = {"format": FORMAT, "runs": list(rows), "pairs": list(pairs)}
    if source is not None:
        told = {name: {**answer.to_json(), "source": source.name} for name, answer in answers.items()}
        document["picture"] = {"source": source.name, "truth": source.truth, "answers": told}
    return document


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _rounded(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


compare = make_command(
    "compare",
    _compare,
    [
        argument("runs", "RUN", "Two or more run folders, or their names under runs/.", many=True),
        *settings_flags(CompareSettings),
    ],
    "Set runs side by side: data, net, size, accuracy, time, speed and memory; and draw their curves on one axis.",
    "With a picture, the answers are printed, and drawn beside the curves' file as <out>-answers.png.",
)
