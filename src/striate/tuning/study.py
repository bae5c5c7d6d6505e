"""A search for better settings on Optuna: ask, train, report each epoch's validation, stop what lags, tell."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from striate.data.split import Split
from striate.device import key
from striate.errors import NonFiniteLoss, UsageError
from striate.files import waited_lock
from striate.runs.journal import EpochResult
from striate.settings.train import TrainSettings
from striate.settings.values import parse_time
from striate.training.begin import start_job
from striate.training.material import Opened, prepare_material
from striate.tuning.space import Parameter, Resolve, as_given

DATABASE = "study.db"
OPENING_SECONDS = 60.0
STARTUP = 5  # trials before the median means anything (Optuna's own default)
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
Report = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """A trial as the table shows it; `accuracy` is its best on validation, None where it never came to one."""

    number: int
    state: str
    accuracy: float | None
    epochs: int
    values: Mapping[str, Any]
    reason: str = ""


def open_study(
    folder: Path, space: Sequence[Parameter], settings: TrainSettings, typed: Mapping[str, Any]
) -> optuna.Study:
    """Open the study in a folder, or make it; the first trial of a new one has the settings as they are.

    Raises UsageError where it searches something else: its trials could not be compared with ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with waited_lock(folder, OPENING_SECONDS):  # of two that begin at once one makes it, and the other finds it whole
        return _opened_study(folder, space, settings, typed)


def _opened_study(
    folder: Path, space: Sequence[Parameter], settings: TrainSettings, typed: Mapping[str, Any]
) -> optuna.Study:
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{(folder / DATABASE).absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}
    )
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=2)
    study = optuna.create_study(
        storage=storage, study_name="striate", direction="maximize", pruner=pruner, load_if_exists=True
    )
    asked = {
        "parameters": [parameter.told() for parameter in space],
        "settings": json.loads(settings.model_dump_json(exclude={"out", "data_root", "threads", "device"})),
    }
    before = study.user_attrs.get("asked")
    if before is None:
        study.set_user_attr("asked", asked)
        first = {p.name: str(typed[p.name]) for p in space if p.name in typed and p.holds(str(typed[p.name]))}
        if len(first) == len(space):
            numbers = {
                p.name: int(float(first[p.name])) if p.whole else float(first[p.name]) for p in space if not p.choices
            }
            study.enqueue_trial({**first, **numbers})
    elif before != asked:
        different = [name for name in ("parameters", "settings") if before[name] != asked[name]]
        raise UsageError(
            f"the study in {folder} has other {' and '.join(different)}",
            f"it searches {' '.join(before['parameters'])}",
            "give the same, or another folder with --out",
        )
    return study


def search(
    study: optuna.Study,
    space: Sequence[Parameter],
    opened: Opened,
    resolve: Resolve,
    *,
    trials: int,
    limit: str | None,
    model: Any = None,
    report: Report,
) -> None:
    """Train trials until the study has so many, or the time is over. Several processes may search one study."""
    end = time.monotonic() + parse_time(limit) if limit is not None else float("inf")
    split = split_of(opened, report)
    refused = None
    while sum(trial.state in ENDED for trial in study.get_trials(deepcopy=False)) < trials and time.monotonic() < end:
        trial = study.ask()
        # Two processes that begin at once must not draw the same numbers: the number of a trial is its alone.
        study.sampler = optuna.samplers.TPESampler(seed=key(opened.settings.seed, "tune", trial.number) % 2**32)
        values = {parameter.name: _suggest(trial, parameter) for parameter in space}
        try:
            value, state = _train(trial, study, values, opened, split, resolve, model, end)
        except (UsageError, NonFiniteLoss) as error:  # a kernel that does not fit, a rate that is too high
            refused = error
            trial.set_user_attr("reason", error.what)
            trial.report(0.0, step=0)
            value, state = None, TrialState.PRUNED
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
        study.tell(trial, value, state=state)
        report(_line(read_trials(study)[trial.number], study))
    if refused is not None and best_of(study) is None:
        raise refused


def split_of(opened: Opened, report: Report) -> Split:
    """Return the split that `train` would make, without its test pictures: a search never sees them."""
    split = prepare_material(opened.settings, opened.parts, None, report).split
    if not len(split.validation):
        raise UsageError("a search needs validation pictures", "--validation is 0", "leave out --validation")
    return dataclasses.replace(split, test=np.empty(0, dtype=np.int64))


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.choices:
        return trial.suggest_categorical(parameter.name, parameter.choices)
    if parameter.whole:
        return trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)


def _train(
    trial: optuna.Trial,
    study: optuna.Study,
    values: Mapping[str, Any],
    opened: Opened,
    split: Split,
    resolve: Resolve,
    model: Any,
    end: float,
) -> tuple[float | None, TrialState]:
    """Train one trial in a folder that is then removed; return its best accuracy on validation, and how it ended."""
    settings = resolve(as_given(typed_values(values)))
    settings = settings.model_copy(update={"fit": opened.settings.fit, "size": settings.size or opened.settings.size})
    best, state = 0.0, TrialState.COMPLETE
    with tempfile.TemporaryDirectory(prefix="striate-") as scratch:
        settings = settings.model_copy(update={"out": Path(scratch) / "run"})
        job = start_job(settings, data=opened.parts, model=model, split=split, report=_unheard)
        happenings = job.run()
        for happening in happenings:
            if not isinstance(happening, EpochResult) or happening.val_accuracy is None:
                continue
            best = max(best, happening.val_accuracy)
            trial.report(best, step=happening.epoch)
            trial.set_user_attr("epochs", happening.epoch)
            if job.progress.step >= job.total_steps:
                continue
            if time.monotonic() > end and best_of(study) is not None:
                trial.set_user_attr("reason", "the time was over")
                state = TrialState.PRUNED
            elif trial.should_prune():
                trial.set_user_attr("reason", "behind the median")
                state = TrialState.PRUNED
            if state is TrialState.PRUNED:
                happenings.close()  # type: ignore[attr-defined]
                return None, state
    return best, state


def typed_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are typed and trained with: three digits, so that the command shown is the one that ran."""
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in values.items()}


def read_trials(study: optuna.Study) -> list[Trial]:
    """Return all trials of a study, in order."""
    return [_trial(trial) for trial in study.get_trials(deepcopy=False)]


def best_of(study: optuna.Study) -> Trial | None:
    """Return the trial that was trained whole and is best on validation; None where there is none."""
    whole = [trial for trial in read_trials(study) if trial.state == "complete"]
    return max(whole, key=lambda trial: (trial.accuracy or 0.0, -trial.number), default=None)


def importance(study: optuna.Study) -> dict[str, float]:
    """Return the share that each parameter has in how much trials differ; empty where too few were trained whole."""
    try:
        return optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}


def _trial(trial: FrozenTrial) -> Trial:
    attrs = trial.user_attrs
    reported = max(trial.intermediate_values.values(), default=None)
    accuracy = None if attrs.get("epochs") is None else reported
    state = trial.state.name.lower()
    return Trial(
        trial.number, state, accuracy, attrs.get("epochs", 0), typed_values(trial.params), attrs.get("reason", "")
    )


def _line(trial: Trial, study: optuna.Study) -> str:
    best = best_of(study)
    values = " ".join(f"{name}={value}" for name, value in trial.values.items())
    told = "-" if trial.accuracy is None else f"{100 * trial.accuracy:.2f} %"
    reason = f" ({trial.reason})" if trial.reason else ""
    lead = f"; best: {best.number} with {100 * (best.accuracy or 0):.2f} %" if best is not None else ""
    return f"trial {trial.number}: {told} after {trial.epochs} epochs{reason}: {values}{lead}"


def _unheard(_line: str) -> None:
    return
