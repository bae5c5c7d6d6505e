"""Whatever is sent to whichever address: an answer or a refusal as promised, in little memory, and never a 500."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

MODEL = "digits-run"
INFER = f"/v2/models/{MODEL}/infer"
POSTS = (
    "/predict",
    "/predict?separate=true&seen=true",
    INFER,
    f"/v2/models/{MODEL}/versions/1/infer",
    "/v2/repository/index",
)
GETS = (
    *("/models", "/metrics", "/openapi.json", "/v2", "/v2/health/ready"),
    *("/v2/models/{}", "/v2/models/{}/config", "/v2/models/{}/ready", "/v2/models/{}/versions/{}"),
)
QUERY = ("model", "reject", "seen", "no_step", "separate")
REFUSALS = {400, 404, 405, 408, 413, 415, 422, 429, 503}
PART = b'--x\r\ncontent-disposition: form-data; name="a"; filename="a.png"\r\n\r\n'
TENSOR = {"name": "images", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [7] * 64}
GOOD = json.dumps({"inputs": [TENSOR]}).encode()


def check(client: TestClient, path: str, body: bytes, headers: dict[str, Any]) -> int:
    """Send a body and see that it is answered or refused as promised; return the status."""
    response = client.post(path, content=body, headers=headers)
    assert response.status_code == 200 or response.status_code in REFUSALS, (path, response.status_code, body[:200])
    if response.status_code != 200 and not (path.startswith("/predict") and "results" in response.json()):
        error = response.json()["error"]
        assert isinstance(error, str) if path.startswith("/v2") else set(error) == {"code", "what", "cause", "fix"}
    assert client.app.state.budget.held == 0
    assert all(model.batcher.places == 0 for model in client.app.state.models)
    return response.status_code


BODIES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "nothing": (b"", {}),
    "nul bytes": (b"\0" * 1000, {}),
    "deep JSON": (b'{"inputs":' * 5_000, {"content-type": "application/json"}),
    "deep lists": (b"[" * 100_000 + b"]" * 100_000, {"content-type": "application/json"}),
    "many lists": (b"[" + b"[]," * 600_000 + b"[]]", {"content-type": "application/json"}),
    "an endless string": (b'{"inputs": "' + b"\\" * 99_999, {"content-type": "application/json"}),
    "long numbers": (b'{"inputs": [' + b"9" * 100_000 + b"]}", {"content-type": "application/json"}),
    "a key twice": (b'{"inputs": 1, "inputs": []}', {"content-type": "application/json"}),
    "surrogates": (b'{"inputs": [], "id": "\\ud800", "\\udfff": 1}', {"content-type": "application/json"}),
    "not UTF-8": (b'{"inputs": "\xff\xfe"}', {"content-type": "application/json"}),
    "UTF-16": (GOOD.decode().encode("utf-16"), {"content-type": "application/json"}),
    "a header that lies": (GOOD, {"inference-header-content-length": "99999999"}),
    "a header that is none": (GOOD, {"inference-header-content-length": "-1"}),
    "a header in Arabic digits": (GOOD, {"inference-header-content-length": "٣".encode()}),
    "no JSON before the tensors": (b"\0" * 65, {"inference-header-content-length": "0"}),
    "a long header": (GOOD, {"x-request-id": "x" * 30_000, "accept-encoding": "gzip;q=" + "9" * 10_000}),
    "many codings": (GOOD, {"accept-encoding": ",".join(["gzip"] * 5_000)}),
    "a gzip that is none": (b"plain", {"content-encoding": "gzip"}),
    "a gzip cut off": (gzip.compress(GOOD)[:-9], {"content-encoding": "gzip"}),
    "a gzip with more behind": (gzip.compress(GOOD) + b"more", {"content-encoding": "gzip"}),
    "a coding nobody knows": (GOOD, {"content-encoding": "br"}),
    "two codings": (gzip.compress(gzip.compress(GOOD)), {"content-encoding": "gzip, gzip"}),
    "parts without a boundary": (PART, {"content-type": "multipart/form-data"}),
    "parts with an endless boundary": (PART, {"content-type": "multipart/form-data; boundary=" + "x" * 9_000}),
    "parts cut off in a head": (PART[:40], {"content-type": "multipart/form-data; boundary=x"}),
    "parts cut off in a body": (PART + b"\x89PNG", {"content-type": "multipart/form-data; boundary=x"}),
    "parts without an end": (PART + b"\r\n--x\r\n", {"content-type": "multipart/form-data; boundary=x"}),
    "no parts": (b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}),
    "many parts": ((PART + b"\r\n") * 3_000 + b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}),
    "a part with a long head": (
        b"--x\r\n" + b"a" * 100_000 + b": b\r\n\r\n\r\n--x--\r\n",
        {"content-type": "multipart/form-data; boundary=x"},
    ),
    "a part named to hurt": (
        PART.replace(b"a.png", b"../../<script>\\\x01%00") + b"x\r\n--x--\r\n",
        {"content-type": "multipart/form-data; boundary=x"},
    ),
    "a type that is none": (GOOD, {"content-type": ";;;=/"}),
    "a type with bytes": (GOOD, {"content-type": b"image/\xff\xfe"}),
    "a picture that is text": (b"not a picture", {"content-type": "image/png"}),
    "a picture of drawing commands": (b"<svg onload='alert(1)'/>", {"content-type": "image/svg+xml"}),
}  # fmt: skip


BOMBS = {"gzip": gzip.compress(b" " * (64 << 20), 1), "deflate": zlib.compress(b" " * (64 << 20), 1)}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", POSTS)
def test_hostile_bodies(client: TestClient, path: str, name: str) -> None:
    check(client, path, *BODIES[name])


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("coding", BOMBS)
def test_bombs_take_little_memory(serve: Any, path: str, coding: str) -> None:
    from striate.serve.limits import Limits

    client = serve(limits=Limits(max_body=1 << 20))
    check(client, path, b"", {})
    tracemalloc.start()
    try:
        assert check(client, path, BOMBS[coding], {"content-encoding": coding}) in (404, 413)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(POSTS),
    body=st.binary(max_size=200) | st.sampled_from([GOOD, PART, gzip.compress(GOOD)]),
    kind=st.sampled_from(["", "image/png", "application/json", "multipart/form-data; boundary=x", "a/b"]),
    coding=st.sampled_from(["identity", "gzip", "deflate", "x"]),
    length=st.none() | st.integers(-1, 300),
    cut=st.integers(0, 200),
)
def test_random_bodies(
    client: TestClient, path: str, body: bytes, kind: str, coding: str, length: Any, cut: int
) -> None:
    headers = {"content-type": kind, "content-encoding": coding}
    if length is not None:
        headers["inference-header-content-length"] = str(length)
    check(client, path, body[cut:] if cut % 2 else body[: len(body) - cut], headers)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(GETS), name=st.text(max_size=50) | st.sampled_from(["..", "%2e%2e%2f", "\0", MODEL + "\0"]))
def test_random_names(client: TestClient, path: str, name: str) -> None:
    from urllib.parse import quote

    response = client.get(path.replace("{}", quote(name, safe="")))
    assert response.status_code in (200, 404, 405), name


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(QUERY), st.text(max_size=8), max_size=4))
def test_random_queries(client: TestClient, query: dict[str, str]) -> None:
    response = client.post("/predict", params=query, content=b"x", headers={"content-type": "image/png"})
    assert response.status_code in (404, 422)


def nasty(data_root: Path) -> list[Path]:
    folder = data_root / "images"
    if not folder.is_dir():
        pytest.skip("there are no nasty pictures in STRIATE_DATA")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_nasty_pictures(client: TestClient, data_root: Path) -> None:
    for path in nasty(data_root)[::12]:
        check(client, "/predict?seen=true", path.read_bytes(), {"content-type": "application/octet-stream"})


@pytest.mark.slow
def test_all_nasty_pictures(client: TestClient, data_root: Path) -> None:
    for path in nasty(data_root):
        for query in ("seen=true", "separate=true&seen=true", "no_step=all"):
            check(client, f"/predict?{query}", path.read_bytes(), {"content-type": "application/octet-stream"})
