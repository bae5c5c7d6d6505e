"""/explain: what it tells of layers, kernels, maps, cells and class maps is what the net computes."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from striate.data.preprocess import Preprocess
from striate.errors import UsageError
from striate.explain.looking import net_batches
from striate.models import create_model
from striate.predictor.predictor import Predictor, load_predictor
from striate.predictor.torch_backend import predictor_of
from striate.serve import inside, looks


def unpack(value: dict[str, Any]) -> np.ndarray:
    kind = {"float32": "<f4", "uint8": "u1"}[value["dtype"]]
    return np.frombuffer(base64.b64decode(value["base64"]), kind).reshape(value["shape"])


def hooked(predictor: Predictor, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each module returns for a picture, by plain forward hooks."""
    found: dict[str, np.ndarray] = {}
    handles = []
    for name, module in predictor.net.named_modules():

        def keep(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
            found[name] = output.detach().clone().numpy()

        handles.append(module.register_forward_hook(keep))
    predictor.net.eval()(next(net_batches(predictor, seen[None])))
    for handle in handles:
        handle.remove()
    return {name: values[0] for name, values in found.items()}


@pytest.fixture(scope="module")
def predictor(digits_run: Path) -> Predictor:
    return load_predictor(digits_run, device="cpu")


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)


def ask(client: TestClient, part: str, body: bytes = b"", **query: Any) -> dict[str, Any]:
    reply = client.post("/explain", params={"part": part, **query}, content=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_maps_and_numbers_of_every_layer_are_what_forward_hooks_see(predictor: Predictor, seen: np.ndarray) -> None:
    wanted, told = hooked(predictor, seen), looks.layers(predictor)["layers"]
    assert {layer["name"] for layer in told} >= {
        name for name, module in predictor.net.named_modules() if name and not list(module.children())
    }
    for layer in told:
        found = looks.layer_maps(predictor, seen, layer["name"], None)
        np.testing.assert_allclose(unpack(found["values"]), wanted[layer["name"]], rtol=0, atol=1e-6)
        assert found["shape"] == layer["shape"] == list(wanted[layer["name"]].shape)
        assert found["low"] == wanted[layer["name"]].min() and found["high"] == wanted[layer["name"]].max()
        assert layer["has_maps"] == (len(layer["shape"]) == 3)


def test_channels_are_chosen_and_an_answer_is_bounded(
    predictor: Predictor, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = looks.layers(predictor)["kernel_layers"][0]
    whole = unpack(looks.layer_maps(predictor, seen, name, None)["values"])
    part = looks.layer_maps(predictor, seen, name, slice(1, 3))
    assert part["channels"] == [1, 3] and np.array_equal(unpack(part["values"]), whole[1:3])
    monkeypatch.setattr(looks, "MOST_NUMBERS", whole[0].size * 2)
    assert looks.layer_maps(predictor, seen, name, slice(0, 9999))["channels"] == [0, 2]
    with pytest.raises(UsageError, match="no channels"):
        looks.layer_maps(predictor, seen, name, slice(len(whole), len(whole) + 1))


def test_kernels_are_the_weights(predictor: Predictor) -> None:
    modules = dict(predictor.net.named_modules())
    for name in looks.layers(predictor)["kernel_layers"]:
        found = looks.layer_kernels(predictor, name, None)
        assert np.array_equal(unpack(found["kernels"]), modules[name].weight.detach().numpy())
        if modules[name].bias is not None:
            assert np.array_equal(unpack(found["bias"]), modules[name].bias.detach().numpy())
    assert looks.layer_kernels(predictor, None, slice(0, 1))["channels"] == [0, 1]


def test_a_cell_is_the_sum_of_its_products(predictor: Predictor, seen: np.ndarray) -> None:
    wanted = hooked(predictor, seen)
    for layer in looks.layers(predictor)["layers"]:
        place = [min(1, side - 1) for side in layer["shape"]] + [0] * (3 - len(layer["shape"]))
        found = looks.one_cell(predictor, seen, layer["name"], *place)
        value = wanted[layer["name"]][tuple(place[: len(layer["shape"])])]
        assert found["value"] == pytest.approx(value, abs=1e-6)
        if layer["has_terms"]:
            terms = {key: unpack(found["terms"][key]) for key in ("inputs", "weights", "products")}
            np.testing.assert_allclose(terms["products"], terms["inputs"] * terms["weights"], rtol=1e-6)
            total = terms["products"].astype(np.float64).sum() + found["terms"]["bias"]
            assert total == pytest.approx(value, abs=1e-4) and found["terms"]["total"] == pytest.approx(total)
        elif found["window"]:
            inputs = unpack(found["window"]["inputs"])
            made = {"max": inputs.max, "mean": inputs.mean}.get(found["window"]["rule"])
            assert made is None or made() == pytest.approx(value, abs=1e-6)


def test_the_overview_has_every_layer_in_small(predictor: Predictor, seen: np.ndarray) -> None:
    wanted = hooked(predictor, seen)
    found = looks.overview(predictor, seen)["layers"]
    assert [one["layer"] for one in found] == [layer["name"] for layer in looks.layers(predictor)["layers"]]
    for one in found:
        levels, values = unpack(one["thumbnails"]), wanted[one["layer"]]
        assert max(levels.shape[1:]) <= looks.MOST_UNITS and len(levels) <= looks.THUMBNAILS
        back = one["low"] + levels / 255 * (one["high"] - one["low"])
        exact = values[: looks.THUMBNAILS] if values.ndim == 3 else values[None, None, : looks.MOST_UNITS]
        step = (one["high"] - one["low"]) / 255
        np.testing.assert_allclose(back, exact, rtol=0, atol=0.51 * step + 1e-6)


def test_large_maps_are_thinned_out() -> None:
    net = predictor_of(create_model("three-conv", 2, 3, 96), Preprocess((96, 96), "stretch", 3), ("a", "b"))
    found = looks.overview(net, np.zeros((96, 96, 3), np.uint8))["layers"]
    assert max(max(one["thumbnails"]["shape"]) for one in found if one["thumbnails"]["shape"][0] > 1) <= 32


def test_a_net_of_numbers_alone_has_no_class_map_and_says_so(client: TestClient) -> None:
    mlp = predictor_of(create_model("mlp", 2, 1, 8), Preprocess((8, 8), "stretch", 1), ("a", "b"))
    told = looks.layers(mlp)
    assert told["cam_layer"] is None and len(told["kernel_layers"]) == 1
    kernels = looks.layer_kernels(mlp, None, None)
    assert kernels["shape"][1:] == [1, 8, 8]
    with pytest.raises(UsageError, match="no layer with a map"):
        looks.class_map(mlp, np.zeros((8, 8, 1), np.uint8), None, None, None)


def test_over_http(client: TestClient, predictor: Predictor, pictures: list[bytes]) -> None:
    layers = ask(client, "layers")
    assert layers["model"] == "digits-run" and layers["part"] == "layers" and layers["input_shape"] == [1, 8, 8]
    name = layers["kernel_layers"][0]
    assert ask(client, "kernels")["layer"] == name
    maps = unpack(ask(client, "maps", pictures[0], layer=name, channels="0:2")["values"])
    assert len(maps) == 2
    one = ask(client, "cell", pictures[0], layer=name, channel=1, y=2, x=3)
    assert one["value"] == pytest.approx(float(maps[1, 2, 3]), abs=1e-5) and len(one["field"]) == 4
    assert len(ask(client, "overview", pictures[0])["layers"]) == len(layers["layers"])
    cam = ask(client, "cam", pictures[0], **{"class": "3"}, method="layer-cam")
    values = unpack(cam["map"])
    assert cam["class"] == "3" and values.shape == (8, 8) and 0 <= values.min() <= values.max() <= 1
    answered = client.post("/predict", content=pictures[0]).json()["results"][0]["label"]
    assert ask(client, "cam", pictures[0])["class"] == answered
    form = client.post("/explain", params={"part": "cam"}, files={"picture": ("a.png", pictures[0])})
    assert form.json()["class"] == answered


@pytest.mark.parametrize(
    ("query", "body", "status", "said"),
    [
        ({}, b"", 422, "part"),
        ({"part": "all"}, b"", 422, "part"),
        ({"part": "maps"}, b"x", 422, "needs a layer"),
        ({"part": "maps", "layer": "conv9"}, None, 422, "unknown layer"),
        ({"part": "maps", "layer": ""}, None, 422, "unknown layer"),
        ({"part": "maps", "layer": "net.0", "channels": "a:b"}, None, 422, "channels"),
        ({"part": "cell", "layer": "conv1", "channel": "-1"}, None, 422, "channel"),
        ({"part": "cell", "layer": "conv1", "y": "99999999999999999999"}, None, 422, "no cell"),
        ({"part": "cam", "class": "eleven"}, None, 422, "unknown class"),
        ({"part": "cam", "model": "other"}, None, 404, "no model"),
        ({"part": "overview"}, b"no picture", 422, "body"),
        ({"part": "overview"}, b"", 422, "body"),
        ({"part": "overview", "no_step": "magic"}, None, 422, "unknown step"),
        ({"part": "overview", "path": "/etc/passwd"}, None, 422, "path"),
    ],
)
def test_what_is_refused_says_why(
    client: TestClient, pictures: list[bytes], query: dict[str, str], body: bytes | None, status: int, said: str
) -> None:
    reply = client.post("/explain", params=query, content=pictures[0] if body is None else body)
    error = reply.json()["error"]
    assert reply.status_code == status and said in f"{error['what']} {error['cause']}", error
    assert set(error) == {"code", "what", "cause", "fix"}


def test_two_pictures_are_refused(client: TestClient, pictures: list[bytes]) -> None:
    files = [("a", ("a.png", pictures[0])), ("b", ("b.png", pictures[1]))]
    reply = client.post("/explain", params={"part": "cam"}, files=files)
    assert reply.status_code == 422 and "2 pictures" in reply.json()["error"]["what"]


def test_an_onnx_file_is_501_and_torch_stays_away(digits_onnx: Path, pictures: list[bytes]) -> None:
    script = (
        "import sys; from starlette.testclient import TestClient; from striate.serve.app import make_app;"
        "from striate.serve.models import prepare; body = sys.stdin.buffer.read()\n"
        f"with TestClient(make_app(prepare([{str(digits_onnx)!r}]))) as client:\n"
        "    replies = [client.post('/explain', params={'part': part, 'layer': 'x'}, content=body)"
        " for part in ('layers', 'maps')]\n"
        "    print([r.status_code for r in replies], replies[1].json()['error']['cause'],"
        " client.post('/predict', content=body).status_code, client.get('/').status_code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pictures[0], capture_output=True, timeout=300)
    assert done.stdout.decode().split() == (
        ["[501,", "501]", "looking", "inside", "a", "net", "needs", "the", "net", "itself", "200", "200", "False"]
    ), done.stderr.decode()


def test_few_may_wait_for_the_net(serve: Any, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "MOST_WAITING", -1)
    reply = serve().post("/explain", params={"part": "layers"})
    assert reply.status_code == 503 and int(reply.headers["retry-after"]) >= 1


def test_pages_are_a_fixed_table(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for name in ("main.js", "page.css", "icon.svg"):
        assert client.get(f"/page/{name}").status_code == 200
    same = client.get("/page/main.js", headers={"if-none-match": client.get("/page/main.js").headers["etag"]})
    assert same.status_code == 304 and not same.content
    assert client.head("/").status_code == 200
    for name in ("nothing.js", "..%2fapp.py", "%2e%2e/app.py", "../app.py", "__init__.py", "%00", "a" * 5000):
        assert client.get(f"/page/{name}").status_code == 404
