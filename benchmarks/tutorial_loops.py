"""The five articles' own loops against striate: same net and batch size; pictures per second.

    python benchmarks/tutorial_loops.py [--rounds 5] [--only lenet5,alexnet] [--json out.json]

Each side runs in its own process, the two in turn. An article's side is what the article does, written afresh:
torchvision's transforms on one picture at a time (`ToTensor`, `Normalize`, `Resize`), a DataLoader without workers,
forward, `loss.item()`, backward, step, fp32. striate's side is its own training loop with the recipe of that article:
once in fp32, the article's own arithmetic, and once with the plan free to choose, which is bf16 where the processor has
it and the steps are large. Where the plan chooses fp32 the two are the same, and measured once.
One part of an epoch is run first and not counted. Data: STRIATE_DATA. Needs torchvision (the dev extra).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import figure_of, spread


@dataclass(frozen=True)
class Case:
    """One article: recipe, how many pictures are trained for the clock, and how many before it."""

    recipe: str
    pictures: int
    warm_up: int


CASES = {
    "strided-cnn": Case("tutorial-strided-cnn", 6_000, 500),
    "mlp": Case("tutorial-mlp", 6_000, 500),
    "lenet5": Case("tutorial-lenet5", 60_000, 5_120),
    "simple-cnn": Case("tutorial-simple-cnn", 20_000, 1_600),
    "alexnet": Case("tutorial-alexnet", 1_500, 500),
    "three-conv": Case("tutorial-three-conv", 30_000, 3_200),
}


def article_data(name: str, article: Any) -> Any:
    """Return the train pictures as the article reads them; CIFAR-10 from memory, torchvision reads only pickles."""
    from peers.torch_pictures import Pictures
    from torchvision import datasets

    if article.data != "cifar10":
        kind = datasets.MNIST if article.data == "mnist" else datasets.FashionMNIST
        return kind(os.environ["UNPACKED"], train=True, transform=article.transform)
    import striate

    train = striate.load_named("cifar10").train
    count = max(CASES[name].pictures, CASES[name].warm_up)
    return Pictures(train.images[:count], train.labels[:count], article.transform)


def run_article(name: str) -> float:
    """Train as the article does; return pictures per second."""
    import torch
    from articles import make_article, train_steps
    from torch.utils.data import DataLoader

    case = CASES[name]
    torch.manual_seed(0)
    article = make_article(name)
    loader = DataLoader(article_data(name, article), batch_size=article.batch_size, shuffle=True)

    def train(pictures: int) -> int:
        seen = 0
        for count in train_steps(article, loader):
            seen += count
            if seen >= pictures:
                break
        return seen

    train(case.warm_up)
    began = time.perf_counter()
    seen = train(case.pictures)
    return seen / (time.perf_counter() - began)


def warmed_job(case: Case, folder: str, precision: str = "fp32") -> Any:
    """Return a striate job with a recipe, at the start of an epoch, its first steps done."""
    from striate.settings.layers import resolve_train
    from striate.training.begin import start_job
    from striate.training.loop import train_epoch

    settings, _, _ = resolve_train(
        {
            "recipe": case.recipe,
            "out": f"{folder}/run",
            "train_range": f"0:{max(case.pictures, case.warm_up)}",
            "precision": precision,
        },
        origin="argument",
        environ={},
    )
    job = start_job(settings, report=lambda line: None)
    for _ in train_epoch(job.learner, job.progress):
        if job.progress.seen >= case.warm_up:
            break
    job.progress.next_epoch()
    return job


def run_striate(name: str, precision: str) -> float:
    """Train with striate's own loop and the article's recipe; return pictures per second."""
    from striate.training.loop import train_epoch

    with tempfile.TemporaryDirectory() as folder:
        job = warmed_job(CASES[name], folder, precision)
        if precision != "fp32" and job.learner.plan.precision == "fp32":
            return 0.0  # the same again
        began = time.perf_counter()
        rows = [row for block in train_epoch(job.learner, job.progress) for row in block]
        seconds = time.perf_counter() - began
        job.journal.add_steps(rows)
        return job.progress.seen / seconds


def unpack(target: Path) -> None:
    """Unpack the IDX files, which torchvision reads only so."""
    for packed in Path(os.environ["STRIATE_DATA"]).glob("*MNIST/raw/*.gz"):
        plain = target / packed.parent.parent.name / "raw" / packed.stem
        plain.parent.mkdir(parents=True, exist_ok=True)
        plain.write_bytes(gzip.decompress(packed.read_bytes()))


def measure(name: str, side: str, unpacked: str) -> float:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--child", side, "--only", name]
    return figure_of(f"{name} ({side})", command, {**os.environ, "UNPACKED": unpacked})


SIDES: dict[str, Callable[[str], float]] = {
    "article": run_article,
    "striate": lambda name: run_striate(name, "fp32"),
    "plan": lambda name: run_striate(name, "auto"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not os.environ.get("STRIATE_DATA"):
        raise SystemExit("set STRIATE_DATA to the folder of the data sets")
    if arguments.child:
        print(json.dumps(SIDES[arguments.child](arguments.only)))
        return
    results = {}
    temporary = tempfile.TemporaryDirectory()
    unpack(Path(temporary.name))
    print("| article's net | article, pictures/s | striate, pictures/s | ratio | with the plan, pictures/s | ratio |")
    print("|---|---|---|---|---|---|")
    for name in arguments.only.split(","):
        rounds = [[measure(name, side, temporary.name) for side in SIDES] for _ in range(arguments.rounds)]
        article, ours, planned = (list(side) for side in zip(*rounds))
        planned = [b or a for a, b in zip(ours, planned)]
        ratios, planned_ratios = ([b / a for a, b in zip(article, side)] for side in (ours, planned))
        results[name] = {"article": article, "striate": ours, "ratio": ratios, "plan": planned}
        cells = (
            spread(article),
            spread(ours),
            spread(ratios, "{:.2f}"),
            spread(planned),
            spread(planned_ratios, "{:.2f}"),
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
