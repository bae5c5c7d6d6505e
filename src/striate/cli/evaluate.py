"""`striate eval`."""

from __future__ import annotations

import os
from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import heading, interval, percent, say, say_json, say_table
from striate.settings.base import build
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT, EvalSettings


def _evaluate(run: str, **flags: Any) -> None:
    given = from_text(EvalSettings, given_values(flags))
    environment = environment_layers(EvalSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(EvalSettings, [*environment, ("flag", given)])
    from striate.api import evaluate as evaluate_run
    from striate.cli.pictures import own_net

    record = evaluate_run(
        run,
        split=settings.split,
        data=settings.data,
        data_root=settings.data_root,
        device=settings.device,
        precision=settings.precision,
        tta=settings.tta,
        expect_sha256=settings.expect_sha256,
        model=own_net(settings.model),
        out=settings.out,
    )
    if settings.as_json:
        say_json(record)
    else:
        say_record(run, record)


def say_record(run: str, record: dict[str, Any]) -> None:
    """Write an evaluation as two tables: the whole, and class by class."""
    heading(f"{run}: {record['split']} of {record['data']}, {record['samples']:,} pictures")
    augmented = record.get("top1_tta")
    say_table(
        ("measure", "value"),
        [
            ("top-1 (95 % interval)", interval(record["top1"])),
            *([(f"top-1 with {augmented['kind']} augmentation", interval(augmented))] if augmented else []),
            ("top-5", percent(_number(record["top5"]))),
            ("loss", _plain(record["loss"])),
            ("macro-F1", percent(record["macro_f1"])),
            ("calibration error (ECE)", percent(record["ece"])),
        ],
        right=(1,),
    )
    say()
    rows = [
        (row["class"], f"{row['samples']:,}", percent(row["precision"]), percent(row["recall"]), percent(row["f1"]))
        for row in record["per_class"]
    ]
    say_table(("class", "pictures", "precision", "recall", "F1"), rows, right=(1, 2, 3, 4))


def _number(value: Any) -> float | None:
    return value["value"] if isinstance(value, dict) else value


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


evaluate = make_command(
    "eval",
    _evaluate,
    [argument("run", "RUN", "Run folder, its name under runs/, or runs/latest."), *settings_flags(EvalSettings)],
    "Count what a run gets right; every picture counts once. A file is written only with --out.",
)
