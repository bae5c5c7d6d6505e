"""Real trainings in real processes, and what two of them must have in common."""

from __future__ import annotations

import csv
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from striate.runs.checkpoint import list_checkpoints
from striate.runs.tensors import read_tensors

TIMED = {"seconds", "images_per_second", "peak_memory_mb"}
LONGEST = 60.0  # seconds to wait for anything; a busy machine may need some
PROMISED = 5.0  # seconds in which no process is left of one that ended

NET = '''
import torch
from torch import nn


class Net(nn.Module):
    """What may go wrong at a resume: a convolution, BatchNorm, dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
            nn.Linear(512, 10),
        )

    def forward(self, x):
        return self.layers(x)
'''
SETTINGS = ["--epochs", "3", "--batch-size", "64", "--augment", "shift:1", "--save-every", "3"]
OPTIMIZERS = {
    "adamw": ["--lr", "0.005", "--ema", "0.9", "--clip", "1", "--schedule", "one-cycle"],
    "sgd": ["--optimizer", "sgd", "--lr", "0.05", "--nesterov", "--weight-decay", "0.001", "--schedule", "cosine"],
    "muon": ["--optimizer", "muon", "--lr", "0.02", "--lookahead", "0.8", "--schedule", "triangular"],
    "adam": ["--optimizer", "adam", "--lr", "0.005", "--accumulate", "2", "--label-smoothing", "0.1"],
}


def train_arguments(out: str, *more: str, optimizer: str = "adamw") -> list[str]:
    """Return the arguments of the training that these tests disturb."""
    return ["train", "digits", "--model", "net.py:Net", "--out", out, *SETTINGS, *OPTIMIZERS[optimizer], *more]


def resume_arguments(run: str) -> list[str]:
    """Return the arguments that go on with it."""
    return ["resume", run, "--model", "net.py:Net"]


def write_pictures(folder: Path) -> None:
    """Write a folder of pictures of three classes that overlap, so that a net errs."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            values = random.integers(0, 200, (12, 12, 3)) + 25 * label
            Image.fromarray(values.astype(np.uint8)).save(folder / name / f"{number:02}.png")


@dataclass
class Process:
    """A `striate` process."""

    pid: int
    folder: Path
    _ended: queue.Queue[tuple[int, float]] = field(default_factory=queue.Queue)

    def wait(self, seconds: float = LONGEST) -> int:
        """Wait for its end and return the exit code as a shell tells it: 128 and the signal for one that ended it."""
        code, when = self._ended.get(timeout=seconds)
        self._ended.put((code, when))
        return code if code >= 0 else 128 - code

    def seconds_to_end(self, since: float) -> float:
        """Return how long after `since` (time.monotonic) it ended."""
        self.wait()
        code, when = self._ended.get()
        self._ended.put((code, when))
        return when - since

    def note_end(self, status: int) -> None:
        """Take the exit code, or minus the signal."""
        self._ended.put((status, time.monotonic()))

    def is_running(self) -> bool:
        """Say whether it has not ended yet."""
        return self._ended.empty()

    def signal(self, number: int) -> float:
        """Send a signal and return when."""
        os.kill(self.pid, number)
        return time.monotonic()

    @property
    def stdout(self) -> str:
        """What it printed."""
        return (self.folder / "stdout.txt").read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it told."""
        return (self.folder / "stderr.txt").read_text(encoding="utf-8")

    def relatives(self) -> set[int]:
        """Return the processes of its session that are alive, itself among them."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.add(int(entry.name))
        return found


class Host:
    """Starts `striate` processes by fork; see host.py. `environment` is that of the Python they are forked from."""

    def __init__(self, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "host.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        self.processes: dict[int, Process] = {}
        self._started: queue.Queue[int] = queue.Queue()
        assert "ready" in self._message()
        threading.Thread(target=self._read, daemon=True).start()

    def _message(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline() or "{}")

    def _read(self) -> None:
        while message := self._message():
            if "status" in message:
                wait_until(lambda: message["pid"] in self.processes)  # it may end before it is noted
                self.processes[message["pid"]].note_end(message["status"])
            else:
                self._started.put(message["pid"])

    def start(
        self,
        folder: Path,
        *arguments: str,
        disturb: Mapping[str, float] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start `striate ARGUMENTS` in `folder`; `disturb` names functions of host.py and their arguments."""
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": environment or {},
            "disturb": disturb or {},
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        process = Process(self._started.get(timeout=LONGEST), folder)
        self.processes[process.pid] = process
        return process

    def run(self, folder: Path, *arguments: str, **options: Any) -> Process:
        """Start it and wait for its end with exit code 0."""
        process = self.start(folder, *arguments, **options)
        code = process.wait()
        assert code == 0, f"exit code {code}\n{process.stderr}"
        return process

    def assert_nothing_left(self) -> int:
        """Assert that of every process that ended no child is alive after the promised time; return how many ended.

        Those that a test left running, since it failed, are killed.
        """
        for process in self.processes.values():
            if process.is_running():
                process.signal(signal.SIGKILL)
                process.wait()
        ended = list(self.processes.values())
        wait_until(lambda: not any(process.relatives() for process in ended), PROMISED)
        for process in ended:
            assert not process.relatives(), f"children of a process that ended are alive: {process.relatives()}"
        self.processes.clear()
        return len(ended)

    def close(self) -> None:
        """End it, and whatever it still runs."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=LONGEST)


def wait_until(holds: Callable[[], bool], seconds: float = LONGEST) -> bool:
    """Wait until something holds, and say whether it came to."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def wait_for_step(process: Process, run: Path, step: int) -> None:
    """Wait until steps.csv of a training has come to `step`."""

    def reached() -> bool:
        try:
            return (run / "steps.csv").read_text().count("\n") > step or not process.is_running()
        except OSError:
            return not process.is_running()

    assert wait_until(reached) and process.is_running(), f"it ended early\n{process.stderr}"


def stop(process: Process, run: Path, step: int = 25) -> None:
    """Stop a training by SIGTERM once it has come to `step`."""
    wait_for_step(process, run, step)
    process.signal(signal.SIGTERM)
    assert process.wait() == 143, process.stderr


def newest_step(run: Path) -> int:
    """Return the step of a run's newest checkpoint."""
    return int(list_checkpoints(run / "checkpoints")[-1].name.split("-")[1])


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two runs ended with the same bits, but for times."""
    for name in ("steps.csv", "results.csv"):
        assert untimed_rows(one / name) == untimed_rows(other / name), name
    assert_same_weights(one, other)
    left, right = (list_checkpoints(run / "checkpoints")[-1] / "state.safetensors" for run in (one, other))
    assert left.read_bytes() == right.read_bytes(), "the last checkpoints differ"
    assert not list(other.rglob("*.tmp")), "an orphan was left behind"


def assert_same_weights(one: Path, other: Path) -> None:
    """Assert that two runs ended with the same weights and the same evaluation."""
    for name in ("weights/best.safetensors", "weights/last.safetensors"):
        left, right = read_tensors(one / name), read_tensors(other / name)
        assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left), name
    assert (one / "evaluation.json").read_bytes() == (other / "evaluation.json").read_bytes()


def untimed_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file without what depends on time."""
    with open(path, encoding="utf-8", newline="") as stream:
        return [{key: value for key, value in row.items() if key not in TIMED} for row in csv.DictReader(stream)]
