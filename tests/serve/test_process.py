"""The installed command as a process: it answers, stops, keeps workers, and says what is wrong before it loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.serve.hosts import Host, ask, until

import striate
from striate.serve.running import listen

CLIENT = Path(__file__).parents[2] / "benchmarks" / "serve_load_client.py"


@contextmanager
def served(target: Path, *flags: str) -> Iterator[Host]:
    host = Host([sys.executable, "-m", "striate", "serve", str(target), "--port", "0", *flags])
    try:
        host.wait_for("answering at http://")
        yield host
    finally:
        host.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def predict(host: Host, picture: bytes) -> dict[str, Any]:
    status, _, body = ask(host, "/predict", picture)
    assert status == 200, body
    return json.loads(body)["results"][0]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="read from /proc")


@needs_proc
def test_workers_answer_as_predict_does_and_none_imports_torch(digits_run: Path, pictures: list[bytes]) -> None:
    offline = striate.load(digits_run, device="cpu").predict(pictures[0])
    with served(digits_run, "--workers", "2") as host:
        assert predict(host, pictures[0])["probabilities"] == pytest.approx(dict(offline.probabilities), abs=1e-5)
        workers = children(host.process.pid)
        assert len(workers) == 2
        for pid in (host.process.pid, *workers):
            assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
        assert len(os.listdir(f"/proc/{host.process.pid}/task")) == 1  # what has threads cannot be forked from
        os.kill(workers[0], signal.SIGKILL)
        host.wait_for(f"worker {workers[0]} ended with signal 9")
        until(lambda: len(children(host.process.pid)) == 2)
        for picture in pictures[:8]:
            predict(host, picture)
        numbers = ask(host, "/metrics", method="GET")[2].decode()
        (line,) = [line for line in numbers.splitlines() if line.startswith("striate_pictures_total{")]
        assert float(line.split()[-1]) == 9  # of all workers, also the dead one
        host.send(signal.SIGTERM)
        assert host.ended() == 0


@needs_proc
def test_one_process_serves_a_run_without_torch_in_it(digits_run: Path, pictures: list[bytes]) -> None:
    with served(digits_run) as host:
        predict(host, pictures[0])
        assert "libtorch" not in Path(f"/proc/{host.process.pid}/maps").read_text()
        host.send(signal.SIGINT)
        assert host.ended() == 0
        assert not any("Traceback" in line for line in host.lines)


def run_serve(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "striate", "serve", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_port_that_is_taken_is_three_lines() -> None:
    (taken,) = listen("127.0.0.1", 0)
    with taken:
        port = taken.getsockname()[1]
        found = run_serve("no-such-run", "--port", str(port))
    assert found.returncode == 1
    assert [line.split(":")[0] for line in found.stderr.splitlines()] == ["error", "cause", "fix"]
    assert f"127.0.0.1:{port} is taken" in found.stderr and f"--port {port + 1}" in found.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_is_not_there_is_told_once(workers: str, tmp_path: Path) -> None:
    found = run_serve(str(tmp_path / "none.onnx"), "--port", "0", "--workers", workers)
    assert found.returncode == 3
    assert found.stderr.count("error: ") == 1 and "none.onnx" in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_thousand_clients_get_answers_or_are_told_to_come_again(
    digits_run: Path, pictures: list[bytes], tmp_path: Path, workers: str
) -> None:
    """Only 200, 429 and 503, no reset, every 200 as offline, and memory within bounds."""
    names = [str(tmp_path / f"{number}.png") for number in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Path(name).write_bytes(picture)
    answers = striate.load(digits_run, device="cpu").predict(names)
    with served(digits_run, "--workers", workers, "--max-queue", "300", "--no-log") as host:
        task = {
            **{"host": host.address[0], "port": host.address[1], "path": "/predict", "content_type": "image/png"},
            **{"bodies": names, "answer": ["results", 0, "probabilities"], "warm": 1, "seconds": 5, "clients": 1_000},
            "expected": [list(answer.probabilities.values()) for answer in answers],
        }
        told = subprocess.run(
            [sys.executable, str(CLIENT)], input=json.dumps(task), capture_output=True, text=True, timeout=120
        )
        found = json.loads(told.stdout)
        assert set(found["statuses"]) <= {"200", "429", "503"} and found["statuses"]["200"] > 0
        assert found["errors"] == {} and found["wrong"] == 0
        for pid in (host.process.pid, *children(host.process.pid)):
            resident = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]
            assert int(resident) < 1_000_000  # kB, at its highest
        assert predict(host, pictures[0])  # and it goes on
