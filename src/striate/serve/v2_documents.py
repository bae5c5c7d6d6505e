"""What the OpenAPI document says of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from striate.predictor.onnx_backend import INPUT
from striate.serve import documents
from striate.serve.documents import json_of, list_of, object_of
from striate.serve.v2_tensors import MOST_ID, MOST_SECONDS, OUTPUTS, Ends

_TEXT, _TRUTH, _WHOLE = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
_BYTES = {"type": "string", "format": "binary"}
ERROR = object_of({"error": {"type": "string", "description": "one sentence"}})


def _closed(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    return {**object_of(properties, *optional), "additionalProperties": False}


def _tensors(kind: str, shape: str) -> dict[str, Any]:
    return list_of(object_of({"name": _TEXT, kind: _TEXT, shape: list_of(_WHOLE)}))


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses that tell of errors, for a route under /v2."""
    return documents.errors(*statuses, schema=ERROR)


def _of(*names: str) -> dict[str, Any]:
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]}


OF_MODEL, OF_VERSION = _of("model"), _of("model", "version")
SERVER = json_of("The server", object_of({"name": _TEXT, "version": _TEXT, "extensions": list_of(_TEXT)}))
INDEX = json_of(
    "The models",
    list_of(object_of({"name": _TEXT, "version": _TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": _TEXT})),
)
INDEX_BODY = {
    "required": False,
    "content": {"application/json": {"schema": _closed({"ready": _TRUTH}, "ready")}},
}
METADATA = json_of(
    "The model's tensors",
    object_of(
        {
            "name": _TEXT,
            "versions": list_of(_TEXT),
            "platform": _TEXT,
            "inputs": _tensors("datatype", "shape"),
            "outputs": _tensors("datatype", "shape"),
        }
    ),
)
CONFIG = json_of(
    "How the model is served",
    object_of(
        {
            "name": _TEXT,
            "platform": _TEXT,
            "backend": _TEXT,
            "max_batch_size": _WHOLE,
            "input": _tensors("data_type", "dims"),
            "output": _tensors("data_type", "dims"),
            "dynamic_batching": object_of(
                {"preferred_batch_size": list_of(_WHOLE), "max_queue_delay_microseconds": _WHOLE}
            ),
            "parameters": {"type": "object", "additionalProperties": object_of({"string_value": _TEXT})},
        }
    ),
)
_WANTED_PARAMETERS = _closed(
    {
        "binary_data": {"type": "boolean", "description": "as raw bytes behind the JSON"},
        "classification": {
            "type": "integer",
            "minimum": 1,
            "description": "not the whole tensor but its best classes, so many, as value:index:class",
        },
    },
    "binary_data",
    "classification",
)


def _wanted(*names: str) -> dict[str, Any]:
    return _closed({"name": {"enum": list(names)}, "parameters": _WANTED_PARAMETERS}, "parameters")


# Both outputs in either order, each once: what `uniqueItems` cannot say.
_BOTH = [
    {"type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [_wanted(first), _wanted(second)]}
    for first, second in (OUTPUTS, OUTPUTS[::-1])
]
_PARAMETERS = _closed(
    {
        "binary_data_output": {"type": "boolean", "description": "outputs as raw bytes where they say nothing"},
        "timeout": {
            "type": "integer",
            "minimum": 0,
            "maximum": round(MOST_SECONDS * 1e6),
            "description": "microseconds that the client waits; 0 for as long as it takes",
        },
    },
    "binary_data_output",
    "timeout",
)
_RESPONSE = object_of(
    {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "outputs": list_of(
            object_of(
                {
                    "name": {"enum": list(OUTPUTS)},
                    "datatype": {"enum": ["FP32", "BYTES"]},
                    "shape": list_of(_WHOLE, minItems=2, maxItems=2),
                    "data": {"type": "array", "items": {"type": ["number", "string"]}},
                    "parameters": object_of({"binary_data_size": _WHOLE}),
                },
                "data",
                "parameters",
            )
        ),
    },
    "id",
)
ANSWER = {
    **json_of("The outputs, as JSON or as raw bytes behind it", _RESPONSE),
    "headers": {
        "Inference-Header-Content-Length": {
            "description": "bytes of JSON before raw tensors, where there are such",
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}
ANSWER["content"]["application/octet-stream"] = {"schema": _BYTES}


def infer_body(ends: Ends) -> dict[str, Any]:
    """Return what a model takes, for one picture as JSON, which is what a schema can tell exactly."""
    data: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 255}
    for length in reversed((1, *ends.size)):
        data = list_of(data, minItems=length, maxItems=length)
    tensor = _closed(
        {
            "name": {"const": INPUT},
            "datatype": {"const": "UINT8"},
            "shape": {"const": [1, *ends.size]},
            "data": data,
            "parameters": _closed({}),
        },
        "parameters",
    )
    request = _closed(
        {
            "id": {"type": "string", "maxLength": MOST_ID},
            "model_name": {"const": ends.name},
            "model_version": {"const": ends.version},
            "parameters": _PARAMETERS,
            "inputs": list_of(tensor, minItems=1, maxItems=1),
            "outputs": {"oneOf": [list_of(_wanted(*OUTPUTS), maxItems=1), *_BOTH]},
        },
        *("id", "model_name", "model_version", "parameters", "outputs"),
    )
    told = (
        f"Pictures, bytes from 0 to 255, of shape [N, {', '.join(map(str, ends.size))}], N up to {ends.most:,}: nested"
        " as the shape, flat, or as raw bytes behind the JSON, with the parameter binary_data_size and the header"
        " Inference-Header-Content-Length. Compressed by gzip or deflate, or plain. The schema tells of one picture."
    )
    return {"required": True, "description": told, "content": {"application/json": {"schema": request}}}
