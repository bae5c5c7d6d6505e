"""`striate serve` as one types it: the command that training prints, files without torch, what it says of errors."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.serve.hosts import Host, connect, read_answer, request

from striate.cli.main import run
from striate.predictor.predictor import load_predictor


@contextmanager
def serving(*words: str, **environment: str) -> Iterator[Host]:
    """Start `striate serve` with a port that is free, and wait until it can answer."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        host = Host([sys.executable, "-m", "striate", "serve", *words, "--port", "0"])
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        host.wait_for("^answering at ")
        yield host
    finally:
        host.close()


def ask(host: Host, path: str, body: bytes = b"", method: str = "POST") -> tuple[int, bytes]:
    """Ask once, by a name that the server knows."""
    with connect(host) as client:
        client.sendall(request(path, body, method).replace(b"host: x", b"host: localhost"))
        status, _, content = read_answer(client)
    return status, content


@pytest.mark.slow
def test_the_command_that_training_prints_serves_its_run(
    training: tuple[Path, list[str]], pictures: list[bytes]
) -> None:
    folder, printed = training
    words = shlex.split(printed[-1])
    assert words == ["striate", "serve", str(folder)]
    with serving(*words[2:]) as host:
        status, body = ask(host, "/predict", pictures[3])
        (found,) = json.loads(body)["results"]
        wanted = load_predictor(folder, device="cpu").predict(pictures[3])
        assert status == 200 and found["label"] == wanted.label
        assert max(abs(found["probabilities"][name] - p) for name, p in wanted.probabilities.items()) <= 1e-5
        (line,) = [json.loads(line) for line in host.lines if line.startswith("{")] or [
            json.loads(host.wait_for('^{"time"'))
        ]
        assert (line["route"], line["status"], line["model"]) == ("/predict", 200, "digits-run")
        host.send(signal.SIGTERM)
        assert host.ended() == 0


def test_files_are_served_without_torch_by_their_names(digits_onnx: Path, pictures: list[bytes]) -> None:
    with serving(str(digits_onnx), f"second={digits_onnx}", "--no-log", STRIATE_TOKEN="open-sesame") as host:
        assert ask(host, "/models", method="GET")[0] == 401
        assert host.address[0] == "127.0.0.1"
        maps = Path(f"/proc/{host.process.pid}/maps")
        if maps.is_file():
            assert "onnxruntime" in maps.read_text() and "libtorch" not in maps.read_text()
        assert not [line for line in host.lines if line.startswith("{")]


def code_of(words: list[str]) -> int:
    """Return the exit code; an error of the process that makes the models is told there and ends this one."""
    try:
        return run(words)
    except SystemExit as leave:
        assert isinstance(leave.code, int)
        return leave.code


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "MODEL is missing"),
        (["nowhere.onnx"], 3, "nowhere.onnx does not exist"),
        (["nowhere"], 2, "unknown run"),
        (["nowhere.onnx", "--token", "short"], 2, "at least 8 characters"),
        (["nowhere.onnx", "--port", "99999"], 2, "--port"),
        (["nowhere.onnx", "--max-body", "0"], 2, "--max-body"),
        (["nowhere.onnx", "--max-body", "inf"], 2, "--max-body"),
        (["nowhere.onnx", "--host", "host.invalid"], 2, "host.invalid"),
    ],
)
def test_what_it_says_when_it_cannot(
    words: list[str], code: int, told: str, capfd: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert code_of(["serve", *words, *([] if "--port" in words or not words else ["--port", "0"])]) == code
    assert told in capfd.readouterr().err


def test_names_that_are_not_distinct(digits_onnx: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert code_of(["serve", str(digits_onnx), str(digits_onnx), "--port", "0"]) == 2
    told = capfd.readouterr().err
    assert (
        "two models are called digits-run" in told
        and f"fix: give one of them another name: other={digits_onnx}" in told
    )
