"""Seconds to an accuracy: MNIST 99 %, Fashion-MNIST 93 %, CIFAR-10 90 %; striate, the articles, other frameworks.

    python benchmarks/time_to_accuracy.py [--data mnist,fashion-mnist] [--seeds 0,1] [--only striate,lenet5,fastai]
        [--times 3 | --limit SECONDS] [--environments DIR] [--pictures N] [--json out.json]
    python benchmarks/time_to_accuracy.py --prepare keras_jax

striate trains by its recipes `mnist-99`, `fashion-93` and `cifar10-90`, through the command; an article's side is the
article's own loop (article_loop.py); each other framework trains by a recipe of its own documents, named in its script
in peers/, in an environment of its own (environments.py), and is left out, with a word, where that is absent. Once for
each seed, one after the other, each in its own process; a side is stopped at --times the seconds that striate trained
with the same seed (striate then has to be among the sides), or at --limit.

The clock of training runs from the first step, compiling included, and stands while the test pictures are asked, which
the others are after every epoch and when they are stopped; the first epoch's end at which they reach the target counts.
striate is asked once, when its recipe has ended. All are judged by `accuracy_of` in peers/protocol.py; where the recipe
has test-time augmentation striate's accuracy is with it, and stands without it beside. Prompt to prompt is the whole
process less the asking; for striate nothing is taken off, neither its test nor its reading of the data set, while the
others are handed arrays (Ultralytics: PNG files). Its whitening of the first layer comes before its first step, and so
counts from prompt to prompt alone. Nobody trains on test pictures, but all sides except striate are stopped by them.

--pictures trains on the first N and tests on the first N / 5: a trial of the machinery. Data: STRIATE_DATA.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import environments
import numpy as np
from figures import numbers
from peers.protocol import accuracy_of, save_arrays

HERE = Path(__file__).resolve().parent
ANSWER = ("stopped", "seconds", "accuracy", "best", "pictures", "unclocked", "versions")
GRACE = 600.0  # seconds that a side may take over its limit, for importing, reading and being asked, before it is ended
SLOW = 10.0  # and times its limit


@dataclass(frozen=True)
class Goal:
    """A data set, the accuracy wanted, striate's recipe for it, and the articles that train on it."""

    target: float
    recipe: str
    articles: tuple[str, ...]


GOALS = {
    "mnist": Goal(0.99, "mnist-99", ("strided-cnn", "three-conv")),
    "fashion-mnist": Goal(0.93, "fashion-93", ("lenet5",)),
    "cifar10": Goal(0.90, "cifar10-90", ("simple-cnn", "alexnet")),
}
ARTICLES = tuple(name for goal in GOALS.values() for name in goal.articles)
SIDES = ("striate", *ARTICLES, *environments.NAMES)
HEAD = "data, target | side | seed | outcome | training, s | prompt to prompt, s | test accuracy | best | pictures seen"


@dataclass(frozen=True)
class Outcome:
    """How one side did; `stopped` is reached, limit, end (of its recipe), absent or failed, for a reason `told`."""

    data: str
    side: str
    seed: int
    stopped: str
    told: str = ""
    seconds: float = 0.0
    prompt: float = 0.0
    accuracy: float = 0.0
    best: float = 0.0
    pictures: int = 0
    versions: dict[str, str] | None = None

    def row(self) -> str:
        """Return a line of the table."""
        begins = f"| {self.data}, {GOALS[self.data].target:.0%} | {self.side} | {self.seed}"
        if self.stopped in ("absent", "failed"):
            return f"{begins} | {self.stopped}: {self.told.replace('|', '/')} | | | | | |"
        words = {"limit": "stopped", "end": "its recipe ended"}
        told = words.get(self.stopped, self.stopped) + (f"; {self.told}" if self.told else "")
        figures = f"{self.seconds:.1f} | {self.prompt:.1f} | {self.accuracy:.2%} | {self.best:.2%} | {self.pictures:,}"
        return f"{begins} | {told} | {figures} |"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no word"


def ask(command: list[str], environ: dict[str, str], folder: Path, limit: float) -> tuple[dict[str, Any] | str, float]:
    """Run a peer; return its answer, or why it gave none, and the seconds of its process."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, env=environ, cwd=folder, capture_output=True, text=True, check=False, timeout=GRACE + SLOW * limit
        )
    except subprocess.TimeoutExpired as late:
        return f"no answer after {late.timeout:.0f} s", time.perf_counter() - began
    seconds = time.perf_counter() - began
    if done.returncode:
        return f"exit code {done.returncode}: {last_line(done.stderr)}", seconds
    try:
        answer = json.loads(last_line(done.stdout))
        return {name: answer[name] for name in ANSWER}, seconds
    except (ValueError, KeyError, TypeError):
        return f"it ended without an answer: {last_line(done.stdout)[:200]}", seconds


def run_peer(command: list[str], data: str, side: str, seed: int, limit: float, folder: Path) -> Outcome:
    """Run one side that is not striate; `command` is a peer's, without the arguments that all take."""
    told = {"data": data, "folder": folder, "seed": seed, "target": GOALS[data].target, "limit": limit}
    arguments = [word for name, value in told.items() for word in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory() as work:
        answer, seconds = ask([*command, *arguments], environments.environ_of(work), Path(work), limit)
    if isinstance(answer, str):
        return Outcome(data, side, seed, "failed", answer)
    unclocked = answer.pop("unclocked")
    return Outcome(data, side, seed, prompt=seconds - unclocked, **answer)


def run_striate(data: str, seed: int, counts: tuple[int, int] | None) -> Outcome:
    """Run `striate train` with the recipe; `counts` are the train and test pictures of a trial."""
    goal = GOALS[data]
    with tempfile.TemporaryDirectory() as work:
        run = Path(work) / "run"
        command = [sys.executable, "-m", "striate", "train", "--recipe", goal.recipe, "--seed", str(seed)]
        if counts:
            command += ["--train-range", f"0:{counts[0]}", "--test-range", f"0:{counts[1]}"]
        began = time.perf_counter()
        done = subprocess.run([*command, "--out", str(run)], capture_output=True, text=True, check=False)
        prompt = time.perf_counter() - began
        if done.returncode:
            return Outcome(data, "striate", seed, "failed", last_line(done.stderr))
        with (run / "results.csv").open(encoding="utf-8", newline="") as file:
            last = list(csv.DictReader(file))[-1]
        with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
            answers = list(csv.DictReader(file))
        evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        split = json.loads((run / "split.json").read_text(encoding="utf-8"))
        versions = json.loads((run / "env.json").read_text(encoding="utf-8"))
    plain = accuracy_of(*(np.array([answer[column] for answer in answers]) for column in ("prediction", "label")))
    augmented = evaluation.get("top1_tta")
    accuracy = augmented["value"] if augmented else plain
    return Outcome(
        data,
        "striate",
        seed,
        "reached" if accuracy >= goal.target else "end",
        f"{plain:.2%} without test-time augmentation" if augmented else "",
        float(last["seconds"]),
        prompt,
        accuracy,
        accuracy,
        len(split["train"]["indices"]) * int(last["epoch"]),
        {name: versions[name] for name in ("striate", "torch") if name in versions},
    )


def write_arrays(data: str, folder: Path, counts: tuple[int, int] | None) -> None:
    """Write a data set of STRIATE_DATA as the arrays that all peers read."""
    import striate

    parts = striate.load_named(data)
    for name, part, count in zip(("train", "test"), (parts.train, parts.test), counts or (None, None)):
        assert part is not None
        save_arrays(folder, name, part.images[:count], part.labels[:count])


def side_command(side: str, folder: Path) -> list[str]:
    """Return the command of a side that is not striate, without the arguments that all take."""
    if side in ARTICLES:
        return [sys.executable, str(HERE / "article_loop.py"), "--net", side]
    return [str(environments.python_of(folder, side)), str(environments.PEERS / f"run_{side}.py")]


def outcomes(arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Run all sides, one after the other."""
    counts = (arguments.pictures, max(1, arguments.pictures // 5)) if arguments.pictures else None
    for data in arguments.data:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_arrays(data, folder, counts)
            others = [side for side in arguments.only if side in (*GOALS[data].articles, *environments.NAMES)]
            for seed in arguments.seeds:
                limit = arguments.limit
                if "striate" in arguments.only:
                    ours = run_striate(data, seed, counts)
                    limit = limit or arguments.times * ours.seconds
                    yield ours
                for side in others:
                    reason = None
                    if side in environments.NAMES:
                        reason = environments.why_absent(arguments.environments, side)
                    reason = reason or ("" if limit else "striate failed, so there is no limit")
                    if reason:
                        yield Outcome(data, side, seed, "absent", reason)
                        continue
                    command = side_command(side, arguments.environments)
                    yield run_peer(command, data, side, seed, limit, folder)


def listed(allowed: tuple[str, ...]) -> Any:
    """Return a reader of names with commas between them."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(allowed)}")
        return [name for name in allowed if name in names]

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=listed(tuple(GOALS)), default=list(GOALS))
    parser.add_argument("--seeds", type=numbers, default=[0, 1])
    parser.add_argument("--only", type=listed(SIDES), default=list(SIDES), help=", ".join(SIDES))
    parser.add_argument("--times", type=float, default=3.0, help="a side's limit, in striate's seconds of training")
    parser.add_argument("--limit", type=float, help="a side's limit in seconds of training, instead of --times")
    parser.add_argument("--pictures", type=int, help="train on the first N and test on the first N / 5")
    parser.add_argument("--json", type=Path)
    environments.add_arguments(parser)
    arguments = parser.parse_args()
    arguments.environments = arguments.environments.expanduser().resolve()
    if arguments.prepare:
        environments.prepare(arguments.environments, arguments.prepare)
        return
    if not os.environ.get("STRIATE_DATA"):
        raise SystemExit("set STRIATE_DATA to the folder of the data sets")
    if arguments.limit is None and "striate" not in arguments.only:
        raise SystemExit("without striate among the sides their limit is not known: give --limit SECONDS")
    print(f"| {HEAD} |\n|{'---|' * (HEAD.count('|') + 1)}")
    found = []
    for outcome in outcomes(arguments):
        found.append(outcome)
        print(outcome.row(), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")
    versions = {f"{name} {number}" for one in found for name, number in (one.versions or {}).items()}
    print(f"\n{', '.join(sorted(versions))}")


if __name__ == "__main__":
    main()
