"""`striate verify`."""

from __future__ import annotations

import os
from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import say_json, say_table
from striate.errors import VerificationError
from striate.settings.base import build
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT, VerifySettings


def _verify(run: str, **flags: Any) -> None:
    given = from_text(VerifySettings, given_values(flags))
    environment = environment_layers(VerifySettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(VerifySettings, [*environment, ("flag", given)])
    from striate.cli.pictures import own_net
    from striate.training.verify import verify as verify_run

    failure = None
    try:
        record = verify_run(run, steps=settings.steps, data_root=settings.data_root, model=own_net(settings.model))
    except VerificationError as error:
        failure, record = error, dict(error.record)
    if settings.as_json:
        say_json(record)
    else:
        _say_record(record)
    if failure is not None:
        raise failure


def _say_record(record: dict[str, Any]) -> None:
    rows = [(file["file"], "as recorded" if file["ok"] else file["problem"]) for file in record["files"]]
    rows += [("data", told) for told in record["data"] or ["as recorded"]]
    steps = record["steps"]
    first = steps["first_difference"]
    same = f"{steps['compared']} of {steps['of']:,} steps trained again"
    same += ": each loss the same to the last digit" if steps["compared"] else ""
    rows.append(("losses", same if first is None else f"step {first['step']}: {first['recorded']} → {first['now']}"))
    rows += [(name, f"{then} → {now}") for name, (then, now) in record["environment"].items()]
    say_table(("what", "found"), rows)


verify = make_command(
    "verify",
    _verify,
    [argument("run", "RUN", "Run folder, its name under runs/, or runs/latest."), *settings_flags(VerifySettings)],
    "Check a run's files and data against their digests, and train its first steps again. Nothing in it is written.",
    "Ends with 5 where something differs.",
)
