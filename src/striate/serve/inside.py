"""POST /explain: the inside of a net for the page and for programs; needs the run and torch, which are loaded then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from striate.data.dataset import Images
from striate.errors import DataError
from striate.predictor.predictor import Predictor
from striate.serve.answers import FORMAT, query_of, read, read_pictures
from striate.serve.documents import PICTURE_BODY, errors, parameters_of
from striate.serve.models import Served, choose
from striate.serve.refusals import Busy, Refused, json_response

#: So many may wait for the net, which one asks at a time.
MOST_WAITING = 8

_ARRAY = {
    "type": "object",
    "description": "little-endian numbers",
    "properties": {
        "shape": {"type": "array", "items": {"type": "integer"}},
        "dtype": {"enum": ["float32", "uint8"]},
        "base64": {"type": "string", "contentEncoding": "base64"},
    },
    "required": ["shape", "dtype", "base64"],
}
_LOOKS = {
    "description": "What was looked at; docs/page.md has the entries of each part",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "format": {"const": FORMAT},
                    "model": {"type": "string"},
                    "part": {"enum": ["layers", "kernels", "overview", "maps", "cell", "cam"]},
                    **{name: _ARRAY for name in ("kernels", "values", "map")},
                },
                "required": ["format", "model", "part"],
            }
        }
    },
}

router = APIRouter()


class Looked(BaseModel):
    """The query of POST /explain."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    part: Annotated[
        Literal["layers", "kernels", "overview", "maps", "cell", "cam"],
        Field(description="what to look at; layers and kernels need no picture"),
    ]
    model: Annotated[str | None, Field(description="name of the model; default: the first")] = None
    layer: Annotated[str | None, Field(description="name of a layer, as part=layers lists them")] = None
    channels: Annotated[
        str | None, Field(pattern=r"^\d{1,6}:\d{1,6}$", description="of kernels and maps: from:to, the last left out")
    ] = None
    channel: Annotated[int, Field(ge=0, description="of a cell: its map, or its number in a layer of numbers")] = 0
    y: Annotated[int, Field(ge=0, description="row of a cell")] = 0
    x: Annotated[int, Field(ge=0, description="column of a cell")] = 0
    target: Annotated[
        str | None, Field(alias="class", description="class that a map speaks for; default: the one answered")
    ] = None
    method: Annotated[Literal["grad-cam", "layer-cam"], Field(description="kind of the class map")] = "grad-cam"
    no_step: Annotated[str, Field(description="steps for drawings to leave out: polarity,frame; all of them: all")] = ""


@router.post(
    "/explain",
    summary="Look inside a net",
    responses={200: _LOOKS, **errors(400, 401, 404, 413, 415, 422, 429, 501, 503)},
    openapi_extra={"parameters": parameters_of(Looked), "requestBody": {**PICTURE_BODY, "required": False}},
)
async def explain(request: Request) -> Response:
    """Show layers, kernels, maps, one cell with its multiply-adds, or where a picture speaks for a class."""
    state = request.app.state
    asked = query_of(request, Looked)
    served = choose(state.models, asked.model)
    if asked.layer is None and asked.part in ("maps", "cell"):
        raise Refused(422, f"part={asked.part} needs a layer", "", "add &layer=NAME; part=layers lists them")
    seen = None
    if asked.part not in ("layers", "kernels"):
        seen = await _picture(request, served, asked)
    elif request.headers.get("content-length", "0") != "0":
        await read_pictures(request)  # none is needed; what is no picture is refused all the same
    found = await _in_turn(state, lambda: look(served.torch_predictor(), seen, asked))
    return json_response({"format": FORMAT, "model": served.name, "part": asked.part, **found})


def look(predictor: Predictor, seen: Images | None, asked: Looked) -> dict[str, Any]:
    """Return what was asked of a net about a picture uint8 (H, W, C) at its size."""
    from striate.serve import looks  # imports torch

    channels = None
    if asked.channels is not None:
        start, _, stop = asked.channels.partition(":")
        channels = slice(int(start), int(stop))
    if asked.part == "layers":
        return looks.layers(predictor)
    if asked.part == "kernels":
        return looks.layer_kernels(predictor, asked.layer, channels)
    assert seen is not None
    if asked.part == "overview":
        return looks.overview(predictor, seen)
    if asked.part == "cam":
        return looks.class_map(predictor, seen, asked.target, asked.layer, asked.method)
    assert asked.layer is not None
    if asked.part == "maps":
        return looks.layer_maps(predictor, seen, asked.layer, channels)
    return looks.one_cell(predictor, seen, asked.layer, asked.channel, asked.y, asked.x)


async def _picture(request: Request, served: Served, asked: Looked) -> Images:
    """Return the one picture of a request, at the net's size."""
    wanted = [step.strip() for step in asked.no_step.split(",") if step.strip()]
    predictor = served.predictor.configured(no_step=wanted)
    if not served.explains:
        served.torch_predictor()  # raises: no picture need be decoded for that
    parts = await read_pictures(request)
    if len(parts) != 1:
        raise Refused(422, f"the body holds {len(parts)} pictures", "one is looked at at a time")
    state = request.app.state
    reading = await state.decoding(read, parts[0], predictor, False, state.limits.max_pixels)
    if isinstance(reading, DataError):
        raise reading
    return reading[0].picture


async def _in_turn(state: Any, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call `work` in the one thread that torch nets are asked in. Raises Busy where too many wait."""
    if not hasattr(state, "looking"):
        state.looking, state.lookers = ThreadPoolExecutor(1, "look"), 0
    if state.lookers > MOST_WAITING:
        raise Busy("too many look inside the nets", f"{state.lookers} wait", status=503)
    state.lookers += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(state.looking, work)
    finally:
        state.lookers -= 1
