"""MODEL_CARD.md: what a model is, what it was trained and tested on, and what it is not for, from its run's record."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from striate.data.opening import printable
from striate.report.text import accuracy_text, percent, size_of, typed_net

MOST_CLASSES = 200  # rows of the table of classes


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the card as Markdown. `facts`: what `striate.reporting.run.folder_facts` gives, baselines and diagnoses.

    Names that others chose cannot become markup: they are escaped.
    """
    data, card, evaluation = facts["data"], facts["card"] or {}, facts["evaluation"]
    net = card.get("name") or card.get("class_name") or "net"
    lines = ["---", "library_name: striate", "pipeline_tag: image-classification"]
    if card.get("licence"):
        lines.append(f"license: other\nlicense_name: {json.dumps('data: ' + printable(card['licence']))}")
    lines += ["---", "", f"# {escape(facts['name'])}", ""]
    channels = {1: "gray", 3: "colour"}.get(data["picture"]["channels"], f"{data['picture']['channels']} channels")
    height, width = (card.get("preprocess") or {}).get("size") or data["picture"]["size"]
    lines += [
        f"A `{escape(net)}` that says which of {len(data['classes'])} classes a picture shows; pictures are seen at"
        f" {width}×{height} pixels, {channels}.",
        "",
        *_use(facts, net),
        *_training(facts),
        *_test(facts, evaluation),
        *_limits(facts, evaluation),
    ]
    return "\n".join(lines) + "\n"


def escape(text: Any) -> str:
    """Return text on one line in which nothing is Markdown or HTML."""
    plain = printable(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", plain)


def _use(facts: Mapping[str, Any], net: str) -> list[str]:
    own = not (facts["card"] or {}).get("name")
    given = f" --model {shlex.quote(typed_net(facts['command'], net))}" if own else ""
    metrics = (facts["card"] or {}).get("metrics", {})
    size = size_of(metrics) if "parameters" in metrics else ""
    weights = f"; weights of {facts['bytes'] / 1e6:.2f} MB" if facts["bytes"] else ""
    return [
        "## Use",
        "",
        "```sh",
        f"striate predict {shlex.quote(printable(facts['name']))}{given} picture.png",
        "```",
        "",
        f"{size}{weights}. Answers are probabilities after a temperature of"
        f" {(facts['card'] or {}).get('temperature', 1.0):.3f}.",
        "",
    ]


def _training(facts: Mapping[str, Any]) -> list[str]:
    data, results = facts["data"], facts["results"]
    counts = ", ".join(f"{number:,} {split}" for split, number in data["counts"].items())
    lines = ["## Training", ""]
    if "imported" in data:
        origin = f"Weights imported from `{escape(data['imported']['file'])}`; what they were trained on is not known."
        return [*lines, origin, ""]
    lines += [f"- data: {escape(data['name'])}" + (f" ({counts} pictures)" if counts else "")]
    if data.get("licence"):
        lines.append(f"- licence of the data: {escape(data['licence'])}")
    if facts.get("start"):
        start = facts["start"]
        kept = f"{len(start['taken'])} layers taken, new: {', '.join(start['new']) or 'none'}"
        licence = f"; their licence: {escape(start['licence'])}" if start.get("licence") else ""
        lines.append(f"- first weights: {escape(start['from'])} ({escape(kept)}){licence}")
    if facts["command"]:
        lines.append(f"- command: `{printable(facts['command'].splitlines()[0]).replace('`', ' ')}`")
    if results:
        last = results[-1]
        lines.append(
            f"- {last['epoch']} epochs, {last['step']:,} steps, {last['seconds']:,.0f} s; train loss"
            f" {last['train_loss']:.4f}, train accuracy {percent(last['train_accuracy'])} (running)"
        )
    environment = facts["environment"]
    versions = f"striate {environment.get('striate')}, torch {environment.get('torch')}"
    lines.append(f"- machine: {escape(environment.get('device_name', ''))}, {versions}")
    for finding in data["findings"]:
        lines.append(f"- found in the data: {finding['code']} ({finding['count']:,}): {escape(finding['what'])}")
    return [*lines, ""]


def _test(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["## Test", "", "Not tested.", ""]
    lines = [
        "## Test",
        "",
        f"On {evaluation['samples']:,} pictures of {escape(evaluation['data'])} that were looked at once, at the end:"
        f" {accuracy_text(evaluation)}; macro-F1 {percent(evaluation['macro_f1'])}, calibration error (ECE)"
        f" {percent(evaluation['ece'])}.",
        "",
    ]
    if facts["baseline"]:
        base = facts["baseline"]
        lines += [
            f"For comparison: always answering the commonest class {percent(base['commonest']['value'])}, logistic"
            f" regression on {base['trained']:,} train pictures {percent(base['logistic']['value'])}.",
            "",
        ]
    lines += ["| class | test pictures | precision | recall | F1 |", "|---|---:|---:|---:|---:|"]
    for row in evaluation["per_class"][:MOST_CLASSES]:
        figures = " | ".join(percent(row[name]) for name in ("precision", "recall", "f1"))
        lines.append(f"| {escape(row['class'])} | {row['samples']:,} | {figures} |")
    left = len(evaluation["per_class"]) - MOST_CLASSES
    return [*lines, *([f"\nand {left} more classes"] if left > 0 else []), ""]


def _limits(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> list[str]:
    lines = [
        "## Limits",
        "",
        "- It knows no other classes: whatever a picture shows, it answers one of them.",
        "- The accuracy holds for pictures like those it was tested on, and for no others.",
    ]
    tested = [row for row in evaluation["per_class"] if row["samples"]] if evaluation else []
    if tested:
        weakest = min(tested, key=lambda row: (row["f1"], row["class"]))
        lines.append(f"- Its weakest class is {escape(weakest['class'])} (F1 {percent(weakest['f1'])}).")
    for found, command in facts["diagnoses"]:
        if found.gone is None:
            lines.append(f"- {escape(found.what)}. Try: `{printable(command).replace('`', ' ')}`")
    return lines
