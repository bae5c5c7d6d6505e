"""Which models are served, and under which names; an ONNX file needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import striate
from striate.errors import MissingExtra, UsageError
from striate.predictor.predictor import load_predictor
from striate.serve.models import Prepared, Served, choose, prepare, split_name
from striate.serve.refusals import Refused


def served(prepared: Prepared) -> Served:
    return Served(prepared, thread=None, threads=1)  # type: ignore[arg-type]


def test_a_run_answers_as_torch_does_and_knows_what_is_unlike(digits_run: Path, prepared_run: Prepared) -> None:
    predictor, model = load_predictor(digits_run, device="cpu"), served(prepared_run)
    random = np.random.default_rng(0)
    images = striate.load_named("digits").train.images[:100]
    images = np.concatenate([images, random.integers(0, 256, images.shape).astype(np.uint8)])
    logits, distances = predictor.logits_and_distances(images)
    found, others = model.predictor.logits_and_distances(images)
    assert np.abs(predictor.probabilities(logits) - model.predictor.probabilities(found)).max() <= 1e-5
    assert np.allclose(np.array(distances, float), np.array(others, float), rtol=1e-3, atol=1e-3)
    doubt = predictor.doubt
    assert doubt is not None and doubt.cosine is not None  # or the graph would not have had to look
    assert np.std(np.array(others, float)) > 0.1


@pytest.mark.slow
def test_a_packed_file_is_a_run_without_its_folder(digits_run: Path, prepared_run: Prepared, tmp_path: Path) -> None:
    packed = tmp_path / "digits.safetensors"
    striate.export(digits_run, to="striate", out=packed)
    (one,) = prepare([str(packed)])
    assert one.name == "digits" and one.run == str(packed)
    images = striate.load_named("digits").train.images[:20]
    assert np.abs(served(one).predictor.logits(images) - served(prepared_run).predictor.logits(images)).max() < 1e-4


def test_the_net_inside_is_the_run_s(prepared_run: Prepared, digits_onnx: Path) -> None:
    model = served(prepared_run)
    assert model.torch_predictor() is model.torch_predictor()
    assert type(model.torch_predictor().net).__name__ == model.card.class_name
    (other,) = prepare([str(digits_onnx)])
    with pytest.raises(MissingExtra):
        served(other).torch_predictor()
    assert not served(other).explains


def test_names(digits_onnx: Path, tmp_path: Path) -> None:
    other = tmp_path / "small=net.onnx"
    other.write_bytes(digits_onnx.read_bytes())
    one, two, three = prepare([str(digits_onnx), str(other), f"again={other}"])
    assert (one.name, two.name, three.name) == ("digits-run", "small=net", "again")
    with pytest.raises(UsageError, match="two models are called again"):
        prepare([f"again={digits_onnx}", f"again={other}"])
    for name in ("", " a", "a\n", "a" * 101):
        with pytest.raises(UsageError):
            split_name(f"{name}=model.onnx")
    assert split_name("runs/a=b") == (None, "runs/a=b")
    models = [served(one), served(three)]
    assert choose(models, None) is models[0] and choose(models, "again", models[1].version) is models[1]
    for wrong in (("agian", None), ("again", "7")):
        with pytest.raises(Refused) as caught:
            choose(models, *wrong)
        assert caught.value.status == 404


def test_a_run_whose_weights_were_replaced_is_not_explained(prepared_run: Prepared, digits_run: Path) -> None:
    other = Prepared(prepared_run.name, prepared_run.content, "0" * 64, str(digits_run))
    with pytest.raises(striate.StriateError, match="not the file that was expected"):
        served(other).torch_predictor()


def test_an_onnx_file_is_served_without_torch(digits_onnx: Path) -> None:
    script = f"""
import sys
asked = []
sys.addaudithook(lambda event, _: asked.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
from starlette.testclient import TestClient
from striate.serve.app import make_app
from striate.serve.models import prepare
with TestClient(make_app(prepare([{str(digits_onnx)!r}]))) as client:
    png = {striate_png()!r}
    assert client.post("/predict?separate=true&seen=true", content=png).status_code == 200
    assert client.post("/predict", files=dict(one=png, two=png)).status_code == 200
    assert client.get("/models").json()["models"][0]["explain"] is False
    assert client.get("/metrics").status_code == 200
loaded = [name for name in ("torch", "matplotlib", "onnx", "sklearn") if name in sys.modules]
assert not loaded, loaded
assert not asked, asked
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def striate_png() -> bytes:
    from tests.serve.conftest import png

    return png(striate.load_named("digits").train.images[0])


NET = """
import torch

class Plain(torch.nn.Module):
    def __init__(self, num_classes=10, in_channels=1, input_size=(8, 8)):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))

    def forward(self, x):
        return self.layers(x)
"""


@pytest.mark.slow
def test_a_net_of_ones_own_is_named_beside_its_run(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(NET)
    own = f"{source}:Plain"
    striate.train("digits", model=own, epochs=1, out=tmp_path / "run", quiet=True, device="cpu", threads=1)
    with pytest.raises(UsageError, match="your own class"):
        prepare([str(tmp_path / "run")])
    (one,) = prepare([str(tmp_path / "run")], own)
    images = striate.load_named("digits").train.images[:20]
    model = served(one)
    assert np.abs(model.predictor.logits(images) - model.torch_predictor().logits(images)).max() < 1e-4
