"""The Open Inference Protocol as clients speak it: tritonclient against a server process, and what is refused."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import striate
from striate.serve.batching import Batcher
from striate.serve.v2 import accepted_coding

http: Any = pytest.importorskip("tritonclient.http")

IMAGES = striate.load_named("digits").train.images[:7]  # (7, 8, 8, 1)
MODEL = "digits-run"
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture(scope="module")
def address(digits_onnx: Path) -> Iterator[str]:
    """The address of `striate serve` on an ONNX file, in a process of its own."""
    command = [sys.executable, "-m", "striate", "serve", str(digits_onnx), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"http://(127\.0\.0\.1:\d+)", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()  # or its pipe runs full
                yield found[1]
                return
        raise AssertionError("".join(lines))
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def triton(address: str) -> Iterator[Any]:
    with http.InferenceServerClient(address, concurrency=4) as client:
        yield client


def tensor(images: np.ndarray = IMAGES, binary: bool = True) -> Any:
    return http.InferInput("images", list(images.shape), "UINT8").set_data_from_numpy(images, binary_data=binary)


def test_tritonclient_asks_what_there_is(triton: Any) -> None:
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready(MODEL)
    assert not triton.is_model_ready("another") and not triton.is_model_ready(MODEL, "another")
    server = triton.get_server_metadata()
    assert server["name"] == "striate" and server["version"] == striate.__version__
    assert {"binary_tensor_data", "classification", "model_configuration"} <= set(server["extensions"])
    (listed,) = triton.get_model_repository_index()
    assert (listed["name"], listed["state"]) == (MODEL, "READY")
    version = listed["version"]
    assert triton.is_model_ready(MODEL, version)
    for told in (triton.get_model_metadata(MODEL), triton.get_model_metadata(MODEL, version)):
        assert told["name"] == MODEL and told["versions"] == [version] and told["platform"] == "onnxruntime_onnx"
        assert told["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
        shapes = {output["name"]: (output["datatype"], output["shape"]) for output in told["outputs"]}
        assert shapes == {"probabilities": ("FP32", [-1, 10]), "logits": ("FP32", [-1, 10])}
    for config in (triton.get_model_config(MODEL), triton.get_model_config(MODEL, version)):
        assert config["max_batch_size"] > 1 and config["input"][0]["dims"] == [8, 8, 1]
        assert json.loads(config["parameters"]["classes"]["string_value"]) == list("0123456789")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
def test_tritonclient_infers(triton: Any, digits_onnx: Path, binary: bool, sent: Any, wanted: Any) -> None:
    outputs = [
        http.InferRequestedOutput("logits", binary_data=binary),
        http.InferRequestedOutput("probabilities", binary_data=not binary),
    ]
    result = triton.infer(
        MODEL,
        [tensor(binary=binary)],
        outputs=outputs,
        request_id="seven",
        request_compression_algorithm=sent,
        response_compression_algorithm=wanted,
    )
    predictor = striate.load(digits_onnx)
    logits = predictor.logits(IMAGES)
    assert np.abs(result.as_numpy("logits") - logits).max() < 1e-5
    assert np.abs(result.as_numpy("probabilities") - predictor.probabilities(logits)).max() < 1e-5
    assert result.get_response()["id"] == "seven"


def test_tritonclient_infers_at_once_and_gets_all_outputs_where_it_names_none(triton: Any, digits_onnx: Path) -> None:
    logits = striate.load(digits_onnx).logits(IMAGES)
    version = triton.get_model_metadata(MODEL)["versions"][0]
    waiting = [triton.async_infer(MODEL, [tensor(IMAGES[n : n + 1])], model_version=version) for n in range(7)]
    for number, one in enumerate(waiting):
        result = one.get_result()
        assert np.abs(result.as_numpy("logits") - logits[number]).max() < 1e-5
        assert result.as_numpy("probabilities").shape == (1, 10)


def test_tritonclient_gets_the_best_classes(triton: Any, digits_onnx: Path) -> None:
    asked = [http.InferRequestedOutput("probabilities", class_count=3)]
    found = triton.infer(MODEL, [tensor()], outputs=asked).as_numpy("probabilities")
    assert found.shape == (7, 3)
    answers = striate.load(digits_onnx).predict(list(IMAGES))
    for row, answer in zip(found, answers, strict=True):
        value, index, label = row[0].decode().split(":")
        assert label == answer.label == str(int(index)) and abs(float(value) - answer.probability) < 1e-5


def test_what_tritonclient_asks_wrongly_is_one_sentence(triton: Any) -> None:
    scores = http.InferRequestedOutput("scores")
    wrong: list[tuple[str, str, Callable[[], Any]]] = [
        ("404", "no model 'another'", lambda: triton.infer("another", [tensor()])),
        ("404", "no version '9'", lambda: triton.infer(MODEL, [tensor()], model_version="9")),
        ("404", "no model 'another'", lambda: triton.get_model_metadata("another")),
        ("404", "no version '9'", lambda: triton.get_model_config(MODEL, "9")),
        ("400", "[N, 8, 8, 1]", lambda: triton.infer(MODEL, [tensor(np.zeros((1, 9, 9, 1), np.uint8))])),
        ("400", "no output 'scores'", lambda: triton.infer(MODEL, [tensor()], outputs=[scores])),
        ("400", "'priority'", lambda: triton.infer(MODEL, [tensor()], priority=1)),
        ("400", "'sequence_", lambda: triton.infer(MODEL, [tensor()], sequence_id=1)),
        ("404", "nothing at this address", lambda: triton.load_model(MODEL)),
        ("404", "nothing at this address", lambda: triton.get_system_shared_memory_status()),
    ]  # fmt: skip
    pictures = np.zeros((1, 8, 8, 1), np.float32)
    floats = http.InferInput("images", [1, 8, 8, 1], "FP32").set_data_from_numpy(pictures)
    named = http.InferInput("image", [1, 8, 8, 1], "UINT8").set_data_from_numpy(pictures.astype(np.uint8))
    wrong += [
        ("400", "FP32, and the model takes UINT8", lambda: triton.infer(MODEL, [floats])),
        ("400", "no input 'image'", lambda: triton.infer(MODEL, [named])),
        ("400", "2 inputs", lambda: triton.infer(MODEL, [tensor(), tensor()])),
    ]
    for status, words, ask in wrong:
        with pytest.raises(Exception) as caught:
            ask()
        assert caught.value.status() == status and words.replace("'", "") in caught.value.message().replace("'", "")


def test_a_timeout_that_is_too_short(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Batcher, images: Any) -> Any:
        import asyncio

        await asyncio.sleep(60)

    client = serve()
    monkeypatch.setattr(Batcher, "answer", never)
    response = client.post(INFER, json={**request(), "parameters": {"timeout": 1000}})
    assert response.status_code == 429 and "timeout" in response.json()["error"] and response.headers["retry-after"]


def request(**more: Any) -> dict[str, Any]:
    entry = {"name": "images", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": IMAGES[:1].tolist()}
    return {"inputs": [entry], **more}


def test_while_the_server_stops_it_lives_and_is_not_ready(serve: Any) -> None:
    client = serve()
    assert client.get("/v2/health/ready").status_code == 200 and client.get("/v2/health/ready").content == b""
    client.app.state.ready = False
    assert client.get("/v2/health/live").status_code == 200
    refused = client.get("/v2/health/ready")
    assert refused.status_code == 503 and isinstance(refused.json()["error"], str)
    assert client.get(f"/v2/models/{MODEL}/ready").status_code == 503
    (listed,) = client.post("/v2/repository/index").json()
    assert listed["state"] == "UNAVAILABLE" and listed["reason"]
    assert client.post("/v2/repository/index", json={"ready": True}).json() == []
    assert client.post(INFER, json=request()).status_code == 200, "what is asked at the last moment is answered"


def test_answers_are_compressed_as_asked(client: TestClient) -> None:
    plain = client.post(INFER, json=request(), headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.headers["vary"] == "accept-encoding"
    for coding, read in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        with client.stream("POST", INFER, json=request(), headers={"accept-encoding": coding}) as response:
            assert response.headers["content-encoding"] == coding
            assert json.loads(read(b"".join(response.iter_raw()))) == plain.json()


def test_the_coding_that_is_liked_best() -> None:
    assert accepted_coding("") is None and accepted_coding("br, zstd") is None
    assert accepted_coding("gzip, deflate, br") == "gzip" and accepted_coding("deflate, gzip;q=0.5") == "deflate"
    assert accepted_coding("gzip;q=0") is None and accepted_coding("GZIP ; q=0.1") == "gzip"
    assert accepted_coding("gzip;q=nan") is None and accepted_coding("gzip;q=x, deflate;q=0.1") == "deflate"


def test_bodies_of_other_types_and_codings_are_refused(client: TestClient) -> None:
    body = json.dumps(request()).encode()
    for kind in ("application/json; charset=utf-8", "application/x-www-form-urlencoded", "application/octet-stream"):
        assert client.post(INFER, content=body, headers={"content-type": kind}).status_code == 200
    assert client.post(INFER, content=body).status_code == 200
    for headers in ({"content-type": "image/png"}, {"content-type": "multipart/form-data"}, {"content-encoding": "br"}):
        refused = client.post(INFER, content=body, headers=headers)
        assert refused.status_code == 415 and isinstance(refused.json()["error"], str)


def test_the_index_takes_what_triton_takes(client: TestClient) -> None:
    for body in (b"", b"{}", b'{"ready": true}'):
        assert [one["name"] for one in client.post("/v2/repository/index", content=body).json()] == [MODEL]
    for body in (b"[]", b'{"ready": 1}', b'{"all": true}', b"{", b"\xff"):
        refused = client.post("/v2/repository/index", content=body)
        assert refused.status_code == 400 and isinstance(refused.json()["error"], str)


def test_errors_under_v2_are_one_sentence_whatever_goes_wrong(client: TestClient, serve: Any) -> None:
    for method, path in (("GET", "/v2/x"), ("POST", "/v2"), ("GET", INFER), ("DELETE", INFER), ("GET", "/v2/models/")):
        refused = client.request(method, path)
        assert refused.status_code in (404, 405) and isinstance(refused.json()["error"], str), path
    assert isinstance(serve(token="open-sesame").get("/v2").json()["error"], str)


def test_more_pictures_than_have_places(serve: Any) -> None:
    client = serve(max_places=4, max_batch=2)
    entry = {"name": "images", "shape": [4, 8, 8, 1], "datatype": "UINT8", "data": IMAGES[:4].tolist()}
    assert client.post(INFER, json={"inputs": [entry]}).json()["outputs"][0]["shape"] == [4, 10]
    entry = {**entry, "shape": [5, 8, 8, 1], "data": IMAGES[:5].tolist()}
    refused = client.post(INFER, json={"inputs": [entry]})
    assert refused.status_code == 400 and "1 to 4" in refused.json()["error"]
