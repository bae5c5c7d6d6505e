"""A run of digits trained for a moment, its ONNX file, and clients of an application that serves them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import striate

pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")

from starlette.testclient import TestClient

from striate.serve.app import make_app
from striate.serve.models import Prepared, prepare


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of digits, and what its training printed."""
    folder, printed = tmp_path_factory.mktemp("serve") / "digits-run", io.StringIO()
    with redirect_stdout(printed), redirect_stderr(io.StringIO()):
        striate.train("digits", epochs=6, out=folder, device="cpu", threads=1)
    return folder, printed.getvalue().splitlines()


@pytest.fixture(scope="session")
def digits_run(training: tuple[Path, list[str]]) -> Path:
    return training[0]


@pytest.fixture(scope="session")
def digits_onnx(digits_run: Path) -> Path:
    striate.export(digits_run, out=digits_run / "model.onnx")
    return digits_run / "model.onnx"


@pytest.fixture(scope="session")
def prepared_run(digits_run: Path) -> Prepared:
    return prepare([str(digits_run)])[0]


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Forty digits as PNG files."""
    return [png(image) for image in striate.load_named("digits").train.images[:40]]


@pytest.fixture
def serve(prepared_run: Prepared) -> Iterator[Callable[..., TestClient]]:
    """Return what makes a client of an application that serves the run, with any of make_app's options."""
    with ExitStack() as stack:

        def start(*prepared: Prepared, **options: Any) -> TestClient:
            app = make_app(prepared or [prepared_run], threads=1, **options)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


@pytest.fixture(scope="session")
def client(prepared_run: Prepared) -> Iterator[TestClient]:
    """A client of an application with everything at its default."""
    with TestClient(make_app([prepared_run], threads=1), raise_server_exceptions=False) as client:
        yield client


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, "PNG")
    return stream.getvalue()
