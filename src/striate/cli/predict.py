"""`striate predict`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import hint, percent, printable, say_csv, say_json, say_table
from striate.cli.pictures import Source, from_data_set, from_paths, own_net
from striate.errors import UsageError
from striate.files import write_bytes
from striate.settings.base import build
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT, PredictSettings, refuse_idle

FORMAT = 1
SOME_FAILED = 3
MOST_DRAWN = 400  # pictures on a sheet: more could not be told apart

Drawn = tuple[Source, Any]  # a picture and its Answer; a picture may have several
Results = list[dict[str, Any]]


def _predict(run: str, pictures: list[str] | None, **flags: Any) -> None:
    given = from_text(PredictSettings, given_values(flags))
    environment = environment_layers(PredictSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, origins = build(PredictSettings, [*environment, ("flag", given)])
    machine = settings.as_json or settings.as_jsonl or settings.as_csv
    from_set = ("--data and --index", settings.data is not None)
    refuse_idle(
        origins,
        {
            "split": from_set,
            "data_root": from_set,
            "top": ("the table, not --json, --jsonl or --csv", not machine),
            "no_step": ("a picture of your own, or --separate", bool(pictures) or settings.separate),
        },
    )
    if not pictures and settings.data is None:
        raise UsageError(
            "no picture is named", "predict needs one", "name files or folders, or add --data mnist --index 7"
        )
    from striate.predictor.onnx_file import is_onnx
    from striate.predictor.predictor import load_predictor

    predictor = load_predictor(
        run,
        device=settings.device,
        model=settings.model if is_onnx(run) else own_net(settings.model),
        precision=settings.precision,
        expect_sha256=settings.expect_sha256,
    )
    left_out = [step.strip() for step in (settings.no_step or "").split(",") if step.strip()]
    predictor = predictor.configured(no_step=left_out, reject=settings.reject)
    sources = from_paths(pictures or [])
    if settings.data is not None:
        sources += from_data_set(settings, [run])
    results, to_draw, failed = ask(predictor, sources, settings)
    if settings.as_json:
        say_json({"format": FORMAT, "model": predictor.name, "classes": list(predictor.classes), "results": results})
    elif not machine:
        say_answers(results, {source.name: source.truth for source in sources}, settings.top)
    _name_the_bad(failed, len(sources), in_results=settings.as_json or settings.as_jsonl)
    if settings.plot is not None:
        draw(settings.plot, predictor.name, to_draw)
    if settings.show is not None:
        show(settings.show, to_draw)
    if failed:
        raise typer.Exit(SOME_FAILED)


def ask(predictor: Any, sources: Sequence[Source], settings: PredictSettings) -> tuple[Results, list[Drawn], Results]:
    """Return the results in order, what a plot needs, and the results that are errors.

    --jsonl and --csv write each result as soon as it is known, and it is not kept: any number of pictures can be asked.
    """
    if settings.as_csv:
        say_csv(columns(settings))
    results: Results = []
    failed: Results = []
    to_draw: list[Drawn] = []
    first: list[Any] = []  # pictures that bf16 is compared on
    compared = settings.precision == "fp32"
    keeps = settings.plot is not None or settings.show is not None
    for number, (source, answer) in enumerate(answered(predictor, sources, settings), 1):
        result = {**answer.to_json(), "source": source.name}
        if answer.error is not None:
            failed.append(result)
        elif not compared:
            first.append(answer.seen)
        if not compared and number == min(len(sources), predictor.batch_pictures):
            compared = True
            if first:
                hint(predictor.change_against_fp32(first))
        if settings.as_jsonl:
            say_json(result, one_line=True)
        elif settings.as_csv:
            say_row(result, columns(settings))
        else:
            results.append(result)
        if keeps and answer.error is None and len(to_draw) < MOST_DRAWN:
            to_draw.append((source, answer))
    return results, to_draw, failed


def answered(predictor: Any, sources: Sequence[Source], settings: PredictSettings) -> Iterator[Drawn]:
    """Yield each picture with its answer, or with --separate with the answer to each of its digits."""
    if settings.separate:
        for source in sources:
            for answer in predictor.separate(source.content, source.name):
                yield source, answer
        return
    # Pictures of a data set are answered as evaluate counts them, without any step for drawings.
    own, known = ([source for source in sources if (source.truth is not None) is of_set] for of_set in (False, True))
    for some, asked in ((own, predictor), (known, predictor.plain())):
        yield from zip(some, asked.answers(source.content for source in some), strict=True)


def columns(settings: PredictSettings) -> list[str]:
    """Return the columns of --csv."""
    more = ["box"] if settings.separate else []
    return ["source", *more, "label", "probability", *(["rejected"] if settings.reject is not None else []), "error"]


def say_row(result: dict[str, Any], names: Sequence[str]) -> None:
    """Write a result as a row of CSV."""
    row = {**result, "error": result["error"]["cause"] if "error" in result else ""}
    if "error" not in result:
        row["probability"] = f"{result['probability']:.6f}"
    box = row.get("box")
    row["box"] = "" if box is None else " ".join(map(str, box))
    say_csv(str(row.get(name, "")).lower() if name == "rejected" else row.get(name, "") for name in names)


def say_answers(results: Sequence[dict[str, Any]], truths: Mapping[str, str | None], top: int) -> None:
    """Write a table: the picture, its true class where that is known, the answer, and the next likely classes."""
    rows = []
    for result in results:
        if "error" in result:
            continue
        likely = sorted(result["probabilities"].items(), key=lambda entry: -entry[1])[:top]
        row = {
            "picture": result["source"],
            "box": ",".join(map(str, result.get("box", ()))),
            "truth": truths.get(result["source"]) or "",
            "answer": result["label"],
            "probability": percent(result["probability"]),
            "then": ", ".join(f"{name} {percent(p)}" for name, p in likely if name != result["label"]),
            "note": ", ".join(doubts(result)),
        }
        rows.append(row)
    optional = ("box", "truth", "then", "note")
    names = [name for name in rows[0] if name not in optional or any(row[name] for row in rows)] if rows else []
    if top == 1 and "then" in names:
        names.remove("then")
    if rows:
        say_table(names, [[row[name] for name in names] for row in rows], right=(names.index("probability"),))


def doubts(result: dict[str, Any]) -> list[str]:
    """Return why an answer should not be taken for granted."""
    found = ["rejected"] if result["rejected"] else []
    return [*found, "unlike the training data"] if result.get("unlike") else found


def draw(path: Path, name: str, drawn: Sequence[Drawn]) -> None:
    """Draw one picture beside its probabilities, or several as a sheet with the answer below each."""
    from striate.report import plots

    if not drawn:
        return
    if len(drawn) == 1:
        source, answer = drawn[0]
        truth = f", truth {source.truth}" if source.truth is not None else ""
        plots.prediction(path, answer.seen, answer.probabilities, title=f"{printable(source.name)}{truth}")
    else:
        told = [f"{answer.label} {percent(answer.probability, 1)}" for _, answer in drawn]
        plots.sample_grid(path, [answer.seen for _, answer in drawn], told, title=f"answers of {name}")
    hint(f"drawn: {printable(str(path))}")


def show(path: Path, drawn: Sequence[Drawn]) -> None:
    """Draw each picture beside what the net saw of it, with the steps between."""
    from striate.report.seen import seen_png

    if not drawn:
        return
    by_source: dict[int, tuple[Source, list[Any]]] = {}
    for source, answer in drawn:
        by_source.setdefault(id(source), (source, []))[1].append(answer)
    write_bytes(path, seen_png([(source.name, source.content, answers) for source, answers in by_source.values()]))
    hint(f"drawn: {printable(str(path))}")


def _name_the_bad(failed: Results, asked: int, *, in_results: bool) -> None:
    for result in failed if not in_results else ():
        fix = f"; {result['error']['fix']}" if result["error"].get("fix") else ""
        hint(f"error: {printable(result['source'])}: {printable(result['error']['cause'] + fix)}")
    if failed:
        hint(f"{len(failed)} of {asked} pictures could not be read")


predict = make_command(
    "predict",
    _predict,
    [
        argument("run", "RUN", "Run folder, its name under runs/, or runs/latest."),
        argument("pictures", "PICTURE", "Files or folders; - reads one from stdin.", required=False, many=True),
        *settings_flags(PredictSettings),
    ],
    "Ask a run what pictures show. Bad pictures are named, the others answered, and the exit code is 3.",
    "Names that begin with a dash go after --. One picture is plotted beside its probabilities, several as a sheet.",
)
