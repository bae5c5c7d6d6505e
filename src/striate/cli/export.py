"""`striate export`."""

from __future__ import annotations

import os
import shlex
from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import heading, percent, printable, say, say_json, say_table
from striate.errors import VerificationError
from striate.settings.base import build
from striate.settings.export import ExportSettings
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT, refuse_idle


def _export(run: str, **flags: Any) -> None:
    given = from_text(ExportSettings, given_values(flags))
    environment = environment_layers(ExportSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, origins = build(ExportSettings, [*environment, ("flag", given)])
    to_onnx, to_int8 = ("--to onnx", settings.to == "onnx"), ("--int8", settings.int8)
    refuse_idle(
        origins,
        {**dict.fromkeys(("pictures", "data", "data_root"), to_onnx), "most_loss": to_int8, "calibration": to_int8},
    )
    from striate.cli.pictures import own_net
    from striate.shipping import export_model

    failure = None
    try:
        record = export_model(run, settings, model=own_net(settings.model))
    except VerificationError as error:
        if not error.record:
            raise
        failure, record = error, dict(error.record)
    if settings.as_json:
        say_json(record)
    else:
        if "pictures" in record:
            say_proof(record)
        if failure is None:
            _say_written(record, settings.model)
    if failure is not None:
        raise failure


def say_proof(record: dict[str, Any]) -> None:
    """Write what was compared, and on how many pictures; and how long either takes, where that was measured."""
    pictures, tolerance, small = record["pictures"], record["tolerance"], record["int8"]
    heading(f"proved on {pictures['count']:,} {pictures['split']} pictures of {pictures['data']}, against torch")
    sides = [("onnxruntime", record), *([("int8", small)] if small else [])]
    rows = [
        ("answers that agree", *(percent(side["agreement"]) for _, side in sides)),
        *(
            (f"largest difference of a {what}", *(f"{side['largest_difference'][what]:.2g}" for _, side in sides))
            for what in ("probability", "logit")
        ),
        ("accuracy", *(percent(record["accuracy"][name]) for name, _ in sides)),
    ]
    say_table(("", *(name for name, _ in sides)), rows, right=range(1, len(sides) + 1))
    say(f"tolerance: {tolerance['probability']:.2g} for a probability, {tolerance['logit']:.2g} for a logit")
    if small:
        lost = f"{100 * small['accuracy_lost']:.2f} points of accuracy lost, {100 * small['most_loss']:.2f} accepted"
        say(f"int8: ranges from {small['calibration']:,} train pictures; {lost}")
    if "latency_ms" in record:
        say()
        _say_latency(record["latency_ms"])


def _say_latency(latency: dict[str, Any]) -> None:
    """Write the median of each side's times, and how many times slower torch is."""
    rows = []
    for batch in latency["torch"]:
        torch = latency["torch"][batch]["median"]
        others = [latency[name][batch]["median"] for name in latency if name != "torch"]
        cells = [cell for time in others for cell in (f"{time:.2f} ms", f"{torch / time:.2f}")]
        rows.append((batch, f"{torch:.2f} ms", *cells))
    names = [cell for name in latency if name != "torch" for cell in (name, "times as fast")]
    say_table(("batch", "torch", *names), rows, right=range(len(rows[0])))


def _say_written(record: dict[str, Any], model: str | None) -> None:
    load = f", loads in {1000 * record['load_seconds']:.0f} ms" if "load_seconds" in record else ""
    small = record.get("int8")
    before = f" ({small['float32_bytes'] / record['bytes']:.1f} times smaller)" if small else ""
    own = f" --model {model}" if model and record["to"] == "striate" else ""
    say(f"saved  {printable(record['file'])}, {record['bytes']:,} bytes{before}{load}")
    say(f"next   striate predict {shlex.quote(printable(record['file']))}{own} picture.png")


export = make_command(
    "export",
    _export,
    [argument("run", "RUN", "Run folder, its name under runs/, or runs/latest."), *settings_flags(ExportSettings)],
    "Write a run as one file, and prove on real pictures that it answers as the run does.",
    "Ends with 5, and writes nothing, where it does not. A file that is there is kept unless you say --force.",
)
