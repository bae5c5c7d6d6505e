"""`striate tune`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.cli.flags import argument, given_values, make_command, option, settings_flags
from striate.cli.output import hint, percent, say, say_table
from striate.cli.train import as_flag_text, check_data, check_model, start_of
from striate.errors import MissingExtra, UsageError
from striate.settings.base import build
from striate.settings.layers import resolve_train
from striate.settings.train import TrainSettings
from striate.settings.tune import TuneSettings
from striate.settings.values import from_text, parse_options

if TYPE_CHECKING:
    from striate.tuning.study import Trial

SECTIONS = {"data": "Settings of every trial"}


def _tune(target: str | None, param: list[str] | None, **flags: Any) -> None:
    given = given_values(flags)
    own = {name: given.pop(name) for name in list(given) if name in TuneSettings.model_fields}
    settings, _ = build(TuneSettings, [("flag", {**from_text(TuneSettings, own), "param": tuple(param or ())})])
    if target is not None:
        if given.get("data", target) != target:
            raise UsageError(f"two data sets: {target} and --data {given['data']}", "a search has one", "leave one out")
        given["data"] = target
    base = _resolve(given, {})
    check_data(base.data)
    check_model(base)
    try:
        import optuna as optuna
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "cannot search", f"it needs {error.name}, which is not installed", "pip install 'striate[tune]'"
        ) from error
    _search(settings, base, given)


def _search(settings: TuneSettings, base: TrainSettings, given: Mapping[str, Any]) -> None:
    from striate.models.registry import model_options
    from striate.training.material import open_data
    from striate.tuning.space import OPTION, default_space, parse
    from striate.tuning.study import best_of, importance, open_study, read_trials, search, split_of

    resolve = partial(_resolve, given)
    space = parse(settings.param, base, resolve)
    opened = open_data(base, hint)
    if not space:
        space = default_space(base, len(split_of(opened, hint).train))
    typed = {name: value for name, value in base.model_dump().items()}
    if ".py:" not in str(base.model):
        options = {**model_options(str(base.model)), **base.model_option}
        typed |= {OPTION + name: value for name, value in options.items()}
    label = str(base.model).rpartition(":")[2]
    folder = settings.out or Path("runs") / f"tune-{opened.parts.name}-{label}"
    study = open_study(folder, space, base, typed)
    hint(f"searching {' '.join(parameter.told() for parameter in space)} in {folder}")
    search(study, space, opened, resolve, trials=settings.trials, limit=settings.time, report=hint)
    best, trials = best_of(study), read_trials(study)
    _say_trials(trials, [parameter.name for parameter in space])
    if best is None:
        raise UsageError("no trial was trained to its end", "the time was too short", "give more --time")
    shares = importance(study)
    if shares:
        say("importance  " + ", ".join(f"{name} {percent(share, 0)}" for name, share in shares.items()))
    drawn = _draw(folder, trials, space, shares)
    out = folder / f"best-{best.number}"
    command = _command(given, best.values, base, out)
    say(f"best  trial {best.number}: {percent(best.accuracy)} of the validation pictures")
    say(f"command  {command}")
    say(f"pictures  {', '.join(str(path) for path in drawn)}")
    if settings.retrain and not out.exists():
        from striate.api import run_training

        run_training(_resolve(given, _as_given(best.values)).model_copy(update={"out": out}), command=command)
    elif settings.retrain:
        hint(f"{out} was trained and tested before")


def _as_given(values: Mapping[str, Any]) -> dict[str, Any]:
    from striate.tuning.space import as_given

    return as_given(values)


def _resolve(given: Mapping[str, Any], values: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a trial: what was typed, and the values over it."""
    merged = {**given, **values}
    if "model_option" in given and "model_option" in values:
        merged["model_option"] = [*_texts(given["model_option"]), *values["model_option"]]
    return resolve_train(merged, origin="flag", environ=os.environ, start_of=start_of)[0]


def _texts(options: Any) -> list[str]:
    return list(options) if isinstance(options, (list, tuple)) else [options]


def _say_trials(trials: list[Trial], names: list[str]) -> None:
    ranked = sorted(trials, key=lambda trial: (trial.state != "complete", -(trial.accuracy or 0), trial.number))
    rows = [
        (
            str(trial.number),
            percent(trial.accuracy),
            str(trial.epochs),
            *(as_flag_text(trial.values.get(name)) for name in names),
            trial.reason or trial.state,
        )
        for trial in ranked
    ]
    say_table(("trial", "validation", "epochs", *names, "end"), rows, right=(0, 1, 2))


def _draw(folder: Path, trials: list[Trial], space: Any, shares: Mapping[str, float]) -> list[Path]:
    from striate.report import tuning_plots

    drawn = []
    if shares:
        drawn.append(folder / "importance.png")
        tuning_plots.importance(drawn[0], shares, "What mattered")
    seen = [(trial.accuracy, trial.values) for trial in trials if trial.accuracy is not None]
    seen = [(accuracy, values) for accuracy, values in seen if len(values) == len(space)]
    if seen:
        drawn.append(folder / "parallel.png")
        scales = {parameter.name: parameter.choices or parameter.log for parameter in space}
        tuning_plots.parallel(drawn[-1], seen, scales, f"{len(seen)} trials; the best is orange")
    return drawn


def _command(given: Mapping[str, Any], values: Mapping[str, Any], base: TrainSettings, out: Path) -> str:
    """Return the command that trains a trial's settings and tests them."""
    chosen = _as_given(values)
    options = parse_options([*_texts(given.get("model_option", [])), *chosen.pop("model_option", [])])
    words = ["striate", "train", base.data]
    for name, value in {**given, **chosen}.items():
        if name in ("data", "model_option"):
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        else:
            words += [f"--{name.replace('_', '-')}", as_flag_text(value)]
    for name, value in options.items():
        words += ["--model-option", f"{name}={as_flag_text(value)}"]
    return shlex.join([*words, "--out", str(out)])


tune = make_command(
    "tune",
    _tune,
    [
        argument("target", "DATA", "Name of a data set, or a folder, table or archive of pictures.", required=False),
        option("param", "NAME=VALUES", "lr=1e-4..1e-1:log or model.activation=relu,tanh; may be repeated", many=True),
        *settings_flags(TuneSettings, leave_out=["param"]),
        *settings_flags(TrainSettings, leave_out=["out", "time"], sections=SECTIONS),
    ],
    "Search for better settings: train many, stop those that lag, judge by validation, test the best once.",
    "The same command goes on with its study; in another terminal it helps.",
)
