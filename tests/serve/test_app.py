"""The application: models, token, headers, and what it says of itself."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient


def test_it_lists_its_models(client: TestClient) -> None:
    told = client.get("/models").json()
    assert told["format"] == 1
    (model,) = told["models"]
    assert model["name"] == "digits-run" and model["classes"] == list("0123456789")
    assert (model["input_size"], model["in_channels"], model["output"]) == ([8, 8], 1, "softmax")
    assert model["drawing"] and model["unlike"] and model["explain"] and model["backend"] == "onnxruntime"
    assert model["version"] == model["sha256"][:12]


def test_the_token(serve: Any) -> None:
    client = serve(token="open-sesame")
    assert client.get("/models").status_code == 401
    assert client.get("/models", headers={"authorization": "Bearer open-sesam"}).status_code == 401
    assert client.get("/models", headers={"authorization": "Bearer open-sesame"}).status_code == 200
