"""What the server tells of itself: metrics for Prometheus with bounded labels, and a line of JSON for each request."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from fastapi import APIRouter, Request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.responses import Response

router = APIRouter()

#: Set by who starts several processes: the folder in which each keeps its numbers, so that any can tell them all.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
#: The label of a path that no route has.
OTHER = "other"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MOST_LINES = 10_000
_MOST_TEXT = 300
_LOOK_SECONDS = 0.1


class Metrics:
    """The numbers of one server. Labels are routes, models, statuses and outcomes, which no client can add to."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second series for each, with the time at which it began
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("striate_requests", "Requests answered", ("route", "status"), registry=registry)
        self.seconds = Histogram(
            "striate_request_seconds", "Time from a request's head to its answer", ("route",), buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.pictures = Counter("striate_pictures", "Pictures, by outcome", ("model", "outcome"), registry=registry)
        self.batches = Histogram(
            "striate_batch_pictures", "Pictures in a batch", ("model",), buckets=_PICTURES, registry=registry
        )
        self.net_seconds = Counter("striate_net_seconds", "Time the net took", ("model",), registry=registry)
        self.refused = Counter("striate_refused", "Requests refused, by reason", ("reason",), registry=registry)
        self.connections_ended = Counter(
            "striate_connections_ended", "Connections let go by the server, by reason", ("reason",), registry=registry
        )
        self.lines_lost = Counter("striate_log_lines_lost", "Lines of log nobody took in time", registry=registry)
        self.in_flight = Gauge(
            "striate_requests_in_flight", "Requests being answered", registry=registry, multiprocess_mode="livesum"
        )
        self.places = Gauge(
            "striate_places", "Pictures decoded, waiting or asked", ("model",), registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.body_bytes = Gauge(
            "striate_body_bytes", "Bytes of bodies held", registry=registry, multiprocess_mode="livesum"
        )
        if SHARED_FOLDER not in os.environ:
            ProcessCollector(registry=registry)

    def connection_ended(self, reason: str) -> None:
        """Count a connection that the server let go."""
        self.connections_ended.labels(reason).inc()

    def told(self, model: str, pictures: int, seconds: float) -> None:
        """Count a batch."""
        self.batches.labels(model).observe(pictures)
        self.net_seconds.labels(model).inc(seconds)

    def text(self) -> bytes:
        """Return all numbers as Prometheus reads them; of all processes where there are several."""
        registry = self._registry
        if SHARED_FOLDER in os.environ:
            from prometheus_client.multiprocess import MultiProcessCollector

            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Tell how many requests, pictures and batches there were, and how long they took."""
    found: Metrics = request.app.state.metrics
    for model in request.app.state.models:
        found.places.labels(model.name).set(model.batcher.places)
    found.body_bytes.set(request.app.state.budget.held)
    return Response(found.text(), media_type=CONTENT_TYPE_LATEST)


class Log:
    """Writes a line of JSON for each event, from a thread of its own: a reader that stops reading stops nobody else."""

    def __init__(self, stream: TextIO | None = None, *, metrics: Metrics | None = None) -> None:
        self._stream = stream or sys.stderr
        self._metrics = metrics
        self._lines: deque[str] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def write(self, event: str, level: str = "info", **facts: Any) -> None:
        """Write one line; it is dropped, and counted, where nobody takes them as fast as they come."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shortened = {key: value[:_MOST_TEXT] if isinstance(value, str) else value for key, value in facts.items()}
        line = json.dumps({"time": now, "level": level, "event": event, **shortened}, default=str)
        if len(self._lines) < _MOST_LINES:
            self._lines.append(line)
        elif self._metrics is not None:
            self._metrics.lines_lost.inc()

    def close(self, seconds: float = 1.0) -> None:
        """Write what is left, waiting no longer than that."""
        self._closing.set()
        self._thread.join(seconds)

    def _write(self) -> None:
        """Write what has come since the last look: to be woken for each line would cost more than the line."""
        ends = False
        while not ends:
            ends = self._closing.wait(_LOOK_SECONDS)
            text = "".join(f"{self._lines.popleft()}\n" for _ in range(len(self._lines)))
            if text:
                # Where the reader is gone, or the stream closed, there is nobody to tell.
                with suppress(OSError, ValueError):
                    self._stream.write(text)
                    self._stream.flush()


def request_id(given: str | None) -> str:
    """Return the id that a client gave, if it is a plain word, or a new one."""
    return given if given is not None and _ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def seconds_since(began: float) -> float:
    """Return the seconds since a `time.perf_counter()`, in whole microseconds."""
    return round(time.perf_counter() - began, 6)
