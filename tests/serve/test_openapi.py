"""The OpenAPI document is true: schemathesis, with all of its checks, finds no failure in it."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from striate.serve.app import make_app
from striate.serve.models import Prepared

uvicorn: Any = pytest.importorskip("uvicorn")
pytest.importorskip("schemathesis")

COMMAND = shutil.which("st", path=sysconfig.get_path("scripts")) or "st"

RULES = Path(__file__).parent / "schemathesis.toml"


@contextmanager
def served(*prepared: Prepared) -> Iterator[str]:
    """Serve models from a thread of this process, and give the address."""
    app = make_app(prepared, threads=1)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


def schemathesis(address: str, folder: Path, *options: str) -> None:
    command = [COMMAND, "--config-file", str(RULES), "run", f"{address}/openapi.json", "--no-color", *options]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=540)
    assert found.returncode == 0, found.stdout[:8000]


@pytest.mark.slow
def test_schemathesis_finds_no_failure(prepared_run: Prepared, tmp_path: Path) -> None:
    with served(prepared_run) as address:
        schemathesis(address, tmp_path, "--max-examples", "20", "--seed", "1")


def test_the_document_tells_what_the_models_take(prepared_run: Prepared) -> None:
    document = make_app([prepared_run], threads=1).openapi()
    name = prepared_run.name
    path = document["paths"][f"/v2/models/{name}/infer"]["post"]
    tensor = path["requestBody"]["content"]["application/json"]["schema"]["properties"]["inputs"]["items"]
    assert tensor["properties"]["shape"] == {"const": [1, 8, 8, 1]}
    ready = document["paths"]["/v2/models/{model}/ready"]["get"]["parameters"]
    assert [one["schema"] for one in ready] == [{"type": "string", "enum": [name]}]
    identities = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(identities) == len(set(identities))


def test_what_no_model_can_do_is_not_in_the_document() -> None:
    pytest.importorskip("onnx")
    from tests.predictor.linear_onnx import linear_model

    prepared = Prepared("线 {1}", linear_model().SerializeToString(), "0" * 64)
    document = make_app([prepared], threads=1).openapi()
    assert "/v2/models/%E7%BA%BF%20%7B1%7D/infer" in document["paths"]
    names = {one["name"] for one in document["paths"]["/predict"]["post"]["parameters"]}
    assert {"model", "seen"} <= names and not {"separate", "no_step", "reject"} & names
