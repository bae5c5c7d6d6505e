"""How a run begins: anew in a folder of its own, or again from its newest good checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from striate.data.dataset import Parts
from striate.data.own import Stage, no_stage
from striate.data.split import Split
from striate.device import Plan, choose_device, environment, processor_flags
from striate.errors import StriateError, UsageError
from striate.files import write_text
from striate.runs.checkpoint import list_checkpoints, load_checkpoint
from striate.runs.folder import RunFolder, check_out, claim_run
from striate.runs.journal import read_steps
from striate.settings.train import TrainSettings
from striate.training.changes import (
    FREE,
    PLANNED,
    Change,
    change_settings,
    data_differences,
    environment_differences,
    read_changes,
    run_in_cycles,
    settings_after,
    tell_differences,
    told_cycle,
    write_changes,
)
from striate.training.distributed import ALONE, Alone
from striate.training.follower import lead
from striate.training.job import Best, Job
from striate.training.loop import Learner, Progress
from striate.training.material import Material, Opened, Report, open_data, prepare_material
from striate.training.prepare import OWN, prepare_learner, prepare_net, typed_class
from striate.training.records import config_text, data_record, fingerprints, picture_list, read_config
from striate.training.starting import absolute, find_start, read_first, write_first
from striate.training.state import load_state

PICTURES = "pictures.json"


def start_job(
    settings: TrainSettings,
    *,
    data: Parts | None = None,
    model: Any = None,
    split: Split | None = None,
    report: Report,
    stage: Stage = no_stage,
    command: str = "",
    team: Alone = ALONE,
) -> Job:
    """Prepare everything, claim the run folder and write what describes the run.

    `data` Parts instead of a named set; `model` a user's module or its class; `split` instead of the one that the
    settings would make; `report` takes one line at a time,
    `stage` is told how far long passes over the pictures are (data/own.py); `team`: the processes that train together.
    A run that torchrun had to start anew goes on instead.
    """
    begun = _begun_before(team, settings)
    if begun is not None:
        model = typed_class(settings) if model is None else model
        return resume_job(begun, data=data, model=model, report=report, command=command, team=team)
    if settings.out is not None:  # before data are read, which may take minutes
        check_out(settings.out)
    start = find_start(settings.init_from, settings.model, settings.model_option)
    settings = settings.model_copy(update={"init_from": absolute(settings.init_from)})
    opened = open_data(settings, report, stage) if data is None else Opened(data, settings)
    settings = opened.settings
    material = prepare_material(settings, opened.parts, split, report, start.channels if start is not None else None)
    settings = with_order(settings, material)
    parts = prepare_net(settings, material, model, team.size, start, report)
    learner = prepare_learner(settings, material, parts, None, team)
    if parts.name is None:
        settings = settings.model_copy(update={"model": OWN + type(learner.net).__name__})
    label = parts.name or type(learner.net).__name__
    folder = claim_run(opened.parts.name, label, settings.out)
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.lock())
        job = Job(settings, material, parts, learner, folder, report)
        write_text(folder.file("config.yaml"), config_text(settings, given=data is not None))
        write_text(folder.file("command.txt"), command + "\n")
        folder.write_json("env.json", _environment(learner))
        folder.write_json("data.json", data_record(material, opened.checkup, given=data is not None))
        folder.write_json("split.json", material.split.to_json())
        if parts.first is not None:
            write_first(folder, parts.first)
        _write_pictures(folder, opened.parts)
        job.journal.start()
        lead(job)
        job.held = stack.pop_all()
    return job


def resume_job(
    folder: RunFolder,
    *,
    data: Parts | None = None,
    model: Any = None,
    given: Mapping[str, Any] | None = None,
    allow_changes: bool = False,
    report: Report,
    command: str = "",
    team: Alone = ALONE,
) -> Job:
    """Prepare a run to go on from its newest good checkpoint.

    `given`: settings that are to change; more `epochs` (`+10` too) extend a run, even one that is finished. Any other
    difference of settings or data raises UsageError that shows it, unless `allow_changes`: then it is recorded in
    changes.json. Raises LockHeld where a process is at work in the folder.
    """
    folder.must_be_trained()
    if team.launch is not None and team.launch.restarts and _is_of(team, folder):
        given = {}  # it was changed so before the restart
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.lock())
        job = _resumed(folder, data, model, given or {}, allow_changes, report, command, team)
        job.held = stack.pop_all()
    return job


def _resumed(
    folder: RunFolder,
    data: Parts | None,
    model: Any,
    given: Mapping[str, Any],
    allowed: bool,
    report: Report,
    command: str,
    team: Alone,
) -> Job:
    changes = read_changes(folder)
    recorded = settings_after(read_config(folder), changes)
    status = folder.status() if folder.file("status.json").is_file() else {}
    finished = status.get("state") == "finished"
    if finished and "epochs" not in given:
        raise _is_finished(folder, status)
    tensors, state, used = _last_save(folder, report)
    progress = Progress(**state["progress"])
    end = int(status["epoch"]) if finished else recorded.epochs
    settings, different = change_settings(
        recorded,
        given,
        begun=progress.epoch + (progress.step_in_epoch > 0),
        end=end,
        allowed=allowed,
        config=str(folder.file("config.yaml")),
    )
    extended = settings.epochs > end
    if finished and not extended:
        raise _is_finished(folder, status)
    found = recorded_data(folder, settings, data, report)
    data_changes = _check_data(folder, found, allowed)
    material = recorded_material(folder, settings, found, report)
    settings = with_order(settings, material)
    if "order" in different:  # the numbers of its blocks, which another machine would not choose
        different["order"][1] = settings.order
    parts = prepare_net(settings, material, model, team.size, read_first(folder))
    environment_then = folder.read_json("env.json")
    plan = _recorded_plan(environment_then, settings, different, team)
    learner = prepare_learner(settings, material, parts, plan, team)
    environment_now = _environment(learner)

    change = Change(
        step=progress.step,
        epoch=progress.epoch,
        command=command,
        settings={name: pair for name, pair in different.items() if name not in FREE},
        environment=environment_differences(environment_then, environment_now),
        data=data_changes,
        cycle=end if extended else None,
        tested=finished and folder.file("evaluation.json").is_file(),
    )
    if change.settings or change.environment or change.data:
        changes = [*changes, change]
        write_changes(folder, changes)
        folder.write_json("env.json", environment_now)
        _tell(change, settings, report)
    if change.data:
        folder.write_json("data.json", {**folder.read_json("data.json"), "fingerprints": fingerprints(found)})
        _write_pictures(folder, found)
    if different:
        write_text(folder.file("config.yaml"), config_text(settings, given=data is not None, changed=bool(changes)))
    if command:
        _add_command(folder, command)
    if team.launch is not None:
        folder.write_json("env.json", environment_now)

    job = Job(settings, material, parts, learner, folder, report)
    if tensors:
        load_state(learner, tensors)
    run_in_cycles(learner, settings, changes)
    job.progress = progress
    job.best = Best(**{name: _number(value) for name, value in state["best"].items()})
    job.best.epochs_since *= not extended
    if tensors:
        job.saver.go_on_from(used, state)
    job.tested.restore(progress.epoch)
    report(f"resumed from step {progress.step} ({used})")
    lead(job, changes)
    return job


def _last_save(folder: RunFolder, report: Report) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Return tensors, state and name of the newest good checkpoint; of a run that ended before its first save, none.

    Such a run has trained nothing yet: it begins again with the same first weights.
    """
    if list_checkpoints(folder.checkpoints) or not folder.file("steps.csv").is_file() or read_steps(folder.path)[0]:
        tensors, state, used = load_checkpoint(folder.checkpoints, report)
        return tensors, state, used.name
    return {}, {"progress": {}, "best": {}}, "nothing was saved yet"


def recorded_data(folder: RunFolder, settings: TrainSettings, data: Parts | None, report: Report) -> Parts:
    """Return the data that a run was trained on, as far as its settings say. Raises UsageError for arrays not given."""
    if data is None and folder.read_json("data.json").get("given"):
        raise UsageError(
            f"{folder} was trained on arrays",
            "a run folder does not hold them",
            "give them: striate.resume(run, data=…)",
        )
    return data or open_data(settings, report).parts


def recorded_material(folder: RunFolder, settings: TrainSettings, data: Parts, report: Report) -> Material:
    """Prepare data as a run had them: its own split, mean, std and order, not ones that are drawn or measured again."""
    if settings.order == "auto":  # of a run from before there were others
        settings = settings.model_copy(update={"order": "whole"})
    record = folder.read_json("data.json")
    mean, std = tuple(record["mean"]), tuple(record["std"])
    material = prepare_material(settings, data, Split.from_json(folder.read_json("split.json")), report, len(mean))
    material.preprocess = dataclasses.replace(material.preprocess, mean=mean, std=std)
    return material


def with_order(settings: TrainSettings, material: Material) -> TrainSettings:
    """Return the settings with the order that was chosen, so that another machine's memory does not choose another."""
    return settings.model_copy(update={"order": str(material.blocks or "whole")})


def recorded_differences(folder: RunFolder, data: Parts) -> list[str]:
    """Say of each part of the data how it differs from what the run was trained on."""
    return data_differences(folder.read_json("data.json"), data, _read_pictures(folder))


def _read_pictures(folder: RunFolder) -> dict[str, Any]:
    return dict(folder.read_json(PICTURES)["parts"]) if folder.file(PICTURES).is_file() else {}


def _write_pictures(folder: RunFolder, parts: Parts) -> None:
    pictures = picture_list(parts)
    if pictures is not None:
        folder.write_json(PICTURES, pictures)


def _check_data(folder: RunFolder, data: Parts, allowed: bool) -> list[str]:
    """Compare the data with those of the run; return what differs. Raises UsageError where that is not allowed."""
    record = folder.read_json("data.json")
    different = recorded_differences(folder, data)
    if not different:
        return []
    listed, now = _read_pictures(folder), picture_list(data) or {"parts": {}}
    sources = [{name: part["sources"] for name, part in pictures.items()} for pictures in (listed, now["parts"])]
    counts = {name: len(data.part(name)) for name in fingerprints(data)}
    if (
        counts != record.get("pictures", counts)
        or list(data.train.classes) != record["classes"]
        or sources[0] != sources[1]
    ):
        raise UsageError(
            f"{data.name} is not what the run was trained on: {'; '.join(different)}",
            "the split names pictures by their number and answers by their class: it would not fit",
            f"restore the data, or start a new run: striate train --config {folder.file('config.yaml')}",
        )
    if not allowed:
        raise UsageError(
            f"{data.name} is not what the run was trained on: {'; '.join(different)}",
            "a resumed run must see the same data",
            "restore them; or add --allow-changes, which records it in changes.json",
        )
    return different


def _environment(learner: Learner) -> dict[str, Any]:
    """Return what env.json records of a run: versions, machine, plan, and who trains it."""
    launch = learner.team.launch
    team = {"processes": learner.team.size, **({} if launch is None else {"torchrun": launch.job})}
    return {**environment(learner.device), **team, "plan": learner.plan.to_json()}


def _begun_before(team: Alone, settings: TrainSettings) -> RunFolder | None:
    """Return the run that this very torchrun began, before it had to start its processes anew; else None."""
    if team.launch is None or not team.launch.restarts:
        return None
    folders = [settings.out] if settings.out is not None else Path("runs").glob("*/")
    for folder in map(RunFolder, folders):
        if _is_of(team, folder):
            return folder
    return None


def _is_of(team: Alone, folder: RunFolder) -> bool:
    with contextlib.suppress(StriateError):
        return team.launch is not None and folder.read_json("env.json").get("torchrun") == team.launch.job
    return False


def _recorded_plan(
    env: Mapping[str, Any], settings: TrainSettings, different: Mapping[str, Any], team: Alone
) -> Plan | None:
    """Return the plan to replay; None where what it was made of is another now, and it has to be made anew."""
    plan = Plan(**env["plan"])
    device, _ = choose_device(settings.device)
    same_kind = device.type == str(env["device"]).partition(":")[0] and env.get("processes", 1) == team.size
    emulated = plan.precision == "bf16" and device.type == "cpu" and "bf16" not in processor_flags()
    return plan if same_kind and not emulated and not PLANNED & different.keys() else None


def _tell(change: Change, settings: TrainSettings, report: Report) -> None:
    if change.environment:
        told = tell_differences(change.environment)
        report(f"not the environment of before: {told}; the end may differ in the last digits")
    others = {name: pair for name, pair in change.settings.items() if name != "epochs"}
    if others:
        report(f"changed from here on: {tell_differences(others)}")
    for line in change.data:
        report(f"{line} (allowed)")
    if change.cycle is not None:
        report(told_cycle(settings, change.cycle))
    if change.tested:
        report("the best weights so far are kept unless beaten; the test set will be looked at once more")


def _add_command(folder: RunFolder, command: str) -> None:
    path = folder.file("command.txt")
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_text(path, before + command + "\n")


def _is_finished(folder: RunFolder, status: Mapping[str, Any]) -> UsageError:
    return UsageError(
        f"{folder} is finished",
        f"it trained for {status.get('epoch')} epochs",
        f"add some: striate resume {folder} --epochs +10; or start a new run with striate train",
    )


def _number(value: Any) -> Any:
    return float("inf") if value is None else value
