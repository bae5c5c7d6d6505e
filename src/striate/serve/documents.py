"""What the OpenAPI document says of bodies, queries and answers that are read and written by hand."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_MEANINGS = {
    400: "The body or the request cannot be read",
    401: "The token is missing or wrong",
    404: "There is no such model",
    413: "More than a limit allows",
    415: "A body of another type or coding",
    422: "Understood, and cannot be done",
    429: "Too much waits: ask again after Retry-After seconds",
    500: "The answer cannot be told",
    501: "This server cannot do it",
    503: "Not ready, or out of room: ask again after Retry-After seconds",
}


def object_of(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    """Return the schema of an object with these properties, all of them required but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def list_of(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **more}


def json_of(meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a response that is JSON."""
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


ERROR = object_of({"error": object_of({"code": _TEXT, "what": _TEXT, "cause": _TEXT, "fix": _TEXT})})
_UNREAD = object_of({"source": _TEXT, "error": object_of({"code": _TEXT, "cause": _TEXT, "fix": _TEXT})})
_ANSWER = object_of(
    {
        "source": _TEXT,
        "label": _TEXT,
        "probability": _FRACTION,
        "probabilities": {"type": "object", "additionalProperties": _FRACTION},
        "rejected": {"type": "boolean"},
        "box": list_of({"type": "integer"}, minItems=4, maxItems=4),
        "unlike": {"type": "boolean"},
        "distance": {"type": "number", "minimum": 0},
        "steps": list_of(_TEXT),
        "seen": {"type": "string", "description": "a PNG of what the net saw, as an address"},
    },
    "box",
    "unlike",
    "distance",
    "seen",
)
_RESULTS = object_of(
    {
        "format": {"const": 1},
        "model": _TEXT,
        "classes": list_of(_TEXT),
        "results": list_of({"oneOf": [_ANSWER, _UNREAD]}),
    }
)
UNREADABLE = json_of(_MEANINGS[422], {"anyOf": [ERROR, _RESULTS]})
RESULTS = json_of("An answer to each picture, or why it could not be read", _RESULTS)
MODELS = json_of(
    "The models, the first of which is asked where none is named",
    object_of(
        {
            "format": {"const": 1},
            "models": list_of(
                object_of(
                    {
                        "name": _TEXT,
                        "version": _TEXT,
                        "classes": list_of(_TEXT),
                        "input_size": list_of({"type": "integer"}, minItems=2, maxItems=2),
                        "in_channels": {"type": "integer"},
                        "output": {"enum": ["softmax", "sigmoid"]},
                        "net": object_of({"class": _TEXT, "parameters": {"type": ["integer", "null"]}}),
                        "drawing": {"type": "boolean"},
                        "unlike": {"type": "boolean"},
                        "explain": {"type": "boolean"},
                        "backend": _TEXT,
                        "sha256": _TEXT,
                        "metrics": {"type": "object"},
                        "licence": _TEXT,
                    }
                )
            ),
        }
    ),
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
#: One picture, or several as the parts of a form.
PICTURE_BODY = {
    "required": True,
    "description": "One encoded picture, of any kind that is read, also as application/octet-stream; or several as the"
    " files of a form, under any name.",
    "content": {
        **{kind: _BINARY for kind in ("image/png", "image/jpeg", "image/webp", "image/gif")},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"picture": list_of({"type": "string", "format": "binary"}, minItems=1)},
                "required": ["picture"],
                "additionalProperties": False,
            },
            "encoding": {"picture": {"contentType": "image/png, image/jpeg"}},
        },
    },
}


def errors(*statuses: int, schema: dict[str, Any] = ERROR) -> dict[int | str, dict[str, Any]]:
    """Return the responses that tell of errors; `schema` is that of a route outside /v2."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = json_of(_MEANINGS[status], schema)
        if status in (429, 503):
            found[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return found


def parameters_of(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the parameters in a query that a model reads."""
    schema = model.model_json_schema()
    found = []
    for name, field in schema["properties"].items():
        described = {key: value for key, value in field.items() if key not in ("title", "description")}
        if "anyOf" in described:  # of a query's entry nothing can be null: it is left out
            inner = next(one for one in described.pop("anyOf") if one.get("type") != "null")
            described = {**inner, **{key: value for key, value in described.items() if value is not None}}
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": field.get("description", ""),
                "schema": described,
            }
        )
    return found
