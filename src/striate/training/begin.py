"""How a run begins: anew in a folder of its own, or again from its newest good checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from striate.data.builtin import load_named
from striate.data.dataset import Parts
from striate.data.split import Split
from striate.device import Plan, environment
from striate.errors import UsageError
from striate.files import write_text
from striate.runs.checkpoint import load_checkpoint
from striate.runs.folder import RunFolder, claim_run
from striate.settings.train import TrainSettings
from striate.training.job import Best, Job
from striate.training.loop import Progress
from striate.training.material import Report, prepare_material
from striate.training.prepare import OWN, prepare_learner, prepare_net
from striate.training.records import config_text, data_record, read_config
from striate.training.state import load_state


def start_job(
    settings: TrainSettings, *, data: Parts | None = None, model: Any = None, report: Report, command: str = ""
) -> Job:
    """Prepare everything, claim the run folder and write what describes the run.

    `data` Parts instead of a named set; `model` a user's module or its class; `report` takes one line at a time.
    """
    material = prepare_material(settings, data, None, report)
    parts = prepare_net(settings, material, model)
    learner = prepare_learner(settings, material, parts, None)
    if parts.name is None:
        settings = settings.model_copy(update={"model": OWN + type(learner.net).__name__})
    label = parts.name or type(learner.net).__name__
    folder = claim_run(settings.data, label, settings.out)
    job = Job(settings, material, parts, learner, folder, report)
    write_text(folder.file("config.yaml"), config_text(settings))
    write_text(folder.file("command.txt"), command + "\n")
    folder.write_json("env.json", {**environment(learner.device), "plan": learner.plan.to_json()})
    folder.write_json("data.json", data_record(material, given=data is not None))
    folder.write_json("split.json", material.split.to_json())
    job.journal.start()
    return job


def resume_job(
    folder: RunFolder, *, data: Parts | None = None, model: Any = None, root: Path | None = None, report: Report
) -> Job:
    """Prepare a run that was interrupted, from its newest good checkpoint.

    Raises UsageError where it is finished or where settings or data are not what they were.
    """
    settings = read_config(folder)
    if folder.status().get("state") == "finished":
        raise UsageError(
            f"{folder} is finished",
            f"it trained all its {settings.epochs} epochs",
            "start a new run with striate train",
        )
    if root is not None:
        settings = settings.model_copy(update={"data_root": root})
    recorded = folder.read_json("data.json")
    if data is None and recorded.get("given"):
        raise UsageError(
            f"{folder} was trained on arrays",
            "a run folder does not hold them",
            "give them: striate.resume(run, data=…)",
        )
    data = data or load_named(settings.data, settings.data_root, settings.download, report, settings.class_names)
    for part, fingerprint in recorded["fingerprints"].items():
        if data.part(part).fingerprint != fingerprint:
            raise UsageError(
                f"the {part} pictures of {settings.data} changed since the run began",
                "a resumed run must see the same data",
                "restore them, or start a new run",
            )
    material = prepare_material(settings, data, Split.from_json(folder.read_json("split.json")), report)
    parts = prepare_net(settings, material, model)
    plan = folder.read_json("env.json")["plan"]
    learner = prepare_learner(settings, material, parts, Plan(**plan))
    tensors, state, used = load_checkpoint(folder.checkpoints, report)
    job = Job(settings, material, parts, learner, folder, report)
    load_state(learner, tensors)
    job.progress = Progress(**state["progress"])
    job.best = Best(**{name: _number(value) for name, value in state["best"].items()})
    job._saved_step = job.progress.step
    if learner.average is not None:  # where the last epoch had ended, nothing but this brings the average back
        job._update_tested(job.progress.epoch - 1)
    report(f"resumed from step {job.progress.step} ({used.name})")
    return job


def _number(value: Any) -> Any:
    return float("inf") if value is None else value
