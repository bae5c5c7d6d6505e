"""Sides of the benchmark of time to accuracy: reached, stopped, absent, crashed; a made peer stands for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# What the peer does is its seed; each epoch is two steps on four pictures, and the answers get better with the epochs.
PEER = """
import sys, time
import numpy as np
sys.path.insert(0, {peers!r})
from protocol import Race

race = Race.of_command_line()
reached, ends, hurries, crashes, silent, wrong = range(6)
if race.seed == crashes:
    raise RuntimeError("no such layer")
race.start()
epochs = 0
def predict():
    time.sleep(0.05)
    right = epochs * len(race.test_labels) // 4
    found = race.test_labels + (np.arange(len(race.test_labels)) >= right)
    return found[:1] if race.seed == wrong else found

over = False
while epochs < (2 if race.seed == ends else 1000) and not over:
    for _ in range(2):
        time.sleep(0.01)
        over = race.step(4)
    if race.seed == hurries and not over:
        continue
    epochs += 1
    over = race.judge(predict) or over
if race.seed == silent:
    print("done")
else:
    race.finish(predict, peer="1.0")
"""


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import time_to_accuracy  # type: ignore[import-not-found]

    return time_to_accuracy


@pytest.fixture
def run(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the made peer with a seed and a limit."""
    from peers.protocol import save_arrays  # type: ignore[import-not-found]

    for part, count in (("train", 8), ("test", 4)):
        save_arrays(tmp_path, part, np.zeros((count, 2, 2, 1), np.uint8), np.arange(count) % 2)
    peer = tmp_path / "peer.py"
    peer.write_text(PEER.format(peers=str(BENCHMARKS / "peers")))
    return lambda seed, limit: benchmark.run_peer([sys.executable, str(peer)], "mnist", "peer", seed, limit, tmp_path)


def test_a_peer_that_reaches_the_target_is_stopped_there(run: Any) -> None:
    outcome = run(0, 60.0)
    assert (outcome.stopped, outcome.accuracy, outcome.best) == ("reached", 1.0, 1.0)
    assert outcome.pictures == 4 * 8  # four epochs
    assert outcome.seconds >= 0.08  # eight steps of 0.01 s
    assert outcome.prompt > outcome.seconds
    assert outcome.versions == {"peer": "1.0"}
    assert "| reached |" in outcome.row() and "100.00%" in outcome.row()


def test_being_asked_is_not_on_the_clock(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peers import protocol  # type: ignore[import-not-found]

    now = [0.0]
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: now[0])
    for part in protocol.PARTS:
        protocol.save_arrays(tmp_path, part, np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int64))
    race = protocol.Race("mnist", tmp_path, 0, 0.9, 10.0)
    now[0] += 5  # reading
    race.start()
    now[0] += 3
    assert not race.step(4)

    def predict() -> np.ndarray:
        now[0] += 100
        return np.ones(4, np.int64)

    assert not race.judge(predict)
    assert (race.seconds, race.unclocked) == (3.0, 100.0)
    now[0] += 7
    assert race.step(4)  # the time is over
    assert race.judge(lambda: np.zeros(4, np.int64)) and race.reached


def test_a_recipe_that_ends_before_the_target(run: Any) -> None:
    outcome = run(1, 60.0)
    assert (outcome.stopped, outcome.accuracy, outcome.pictures) == ("end", 0.5, 16)
    assert "its recipe ended" in outcome.row()


def test_a_peer_that_is_stopped_within_an_epoch_is_asked_all_the_same(run: Any) -> None:
    outcome = run(2, 0.2)
    assert outcome.stopped == "limit"
    assert outcome.seconds >= 0.2
    assert outcome.accuracy == 0.25  # asked once
    assert "| stopped |" in outcome.row()


@pytest.mark.parametrize(
    ("seed", "reason"),
    [(3, "RuntimeError: no such layer"), (4, "ended without an answer: done"), (5, "predictions for")],
)
def test_a_peer_that_fails_is_told(run: Any, seed: int, reason: str) -> None:
    outcome = run(seed, 60.0)
    assert outcome.stopped == "failed"
    assert reason in outcome.told and reason in outcome.row()


def test_a_peer_that_hangs_is_ended(run: Any, benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "GRACE", 0.5)
    monkeypatch.setattr(benchmark, "SLOW", 0.0)
    outcome = run(2, 3600.0)
    assert (outcome.stopped, outcome.told) == ("failed", "no answer after 0 s")


def test_the_command_goes_on_where_an_environment_is_absent(data_root: Path, tmp_path: Path) -> None:
    script = str(BENCHMARKS / "time_to_accuracy.py")
    command = [sys.executable, script, "--data", "mnist", "--only", "keras_jax,skorch", "--limit", "1"]
    command += ["--pictures", "50", "--environments", str(tmp_path), "--json", str(tmp_path / "out.json")]
    environ = {**os.environ, "STRIATE_DATA": str(data_root)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert "time_to_accuracy.py --prepare keras_jax" in done.stdout
    told = json.loads((tmp_path / "out.json").read_text())
    assert [(one["side"], one["seed"], one["stopped"]) for one in told] == [
        (side, seed, "absent") for seed in (0, 1) for side in ("keras_jax", "skorch")
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--only", "tensorflow"], "tensorflow: not one of striate"), (["--only", "fastai"], "give --limit SECONDS")],
)
def test_what_cannot_be_run_is_refused(words: list[str], told: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "time_to_accuracy.py"), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "STRIATE_DATA": str(tmp_path)}
    )
    assert done.returncode and told in done.stderr


def test_every_peer_has_a_script_that_cites_its_page(benchmark: Any) -> None:
    for name in benchmark.environments.NAMES:
        script = (BENCHMARKS / "peers" / f"run_{name}.py").read_text(encoding="utf-8")
        assert "https://" in script.split('"""')[1], name
