"""What may change when a run goes on, the differences in words, and changes.json, which records them."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from striate.data.dataset import Parts
from striate.data.records import few
from striate.errors import UsageError
from striate.runs.folder import RunFolder
from striate.settings.base import build, check_names
from striate.settings.train import EFFECTS, TrainSettings
from striate.settings.values import from_text
from striate.training.loop import Learner

FILE = "changes.json"
# Where things lie, how often is saved, how long is waited: no number of the run depends on these.
FREE = frozenset({"data_root", "download", "save_every", "memory", "timeout", "track"})
# Weights, optimizer state, split and step numbers keep their meaning when these change; all others need a new run.
CHANGEABLE = frozenset(
    {
        "epochs", "lr", "momentum", "nesterov", "betas", "weight_decay", "schedule", "warmup", "step_epochs",
        "step_factor", "label_smoothing", "balance", "clip", "augment", "early_stop", "recompute_batchnorm",
        "order", "device", "precision", "threads",
    }
)  # fmt: skip
# The plan is made of these; a change of one makes it anew.
PLANNED = frozenset({"device", "precision", "threads"})
# What the last digits of a result may hang on, as env.json names it.
ENVIRONMENT = (
    "threads", "precision", "channels_last", "onednn", "torch", "numpy", "pillow", "python", "striate", "processor",
    "capability", "device", "device_name", "processes",
)  # fmt: skip
NEVER_RESTARTED = ("constant", "step")


@dataclass(frozen=True)
class Change:
    """One entry of changes.json: what was changed where a run went on.

    `settings` and `environment` map a name to [before, after]; `data` holds a sentence for each part that differs;
    `cycle` is the epoch from which the schedule runs anew, where epochs were added; `tested` says that the test set had
    been looked at before.
    """

    step: int
    epoch: int
    command: str = ""
    settings: dict[str, list[Any]] = field(default_factory=dict)
    environment: dict[str, list[Any]] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    cycle: int | None = None
    tested: bool = False


def read_changes(folder: RunFolder) -> list[Change]:
    """Return what changes.json records, oldest first. Raises DataError where it is damaged."""
    if not folder.file(FILE).is_file():
        return []
    known = Change.__dataclass_fields__
    entries = folder.read_json(FILE).get("changes", [])
    return [Change(**{name: value for name, value in entry.items() if name in known}) for entry in entries]


def write_changes(folder: RunFolder, changes: list[Change]) -> None:
    """Write changes.json; what did not change is left out."""
    entries = [{name: value for name, value in asdict(change).items() if value not in ({}, [], None, "", False)}
               for change in changes]  # fmt: skip
    folder.write_json(FILE, {"format": 1, "changes": entries})


def settings_after(settings: TrainSettings, changes: list[Change]) -> TrainSettings:
    """Return the settings in force: changes.json is written before config.yaml, so it knows at least as much."""
    values = {name: pair[1] for change in changes for name, pair in change.settings.items()}
    return _with(settings, values)


def settings_before(settings: TrainSettings, changes: list[Change]) -> TrainSettings:
    """Return the settings that the run began with."""
    values = {name: pair[0] for change in reversed(changes) for name, pair in change.settings.items()}
    return _with(settings, values)


def change_settings(
    recorded: TrainSettings, given: Mapping[str, Any], *, begun: int, end: int, allowed: bool, config: str
) -> tuple[TrainSettings, dict[str, list[Any]]]:
    """Apply what was given at a resume; return the settings and {name: [before, after]} of those that differ.

    `begun`: epochs that are over or begun; `end`: the epoch at whose end the run would end, or has ended;
    `given["epochs"]` may be `+10`, counted from there. More epochs need no permission; other changes need `allowed`.
    Raises UsageError with the difference.
    """
    check_names(TrainSettings, given)
    given = dict(given)
    if "epochs" in given and recorded.time is not None:
        raise UsageError(
            "--epochs cannot extend this run", f"--time {recorded.time} decides where it ends", "start a new run"
        )
    if str(given.get("epochs", "")).startswith("+"):
        more = str(given["epochs"])[1:]
        if not (more.isdigit() and more.isascii() and int(more) > 0):
            raise UsageError(f"--epochs {given['epochs']} is no number of epochs", "", "write +10, or 30 for the whole")
        given["epochs"] = end + int(more)
    layers = [("run", recorded.model_dump()), ("flag", from_text(TrainSettings, given))]
    settings, _ = build(TrainSettings, layers)
    for name, needs, has_effect in EFFECTS:
        if name in given and not has_effect(settings):
            flag = _flag(name)
            raise UsageError(f"{flag} has no effect here", f"it needs {needs}", f"leave out {flag}")
    before, after = recorded.model_dump(mode="json"), settings.model_dump(mode="json")
    different = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
    fixed = sorted(different.keys() - CHANGEABLE - FREE)
    if fixed:
        raise UsageError(
            f"{', '.join(_flag(name) for name in fixed)} cannot change within a run: {_told(different, fixed)}",
            "weights, optimizer state, split or step numbers would not fit any more",
            f"start a new run: striate train --config {config} {_flag(fixed[0])} …",
        )
    if "epochs" in given and settings.epochs < begun:
        raise UsageError(
            f"--epochs {settings.epochs} is less than what is trained",
            f"epoch {begun} has begun",
            "add some: --epochs +10",
        )
    asking = sorted(different.keys() - FREE - ({"epochs"} if settings.epochs > end else set()))
    if asking and not allowed:
        raise UsageError(
            f"the run was trained with other settings: {_told(different, asking)}",
            "it would not end as the run that was begun",
            f"leave out {', '.join(_flag(name) for name in asking)}; or add --allow-changes: it is recorded in {FILE}",
        )
    return settings, different


def told_cycle(settings: TrainSettings, cycle: int) -> str:
    """Say what the learning rate does in epochs that were added from epoch `cycle` on."""
    more = f"{settings.epochs - cycle} epochs were added: "
    if settings.schedule in NEVER_RESTARTED:
        return more + f"the learning rate goes on ({settings.schedule})"
    return (
        more
        + f"over them the schedule {settings.schedule} runs once more from its start, with its peak {settings.lr:g}"
    )


def rate_in_cycles(
    step: int, total: int, *, rate: Callable[..., float], firsts: tuple[int, ...], restarts: bool, **more: Any
) -> float:
    """Return the learning rate where epochs were added: `firsts` are the steps from which they are counted.

    With `restarts`, the schedule runs over each stretch as over a run of its own (warm restarts: Loshchilov and Hutter
    2017, arXiv:1608.03983); else it goes on as it was planned.
    """
    ends = (*firsts, total)
    number = bisect.bisect_right(firsts, step) if restarts else 0
    first = firsts[number - 1] if number else 0
    return rate(step - first, ends[number] - first, **more)


def run_in_cycles(learner: Learner, settings: TrainSettings, changes: Sequence[Change]) -> None:
    """Make the schedule start anew where epochs were added."""
    firsts = tuple(change.cycle * len(learner.batches) for change in changes if change.cycle is not None)
    if firsts:
        restarts = settings.schedule not in NEVER_RESTARTED
        learner.rate = partial(rate_in_cycles, rate=learner.rate, firsts=firsts, restarts=restarts)


def data_differences(recorded: Mapping[str, Any], data: Parts, listed: Mapping[str, Any] | None = None) -> list[str]:
    """Say of each part of the data how it differs from what data.json records, and for files which ones do.

    `listed`: {part: {sources, sha256}} as pictures.json holds it.
    """
    told = []
    present = {"train": data.train, "validation": data.validation, "test": data.test}
    for name in sorted(recorded["fingerprints"].keys() | {name for name, part in present.items() if part is not None}):
        part, known = present.get(name), recorded["fingerprints"].get(name)
        if part is None or known is None:
            told.append(f"the {name} part is " + ("gone" if part is None else "new"))
        elif part.fingerprint != known:
            facts = [f"fingerprint {known[:12]} → {part.fingerprint[:12]}"]
            count = recorded.get("pictures", {}).get(name)
            if count not in (None, len(part)):
                facts.insert(0, f"{count:,} → {len(part):,} pictures")
            if list(part.classes) != list(recorded["classes"]):
                facts.append(f"classes {', '.join(recorded['classes'][:8])} → {', '.join(part.classes[:8])}")
            if listed and name in listed and part.sources is not None and part.digests is not None:
                then = dict(zip(listed[name]["sources"], listed[name]["sha256"]))
                facts += _files_that_differ(then, dict(zip(part.sources, part.digests)))
            told.append(f"the {name} part changed: {'; '.join(facts)}")
    return told


def _files_that_differ(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    kinds = {
        "other contents": [name for name in then if name in now and then[name] != now[name]],
        "gone": [name for name in then if name not in now],
        "new": [name for name in now if name not in then],
    }
    return [f"{kind}: {few(names)}" for kind, names in kinds.items() if names]


def environment_differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return {name: [then, now]} of what the last digits may hang on; both as env.json holds it."""
    recorded, present = ({**env.get("plan", {}), **env} for env in (recorded, present))
    on_processor = present.get("device") == "cpu"  # whose name stands under processor
    return {
        name: [recorded.get(name), present.get(name)]
        for name in ENVIRONMENT
        if name in recorded and recorded[name] != present.get(name) and not (on_processor and name == "device_name")
    }


def environment_before(recorded: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """Return env.json as it was when the run began."""
    then = {**recorded, "plan": dict(recorded["plan"])}
    for change in reversed(changes):
        for name, (before, _) in change.environment.items():
            (then["plan"] if name in then["plan"] else then)[name] = before
    return then


def tell_differences(pairs: Mapping[str, list[Any]]) -> str:
    """Return `torch 2.10.0 → 2.14.1, capability avx2 → avx512`."""
    return _told(pairs, list(pairs))


def _told(pairs: Mapping[str, list[Any]], names: list[str]) -> str:
    return ", ".join(f"{name} {_text(pairs[name][0])} → {_text(pairs[name][1])}" for name in names)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(entry) for entry in value)
    return "none" if value is None else str(value)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _with(settings: TrainSettings, values: Mapping[str, Any]) -> TrainSettings:
    return TrainSettings(**{**settings.model_dump(), **values}) if values else settings
