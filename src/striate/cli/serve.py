"""`striate serve`."""

from __future__ import annotations

import os
from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import hint
from striate.errors import MissingExtra
from striate.settings.base import build
from striate.settings.serve import ServeSettings
from striate.settings.values import environment_layers, from_text

# What one would rather not type: others see the flags of a process.
FROM_ENVIRONMENT = ("token",)
SECTIONS = {"host": "Where, and who", "threads": "Speed", "max_body": "Limits"}


def _serve(models: list[str], **flags: Any) -> None:
    given = from_text(ServeSettings, given_values(flags))
    environment = environment_layers(ServeSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(ServeSettings, [*environment, ("flag", given)])
    try:
        from striate.serve.app import LOOPBACK, make_app
        from striate.serve.limits import MEBIBYTE, Limits
        from striate.serve.models import prepare
        from striate.serve.running import run_server
        from striate.serve.telemetry import Log
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("striate"):
            raise
        raise MissingExtra(
            "cannot serve", f"it needs {error.name}, which is not installed", "pip install 'striate[serve]'"
        ) from error
    prepared = prepare(models, settings.model)
    limits = Limits(
        max_body=int(settings.max_body * MEBIBYTE),
        max_memory=int(settings.max_memory * MEBIBYTE),
        max_pixels=settings.max_pixels,
        max_parts=settings.max_parts,
        max_seconds=settings.max_seconds,
    )
    is_private = settings.host in LOOPBACK
    if not is_private and settings.token is None:
        hint("note: anyone who reaches this machine may ask; to ask for a token: STRIATE_TOKEN=…")
    app = make_app(
        prepared,
        limits=limits,
        token=settings.token,
        hosts=settings.allow_host or (LOOPBACK if is_private else None),
        origins=settings.allow_origin or (),
        threads=settings.threads,
        decoders=settings.decoders,
        log=Log() if settings.log else None,
        max_batch=settings.max_batch,
        max_wait=settings.max_wait / 1000,
        max_places=settings.max_queue,
    )
    for one in app.state.models:
        hint(f"serving {one.name}: {len(one.card.classes)} classes, {one.card.class_name}")
    run_server(app, host=settings.host, port=settings.port)


serve = make_command(
    "serve",
    _serve,
    [
        argument("models", "MODEL", "Runs, runs/latest, model.onnx, packed files; NAME=MODEL names one.", many=True),
        *settings_flags(ServeSettings, sections=SECTIONS),
    ],
    "Answer over HTTP, and show a page on which one draws and sees inside the net. Ends with Ctrl-C.",
    "Runs are exported to ONNX in memory and answered by onnxruntime; an ONNX file needs no torch.",
)
