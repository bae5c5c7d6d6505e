"""Verifying a run: its files against their digests, its data, and its first steps again, digit by digit."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

from torch import nn

from striate.data.dataset import Parts
from striate.device import Plan, choose_device, environment
from striate.errors import DataError, NonFiniteLoss, VerificationError
from striate.files import sha256_file
from striate.runs.checkpoint import check_checkpoint, list_checkpoints
from striate.runs.folder import RunFolder, open_run
from striate.runs.journal import StepRow, read_steps
from striate.runs.model_file import read_card
from striate.settings.train import TrainSettings
from striate.training.begin import recorded_data, recorded_differences, recorded_material
from striate.training.changes import (
    environment_before,
    environment_differences,
    read_changes,
    settings_after,
    settings_before,
    tell_differences,
)
from striate.training.forecast import restore_length
from striate.training.loop import Learner, Progress, train_epoch
from striate.training.material import as_parts
from striate.training.prepare import prepare_learner, prepare_net
from striate.training.records import read_config
from striate.training.starting import read_first


def verify(
    run: str | Path, *, steps: int = 20, data: Any = None, model: Any = None, data_root: str | Path | None = None
) -> dict[str, Any]:
    """Check a run's files and data against their digests, and train its first `steps` steps again.

    Each loss is compared with steps.csv to the last digit. Nothing in the run is written. `data` and `model` are needed
    where they were arrays or a module of your own: a class, or a module with its first weights. Returns {format, run,
    ok, files: [{file, ok, problem}], data: [what differs], steps: {asked, compared, of, first_difference: {step,
    recorded, now} or None}, environment: {name: [then, now]}}; raises VerificationError, which holds the same as
    `record`, where anything differs.
    """
    parts = as_parts(data) if data is not None else None
    root = Path(data_root) if data_root is not None else None
    record = compare_run(open_run(run), steps, parts, model, root)
    problem = failure(record)
    if problem is not None:
        raise problem
    return record


def compare_run(folder: RunFolder, steps: int, data: Parts | None, model: Any, root: Path | None) -> dict[str, Any]:
    """Return what `verify` returns, whether or not anything differs."""
    folder.must_be_trained()
    folder.must_be_trained()
    files = _check_files(folder)
    changes = read_changes(folder)
    begun = settings_before(settings_after(read_config(folder), changes), changes)
    if root is not None:
        begun = begun.model_copy(update={"data_root": root})
    found = recorded_data(folder, begun, data, _say_nothing)
    different = recorded_differences(folder, found)
    numbers, losses = read_steps(folder.path)
    comparable = next((place for place, step in enumerate(numbers) if step != place + 1), len(numbers))
    # What came after a change is no part of what is trained again; nor is anything, where the first data are gone.
    comparable = min([comparable, *(change.step for change in changes)])
    recorded_environment = environment_before(folder.read_json("env.json"), changes)
    if recorded_environment.get("processes", 1) > 1:  # one process adds up in another order
        comparable = 0
    count = 0 if different or any(change.data for change in changes) else min(steps, comparable)
    first_difference = None
    rows: list[StepRow] = []
    if count:
        learner = _learner_as_begun(folder, begun, found, model, Plan(**recorded_environment["plan"]))
        rows = _first_steps(learner, count)
        first_difference = _first_difference(rows, losses[:count])
        present = {**environment(learner.device), "plan": learner.plan.to_json()}
    else:
        present = {**environment(choose_device(begun.device)[0]), "plan": recorded_environment["plan"]}
    present["processes"] = 1
    return {
        "format": 1,
        "run": str(folder),
        "ok": all(file["ok"] for file in files) and not different and first_difference is None,
        "files": files,
        "data": different,
        "steps": {
            "asked": steps,
            "compared": len(rows) if first_difference is None else first_difference["step"],
            "of": len(numbers),
            "first_difference": first_difference,
        },
        "environment": environment_differences(recorded_environment, present),
    }


def failure(record: dict[str, Any]) -> VerificationError | None:
    """Return the error for a record of `compare_run` in which something differs, with what may explain it."""
    if record["ok"]:
        return None
    first = record["steps"]["first_difference"]
    problems = [file["problem"] for file in record["files"] if not file["ok"]] + record["data"]
    if first is not None:
        problems.append(f"the loss of step {first['step']} is {first['now']}, and steps.csv has {first['recorded']}")
    if record["environment"]:
        cause = f"the environment is another: {tell_differences(record['environment'])}"
    elif first is not None:
        cause = (
            "the environment is the same: data, net, code or log were changed, or the processor's threads are others"
        )
    else:
        cause = "something else than this run wrote there"
    error = VerificationError(
        f"{record['run']} is not what was recorded: {'; '.join(problems[:3])}"
        + (f"; {len(problems) - 3} more" if len(problems) > 3 else ""),
        cause,
        "restore what was changed, or train again",
    )
    error.record = record
    return error


def _check_files(folder: RunFolder) -> list[dict[str, Any]]:
    """Compare files with the digests that status.json, model.json and the checkpoints' manifests record."""
    problems: dict[str, str] = {}
    recorded: dict[str, str] = {}
    try:
        recorded |= dict(folder.status().get("sha256", {}))
    except DataError as error:
        problems["status.json"] = error.what
    if folder.file("model.json").is_file():
        try:
            card = read_card(folder.path)
            recorded[card.weights["file"]] = card.weights["sha256"]
        except DataError as error:
            problems["model.json"] = error.what
    for name, digest in recorded.items():
        try:
            same = sha256_file(folder.file(name)) == digest
            problems.setdefault(name, "" if same else f"{folder.file(name)} was changed: its SHA-256 is another")
        except OSError as error:
            problems[name] = f"{folder.file(name)} cannot be read: {error.strerror}"
    for checkpoint in list_checkpoints(folder.checkpoints):
        name = f"{folder.checkpoints.name}/{checkpoint.name}"
        try:
            check_checkpoint(checkpoint)
            problems[name] = ""
        except DataError as error:
            problems[name] = error.what
    return [{"file": name, "ok": not problem, "problem": problem} for name, problem in problems.items()]


def _learner_as_begun(folder: RunFolder, settings: TrainSettings, data: Parts, model: Any, plan: Plan) -> Learner:
    """Build net and learner as they were before the first step. A module that was given stays as it is."""
    material = recorded_material(folder, settings, data, _say_nothing)
    own = copy.deepcopy(model) if isinstance(model, nn.Module) else model
    parts = prepare_net(settings, material, own, 1, read_first(folder))
    learner = prepare_learner(settings, material, parts, plan)
    restore_length(learner, folder)
    return learner


def _first_steps(learner: Learner, count: int) -> list[StepRow]:
    """Train `count` steps and return their rows; fewer where the loss stops being finite."""
    progress = Progress()
    rows: list[StepRow] = []
    try:
        while len(rows) < count:
            for block in train_epoch(learner, progress):
                rows += block
                if len(rows) >= count:
                    break
            progress.next_epoch()
    except NonFiniteLoss as error:
        rows += error.rows
    return rows[:count]


def _first_difference(rows: list[StepRow], losses: list[float]) -> dict[str, Any] | None:
    """Compare losses to the last digit; a step that did not come about has None."""
    for place, (row, recorded) in enumerate(itertools.zip_longest(rows, losses)):
        now = None if row is None else row[3]
        if repr(now) != repr(recorded):
            return {"step": place + 1, "recorded": recorded, "now": now}
    return None


def _say_nothing(line: str) -> None:
    """Take a line that a run would print."""
