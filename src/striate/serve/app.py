"""The server's application: models, limits, routers, and what happens with every request on its way in and out."""

from __future__ import annotations

import asyncio
import hmac
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from striate.errors import StriateError, UsageError
from striate.predictor.onnx_backend import available_cores
from striate.serve import answers, inside, page_files, telemetry, v2
from striate.serve.decoding import Threads
from striate.serve.describing import describe_models
from striate.serve.limits import Budget, Limits
from striate.serve.models import Prepared, Served
from striate.serve.refusals import Busy, Refused, as_refusal, response_to
from striate.serve.telemetry import OTHER, Log, Metrics, request_id, seconds_since

#: What may be asked without the token: whether the server lives, and the page, which then asks for it.
OPEN_PATHS = ("/", "/favicon.ico", "/v2/health/live", "/v2/health/ready")
OPEN_FOLDERS = ("/page/",)
ROUTERS = (answers.router, inside.router, v2.router, telemetry.router, page_files.page_router())

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


def make_app(
    prepared: Sequence[Prepared],
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    origins: Sequence[str] = (),
    threads: int = 0,
    decoders: int = 0,
    log: Log | None = None,
    **queue: Any,
) -> FastAPI:
    """Return the application that serves models, the first of which is asked where none is named.

    `token`: what clients have to send as `Authorization: Bearer`; `hosts`: the names by which they may call the server,
    all by default; `origins`: pages of other addresses that may ask it. `threads`: of onnxruntime; `decoders`: threads
    that decode pictures; 0 for one each processor core. `queue`: max_batch, max_wait, max_places of Batcher.
    `app.state` has models, limits, budget, metrics, log, ready, and decoding(function, *arguments), which calls it in
    one of those threads. `ready` is for who asks whether to send requests here: those that come are answered.
    """
    if not prepared:
        raise UsageError("no model is named", "there is nothing to serve", "name a run: striate serve runs/latest")
    metrics = Metrics()
    limits = limits or Limits()
    asking = ThreadPoolExecutor(1, "net")
    decoding = Threads(decoders or available_cores())
    models = [Served(one, thread=asking, threads=threads, told=metrics.told, **queue) for one in prepared]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        for model in models:  # the first answer takes longer
            await loop.run_in_executor(asking, model.warm)
        app.state.ready = True
        yield
        app.state.ready = False
        asking.shutdown(cancel_futures=True)
        decoding.close()

    app = FastAPI(
        title="striate", version=_version(), docs_url=None, redoc_url=None, lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics tells all there is
    )  # fmt: skip
    app.state.models = models
    app.state.limits = limits
    app.state.budget = Budget(limits.max_memory)
    app.state.metrics = metrics
    app.state.log = log
    app.state.ready = False
    app.state.decoding = decoding
    for router in ROUTERS:
        app.include_router(router)
    describe_models(app)
    app.add_exception_handler(StriateError, _tell)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_middleware(_Door, state=app.state, token=token, hosts=hosts)
    if origins:  # outermost: what a browser asks beforehand has no token
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "content-encoding", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return app


def _version() -> str:
    import striate

    return striate.__version__


async def _tell(request: Request, error: Any) -> Response:
    refusal = as_refusal(error)
    if refusal.status == 500:
        request.scope["striate.error"] = str(error)
    request.scope["striate.refused"] = refusal.code
    return response_to(refusal, request.url.path)


async def _tell_http(request: Request, error: Any) -> Response:
    path = request.url.path
    told = {404: "there is nothing at this address", 405: "this address does not take this method"}
    refusal = Refused(error.status_code, told.get(error.status_code, str(error.detail)), "", "see /openapi.json")
    response = response_to(refusal, path)
    response.headers.update(error.headers or {})
    return response


async def _tell_invalid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"])[:200]
    return response_to(Refused(422, f"{where} is wrong", str(first["msg"])), request.url.path)


class _Door:
    """What every request passes: id, host, token, readiness, time; on its way out headers, numbers, a line of log."""

    def __init__(self, app: ASGIApp, state: Any, token: str | None, hosts: Sequence[str] | None) -> None:
        self.app = app
        self.state = state
        self.token = None if token is None else token.encode()
        self.hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        identity = scope["striate.id"] = request_id(headers.get("x-request-id"))
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers_sent = message["headers"]
                names = {name for name, _ in headers_sent}
                headers_sent += [one for one in _HEADERS if one[0] not in names]
                headers_sent.append((b"x-request-id", identity.encode()))
            await send(message)

        metrics: Metrics = self.state.metrics
        metrics.in_flight.inc()
        try:
            refusal = self._refusal(scope, headers)
            if refusal is None:
                refusal = await self._pass(scope, receive, send_with_headers, lambda: status)
            if refusal is not None:
                scope["striate.refused"] = refusal.code
                await response_to(refusal, scope["path"])(scope, receive, send_with_headers)
        finally:
            metrics.in_flight.dec()
            self.state.budget.give_back(scope.get("striate.held", 0))
            self._record(scope, status, seconds_since(began))

    async def _pass(self, scope: Scope, receive: Receive, send: Send, status: Callable[[], int]) -> Refused | None:
        """Let a request through; return what is to be told where it fails or takes too long, and nothing was sent."""
        seconds = self.state.limits.max_seconds
        try:
            async with asyncio.timeout(seconds):
                if (scope["method"], scope["path"]) == ("POST", "/predict"):
                    await _predict(scope, receive, send)
                else:
                    await self.app(scope, receive, send)
        except TimeoutError:
            if status():
                raise
            return Busy("the answer takes too long", f"a request may take {seconds:g} s", status=503)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            scope["striate.error"] = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
            if status():
                raise
            return Refused(500, "the server failed", "this is a fault in striate", "report it with the request's id")
        return None

    def _refusal(self, scope: Scope, headers: Headers) -> Refused | None:
        """Return why a request is not let in, or None."""
        if self.hosts is not None and _host_of(headers.get("host", "")) not in self.hosts:
            return Refused(
                421, "the server is not known by this name", "it answers on this machine alone", "name it: --host"
            )
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            return None
        if self.token is not None:
            kind, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token)
            if kind.lower() != "bearer" or not same:
                return Refused(401, "the token is missing or wrong", "", "send Authorization: Bearer TOKEN")
        return None

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        metrics: Metrics = self.state.metrics
        route = getattr(scope.get("route"), "path", OTHER)
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        refused, error = scope.get("striate.refused"), scope.get("striate.error")
        if refused is not None:
            metrics.refused.labels(refused).inc()
        if self.state.log is not None:
            facts = {"refused": refused, "error": error, **scope.get("striate.facts", {})}
            self.state.log.write(
                "request",
                "error" if status >= 500 and status != 503 else "info",
                id=scope["striate.id"],
                method=scope["method"],
                path=scope["path"],
                route=route,
                status=status,
                seconds=seconds,
                client=(scope.get("client") or ("",))[0],
                **{name: value for name, value in facts.items() if value is not None},
            )


async def _predict(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is asked most without the way through the framework, which takes a third of the time of it."""
    scope["route"] = _Short
    request = Request(scope, receive)
    try:
        response = await answers.predict(request)
    except StriateError as error:
        response = await _tell(request, error)
    await response(scope, receive, send)


class _Short:
    """The route of `_predict`, for the metrics."""

    path = "/predict"


def _host_of(header: str) -> str:
    """Return the name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
