"""POST /predict and GET /models: pictures in, the answers of `striate predict` out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from striate.data.dataset import Images
from striate.data.decode import decode_drawn, decode_fitted
from striate.data.drawing import STEPS, Redrawn
from striate.data.formats import png_sides
from striate.errors import DataError
from striate.predictor.predictor import Answer, Predictor, unreadable
from striate.report.embed import data_address
from striate.serve.batching import Answered
from striate.serve.documents import MODELS, PICTURE_BODY, RESULTS, UNREADABLE, errors, parameters_of
from striate.serve.limits import Limits, Part, parse_parts, read_body
from striate.serve.models import Served, choose
from striate.serve.refusals import Refused, json_response
from striate.serve.telemetry import Metrics

FORMAT = 1
BODY = "body"
_RAW = ("application/octet-stream", "")
# Pixels of a picture that is read in a fraction of a millisecond.
_SMALL = 64 * 64
_STEP = f"({'|'.join([*STEPS, 'all'])})"

Query = TypeVar("Query", bound=BaseModel)

router = APIRouter()


class Asked(BaseModel):
    """The query of POST /predict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str | None, Field(description="name of the model; default: the first")] = None
    separate: Annotated[bool, Field(description="find the digits in each picture, and answer each of them")] = False
    seen: Annotated[bool, Field(description="also what the net saw, as a PNG")] = False
    reject: Annotated[
        float | None,
        Field(gt=0, lt=1, description="reject answers below the probability that gave this precision on validation"),
    ] = None
    no_step: Annotated[
        str,
        Field(
            description="steps for drawings to leave out: polarity,frame; all of them: all",
            json_schema_extra={"pattern": f"^({_STEP}(,{_STEP})*)?$"},
        ),
    ] = ""


@router.get("/models", summary="The models that are served", responses={200: MODELS, **errors(401)})
async def models(request: Request) -> Response:
    """List the models: classes, size of pictures, what they can do, and which weights they are."""
    found: Sequence[Served] = request.app.state.models
    return json_response({"format": FORMAT, "models": [model.to_json() for model in found]})


@router.post(
    "/predict",
    summary="Ask a model what pictures show",
    responses={200: RESULTS, **errors(400, 401, 404, 413, 415, 429, 503), 422: UNREADABLE},
    openapi_extra={"parameters": parameters_of(Asked), "requestBody": PICTURE_BODY},
)
async def predict(request: Request) -> Response:
    """Answer one encoded picture, or each part of multipart/form-data, in order."""
    state = request.app.state
    asked = query_of(request, Asked)
    served = choose(state.models, asked.model)
    wanted = [step.strip() for step in asked.no_step.split(",") if step.strip()]
    predictor = served.predictor
    if wanted or asked.reject is not None:
        predictor = predictor.configured(no_step=wanted, reject=asked.reject)
    if asked.separate and predictor.preprocess.drawing is None:
        raise Refused(422, f"{served.name} cannot find digits in a picture", "it was not trained on drawings")
    parts = await read_pictures(request)
    with served.batcher.place(len(parts)):
        coming = [_answers_to(part, served, predictor, state, asked.separate) for part in parts]
        found = [await coming[0]] if len(coming) == 1 else await asyncio.gather(*coming)
    results = [answer for answers in found for answer in answers]
    entries = [answer.to_json() for answer in results]
    if asked.seen:
        await _show(request, results, entries)
    _count(state.metrics, served, results)
    request.scope["striate.facts"] = {"model": served.name, "pictures": len(results)}
    document = {"format": FORMAT, "model": served.name, "classes": served.predictor.classes, "results": entries}
    return json_response(document, 422 if len(parts) == 1 and results[0].error is not None else 200)


def query_of(request: Request, model: type[Query]) -> Query:
    """Return the query of a request. Raises Refused for an entry that is unknown, given twice, or wrong."""
    pairs = request.query_params.multi_items()
    given = dict(pairs)
    if len(given) < len(pairs):
        raise Refused(422, "the query names an entry twice", "", "give each once")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "query"
        known = ", ".join(field.alias or name for name, field in model.model_fields.items())
        fix = f"known: {known}" if first["type"] == "extra_forbidden" else ""
        raise Refused(422, f"{name[:100]} in the query is wrong", str(first["msg"]), fix) from None


async def read_pictures(request: Request) -> list[Part]:
    """Return the pictures in a body, which is one, or multipart/form-data: at least one, none of them decoded.

    Raises Refused for a body that is of another kind, holds no file, or is beyond a limit.
    """
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        limits: Limits = request.app.state.limits
        parts = parse_parts(await read_body(request), given, limits.max_parts)
        for part in parts:
            if part.filename is None:
                name = part.name[:100]
                raise Refused(422, f"the part {name!r} is no file", "settings stand in the query", f"?{name}=…")
        if not parts:
            raise Refused(422, "the body holds no picture", "it has no part", "send a file: curl -F picture=@seven.png")
        return parts
    if not (kind in _RAW or kind.startswith("image/")):
        raise Refused(
            415,
            f"a body of type {kind[:100]!r} is no picture",
            "expected image/*, application/octet-stream or multipart/form-data",
            "curl -F picture=@seven.png, or curl -H content-type:image/png --data-binary @seven.png",
        )
    return [Part("", None, await read_body(request))]


async def _answers_to(part: Part, served: Served, predictor: Predictor, state: Any, separate: bool) -> list[Answer]:
    """Return the answer to one picture, or to each digit in it, or why it cannot be read."""
    name = part.filename or BODY
    most: int = state.limits.max_pixels
    sides = png_sides(part.content)
    if sides is not None and sides[0] * sides[1] <= min(most, _SMALL) and not separate and not predictor.skip:
        # To hand it to another thread would cost more than to read it. If it is drawn as the training pictures are, it
        # stays as it is, and that is told with its answer, of all pictures in a batch at once.
        small = _read_small(part, predictor)
        if isinstance(small, DataError):
            return [unreadable(name, small)]
        if small is not None:
            answered = await served.batcher.answer(small.picture[None])
            if answered.held[0]:
                return _told(served, predictor, name, [small], answered)
    drawn = await state.decoding(read, part, predictor, separate, most)
    if isinstance(drawn, DataError):
        return [unreadable(name, drawn)]
    with served.batcher.place(len(drawn) - 1):  # more digits than pictures take more places
        answered = await served.batcher.answer(np.stack([one.picture for one in drawn]))
    answers = _told(served, predictor, name, drawn, answered)
    return [replace(answer, box=one.box) for answer, one in zip(answers, drawn, strict=True)] if separate else answers


def _told(
    served: Served, predictor: Predictor, name: str, drawn: Sequence[Redrawn], answered: Answered
) -> list[Answer]:
    if not np.isfinite(answered.logits).all():
        raise Refused(500, f"{served.name} gives answers that are no numbers", "its weights overflow on this picture")
    prepared = [(name, one.picture, one.steps) for one in drawn]
    return predictor.told(prepared, answered.logits, answered.distances)


def _read_small(part: Part, predictor: Predictor) -> Redrawn | DataError | None:
    """Return a small picture as `read` does if it is drawn as the training pictures are; None if that cannot be."""
    steps: list[str] = []
    name = part.filename or BODY
    try:
        # The limit holds also where the file has a second header that says otherwise.
        picture = decode_fitted(
            part.content, predictor.preprocess, max_pixels=_SMALL, notes=steps, name=name, tell_fit=True
        )
    except DataError as error:
        return error
    # Below a drawing alpha need not be white.
    unclear = predictor.preprocess.drawing is not None and any("alpha" in step for step in steps)
    return None if unclear else Redrawn(picture, tuple(steps))


def read(part: Part, predictor: Predictor, separate: bool, max_pixels: int) -> list[Redrawn] | DataError:
    """Return a picture at the net's size, or with `separate` each digit in it, or why it cannot be read."""
    try:
        return decode_drawn(
            part.content,
            predictor.preprocess,
            skip=predictor.skip,
            separate=separate,
            max_pixels=max_pixels,
            name=part.filename or BODY,
        )
    except DataError as error:
        return error


async def _show(request: Request, results: Sequence[Answer], entries: Sequence[dict[str, Any]]) -> None:
    """Add to the entries what the net saw."""
    for answer, entry in zip(results, entries, strict=True):
        if answer.seen is not None:
            entry["seen"] = await request.app.state.decoding(picture_url, answer.seen)


def picture_url(picture: Images) -> str:
    """Return a picture uint8 (H, W, C) as the address of a PNG that holds itself."""
    stream = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(stream, "PNG")
    return data_address(stream.getvalue(), "png")


def _count(metrics: Metrics, served: Served, results: Sequence[Answer]) -> None:
    for answer in results:
        outcome = "unreadable" if answer.error is not None else "rejected" if answer.rejected else "answered"
        metrics.pictures.labels(served.name, outcome).inc()
