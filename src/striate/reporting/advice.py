"""Diagnoses of a run: the evidence read from its folder, and what to type next; for the report and while it trains."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from striate.data.sources import looks_like_pictures
from striate.errors import DataError
from striate.evaluation.diagnosis import FEW_EPOCHS, diagnose
from striate.evaluation.evidence import Diagnosis, Evidence
from striate.report.text import typed_net
from striate.runs.folder import RunFolder
from striate.runs.journal import read_results, read_steps
from striate.training.health import read_health
from striate.training.prepare import OWN

_CONFLICTS, _LEAKS = ("label-conflict", "near-label-conflict"), ("leak", "near-leak")


def evidence_of(
    folder: RunFolder,
    settings: Mapping[str, Any],
    *,
    whole: int | None = None,
    copies: int = 0,
    train_again: Mapping[str, float] | None = None,
) -> Evidence:
    """Read what a run recorded of itself; `settings` are its own, as plain data.

    `whole`: the epochs of a run that is under way. `copies` and `train_again` are measured by the report.
    """
    data, status = folder.read_json("data.json"), folder.status()
    results = [asdict(row) for row in read_results(folder.path)]
    counts = [count for count in data.get("class_counts", {}).get("train", []) if count]
    found = {finding["code"]: int(finding["count"]) for finding in data["findings"]}
    evaluation = folder.read_json("evaluation.json") if folder.file("evaluation.json").is_file() else {}
    state = status.get("state")
    broke = str(status.get("reason", "")) if state == "failed" else ""
    return Evidence(
        epochs=results,
        classes=len(data["classes"]),
        commonest=max(counts) / sum(counts) if counts else 1 / max(1, len(data["classes"])),
        settings=settings,
        health=read_health(folder),
        step_losses=read_steps(folder.path)[1] if len(results) < FEW_EPOCHS else (),
        trained=data["counts"].get("train", 0),
        validated=data["counts"].get("validation", 0),
        finished=state == "finished",
        whole=whole,
        broke=broke if "infinite" in broke or "nan" in broke or "inf" in broke else "",
        test=evaluation.get("top1"),
        tested=int(evaluation.get("samples", 0)),
        train_again=train_again,
        copies=max(copies, *(found.get(code, 0) for code in _LEAKS)),
        conflicts=sum(found.get(code, 0) for code in _CONFLICTS),
    )


def next_command(found: Diagnosis, folder: Path, settings: Mapping[str, Any], *, given: bool) -> str:
    """Return what to type next; `given`: the data were arrays, so that it is a line of Python."""
    model = str(settings.get("model") or "")
    own = model.removeprefix(OWN) if model.startswith(OWN) else ""
    if found.verb == "check":
        data = str(settings["data"])
        if given:
            return f"look at {folder}/samples.png and {folder}/mistakes.png"
        return f"striate {'check' if looks_like_pictures(data) else 'data show'} {shlex.quote(data)}"
    flags = dict(found.flags)
    if given:
        words = "".join(f", {name.replace('-', '_')}={_python(value)}" for name, value in flags.items())
        if found.verb == "resume":
            return f'striate.resume("{folder}", data=data{words})'
        return f'striate.train(data, config="{folder}/config.yaml"{f", model={own}" if own else ""}{words})'
    words = "".join(f" --{name} {value}" for name, value in flags.items())
    if own and "model" not in flags:
        command = folder / "command.txt"
        typed = typed_net(command.read_text("utf-8", "replace") if command.is_file() else "", own)
        words = f" --model {shlex.quote(typed)}{words}"
    if found.verb == "resume":
        return f"striate resume {shlex.quote(str(folder))}{words}"
    return f"striate train --config {shlex.quote(f'{folder}/config.yaml')}{words}"


class Advisor:
    """Says what the rules find while a run trains: each once, in one line."""

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any], *, given: bool, report: Callable[[str], None]):
        self.folder = folder
        self.settings = settings
        self.given = given
        self.report = report
        self.told: set[str] = set()

    def look(self, whole: int | None) -> None:
        """Read what the run has recorded so far, of `whole` epochs, and report what is new."""
        try:
            evidence = evidence_of(self.folder, self.settings, whole=whole)
        except (DataError, KeyError):  # a document was taken away or emptied meanwhile; training goes on
            return
        for found in diagnose(evidence):
            if found.gone is None and found.code not in self.told:
                self.told.add(found.code)
                command = next_command(found, self.folder.path, self.settings, given=self.given)
                self.report(f"{found.what}; try: {command}")


def _python(value: str) -> str:
    """Return a flag's text as it is written in Python."""
    name, equals, rest = value.partition("=")
    if equals:
        return f'{{"{name}": "{rest}"}}'
    return value if value.replace(".", "", 1).replace("e-", "", 1).isdigit() else f'"{value}"'
