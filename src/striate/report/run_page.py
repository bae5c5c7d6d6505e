"""The page of one run: one HTML file in two languages that needs nothing else; all of it comes in as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from striate.data.findings import KINDS
from striate.data.opening import printable
from striate.report import svg, words_zh
from striate.report.embed import data_address
from striate.report.net_drawing import draw_svg
from striate.report.text import commonest_doubt, count, duration, human, hyper_parameters, hyper_parameters_zh, percent
from striate.report.thumbnails import heated, thumbnail

# Together they keep the page under 5 MB whatever the data.
MOST_BYTES = 2_800_000  # of pictures behind the confusion matrix
MOST_IN_CELL, MOST_RIGHT = 30, 6
TABLE_UP_TO = 50  # classes; more stand as a list of pairs
MOST_PAIRS = 200
MOST_CLASSES = 300  # rows of the tables of classes
MOST_LAYERS = 400
MOST_OF_DRAWING = 500_000  # bytes


@dataclass(frozen=True)
class Shown:
    """A picture uint8 (H, W, C) with its class and where it came from."""

    pixels: NDArray[np.uint8]
    label: str
    source: str


@dataclass(frozen=True)
class Asked:
    """What a net answered on the test pictures. Arrays have one entry for each of N pictures.

    `picture` and `source` give one by its row. `worst`: rows of the most confident mistakes; `maps`: of these the
    pictures as the net saw them and class activation maps (n, H, W), or None. `before` and `after` the temperature:
    {ece, bins}. `seconds` that the answers took.
    """

    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    sure: NDArray[np.float64]
    confusion: NDArray[np.int64]
    picture: Callable[[int], NDArray[np.uint8]]
    source: Callable[[int], str]
    worst: Sequence[int]
    maps: tuple[NDArray[np.uint8], NDArray[np.float32]] | None
    before: dict[str, Any]
    after: dict[str, Any]
    temperature: float
    seconds: float


def run_page(facts: Mapping[str, Any]) -> str:
    """Return the page as HTML. `facts`: what `striate.reporting.run` gathers; parts that are not known are None."""
    data, asked = facts["data"], facts["asked"]
    classes = [printable(name) for name in data["classes"]]
    page: dict[str, Any] = {
        **{name: facts[name] for name in ("evaluation", "baseline", "train_again", "copies", "card", "bytes")},
        "name": printable(facts["name"]),
        "folder": printable(facts["folder"]),
        "command": printable(facts["command"].replace("\n", " && ")),
        "state": facts["status"].get("state", ""),
        "data": data,
        "classes": classes,
        "class_rows": _class_rows(data, facts["evaluation"], classes),
        "classes_left": max(0, len(classes) - MOST_CLASSES),
        "findings": [_finding(one) for one in data["findings"]],
        "samples": [_figure(one.pixels, one.label, one.source) for one in facts["samples"]],
        "layers": _layers(facts["summary"]),
        "drawings": _drawings(facts["summary"], facts["name"]),
        "settings": [_setting(*one) for one in facts["settings"]],
        "training": (hyper_parameters(facts["in_force"]), hyper_parameters_zh(facts["in_force"])),
        "results": facts["results"],
        "curves": curves(facts["steps"], facts["results"]),
        "environment": [
            ((name, words_zh.ENVIRONMENT.get(name, name)), _shown(value))
            for name, value in facts["environment"].items()
            if name != "format"
        ],
        "number_words": words_zh.NUMBERS,
        "plan": facts["environment"].get("plan", {}),
        "diagnoses": facts["diagnoses"],
        "problems": [(said, printable(why)) for said, why in facts["problems"]],
        "doubt": commonest_doubt(facts["evaluation"]) if facts["evaluation"] else None,
        "matrix": None,
        "pairs": None,
        "album": {"cells": {}, "pictures": []},
        "mistakes": [],
        "calibration": None,
        "answered": None,
    }
    if asked is not None:
        page |= _of_answers(asked, classes)
    elif facts["evaluation"] is not None:
        counts = np.asarray(facts["evaluation"]["confusion"])
        page["matrix"], page["pairs"] = _matrix(counts, classes), _pairs(counts, classes)
    return render("run.html", page)


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a template of this folder filled in; everything in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "human": human, "duration": duration, "count": count}
    return environment.get_template(template).render(page)


def curves(steps: tuple[Sequence[int], Sequence[float]], results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the charts of loss and accuracy against the epoch, as SVG; "" for one without a point."""
    losses: list[svg.Series] = []
    accuracies: list[svg.Series] = []
    if results and steps[0]:
        each = results[-1]["step"] / results[-1]["epoch"]
        points = [(step / each, loss) for step, loss in zip(*steps, strict=True)]
        losses.append(svg.Series(points, ("train, step by step", "训练，每步"), "s2"))
    for name, label, look in (("train", ("train", "训练"), "s0"), ("val", ("validation", "验证"), "s1")):
        for what, series in (("loss", losses), ("accuracy", accuracies)):
            rows = [(row["epoch"], row[f"{name}_{what}"]) for row in results if row[f"{name}_{what}"] is not None]
            if rows:
                series.append(svg.Series(rows, label, look))
    epoch = ("epoch", "轮次")
    return {
        "loss": svg.line_chart(losses, epoch, ("loss", "损失"), alt="loss against the epoch"),
        "accuracy": svg.line_chart(
            accuracies, epoch, ("accuracy", "准确率"), percent=True, alt="accuracy against the epoch"
        ),
    }


def _of_answers(asked: Asked, classes: Sequence[str]) -> dict[str, Any]:
    album, shown = _album(asked)
    return {
        "matrix": _matrix(asked.confusion, classes),
        "pairs": _pairs(asked.confusion, classes),
        "album": album,
        "shown": shown,
        "mistakes": _mistakes(asked, classes),
        "calibration": {
            "before": {**asked.before, "chart": svg.reliability_chart(asked.before["bins"], "before the temperature")},
            "after": {**asked.after, "chart": svg.reliability_chart(asked.after["bins"], "after the temperature")},
            "temperature": asked.temperature,
        },
        "answered": {"pictures": len(asked.labels), "per_second": len(asked.labels) / max(asked.seconds, 1e-9)},
    }


def _class_rows(data: Mapping[str, Any], evaluation: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
    counts = data.get("class_counts", {})
    rows = []
    for number, name in enumerate(classes[:MOST_CLASSES]):
        held = [counts[split][number] if split in counts else None for split in ("train", "validation", "test")]
        rows.append({"name": name, "counts": held, "test": evaluation["per_class"][number] if evaluation else None})
    return rows


def _setting(name: str, value: Any, described: str) -> dict[str, Any]:
    """Return a row of the table of settings; a setting of a later striate has no Chinese words here."""
    short, long = words_zh.SETTINGS.get(name, ("", described))
    shown = ("yes", "是") if value is True else ("no", "否") if value is False else (_shown(value),) * 2
    return {"name": name, "short": short, "value": shown, "told": (described, long)}


def _finding(one: Mapping[str, Any]) -> dict[str, Any]:
    kind = KINDS.get(one["code"])
    return {
        **one,
        "what": (printable(one["what"]), kind.what_zh if kind else printable(one["what"])),
        "fix": (printable(one["fix"]), kind.fix_zh if kind else printable(one["fix"])),
    }


def _layers(summary: Any) -> dict[str, Any] | None:
    if summary is None:
        return None
    rows = [
        {
            "name": row.name,
            "kind": row.kind,
            "shape": "×".join(map(str, row.output_shape)),
            "parameters": row.parameters,
            "macs": row.macs,
            "share": row.share,
            "sums": "; ".join(row.size_sums),
            "parameter_sum": row.parameter_sum,
            "field": "×".join(map(str, dict.fromkeys(row.field.size))) if row.field is not None else "–",
        }
        for row in summary.rows[:MOST_LAYERS]
    ]
    totals = {"parameters": summary.parameters, "trainable": summary.trainable}
    totals["macs"] = summary.macs if summary.macs_known else None
    shape = "×".join(map(str, summary.input_shape))
    return {"rows": rows, "left": max(0, len(summary.rows) - MOST_LAYERS), "input": shape, **totals}


def _drawings(summary: Any, name: str) -> list[tuple[str, str]]:
    """Return the drawing of the net in both languages as data addresses: in an image its styles are its own.

    [] for a net whose drawing is too large.
    """
    if summary is None:
        return []
    drawn = [(language, draw_svg(summary, printable(name), language).encode("utf-8")) for language in ("en", "zh")]
    if max(len(one) for _, one in drawn) > MOST_OF_DRAWING:
        return []
    return [(language, data_address(one, "svg+xml")) for language, one in drawn]


def _matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return the rows of the matrix with the depth of each cell's colour (per cent), or None for too many classes."""
    if len(classes) > TABLE_UP_TO:
        return None
    rows = []
    for true, row in enumerate(counts):
        whole = max(1, int(row.sum()))
        cells = [
            {
                "key": f"{true}-{answer}",
                "count": int(number),
                "right": true == answer,
                # The square root, so that rare mistakes can be seen.
                "depth": round(100 * math.sqrt(number / whole)),
                "told": f"{classes[true]} → {classes[answer]}: {number:,} · {100 * number / whole:.1f} %",
            }
            for answer, number in enumerate(row)
        ]
        rows.append({"name": classes[true], "cells": cells})
    return rows


def _pairs(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the commonest mistakes, most pictures first."""
    wrong = np.argwhere((counts > 0) & ~np.eye(len(counts), dtype=bool))
    order = sorted(wrong.tolist(), key=lambda pair: -int(counts[pair[0], pair[1]]))[:MOST_PAIRS]
    return [
        {
            "key": f"{true}-{answer}",
            "true": classes[true],
            "answer": classes[answer],
            "count": int(counts[true, answer]),
        }
        for true, answer in order
    ]


def _album(asked: Asked) -> tuple[dict[str, Any], int]:
    """Return pictures for the cells of the matrix, the most confident answers of each first, as far as there is room.

    {cells: {"true-answer": [picture numbers]}, pictures: [[address, source, confidence]]}, and how many mistakes of all
    are shown. Cells take turns, so that each shows some before one shows many.
    """
    waiting: dict[tuple[int, int], list[int]] = {}
    for row in np.argsort(-asked.sure, kind="stable"):
        pair = (int(asked.labels[row]), int(asked.answers[row]))
        held = waiting.setdefault(pair, [])
        if len(held) < (MOST_RIGHT if pair[0] == pair[1] else MOST_IN_CELL):
            held.append(int(row))
    cells: dict[str, list[int]] = {}
    pictures: list[tuple[str, str, float]] = []
    room, wrong = MOST_BYTES, 0
    for turn in range(MOST_IN_CELL):
        for (true, answer), rows in sorted(waiting.items(), key=lambda entry: entry[0][0] == entry[0][1]):
            if turn >= len(rows):
                continue
            address, source = thumbnail(asked.picture(rows[turn])), printable(asked.source(rows[turn]))
            room -= len(address) + len(source) + 40
            if room < 0:
                return {"cells": cells, "pictures": pictures}, wrong
            cells.setdefault(f"{true}-{answer}", []).append(len(pictures))
            pictures.append((address, source, round(float(asked.sure[rows[turn]]), 4)))
            wrong += true != answer
    return {"cells": cells, "pictures": pictures}, wrong


def _mistakes(asked: Asked, classes: Sequence[str]) -> list[dict[str, Any]]:
    shown = []
    for place, row in enumerate(asked.worst):
        one = _figure(asked.picture(row), classes[asked.labels[row]], asked.source(row))
        one |= {"answer": classes[asked.answers[row]], "sure": float(asked.sure[row]), "heat": ""}
        if asked.maps is not None:
            seen, maps = asked.maps
            one["heat"] = thumbnail(heated(seen[place], maps[place]))
        shown.append(one)
    return shown


def _figure(pixels: NDArray[np.uint8], label: str, source: str) -> dict[str, Any]:
    return {"picture": thumbnail(pixels), "label": printable(label), "source": printable(source)}


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_shown(entry)}" for name, entry in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
