"""`striate serve` under load, beside a plain FastAPI + torch handler and LitServe with the same net.

    python benchmarks/serve_load.py RUN [--data digits] [--clients 1,8,64,1000] [--seconds 10] [--rounds 3]
        [--workers 1] [--only striate,plain,litserve]

RUN is a run folder whose net is in the registry; the pictures are the first 200 of its data, of the test part where
there is one, as PNG files. Each side runs with its defaults, and is asked by clients in a process of their own
(`serve_load_client.py`), which take a share of the machine like any client that runs on it. The sides take turns. Every
answer is compared with what `striate predict` says of the same file, to 1e-5; goodput counts only those that are equal.
Memory is of all the side's processes, resident, at its highest (pages that they share count in each); Linux only. A
side that is not installed is left out, with a word.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from figures import memory_of, numbers, spread
from PIL import Image

import striate

HERE = Path(__file__).parent
PICTURES = 200
WARM_SECONDS = 2.0
START_SECONDS = 120.0


@dataclass
class Side:
    """A server to be measured: how to start it, what to send, and where in its answer the probabilities stand."""

    name: str
    command: list[str]
    content_type: str = "image/png"
    answer: list[Any] = field(default_factory=lambda: ["probabilities"])
    as_json: bool = False


def sides_of(run: str, workers: int) -> list[Side]:
    """Return all sides; `{port}` in a command stands for the port."""
    python = sys.executable
    own = [python, "-m", "striate", "serve", run, "--port", "{port}", "--workers", str(workers)]
    return [
        Side("striate", own, answer=["results", 0, "probabilities"]),
        Side("plain", [python, str(HERE / "serve_plain.py"), run, "{port}"]),
        Side("litserve", [python, str(HERE / "serve_litserve.py"), run, "{port}"], "application/json", as_json=True),
    ]


def write_pictures(run: str, data: str, folder: Path) -> tuple[list[str], list[list[float]]]:
    """Write pictures as files; return their names, and the probabilities offline."""
    names = []
    parts = striate.load_named(data)
    for number, image in enumerate((parts.test or parts.train).images[:PICTURES]):
        names.append(str(folder / f"{number}.png"))
        Image.fromarray(image.squeeze()).save(names[-1])
    answers = striate.load(run, device="cpu").predict(names)
    return names, [list(answer.probabilities.values()) for answer in answers]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """A side that runs, in a process group of its own; `memory` is the most it has held, in megabytes."""

    def __init__(self, side: Side, probe: bytes) -> None:
        self.port = free_port()
        command = [word.format(port=self.port) for word in side.command]
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True)
        self.memory = 0.0
        self._ends = threading.Event()
        url, ends = f"http://127.0.0.1:{self.port}/predict", time.monotonic() + START_SECONDS
        while True:
            try:
                asked = urllib.request.Request(url, probe, {"content-type": side.content_type})
                urllib.request.urlopen(asked, timeout=30).read()
                break
            except OSError:
                if time.monotonic() > ends or self.process.poll() is not None:
                    raise SystemExit(f"{side.name} does not start: {' '.join(command)}") from None
                time.sleep(0.2)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ends.wait(0.2):
            self.memory = max(self.memory, memory_of(self.process.pid))

    def stop(self) -> None:
        self._ends.set()
        os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def measure(side: Side, clients: int, seconds: float, names: list[str], expected: list[list[float]]) -> dict[str, Any]:
    """Start a side, load it, stop it; return what the clients saw, and its memory."""
    bodies = names
    if side.as_json:
        bodies = [name + ".json" for name in names]
        for name, body in zip(names, bodies, strict=True):
            Path(body).write_text(json.dumps({"image": base64.b64encode(Path(name).read_bytes()).decode()}))
    server = Server(side, Path(bodies[0]).read_bytes())
    try:
        task = {
            **{"host": "127.0.0.1", "port": server.port, "path": "/predict", "content_type": side.content_type},
            **{"bodies": bodies, "expected": expected, "answer": side.answer},
            **{"clients": clients, "warm": WARM_SECONDS, "seconds": seconds},
        }
        client = [sys.executable, str(HERE / "serve_load_client.py")]
        told = subprocess.run(client, input=json.dumps(task), capture_output=True, text=True, check=True)
        return {**json.loads(told.stdout), "memory": server.memory, "lived": server.process.poll() is None}
    finally:
        server.stop()


def row(side: Side, clients: int, found: list[dict[str, Any]], plain: list[dict[str, Any]]) -> str:
    """Return one line of the table."""
    goodput = [one["goodput"] for one in found]
    ratios = [own["goodput"] / other["goodput"] for own, other in zip(found, plain, strict=False) if other["goodput"]]
    statuses = Counter[str]()
    for one in found:
        statuses.update(one["statuses"])
    refused = statuses["429"] + statuses["503"]
    others = statuses.total() - refused - statuses["200"]
    errors = Counter[str]()
    for one in found:
        errors.update(one["errors"])
    told = ", ".join(f"{count} {name}" for name, count in errors.items()) or "0"
    return (
        f"| {clients:,} | {side.name} | {spread(goodput)} | {spread(ratios, '{:.2f}') if ratios else ''} "
        f"| {spread([1000 * one['p50'] for one in found], '{:.1f}')} "
        f"| {spread([1000 * one['p99'] for one in found], '{:.1f}')} | {refused:,} | {others:,} | {told} "
        f"| {sum(one['wrong'] for one in found)} | {max(one['memory'] for one in found):,.0f} "
        f"| {max(one['busy'] for one in found):.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--clients", type=numbers, default=[1, 8, 64, 1000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="striate,plain,litserve")
    arguments = parser.parse_args()
    sides = [side for side in sides_of(arguments.run, arguments.workers) if side.name in arguments.only.split(",")]
    if find_spec("litserve") is None and any(side.name == "litserve" for side in sides):
        print("LitServe is not installed, and left out: pip install -r benchmarks/serve_requirements.txt\n")
        sides = [side for side in sides if side.name != "litserve"]
    head = "clients | side | goodput /s | times plain | p50 ms | p99 ms | refused | other statuses | errors | unequal"
    print(f"| {head} | memory MB | client's share of a core |\n|{'---|' * 12}")
    with tempfile.TemporaryDirectory() as folder:
        names, expected = write_pictures(arguments.run, arguments.data, Path(folder))
        for clients in arguments.clients:
            found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
            for _ in range(arguments.rounds):
                for side in sides:
                    found[side.name].append(measure(side, clients, arguments.seconds, names, expected))
            for side in sides:
                print(row(side, clients, found[side.name], found.get("plain", [])), flush=True)


if __name__ == "__main__":
    main()
