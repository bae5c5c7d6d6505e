"""`striate serve`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from striate.cli.errors import tell
from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import hint
from striate.errors import MissingExtra
from striate.settings.base import build
from striate.settings.serve import ServeSettings
from striate.settings.values import environment_layers, from_text

if TYPE_CHECKING:
    from striate.serve.models import Prepared

# What one would rather not type: others see the flags of a process.
FROM_ENVIRONMENT = ("token",)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SECTIONS = {"host": "Where, and who", "threads": "Speed", "max_body": "Limits"}


def _serve(models: list[str], **flags: Any) -> None:
    given = from_text(ServeSettings, given_values(flags))
    environment = environment_layers(ServeSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(ServeSettings, [*environment, ("flag", given)])
    try:
        from striate.serve.running import listen, url_of

        sockets = listen(settings.host, settings.port)  # before the models are made, which takes longer
        if settings.host not in LOOPBACK and settings.token is None:
            hint("note: anyone who reaches this machine may ask; to ask for a token: STRIATE_TOKEN=…")
        told = partial(_told, url_of(sockets))
        try:
            code = (_serve_alone if settings.workers == 1 else _serve_together)(models, settings, sockets, told)
        finally:
            for one in sockets:
                one.close()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("striate"):
            raise
        raise MissingExtra(
            "cannot serve", f"it needs {error.name}, which is not installed", "pip install 'striate[serve]'"
        ) from error
    raise typer.Exit(code)


def _told(url: str, event: str) -> None:
    told = {"ready": f"answering at {url} (Ctrl-C stops)", "stopping": "stopping: what was asked is answered first"}
    hint(told.get(event, event))


def _serve_alone(models: list[str], settings: ServeSettings, sockets: list[Any], told: Callable[[str], None]) -> int:
    made = _made(models, settings)
    from striate.serve.handing import unpack

    return _answer(unpack(made), settings, sockets, told, threads=0)


def _serve_together(models: list[str], settings: ServeSettings, sockets: list[Any], told: Callable[[str], None]) -> int:
    """Serve with several workers. Nothing here may import what has threads: the workers are forked from it."""
    from striate.serve.workers import share_of_cores, supervise

    def work(ready: Callable[[], None]) -> int:
        from striate.predictor.onnx_backend import available_cores
        from striate.serve.handing import unpack

        threads = share_of_cores(settings.workers, available_cores())
        return _answer(unpack(made), settings, sockets, lambda event: ready() if event == "ready" else None, threads)

    made = _made(models, settings)
    return supervise(work, settings.workers, sockets, tell=tell, told=told)


def _made(models: list[str], settings: ServeSettings) -> bytes:
    """Return the models as bytes. What makes them, torch above all, stays in a process that ends."""
    from striate.serve.workers import elsewhere

    def make() -> bytes:
        from striate.serve.handing import pack
        from striate.serve.models import prepare

        return pack(prepare(models, settings.model))

    return elsewhere(make, tell)


def _answer(
    prepared: list[Prepared], settings: ServeSettings, sockets: list[Any], told: Callable[[str], None], threads: int
) -> int:
    """Serve models in this process; `threads`: its share of the cores, 0 for all."""
    from striate.serve.app import make_app
    from striate.serve.limits import MEBIBYTE, Limits
    from striate.serve.protocol import Guard, Patience
    from striate.serve.running import run
    from striate.serve.telemetry import Log

    log = Log() if settings.log else None
    app = make_app(
        prepared,
        limits=Limits(
            max_body=int(settings.max_body * MEBIBYTE),
            max_memory=int(settings.max_memory * MEBIBYTE),
            max_pixels=settings.max_pixels,
            max_parts=settings.max_parts,
            max_seconds=settings.max_seconds,
        ),
        token=settings.token,
        hosts=settings.allow_host or (LOOPBACK if settings.host in LOOPBACK else None),
        origins=settings.allow_origin or (),
        threads=settings.threads or threads,
        decoders=settings.decoders or threads,
        log=log,
        max_batch=settings.max_batch,
        max_wait=settings.max_wait / 1000,
        max_places=settings.max_queue,
    )
    guard = Guard(Patience(idle=settings.keep_alive), settings.max_connections, told=app.state.metrics.connection_ended)
    if settings.workers == 1:
        for one in app.state.models:
            hint(f"serving {one.name}: {len(one.card.classes)} classes, {one.card.class_name}")
    try:
        return run(app, sockets, guard=guard, drain=settings.drain, shared=settings.workers > 1, told=told)
    finally:
        if log is not None:
            log.close()


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
