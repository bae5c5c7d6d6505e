"""One contract: 200 pictures have the same probabilities through every way to ask, for a gray and for a colour net."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import striate
from striate.cli.main import run as command
from striate.data.dataset import Dataset, Parts
from striate.evaluation.evaluate import evaluate_pictures
from striate.predictor.predictor import Predictor, load_predictor

pytest.importorskip("onnxruntime")

COUNT = 200
MOST = 1e-5


class Case:
    """A net trained for a few moments, 200 pictures it was not trained on, and their probabilities by `evaluate`."""

    def __init__(self, folder: Path, images: np.ndarray, labels: np.ndarray, model: str) -> None:
        train = Dataset.from_arrays(images[COUNT:], labels[COUNT:])
        test = Dataset("made", images[:COUNT], labels[:COUNT], train.classes)
        parts = Parts("made", Dataset("made", train.images, train.labels, train.classes), None, test)
        self.run = striate.train(
            parts, model=model, epochs=4, batch_size=64, out=folder / "run", quiet=True, device="cpu", threads=1
        )
        self.images = test.images
        self.predictor = load_predictor(folder / "run", device="cpu")
        evaluation = evaluate_pictures(self.predictor, test, test.images, np.arange(COUNT), split="test")
        self.wanted = evaluation.probabilities
        self.paths = [folder / f"{number:03}.png" for number in range(COUNT)]
        for path, image in zip(self.paths, self.images, strict=True):
            self.image(image).save(path)
        self.onnx = folder / "model.onnx"
        striate.export(folder / "run", out=self.onnx, data=parts)

    @staticmethod
    def image(pixels: np.ndarray) -> Image.Image:
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def colour_pictures() -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of four classes, told by where one channel is bright."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 600)
    labels[COUNT : COUNT + 4] = range(4)
    images = random.integers(0, 160, (600, 32, 32, 3), dtype=np.uint8)
    for number, label in enumerate(labels):
        images[number, 16 * (label // 2) :, :, label % 3] += 95
    return images, labels.astype(np.int64)


@pytest.fixture(scope="module", params=["gray", "colour"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "gray":
        digits = striate.load_named("digits").train
        return Case(folder, digits.images[:900], digits.labels[:900], "three-conv")
    return Case(folder, *colour_pictures(), "simple-cnn")


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def with_alpha(image: Image.Image) -> Image.Image:
    solid = image.copy()
    solid.putalpha(255)
    return solid


# Each takes pixels (H, W, C) and the file of the same picture, and gives a form of it that loses nothing.
FORMS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "path": lambda pixels, path: path,
    "text": lambda pixels, path: str(path),
    "bytes": lambda pixels, path: path.read_bytes(),
    "file": lambda pixels, path: open(path, "rb"),  # noqa: SIM115
    "PIL, opened": lambda pixels, path: Image.open(path),
    "PIL, made": lambda pixels, path: Case.image(pixels),
    "PIL with alpha": lambda pixels, path: with_alpha(Case.image(pixels)),
    "array": lambda pixels, path: pixels,
    "array, squeezed": lambda pixels, path: pixels.squeeze(),
    "array with strides": lambda pixels, path: np.asfortranarray(pixels),
    "floats 0-1": lambda pixels, path: pixels / 255,
    "float32, channels first": lambda pixels, path: (pixels.transpose(2, 0, 1) / np.float32(255)).astype(np.float32),
    "BMP": lambda pixels, path: encoded(Case.image(pixels), "BMP"),
    "TIFF": lambda pixels, path: encoded(Case.image(pixels), "TIFF"),
    "WEBP": lambda pixels, path: encoded(Case.image(pixels).convert("RGB"), "WEBP", lossless=True),
    "gray as colour": lambda pixels, path: np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels,
}


def rows_of(answers: Any) -> np.ndarray:
    assert all(answer.error is None for answer in answers)
    return np.array([list(answer.probabilities.values()) for answer in answers])


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture(case: Case, form: str, backend: str) -> None:
    predictor = case.predictor if backend == "torch" else load_predictor(case.onnx)
    sources = [FORMS[form](pixels, path) for pixels, path in zip(case.images, case.paths, strict=True)]
    answers = predictor.predict(sources)
    assert np.abs(rows_of(answers) - case.wanted).max() <= MOST
    assert all(np.array_equal(answer.seen, pixels) for answer, pixels in zip(answers, case.images, strict=True))
    one = predictor.predict(FORMS[form](case.images[7], case.paths[7]))  # alone, and not in a batch
    assert np.abs(rows_of([one]) - case.wanted[7]).max() <= MOST


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("flag", ["--json", "--jsonl"])
def test_the_command(case: Case, flag: str, backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = case.onnx if backend == "onnx" else case.run.folder
    assert command(["predict", str(model), *map(str, case.paths), flag, "--device", "cpu"]) == 0
    out = capfd.readouterr().out
    results = json.loads(out)["results"] if flag == "--json" else [json.loads(line) for line in out.splitlines()]
    assert [result["source"] for result in results] == [str(path) for path in case.paths]
    found = np.array([list(result["probabilities"].values()) for result in results])
    assert np.abs(found - case.wanted).max() <= MOST


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_the_server(case: Case, backend: str) -> None:
    """A run, whose graph is made in memory, and an ONNX file; pictures in one request, alone, and many at once."""
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from striate.serve.app import make_app
    from striate.serve.models import prepare

    target = case.onnx if backend == "onnx" else case.run.folder
    with TestClient(make_app(prepare([str(target)]), threads=1)) as client, ThreadPoolExecutor(8) as pool:
        bodies = [path.read_bytes() for path in case.paths]
        for half in (slice(0, COUNT // 2), slice(COUNT // 2, COUNT)):
            files = [("picture", (path.name, body)) for path, body in zip(case.paths[half], bodies[half], strict=True)]
            results = client.post("/predict", files=files).json()["results"]
            assert [result["source"] for result in results] == [path.name for path in case.paths[half]]
            assert np.abs(probabilities_of(results) - case.wanted[half]).max() <= MOST
        alone = pool.map(lambda body: client.post("/predict", content=body).json()["results"][0], bodies)
        assert np.abs(probabilities_of(alone) - case.wanted).max() <= MOST


def probabilities_of(results: Iterable[dict[str, Any]]) -> np.ndarray:
    return np.array([list(result["probabilities"].values()) for result in results])


def test_the_run_itself_and_the_files_that_training_wrote(case: Case) -> None:
    assert np.abs(rows_of(case.run.predict(list(case.images))) - case.wanted).max() <= MOST
    assert case.run.evaluation["samples"] == COUNT
    told = case.run.folder.joinpath("predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    found = np.array([float(line.split(",")[-1]) for line in told])
    best = case.predictor.logits(case.images).argmax(1)
    assert np.abs(found - case.wanted[np.arange(COUNT), best]).max() <= MOST


def test_the_graphs_own_probabilities(case: Case) -> None:
    predictor: Predictor = load_predictor(case.onnx)
    (found,) = predictor.backend.session.run(["probabilities"], {"images": case.images})  # type: ignore[attr-defined]
    assert np.abs(found - case.wanted).max() <= MOST


def test_the_pictures_tell_the_ways_apart(case: Case) -> None:
    """The probabilities differ from picture to picture: a mistake in one way would show."""
    spread = np.abs(case.wanted[1:] - case.wanted[:-1]).max(axis=1)
    assert np.median(spread) > 0.02
