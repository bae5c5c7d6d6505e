"""The application: models, who is let in, headers, and what it says of itself."""

from __future__ import annotations

import io
import json
import re
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from striate.serve.telemetry import Log, Metrics, request_id


def test_it_lists_its_models(client: TestClient) -> None:
    told = client.get("/models").json()
    assert told["format"] == 1
    (model,) = told["models"]
    assert model["name"] == "digits-run" and model["classes"] == list("0123456789")
    assert (model["input_size"], model["in_channels"], model["output"]) == ([8, 8], 1, "softmax")
    assert model["drawing"] and model["unlike"] and model["explain"] and model["backend"] == "onnxruntime"
    assert model["version"] == model["sha256"][:12]
    assert model["net"] == {"class": "ThreeConv", "parameters": model["metrics"]["parameters"]}


def test_the_token(serve: Any, pictures: list[bytes]) -> None:
    client = serve(token="open-sesame")
    right = {"authorization": "Bearer open-sesame"}
    for method, path in (("GET", "/models"), ("POST", "/predict"), ("GET", "/metrics"), ("GET", "/openapi.json")):
        for header in ({}, {"authorization": "Bearer open-sesam"}, {"authorization": "Basic open-sesame"}):
            response = client.request(method, path, headers=header)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert "open-sesame" not in response.text
        assert client.request(method, path, headers=right, content=pictures[0]).status_code == 200
    for header in (b"Bearer \xff\xfe", b"Bearer", b"\xe9"):
        assert client.get("/models", headers={b"authorization": header}).status_code == 401


def test_its_names(serve: Any) -> None:
    """A page of another site cannot reach a private server by a name that leads here."""
    client = serve(hosts=("localhost", "127.0.0.1", "::1"))
    for host, status in (
        *(("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("LOCALHOST", 200)),
        *(("example.org", 421), ("localhost.example.org:8000", 421), ("", 421), ("127.0.0.1.nip.io", 421)),
    ):
        assert client.get("/models", headers={"host": host}).status_code == status, host


def test_headers_and_no_other_sites(client: TestClient, serve: Any) -> None:
    for response in (client.get("/models"), client.get("/nothing"), client.post("/predict", content=b"")):
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
    page = {"origin": "https://example.org"}
    asks = {**page, "access-control-request-method": "POST"}
    told = [client.get("/models", headers=page), client.options("/predict", headers=asks)]
    assert not any(name.startswith("access-control") for one in told for name in one.headers)
    open_to = serve(origins=["https://example.org"], token="open-sesame")
    assert open_to.options("/predict", headers=asks).headers["access-control-allow-origin"] == page["origin"]
    assert open_to.get("/models", headers=page).headers["access-control-allow-origin"] == page["origin"]
    other = open_to.get("/models", headers={"origin": "https://example.com"})
    assert "access-control-allow-origin" not in other.headers


def test_errors_have_one_form(client: TestClient) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/predict", 405), ("POST", "/models", 405)):
        response = client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"].keys() == {"code", "what", "cause", "fix"}
    assert isinstance(client.get("/v2/nothing").json()["error"], str)


def test_a_fault_of_ours_is_told_without_its_insides(serve: Any, pictures: list[bytes]) -> None:
    stream = io.StringIO()
    client = serve(log=Log(stream))

    def fail(images: Any) -> Any:
        raise KeyError("a secret of the inside")

    client.app.state.models[0].batcher._ask = fail
    response = client.post("/predict", content=pictures[0])
    assert response.status_code == 500 and "secret" not in response.text
    client.app.state.log.close()
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert line["level"] == "error" and "a secret of the inside" in line["error"]
    assert line["id"] == response.headers["x-request-id"]


def test_request_ids(client: TestClient) -> None:
    assert client.get("/models", headers={"x-request-id": "abc-1.2:3_4"}).headers["x-request-id"] == "abc-1.2:3_4"
    for hostile in ("a b", "x" * 65, "<b>", 'a"b'):
        found = client.get("/models", headers={"x-request-id": hostile}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", found)
    assert request_id("a\n") != "a\n" and request_id(None) != request_id(None)


def test_a_line_of_json_for_each_request(serve: Any, pictures: list[bytes]) -> None:
    stream = io.StringIO()
    client = serve(log=Log(stream), token="open-sesame")
    right = {"authorization": "Bearer open-sesame"}
    client.post("/predict?reject=0.9", content=pictures[0], headers={**right, "x-request-id": "one"})
    client.get('/a"b%0ac%e2%80%a8' + "x" * 5000, headers=right)
    client.get("/models")
    client.app.state.log.close()
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["id"] == "one" and first["status"] == 200 and first["route"] == "/predict" and first["seconds"] > 0
    assert (first["model"], first["pictures"], first["method"]) == ("digits-run", 1, "POST")
    assert second["status"] == 404 and second["route"] == "other" and len(second["path"]) == 300
    assert third["refused"] == "unauthorised"
    assert "open-sesame" not in stream.getvalue() and first["time"].endswith("Z")


def test_a_log_that_nobody_reads_stops_nobody() -> None:
    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            assert free.wait(60)
            return super().write(text)

    free, metrics, stream = threading.Event(), Metrics(), Stuck()
    log = Log(stream, metrics=metrics)
    for number in range(30_000):
        log.write("request", number=number)
    lost = int(metrics.lines_lost._value.get())
    assert 9_000 < lost < 30_000
    free.set()
    log.close(60)
    assert len(stream.getvalue().splitlines()) == 30_000 - lost


def test_metrics_have_labels_that_no_client_can_add_to(client: TestClient, pictures: list[bytes]) -> None:
    client.post("/predict", content=pictures[0])
    before = set(labels(client))
    for number in range(20):
        client.get(f"/nothing/{number}")
        client.request(f"METHOD{number}", "/predict")
        client.post(f"/predict?model=m{number}", content=pictures[0])
        client.post(f"/predict?x{number}=1", content=pictures[0], headers={"x-request-id": f"id-{number}"})
        client.get(f"/v2/models/m{number}", headers={"user-agent": f"agent-{number}"})
    after = set(labels(client)) - before
    assert not [name for name in after if re.search(r"nothing|METHOD|[mx]\d|id-|agent", name)], after
    assert 'striate_requests_total{route="/predict",status="200"}' in before
    assert 'striate_pictures_total{model="digits-run",outcome="answered"}' in before
    assert len(after) < 60


def labels(client: TestClient) -> list[str]:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return [line.rpartition(" ")[0] for line in response.text.splitlines() if not line.startswith("#")]


def test_it_needs_a_model() -> None:
    from striate.errors import UsageError
    from striate.serve.app import make_app

    with pytest.raises(UsageError, match="no model is named"):
        make_app([])
