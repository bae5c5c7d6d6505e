"""Makes the OpenAPI document tell what this very server serves: names of models, and the pictures that each takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from striate.serve.models import Served
from striate.serve.v2 import ends_of
from striate.serve.v2_documents import infer_body


def describe_models(app: FastAPI) -> None:
    """Let the document of an application tell of its models."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _tell_models(made()["paths"], app.state.models)
        return made()

    app.openapi = openapi  # type: ignore[method-assign]


def _tell_models(paths: dict[str, Any], models: Sequence[Served]) -> None:
    known = {"model": [model.name for model in models], "version": [model.version for model in models]}
    for path in list(paths):
        if path.endswith("/{model}/infer") or path.endswith("/{version}/infer"):
            paths.update(_one_for_each(path, paths.pop(path)["post"], models))
            continue
        for operation in paths[path].values():
            told = [_narrowed(one, models) for one in operation.get("parameters", ()) if _means_something(one, models)]
            if told:
                operation["parameters"] = told
            for parameter in told:
                if parameter["name"] in known:
                    parameter["schema"] = {"type": "string", "enum": known[parameter["name"]]}


def _means_something(parameter: dict[str, Any], models: Sequence[Served]) -> bool:
    """Say whether any model can do what a parameter asks for."""
    if parameter["name"] in ("separate", "no_step"):
        return any(model.predictor.preprocess.drawing is not None for model in models)
    return parameter["name"] != "reject" or any(model.predictor.doubt is not None for model in models)


def _narrowed(parameter: dict[str, Any], models: Sequence[Served]) -> dict[str, Any]:
    """Return a parameter with the values that every model which knows of doubt can give."""
    doubts = [model.predictor.doubt for model in models if model.predictor.doubt is not None]
    if parameter["name"] != "reject":
        return parameter
    most = min(max(precision for _, precision, _ in doubt.rows) for doubt in doubts)
    return {**parameter, "schema": {**parameter["schema"], "maximum": most}}


def _one_for_each(path: str, operation: dict[str, Any], models: Sequence[Served]) -> dict[str, Any]:
    """Return in the place of a path for any model one for each, since each takes pictures of another size."""
    found = {}
    for model in models:
        name, version = _quoted(model.name), _quoted(model.version)
        own = {
            **{key: value for key, value in operation.items() if key != "parameters"},
            "operationId": f"{operation['operationId']}_{name}",
            "requestBody": infer_body(ends_of(model)),
        }
        found[path.replace("{model}", name).replace("{version}", version)] = {"post": own}
    return found


def _quoted(name: str) -> str:
    """Return a name as it stands in an address."""
    return re.sub(rb"[^A-Za-z0-9._~-]", lambda found: b"%%%02X" % found[0][0], name.encode()).decode("ascii")
