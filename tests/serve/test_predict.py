"""POST /predict: the answers of `striate predict`, whatever way a picture is sent, and what is refused."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.serve.conftest import png

import striate
from striate.predictor.predictor import load_predictor
from striate.serve.batching import Answered
from striate.serve.limits import Limits
from striate.serve.models import prepare


@pytest.fixture(scope="module")
def wanted(digits_run: Path, pictures: list[bytes]) -> list[dict[str, Any]]:
    """What `striate predict` says of the pictures."""
    return [answer.to_json() for answer in load_predictor(digits_run, device="cpu").predict(pictures)]


def is_same(found: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two entries are the same, but for their source and for rounding."""
    exact = ("label", "rejected", "steps", "unlike")
    near = np.abs(np.array(list(found["probabilities"].values())) - list(other["probabilities"].values())).max()
    return (
        found.keys() == other.keys()
        and all(found[name] == other[name] for name in exact)
        and list(found["probabilities"]) == list(other["probabilities"])
        and near <= 1e-5
        and abs(found["distance"] - other["distance"]) <= 1e-3
    )


def entry(client: TestClient, body: bytes, query: str = "", **headers: str) -> dict[str, Any]:
    response = client.post(f"/predict{query}", content=body, headers=headers)
    assert response.status_code == 200, response.text
    (found,) = response.json()["results"]
    return found


def test_one_picture_is_answered_as_predict_does(client: TestClient, pictures: list[bytes], wanted: Any) -> None:
    for kind in ("image/png", "application/octet-stream", "image/jpeg; charset=x", ""):
        found = entry(client, pictures[3], **({"content-type": kind} if kind else {}))
        assert found["source"] == "body" and is_same(found, wanted[3])
    told = client.post("/predict", content=pictures[3]).json()
    assert (told["format"], told["model"], told["classes"]) == (1, "digits-run", list("0123456789"))


def small_pictures(image: Image.Image) -> dict[str, bytes]:
    """A digit, light on black (8, 8), as the small PNG files that are read without another thread, and others."""
    level = np.asarray(image)
    far = np.full((40, 40), 0, np.uint8)
    far[2:10, 2:10] = level
    empty = np.zeros_like(level)
    kinds = {
        "as it is": image,
        "inverted": Image.fromarray(255 - level),
        "colour": image.convert("RGB"),
        "palette": image.convert("P"),
        "16 bits": Image.fromarray(level.astype(np.uint16) * 257),
        "light on nothing": Image.fromarray(np.dstack([empty + 255, level])),
        "dark on nothing": Image.fromarray(np.dstack([empty, level])),
        "in a corner": Image.fromarray(far),
        "larger": image.resize((64, 64)),
        "too large for it": image.resize((65, 64)),
        "one pixel": Image.fromarray(level[4:5, 4:5]),
        "blank": Image.fromarray(empty),
    }
    return {name: encoded(kind, "PNG") for name, kind in kinds.items()} | {"JPEG": encoded(image, "JPEG")}


def encoded(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def test_small_pictures_of_all_kinds(client: TestClient, pictures: list[bytes], digits_run: Path) -> None:
    kinds = small_pictures(Image.open(io.BytesIO(pictures[0])).convert("L"))
    offline = load_predictor(digits_run, device="cpu")
    for name, body in kinds.items():
        found = client.post("/predict", content=body).json()["results"][0]
        answer = offline.predict(body).to_json()
        assert ("error" in found) == ("error" in answer), name
        assert "error" in found or is_same(found, answer), (name, found, answer)
        assert found.get("steps") == answer.get("steps"), name


def test_a_second_header_makes_no_small_picture_large(client: TestClient) -> None:
    body = encoded(Image.new("L", (5000, 5000)), "PNG")
    first = struct.pack(">II5B", 8, 8, 8, 0, 0, 0, 0)
    twice = (
        body[:8] + struct.pack(">I", 13) + b"IHDR" + first + struct.pack(">I", zlib.crc32(b"IHDR" + first)) + body[8:]
    )
    response = client.post("/predict", content=twice)
    assert response.status_code == 422 and "at most 4,096 are decoded" in response.text


def test_many_pictures_are_answered_in_their_order(client: TestClient, pictures: list[bytes], wanted: Any) -> None:
    files = [("any", (f"{number}.png", picture)) for number, picture in enumerate(pictures)]
    found = client.post("/predict", files=files).json()["results"]
    assert [one["source"] for one in found] == [f"{number}.png" for number in range(len(pictures))]
    assert all(is_same(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_damaged_picture_fails_alone(client: TestClient, pictures: list[bytes], wanted: Any) -> None:
    damaged = [pictures[1][:40], b"", b"no picture", pictures[1][:-20] + b"x" * 20]
    bodies = [pictures[0], *damaged, pictures[2]]
    response = client.post("/predict", files=[("p", (f"{n}.png", body)) for n, body in enumerate(bodies)])
    assert response.status_code == 200
    first, *failed, last = response.json()["results"]
    assert is_same(first, wanted[0]) and is_same(last, wanted[2])
    for number, one in enumerate(failed, 1):
        assert one["source"] == f"{number}.png" and one["error"]["code"] == "unreadable" and one["error"]["cause"]
    for body in damaged:  # alone, in either form
        for response in (client.post("/predict", content=body), client.post("/predict", files={"p": body})):
            assert response.status_code == 422
            assert response.json()["results"][0]["error"]["code"] == "unreadable"


def test_requests_at_once_get_their_own_answers(serve: Any, pictures: list[bytes], wanted: Any) -> None:
    client = serve(max_wait=0.05)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: entry(client, pictures[number % 40]), range(160)))
    assert all(is_same(one, wanted[number % 40]) for number, one in enumerate(found))
    (batches,) = [
        float(line.split()[-1])
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("striate_batch_pictures_count{")
    ]
    assert batches < 160  # some were joined


def test_the_query(client: TestClient, digits_run: Path) -> None:
    sheet = np.full((80, 200), 255, np.uint8)
    big = np.kron(striate.load_named("digits").train.images[:2, :, :, 0], np.ones((8, 8), np.uint8))
    sheet[8:72, 8:72], sheet[8:72, 120:184] = 255 - big[0], 255 - big[1]
    response = client.post("/predict?separate=true&seen=true&reject=0.9", content=png(sheet))
    predictor = load_predictor(digits_run, device="cpu").configured(reject=0.9)
    both = predictor.separate(png(sheet))
    found = response.json()["results"]
    assert len(found) == len(both) > 1
    for one, answer in zip(found, both, strict=True):
        seen = base64.b64decode(one.pop("seen").removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen))), answer.seen[..., 0])
        assert one["box"] == list(answer.box) and is_same(one, answer.to_json())
    plain = predictor.configured(no_step=["all"], reject=0.9).predict(png(sheet))
    assert is_same(entry(client, png(sheet), "?no_step=all&reject=0.9"), plain.to_json())


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("?model=digit-run", 404, "digits-run"),
        ("?modle=digits-run", 422, "known: model"),
        ("?reject=1.5", 422, "reject"),
        ("?reject=nan", 422, "reject"),
        ("?seen=perhaps", 422, "seen"),
        ("?seen=1&seen=0", 422, "twice"),
        ("?no_step=polarty", 422, "polarity"),
        ("?model=%00%ff%0a", 404, "no model"),
        ("?url=http://example.org/a.png", 422, "known"),
        ("?path=/etc/passwd", 422, "known"),
    ],
)
def test_a_wrong_query(client: TestClient, pictures: list[bytes], query: str, status: int, told: str) -> None:
    response = client.post(f"/predict{query}", content=pictures[0])
    assert response.status_code == status
    error = response.json()["error"]
    assert error.keys() == {"code", "what", "cause", "fix"} and told in " ".join(error.values())


def test_bodies_of_another_kind(client: TestClient, pictures: list[bytes]) -> None:
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=x"):
        response = client.post("/predict", content=pictures[0], headers={"content-type": kind})
        assert response.status_code == 415 and "curl" in response.json()["error"]["fix"]
    field = client.post("/predict", files={"picture": (None, pictures[0])})
    assert field.status_code == 422 and "is no file" in field.json()["error"]["what"]
    empty = client.post("/predict", content=b"--x--\r\n", headers={"content-type": "multipart/form-data; boundary=x"})
    assert empty.status_code == 422
    for path in (b"/etc/passwd", b"http://127.0.0.1/a.png", b"file:///etc/passwd"):  # a body is a picture, no address
        assert client.post("/predict", content=path).status_code == 422


def test_a_hostile_file_name_is_only_told(client: TestClient, pictures: list[bytes]) -> None:
    for name in ("../../etc/passwd", "<script>alert(1)</script>.png", "\u202egnp.exe", "a" * 5000):
        response = client.post("/predict", files={"p": (name, pictures[0])})
        if response.status_code == 400:  # a header of a part may have so many bytes
            assert len(name) > 4000
            continue
        assert response.json()["results"][0]["source"] == name
        assert response.headers["content-type"] == "application/json"
    body = b'--x\r\ncontent-disposition: form-data; name="p"; filename="\xff\xed\xa0\x80"\r\n\r\n1\r\n--x--\r\n'
    response = client.post("/predict", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert response.status_code == 422 and response.json()["results"][0]["source"].startswith("\ufffd")


def test_compressed_bodies(serve: Any, pictures: list[bytes], wanted: Any) -> None:
    client = serve(limits=Limits(max_body=5_000))
    assert is_same(entry(client, gzip.compress(pictures[5]), **{"content-encoding": "gzip"}), wanted[5])
    assert is_same(entry(client, zlib.compress(pictures[5]), **{"content-encoding": "deflate"}), wanted[5])
    for body, coding, status in (
        (gzip.compress(bytes(50_000_000)), "gzip", 413),
        (gzip.compress(bytes(5_001)), "gzip", 413),
        (bytes(5_001), "identity", 413),
        (b"x", "gzip", 400),
        (b"x", "br", 415),
        (b"x", "gzip, gzip", 415),
    ):
        assert client.post("/predict", content=body, headers={"content-encoding": coding}).status_code == status
    assert client.app.state.budget.held == 0


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(serve: Any) -> None:
    client = serve(limits=Limits(max_body=5_000))
    sent = 0

    def endless() -> Any:
        nonlocal sent
        for _ in range(1_000):
            sent += 1_000
            yield bytes(1_000)

    response = client.post("/predict", content=endless())
    assert response.status_code == 413 and "5,000 bytes" in response.json()["error"]["what"]


def bomb(side: int) -> bytes:
    """Return a PNG of a few hundred bytes that claims side × side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def test_pictures_of_too_many_pixels(serve: Any, pictures: list[bytes], wanted: Any) -> None:
    client = serve(limits=Limits(max_pixels=10_000))
    files = [("p", ("bomb.png", bomb(60_000))), ("p", ("large.png", png(np.zeros((101, 100), np.uint8))))]
    found = client.post("/predict", files=[*files, ("p", ("0.png", pictures[0]))]).json()["results"]
    assert all("at most 10,000 are decoded" in one["error"]["cause"] for one in found[:2])
    assert is_same(found[2], wanted[0])


def test_too_many_parts(serve: Any, pictures: list[bytes]) -> None:
    client = serve(limits=Limits(max_parts=3))
    for count, status in ((3, 200), (4, 413)):
        response = client.post("/predict", files=[("p", (f"{n}.png", pictures[n])) for n in range(count)])
        assert response.status_code == status


def held_up(client: TestClient) -> threading.Event:
    """Let the net of the first model wait for an event."""
    gate, batcher = threading.Event(), client.app.state.models[0].batcher
    asked = batcher._ask
    batcher._ask = lambda images: gate.wait(60) and asked(images)
    return gate


def test_a_full_queue_and_what_takes_too_long(serve: Any, pictures: list[bytes], wanted: Any) -> None:
    client = serve(max_places=4, limits=Limits(max_seconds=1.0))
    gate = held_up(client)
    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(lambda number: client.post("/predict", content=pictures[number]), range(12)))
    statuses = [response.status_code for response in responses]
    assert statuses.count(503) == 4 and statuses.count(429) == 8
    assert all(int(response.headers["retry-after"]) >= 1 for response in responses)
    gate.set()
    assert is_same(entry(client, pictures[0]), wanted[0])
    assert client.app.state.models[0].batcher.places == 0


def test_bodies_that_fill_the_memory_are_refused(serve: Any, pictures: list[bytes]) -> None:
    client = serve(limits=Limits(max_memory=100))
    response = client.post("/predict", content=pictures[0])
    assert response.status_code == 503 and response.headers["retry-after"]
    assert client.app.state.budget.held == 0


def test_several_models(serve: Any, prepared_run: Any, digits_onnx: Path, pictures: list[bytes], wanted: Any) -> None:
    client = serve(prepared_run, *prepare([f"second={digits_onnx}"]))
    assert [model["name"] for model in client.get("/models").json()["models"]] == ["digits-run", "second"]
    first, second = entry(client, pictures[0]), entry(client, pictures[0], "?model=second")
    assert is_same(first, wanted[0])
    assert second["label"] == first["label"] and "distance" not in second  # the file has nothing to compare with


def test_answers_are_strict_json_also_where_a_net_overflows(serve: Any, pictures: list[bytes]) -> None:
    client = serve()
    batcher = client.app.state.models[0].batcher
    batcher._ask = lambda images: Answered(
        np.full((len(images), 10), np.nan, np.float32), [None] * len(images), np.ones(len(images), bool)
    )
    response = client.post("/predict", content=pictures[0])
    assert response.status_code == 500 and "no numbers" in response.json()["error"]["what"]
    json.loads(response.content)
