"""Two real processes under torchrun: the same run as one process, and what happens at each fault."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from striate.cli.main import run
from striate.errors import VerificationError
from striate.runs.tensors import read_tensors
from striate.training.verify import verify

TIMED = {"seconds", "images_per_second", "peak_memory_mb"}
PATIENCE = 240.0  # seconds, for a machine that does much else
GRACE = 15.0  # seconds after a fault, or after --timeout: what docs/distributed.md promises
# No BatchNorm in it; dropout, a mixture, uneven last batches, an average, rare classes that weigh more.
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, input_size):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.1), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.2), nn.Linear(8 * 16, num_classes),
        )

    def forward(self, x):
        return self.layers(x)
"""
SETTINGS = [
    "train", "digits", "--model", "net.py:Net", "--recipe", "generic", "--batch-size", "50", "--epochs", "3",
    "--balance", "loss", "--clip", "1", "--ema", "0.9", "--augment", "shift:1,mixup:0.3", "--lr", "0.005",
    "--save-every", "10", "--device", "cpu",
]  # fmt: skip


class Started:
    """A command under torchrun, its lines, and its processes by rank."""

    def __init__(self, folder: Path, *words: str, restarts: int = 0, processes: int = 2) -> None:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        torchrun += ["--shutdown-timeout", "5"] if _knows_shutdown_timeout() else []
        self.process = subprocess.Popen(
            [*torchrun, "--max-restarts", str(restarts), "-m", "striate", *words],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    def ranks(self) -> dict[int, int]:
        """Return {rank: process} of those that run now."""
        found = {}
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            try:
                variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            rank = next((entry[5:] for entry in variables if entry.startswith(b"RANK=")), None)
            if rank is not None:
                found[int(rank)] = int(child)
        return found

    def end(self, patience: float = PATIENCE) -> str:
        """Wait for it and return what it said."""
        try:
            said, _ = self.process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            for process in self.ranks().values():
                os.kill(process, signal.SIGKILL)
            self.process.kill()
            said, _ = self.process.communicate()
            pytest.fail(f"it had not ended after {patience} s:\n{said}")
        return said


def _knows_shutdown_timeout() -> bool:
    from torch.distributed.run import get_args_parser

    return "--shutdown-timeout" in get_args_parser().format_help()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def alone(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "striate", *words], cwd=folder, text=True, capture_output=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return [{name: text for name, text in row.items() if name not in TIMED} for row in csv.DictReader(stream)]


def status(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "status.json").read_text()))


def assert_same_bits(one: Path, other: Path) -> None:
    for name in ("steps.csv", "results.csv"):
        assert rows(one / name) == rows(other / name), name
    for which in ("best", "last"):
        left, right = (read_tensors(run / "weights" / f"{which}.safetensors") for run in (one, other))
        assert all(torch.equal(left[name], right[name]) for name in left), which
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()


def assert_alike(one: Path, other: Path) -> None:
    """To rounding: losses, accuracies, predictions."""
    for name, columns in {
        "steps.csv": ("step", "epoch", "lr", "loss"),
        "results.csv": ("epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        "predictions.csv": ("index", "label", "probability"),
    }.items():
        left, right = rows(one / name), rows(other / name)
        assert len(left) == len(right)
        for column in columns:
            numbers = [[float(row[column]) for row in some] for some in (left, right)]
            np.testing.assert_allclose(*numbers, rtol=2e-3, atol=2e-4, err_msg=f"{name}: {column}")
    answers = [[row["prediction"] for row in rows(run / "predictions.csv")] for run in (one, other)]
    assert answers[0] == answers[1]


def wait_for_steps(started: Started, run: Path, step: int) -> None:
    """Wait until a run has saved so many steps."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if started.process.poll() is not None:
            pytest.fail(f"it ended before step {step}:\n{started.end()}")
        if any((run / "checkpoints").glob("step-*/manifest.json")):
            newest = max((run / "checkpoints").glob("step-*/manifest.json"))
            if int(newest.parent.name.split("-")[1]) >= step:
                return
        time.sleep(0.05)
    pytest.fail(f"step {step} did not come")


def assert_gone(processes: Iterator[int] | list[int]) -> None:
    for process in processes:
        state = Path(f"/proc/{process}/stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", f"{process} still runs"


def test_two_processes_are_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(folder, *SETTINGS, "--out", "two")
    monkeypatch.chdir(folder)
    assert run([*SETTINGS, "--out", "one", "--quiet"]) == 0
    said = started.end()
    assert started.process.returncode == 0, said
    assert_alike(folder / "two", folder / "one")
    assert said.count("saved ") == 1, said  # one display
    assert "2 processes share" in said and "can only lose" in said
    assert sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__") == [
        "one",
        "two",
    ]
    assert json.loads((folder / "two" / "env.json").read_text())["processes"] == 2


LONG = [*SETTINGS[: SETTINGS.index("--epochs")], "--epochs", "25", *SETTINGS[SETTINGS.index("--epochs") + 2 :]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "net.py").write_text(NET)
    started = Started(folder, *LONG, "--out", "run")
    said = started.end()
    assert started.process.returncode == 0, said
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_job_and_a_new_start_goes_on(folder: Path, whole: Path, rank: int) -> None:
    started = Started(folder, *LONG, "--out", "run")
    wait_for_steps(started, folder / "run", 100)
    processes = started.ranks()
    os.kill(processes[rank], signal.SIGKILL)
    said = started.end(GRACE)
    assert started.process.returncode != 0
    assert f"process {rank} of 2 is gone" in said and "SIGKILL" in said, said
    assert said.count("error: process") == 1
    assert "striate resume" in said or rank == 0
    assert_gone(list(processes.values()))
    if rank:
        assert status(folder / "run")["state"] == "failed"
    resumed = Started(folder, "resume", "run", "--model", "net.py:Net")
    said = resumed.end()
    assert resumed.process.returncode == 0, said
    assert "resumed from step" in said
    assert_same_bits(folder / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stands_still_is_not_waited_for(folder: Path, rank: int) -> None:
    started = Started(folder, *LONG, "--out", "run", "--timeout", "30s")
    wait_for_steps(started, folder / "run", 100)
    processes = started.ranks()
    os.kill(processes[rank], signal.SIGSTOP)
    said = started.end(30 + GRACE)
    assert f"process {rank} of 2 has not answered for 30 s" in said, said
    assert_gone(list(processes.values()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_saves(folder: Path, whole: Path, number: signal.Signals) -> None:
    started = Started(folder, *LONG, "--out", "run")
    wait_for_steps(started, folder / "run", 100)
    processes = started.ranks()
    started.process.send_signal(number)
    said = started.end(GRACE)
    assert f"error: stopped by {number.name} at step" in said and "-m striate resume" in said, said
    assert status(folder / "run")["state"] == "interrupted"
    assert_gone(list(processes.values()))
    resumed = Started(folder, "resume", "run", "--model", "net.py:Net")
    said = resumed.end()
    assert resumed.process.returncode == 0, said
    assert_same_bits(folder / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("out", [True, False])
def test_torchrun_starts_it_again_by_itself(folder: Path, whole: Path, out: bool) -> None:
    run = folder / "run" if out else folder / "runs" / "digits-net-1"
    started = Started(folder, *LONG, *(["--out", "run"] if out else []), restarts=1)
    wait_for_steps(started, run, 100)
    os.kill(started.ranks()[1], signal.SIGKILL)
    said = started.end()
    assert started.process.returncode == 0, said
    assert "resumed from step" in said
    assert_same_bits(run, whole)


@pytest.mark.slow
def test_the_signal_of_one_process_stops_all(folder: Path) -> None:
    started = Started(folder, *LONG, "--out", "run")
    wait_for_steps(started, folder / "run", 100)
    os.kill(started.ranks()[1], signal.SIGTERM)
    said = started.end(GRACE)
    assert "error: stopped by SIGTERM at step" in said, said
    assert status(folder / "run")["state"] == "interrupted"


@pytest.mark.slow
def test_without_torchrun_nobody_trains_on(folder: Path) -> None:
    started = Started(folder, *LONG[:-2], "--epochs", "400", "--device", "cpu", "--out", "run")
    wait_for_steps(started, folder / "run", 60)
    processes = list(started.ranks().values())
    started.process.kill()
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(Path(f"/proc/{process}").exists() for process in processes):
        time.sleep(0.1)
    assert_gone(processes)
    started.end()
    assert status(folder / "run")["state"] == "interrupted"


@pytest.mark.slow
def test_one_process_goes_on_where_two_were(folder: Path, whole: Path) -> None:
    started = Started(folder, *LONG, "--out", "run")
    wait_for_steps(started, folder / "run", 100)
    started.process.send_signal(signal.SIGTERM)
    started.end(GRACE)
    resumed = alone(folder, "resume", "run", "--model", "net.py:Net")
    assert resumed.returncode == 0, resumed.stderr
    assert "processes 2 → 1" in resumed.stderr and "may differ in the last digits" in resumed.stderr
    left, right = (np.array([float(row["loss"]) for row in rows(run / "steps.csv")]) for run in (folder / "run", whole))
    assert len(left) == len(right)
    np.testing.assert_allclose(left[:150], right[:150], rtol=5e-3)


@pytest.mark.slow
def test_what_is_told_once(folder: Path) -> None:
    """Faults that all processes see are told by one; verbs that are the work of one are refused."""
    for words, expected in {
        ("train", "digits", "--modle", "lenet5"): "error: unknown flag '--modle'",
        ("train", "digits", "--lr", "1e30", "--model", "mlp", "--recipe", "generic"): "error: the loss became",
        ("train", "digits", "--batch-size", "1", "--model", "mlp"): "error: a batch of 1 has no part for each of 2",
        ("eval", "runs/latest"): "error: eval is the work of one process",
    }.items():
        started = Started(folder, *words)
        said = started.end()
        assert started.process.returncode != 0
        assert said.count(expected) == 1 and said.count("error: ") == 1, said


SCRIPT = """
import os
import numpy as np
import striate

rank = int(os.environ["RANK"])
labels = np.arange(90) % 3
images = (np.random.default_rng(0).integers(0, 90, (90, 8, 8)) + 50 * labels[:, None, None]).astype(np.uint8)
if rank == 1 and os.environ["OTHER"] == "yes":
    images[0] = 0
run = striate.train((images, labels), model="mlp", epochs=3, batch_size=20, out="run", quiet=True)
print(f"{rank}: {run.folder} {len(run.results)}" if rank == 0 else f"{rank}: done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("other", ["no", "yes"])
def test_a_script_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    (folder / "mine.py").write_text(SCRIPT)
    monkeypatch.setenv("OTHER", other)
    started = Started(folder, "--help")  # replaced below: a script instead of the command
    started.end()
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "mine.py"],
        cwd=folder, text=True, capture_output=True, timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    said = process.stdout + process.stderr
    if other == "no":
        assert process.returncode == 0, said
        assert "0: run 3" in said and "1: done" in said, said
    else:
        assert process.returncode != 0
        assert "process 1 has other data than process 0" in said, said


@pytest.mark.slow
def test_a_length_in_time_is_fixed_once(folder: Path) -> None:
    words = [word for word in SETTINGS if word not in ("--epochs", "3")]
    started = Started(folder, *words, "--time", "6s", "--out", "run")
    said = started.end()
    assert started.process.returncode == 0, said
    length = json.loads((folder / "run" / "time.json").read_text())
    assert len(rows(folder / "run" / "steps.csv")) == length["total_steps"]


@pytest.mark.slow
def test_batchnorm_is_said_and_verify_has_words(folder: Path) -> None:
    started = Started(
        folder, "train", "digits", "--model", "resnet20", "--epochs", "1", "--out", "run", "--device", "cpu"
    )
    said = started.end()
    assert started.process.returncode == 0, said
    assert "BatchNorm measures each process's part" in said
    try:
        record = verify(folder / "run")
    except VerificationError as error:
        pytest.fail(str(error))
    assert record["steps"]["compared"] == 0 and record["environment"]["processes"] == [2, 1]
