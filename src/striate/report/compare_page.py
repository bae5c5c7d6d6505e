"""The page of several runs side by side: one HTML file in two languages; all of it comes in as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.opening import printable
from striate.report import svg, words_zh
from striate.report.run_page import render
from striate.report.thumbnails import thumbnail

LOOKS = 4  # colours of lines; further runs get them dashed
MOST_BYTES = 2_800_000  # of pictures on the page
MOST_CLASSES = 200
LIKELY = 0.05  # p above which a difference may well be chance


@dataclass(frozen=True)
class Difference:
    """A picture uint8 (H, W, C) that one of two nets alone answers rightly: label, source, (answer, sure) of each."""

    pixels: NDArray[np.uint8]
    label: str
    source: str
    answers: tuple[tuple[str, float], tuple[str, float]]


def compare_page(facts: Mapping[str, Any]) -> str:
    """Return the page as HTML. `facts`: what `striate.reporting.comparison` gathers."""
    names = [printable(name) for name in facts["names"]]
    return render(
        "compare.html",
        {
            "names": names,
            "rows": [
                {**row, "shown": name, "data": printable(row["data"]), "model": printable(row["model"])}
                for name, row in zip(names, facts["rows"], strict=True)
            ],
            "pairs": _pairs(facts["pairs"]),
            "curves": _curves(facts["results"]),
            "class_rows": _class_rows(facts["evaluations"]),
            "problems": [(said, printable(why)) for said, why in facts["problems"]],
        },
    )


def _pairs(pairs: Any) -> list[dict[str, Any]]:
    room, shown = MOST_BYTES, []
    for pair in pairs:
        pictures = []
        for one in pair.get("differences", ()):
            address = thumbnail(one.pixels)
            room -= len(address)
            if room > 0:
                answers = [(printable(answer), sure) for answer, sure in one.answers]
                about = {"label": printable(one.label), "source": printable(one.source), "answers": answers}
                pictures.append({"picture": address, **about})
        beyond = pair.get("p", 1.0) < LIKELY
        better = "first" if pair.get("only_first", 0) > pair.get("only_second", 0) else "second"
        names = {key: printable(pair[key]) for key in ("first", "second")}
        if "problem" in pair:
            names |= {"problem": printable(pair["problem"]), "problem_zh": printable(words_zh.reason(pair["problem"]))}
        shown.append({**pair, **names, "pictures": pictures, "beyond": beyond, "better": names[better]})
    return shown


def _curves(results: Mapping[str, Any]) -> dict[str, str]:
    losses, accuracies = [], []
    for number, (name, rows) in enumerate(results.items()):
        look = f"s{number % LOOKS}" + (" dash" if number >= LOOKS else "")
        label = (printable(name), printable(name))
        losses.append(svg.Series([(row["epoch"], row["train_loss"]) for row in rows], label, look))
        held = [(row["epoch"], row["val_accuracy"]) for row in rows if row["val_accuracy"] is not None]
        if not held:
            held = [(row["epoch"], row["train_accuracy"]) for row in rows]
            label = (f"{label[0]} (train)", f"{label[1]}（训练）")
        accuracies.append(svg.Series(held, label, look))
    epoch = ("epoch", "轮次")
    return {
        "loss": svg.line_chart(losses, epoch, ("train loss", "训练损失"), alt="train loss against the epoch"),
        "accuracy": svg.line_chart(
            accuracies, epoch, ("validation accuracy", "验证准确率"), percent=True, alt="validation accuracy"
        ),
    }


def _class_rows(evaluations: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return recall by class and run; classes in the order in which they are first met."""
    recalls = {
        name: {row["class"]: row["recall"] for row in record["per_class"]} if record else {}
        for name, record in evaluations.items()
    }
    classes = list(dict.fromkeys(label for row in recalls.values() for label in row))[:MOST_CLASSES]
    return [
        {"name": printable(label), "recalls": [recalls[name].get(label) for name in evaluations]} for label in classes
    ]
