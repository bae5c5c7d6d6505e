"""SIGTERM and SIGINT: the first saves at the current step and ends, the second ends at once; nothing is lost."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.conftest import Count, Timing
from tests.faults.trainings import NET, Host, assert_same_run, newest_step, train_arguments, wait_for_step, wait_until

from striate.runs.journal import read_steps

SIGNALS = [signal.SIGTERM, signal.SIGINT]
PROMISED = 10.0  # seconds from the first signal to the end
AT_ONCE = 5.0  # a busy machine is slow to write even that it was interrupted

Finish = Callable[[Path], Path]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_once(
    host: Host, place: Path, whole: Path, finish: Finish, number: signal.Signals, count: Count, timing: Timing
) -> None:
    run = place / "run"
    process = host.start(place, *train_arguments("run", "--save-every", "none"))
    wait_for_step(process, run, 22)  # the second epoch
    sent = process.signal(number)
    assert process.wait() == 128 + number, process.stderr
    seconds = process.seconds_to_end(sent)
    timing(f"{number.name} to the end", seconds)
    assert seconds < PROMISED
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "interrupted" and number.name in status["reason"]
    assert newest_step(run) == status["step"] == len(read_steps(run)[0]) >= 22, "not saved at the current step"
    assert f"step {status['step']}" in process.stderr and "striate resume run" in process.stderr
    assert_same_run(whole, finish(run))
    count("signals survived", 1, 1)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_twice(
    host: Host, place: Path, whole: Path, finish: Finish, number: signal.Signals, count: Count, timing: Timing
) -> None:
    """The second one comes while the first one's save waits for a slow disk."""
    run = place / "run"
    arguments = train_arguments("run", "--save-every", "none")
    process = host.start(place, *arguments, disturb={"seconds_a_sync": 0.1})
    wait_for_step(process, run, 22)
    process.signal(number)
    time.sleep(0.2)
    assert process.is_running(), "the first signal saves, and a save takes long here"
    sent = process.signal(number)
    assert process.wait() == 128 + number, process.stderr
    seconds = process.seconds_to_end(sent)
    timing(f"{number.name} twice to the end", seconds)
    assert seconds < AT_ONCE
    assert_same_run(whole, finish(run))
    count("signals survived", 1, 1)


# Asleep for a minute where it answers, as a large net would be at work.
SLOW_NET = "import time\n" + NET.replace("return self", "time.sleep(60 * (not self.training and WHEN)); return self")
ASLEEP = {"validation": "len(x) == 153", "test": "len(x) > 64 and len(x) != 153"}


@pytest.mark.parametrize(("what", "step"), [("validation", 22), ("test", 66)])
def test_while_answers_are_computed(
    host: Host, place: Path, whole: Path, finish: Finish, what: str, step: int, count: Count, timing: Timing
) -> None:
    """Validation and test may take long, and the promised time holds there too."""
    run = place / "run"
    (place / "net.py").write_text(SLOW_NET.replace("WHEN", ASLEEP[what]), encoding="utf-8")
    process = host.start(place, *train_arguments("run"))
    wait_for_step(process, run, step)
    time.sleep(0.5)
    assert process.is_running()
    sent = process.signal(signal.SIGTERM)
    assert process.wait() == 143, process.stderr
    seconds = process.seconds_to_end(sent)
    timing(f"SIGTERM in {what} to the end", seconds)
    assert seconds < PROMISED
    assert newest_step(run) == step
    (place / "net.py").write_text(NET, encoding="utf-8")
    assert_same_run(whole, finish(run))
    count("signals survived", 1, 1)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_before_the_first_step(host: Host, place: Path, number: signal.Signals, count: Count) -> None:
    """While data and net are prepared there is nothing to save."""
    process = host.start(place, *train_arguments("run"))
    wait_until((place / "stderr.txt").exists)
    process.signal(number)
    assert process.wait() == 128 + number, process.stderr
    assert not (place / "run" / "weights" / "best.safetensors").exists()
    count("signals survived", 1, 1)
