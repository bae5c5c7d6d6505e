"""The Open Inference Protocol, version 2, under /v2: what clients of Triton, KServe and others ask with, unchanged."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from striate.predictor.onnx_backend import INPUT
from striate.serve import v2_documents as documents
from striate.serve.limits import hold, parse_json, read_body
from striate.serve.models import Served, choose
from striate.serve.refusals import Busy, Refused, json_response
from striate.serve.v2_tensors import JSON_LENGTH, OUTPUTS, Body, Ends, Question, read_question, write_answer

#: Triton's word for an ONNX graph that onnxruntime computes.
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration")
# curl -d says that it sends a form, and many a client says nothing.
_KINDS = ("", "application/json", "application/octet-stream", "application/x-www-form-urlencoded")
# Lists of numbers take so many times the bytes of their JSON.
_LISTS_OF_JSON = 8
# Work on so many bytes, or numbers, holds the event loop up for about a millisecond.
_MUCH = 1 << 16

router = APIRouter(prefix="/v2")


@router.get("/health/live", summary="Whether the server lives", response_class=Response)
async def live() -> Response:
    """Answer, with nothing."""
    return Response()


@router.get(
    "/health/ready",
    summary="Whether the server takes requests",
    response_class=Response,
    responses=documents.errors(503),
)
async def ready(request: Request) -> Response:
    """Answer, with nothing, while every model is ready; 503 while the server starts and stops."""
    _check_ready(request)
    return Response()


@router.get("", summary="What the server is", responses={200: documents.SERVER, **documents.errors(401, 503)})
async def server(request: Request) -> Response:
    """Tell the server's name, version, and which extensions of the protocol it has."""
    return json_response({"name": "striate", "version": request.app.version, "extensions": EXTENSIONS})


@router.post(
    "/repository/index",
    summary="The models, as Triton lists them",
    responses={200: documents.INDEX, **documents.errors(400, 401, 413, 415, 429, 503)},
    openapi_extra={"requestBody": documents.INDEX_BODY},
)
async def index(request: Request) -> Response:
    """List the models; with `ready` only while they take requests, which all of them do when the server does."""
    body = await read_body(request)
    wanted = parse_json(body, request.app.state.limits) if body else {}
    if not isinstance(wanted, dict) or not isinstance(wanted.get("ready", False), bool) or wanted.keys() - {"ready"}:
        raise Refused(400, 'the request is neither empty nor {"ready": true} nor {"ready": false}')
    told = {"state": "READY", "reason": ""}
    if not request.app.state.ready:
        told = {"state": "UNAVAILABLE", "reason": "the server is starting or stopping"}
    models = [{"name": model.name, "version": model.version, **told} for model in request.app.state.models]
    return json_response([] if wanted.get("ready") and told["reason"] else models)


@router.get(
    "/models/{model}",
    summary="What a model takes and gives",
    responses={200: documents.METADATA, **documents.errors(401, 404, 503)},
    openapi_extra=documents.OF_MODEL,
)
@router.get(
    "/models/{model}/versions/{version}",
    summary="What a version of a model takes and gives",
    responses={200: documents.METADATA, **documents.errors(401, 404, 503)},
    openapi_extra=documents.OF_VERSION,
)
async def metadata(request: Request) -> Response:
    """Tell names, datatypes and shapes; -1 stands for the number of pictures."""
    served = _named(request)
    ends = ends_of(served)
    outputs = [{"name": name, "datatype": "FP32", "shape": [-1, len(ends.classes)]} for name in OUTPUTS]
    return json_response(
        {
            "name": served.name,
            "versions": [served.version],
            "platform": PLATFORM,
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *ends.size]}],
            "outputs": outputs,
        }
    )


@router.get(
    "/models/{model}/config",
    summary="How a model is served, in Triton's words",
    responses={200: documents.CONFIG, **documents.errors(401, 404, 503)},
    openapi_extra=documents.OF_MODEL,
)
@router.get(
    "/models/{model}/versions/{version}/config",
    summary="How a version of a model is served, in Triton's words",
    responses={200: documents.CONFIG, **documents.errors(401, 404, 503)},
    openapi_extra=documents.OF_VERSION,
)
async def config(request: Request) -> Response:
    """Tell what of Triton's ModelConfig has a meaning here; the classes are among its `parameters`, as JSON."""
    served = _named(request)
    ends = ends_of(served)
    outputs = [{"name": name, "data_type": "TYPE_FP32", "dims": [len(ends.classes)]} for name in OUTPUTS]
    return json_response(
        {
            "name": served.name,
            "platform": PLATFORM,
            "backend": BACKEND,
            "max_batch_size": ends.most,
            "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": ends.size}],
            "output": outputs,
            "dynamic_batching": {
                "preferred_batch_size": [served.batcher.max_batch],
                "max_queue_delay_microseconds": round(served.batcher.max_wait * 1e6),
            },
            "parameters": {"classes": {"string_value": json.dumps(ends.classes)}},
        }
    )


@router.get(
    "/models/{model}/ready",
    summary="Whether a model takes requests",
    response_class=Response,
    responses=documents.errors(401, 404, 503),
    openapi_extra=documents.OF_MODEL,
)
@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Whether a version of a model takes requests",
    response_class=Response,
    responses=documents.errors(401, 404, 503),
    openapi_extra=documents.OF_VERSION,
)
async def model_ready(request: Request) -> Response:
    """Answer, with nothing, for a model that is served: those are ready whenever the server is."""
    _named(request)
    _check_ready(request)
    return Response()


@router.post(
    "/models/{model}/infer",
    summary="Ask a model",
    responses={200: documents.ANSWER, **documents.errors(400, 401, 404, 413, 415, 429, 500, 503)},
    openapi_extra=documents.OF_MODEL,
)
@router.post(
    "/models/{model}/versions/{version}/infer",
    summary="Ask a version of a model",
    responses={200: documents.ANSWER, **documents.errors(400, 401, 404, 413, 415, 429, 500, 503)},
    openapi_extra=documents.OF_VERSION,
)
async def infer(request: Request) -> Response:
    """Answer pictures uint8 (N, H, W, C) at the net's size, in JSON or as raw bytes behind it; compressed if asked."""
    state = request.app.state
    served = _named(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise Refused(415, f"a body of type {kind[:100]!r} is no request", "", "send application/json")
    coding = accepted_coding(request.headers.get("accept-encoding", ""))
    body, length = await read_body(request), request.headers.get(JSON_LENGTH)
    hold(request, _LISTS_OF_JSON * (len(body) if length is None else min(len(body), _number(length))))
    ends = ends_of(served)
    question = await _run(state, len(body), read_question, body, length, ends, state.limits)
    try:
        async with asyncio.timeout(question.seconds):
            logits = await served.answer(question.images)
    except TimeoutError:
        raise Busy("the answer would take longer than the request's timeout allows") from None
    state.metrics.pictures.labels(served.name, "answered").inc(len(logits))
    return await _run(state, logits.size, _respond, served, question, logits, coding)


def _check_ready(request: Request) -> None:
    """Raise Busy (503) while the server starts and stops. What is asked then is answered all the same."""
    if not request.app.state.ready:
        raise Busy("the server is not ready", "it is starting or stopping", status=503)


def _named(request: Request) -> Served:
    """Return the model that the address names. Raises Refused (404)."""
    names = request.path_params
    return choose(request.app.state.models, names["model"], names.get("version"))


def ends_of(served: Served) -> Ends:
    """Return what a model takes and gives."""
    size = (*served.card.input_size, served.card.in_channels)
    return Ends(served.name, served.version, size, served.predictor.classes, served.batcher.max_places)


def accepted_coding(header: str) -> str | None:
    """Return gzip or deflate, whichever Accept-Encoding likes better, or None where it names neither."""
    likes = {}
    for part in header.lower().split(","):
        name, _, quality = part.partition(";")
        name, quality = name.strip(), quality.strip().removeprefix("q=")
        if name in _CODERS:
            try:
                likes[name] = float(quality) if quality else 1.0
            except ValueError:
                likes[name] = 0.0
    best = max(likes, key=lambda name: likes[name], default=None)
    return best if best is not None and likes[best] > 0 else None


_CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, 1, mtime=0),
    "deflate": lambda content: zlib.compress(content, 1),
}


def _respond(served: Served, question: Question, logits: Any, coding: str | None) -> Response:
    """Return the response that answers a question with logits (N, K)."""
    answer: Body = write_answer(question, logits, served.predictor.probabilities(logits), ends_of(served))
    headers = {"vary": "accept-encoding"}
    if answer.json_length is not None:
        headers[JSON_LENGTH] = str(answer.json_length)
    content = answer.content
    if coding is not None:
        content, headers["content-encoding"] = _CODERS[coding](content), coding
    kind = "application/json" if answer.json_length is None else "application/octet-stream"
    return Response(content, 200, headers, kind)


async def _run(state: Any, size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, in a thread where its work of that size would hold up the others."""
    return function(*arguments) if size < _MUCH else await state.decoding(function, *arguments)


def _number(header: str) -> int:
    return int(header) if header.isascii() and header.isdecimal() and len(header) < 20 else 0
