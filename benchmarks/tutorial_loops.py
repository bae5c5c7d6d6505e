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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


def article_parts(name: str) -> tuple[Any, Any, int, Callable[[Any, Any], Any], Any]:
    """Return net, data set, batch size, loss and optimizer as the article has them."""
    import torch
    from torch import nn
    from torchvision import datasets, transforms

    root = os.environ["UNPACKED"]
    to_tensor = transforms.ToTensor()
    half = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if name in ("mlp", "strided-cnn"):
        if name == "mlp":
            net = nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.LeakyReLU(0.02), nn.Linear(200, 10), nn.Sigmoid())
        else:
            net = nn.Sequential(
                nn.Conv2d(1, 10, 5, stride=2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
                nn.Conv2d(10, 10, 3, stride=2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
                nn.Flatten(), nn.Linear(250, 10), nn.Sigmoid(),
            )  # fmt: skip
        binary = nn.BCELoss()

        def one_hot_loss(outputs: Any, labels: Any) -> Any:
            targets = torch.zeros(len(labels), 10)
            targets[range(len(labels)), labels] = 1.0
            return binary(outputs, targets)

        data = datasets.MNIST(root, train=True, transform=to_tensor)
        return net, data, 1, one_hot_loss, torch.optim.Adam(net.parameters(), lr=0.001)
    if name == "lenet5":
        net = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
            nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
            nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
        )  # fmt: skip
        data = datasets.FashionMNIST(root, train=True, transform=to_tensor)
        return net, data, 256, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.9)
    if name == "simple-cnn":
        net = nn.Sequential(
            nn.Conv2d(3, 18, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(),
            nn.Linear(4608, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        data = Cifar(transforms.Compose([to_tensor, half]), 20_000)
        return net, data, 32, nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=0.001)
    if name == "alexnet":
        net = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten(),
            nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(inplace=True),
            nn.Dropout(), nn.Linear(4096, 1024), nn.ReLU(inplace=True), nn.Linear(1024, 10),
        )  # fmt: skip
        data = Cifar(transforms.Compose([transforms.Resize((96, 96)), to_tensor, half]), 2_000)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.001, weight_decay=0.0001)
        return net, data, 500, nn.CrossEntropyLoss(), optimizer
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip
    data = datasets.MNIST(root, train=True, transform=to_tensor)
    return net, data, 64, nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=0.01)


class Cifar:
    """CIFAR-10 in memory, one PIL picture at a time: what torchvision's class does, which reads only the pickles."""

    def __init__(self, transform: Callable[[Any], Any], pictures: int) -> None:
        from striate.data.builtin import load_named

        train = load_named("cifar10", download=False).train
        self.images, self.labels = train.images[:pictures], train.labels[:pictures].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def run_article(name: str) -> float:
    """Train as the article does; return pictures per second."""
    import torch
    from torch.utils.data import DataLoader

    case = CASES[name]
    torch.manual_seed(0)
    net, data, batch_size, loss_function, optimizer = article_parts(name)
    loader = DataLoader(data, batch_size=batch_size, shuffle=True)

    def train(pictures: int) -> int:
        net.train()
        seen, total, correct = 0, 0.0, 0
        for images, labels in loader:
            outputs = net(images)
            loss = loss_function(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            correct += int((outputs.argmax(1) == labels).sum())
            seen += len(labels)
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
    environment = {**os.environ, "UNPACKED": unpacked}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} ({side}) failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


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
    from common import spread

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
