"""`striate train` and `striate resume`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from striate.cli.flags import argument, given_values, make_command, option, settings_flags, switch
from striate.cli.output import COMMAND_LINE, say_table
from striate.errors import UsageError, unknown_name
from striate.settings.base import build
from striate.settings.layers import resolve_train
from striate.settings.train import TrainSettings
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT, ResumeSettings

# The first field of each section of the help.
SECTIONS = {
    "data": "Data and net",
    "size": "Pictures",
    "validation": "Split",
    "epochs": "Steps",
    "seed": "Machine",
    "out": "Files",
}

EPILOG = (
    "In square brackets: the default. A recipe, --config and the environment (STRIATE_EPOCHS=3) may set others; "
    "`striate train mnist --show-config` prints each value and where it comes from."
)


def _train(
    target: str | None,
    config: str | None,
    show_config: bool | None,
    quiet: bool | None,
    report: bool | None,
    **flags: Any,
) -> None:
    given = given_values(flags)
    if target is not None:
        if given.get("data", target) != target:
            raise UsageError(f"two data sets: {target} and --data {given['data']}", "one run has one", "leave one out")
        given["data"] = target
    file = Path(config) if config is not None else None
    settings, origins, _ = resolve_train(given, origin="flag", config=file, environ=os.environ, start_of=start_of)
    check_data(settings.data)
    if show_config:
        _show(settings, origins)
        return
    check_model(settings)
    from striate.api import run_training

    command = shlex.join(["striate", *COMMAND_LINE.get()])
    run_training(settings, quiet=bool(quiet), report=bool(report), command=command)


def start_of(init_from: str | None, model: str | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings that come with first weights; nothing is imported where they are drawn, as nearly always."""
    if init_from in (None, "auto") and not str(model).startswith("timm:"):
        return {}
    from striate.training.starting import settings_of_start

    return settings_of_start(init_from, model, options)


def check_data(name: str) -> None:
    """Refuse an unknown data set before torch is imported."""
    from striate.data.named import NAMED
    from striate.data.sources import looks_like_pictures

    if looks_like_pictures(name):
        return

    if name.lower().replace("_", "-") not in NAMED:
        raise unknown_name("data set", name, NAMED, "see `striate data ls`; a folder of pictures is written ./photos")


def check_model(settings: TrainSettings) -> None:
    if settings.model is None:
        raise UsageError(
            f"no net is named for {settings.data}",
            f"the recipe {settings.recipe} names none",
            "add --model lenet5; `striate models` lists them",
        )


def _show(settings: TrainSettings, origins: Mapping[str, str]) -> None:
    rows = [(name, as_flag_text(getattr(settings, name)), origins[name]) for name in TrainSettings.model_fields]
    say_table(("setting", "value", "from"), rows)


def as_flag_text(value: Any) -> str:
    """Return a setting's value as it would be typed after its flag."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={as_flag_text(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        return ",".join(as_flag_text(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _resume(run: str, quiet: bool | None, report: bool | None, **flags: Any) -> None:
    given = given_values(flags)
    own = from_text(
        ResumeSettings, {name: value for name, value in given.items() if name in ResumeSettings.model_fields}
    )
    environment = environment_layers(ResumeSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(ResumeSettings, [*environment, ("flag", own)])
    changes = {name: value for name, value in given.items() if name not in ResumeSettings.model_fields}
    if settings.epochs is not None:
        changes["epochs"] = settings.epochs
    from striate.api import resume as resume_run
    from striate.cli.pictures import own_net

    resume_run(
        run,
        data_root=settings.data_root,
        model=own_net(settings.model),
        quiet=bool(quiet),
        report=bool(report),
        allow_changes=settings.allow_changes,
        command=shlex.join(["striate", *COMMAND_LINE.get()]),
        **changes,
    )


train = make_command(
    "train",
    _train,
    [
        argument("target", "DATA", "Name of a data set (see `striate data ls`); a recipe may name it.", required=False),
        *settings_flags(TrainSettings, sections=SECTIONS),
        option("config", "FILE", "YAML file of settings, such as a run's config.yaml", panel="Files"),
        switch("show_config", "print each setting with where it comes from, and leave", "Files"),
        switch("report", "also write report.html: all that is known of the run on one page", "Files"),
        switch("quiet", "print nothing but errors", "Files"),
    ],
    "Train a net on a data set, test it once, and write a run folder.",
    EPILOG,
)

resume = make_command(
    "resume",
    _resume,
    [
        argument("run", "RUN", "Run folder, its name under runs/, or runs/latest."),
        *settings_flags(ResumeSettings),
        switch("report", "also write report.html: all that is known of the run on one page"),
        switch("quiet", "print nothing but errors"),
        *settings_flags(
            TrainSettings, leave_out=[*ResumeSettings.model_fields, "out"], sections={"data": "Other settings"}
        ),
    ],
    "Go on with a run from its last save, to the same end as if it had never stopped; or extend it.",
    "Other settings than the run's own are refused, or recorded with --allow-changes.",
)
