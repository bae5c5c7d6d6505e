"""10,000 pictures answered by striate's predictor and by a plain torch loop, in turn: pictures per second.

    python benchmarks/answers.py [--rounds 5] [--pictures 10000] [--only lenet5,airnet]
    python benchmarks/answers.py --sizes 25,64,125,250,500,1000

The plain loop is what one writes: evaluation mode, no gradients, a DataLoader with batches of 64 over uint8 tensors,
x / 255 and normalised batch by batch. Both sides get the same weights and the same random pictures; the last column is
the largest difference of their logits. `--sizes` compares batch sizes of the predictor instead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import plain_preprocess
from figures import numbers, spread
from pictures import random_pictures
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from striate.models.registry import create_model
from striate.predictor.predictor import Predictor
from striate.predictor.torch_backend import predictor_of

CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "lenet5": (1, 28, {"activation": "relu", "pool": "max"}),
    "strided-cnn": (1, 28, {}),
    "simple-cnn": (3, 32, {}),
    "airnet": (3, 32, {"widths": (64, 256, 256)}),
    "alexnet": (3, 96, {}),
}


def plain_loop(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return logits as the usual loop gives them."""
    channels = images.shape[3]
    mean, std = (torch.full((1, channels, 1, 1), value / 255) for value in (127.5, 73.9))
    data = TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    answers = []
    with torch.no_grad():
        for (batch,) in DataLoader(data, batch_size=64):
            answers.append(net((batch.float() / 255 - mean) / std))
    return torch.cat(answers).numpy()


def build(name: str) -> tuple[nn.Module, Predictor]:
    """Return a net in torch's own layout, and a predictor with the same weights."""
    channels, side, options = CASES[name]
    torch.manual_seed(0)
    net = create_model(name, 10, channels, side, **options).eval()
    copied: Any = create_model(name, 10, channels, side, **options).eval()
    copied.load_state_dict(net.state_dict())
    copied = copied.to(memory_format=torch.channels_last)
    return net, predictor_of(copied, plain_preprocess(side, channels), [str(i) for i in range(10)], fold=True)


def timed(work: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> tuple[float, np.ndarray]:
    """Return pictures per second, and the answers."""
    began = time.perf_counter()
    answers = work(images)
    return len(images) / (time.perf_counter() - began), answers


def measure(name: str, rounds: int, count: int) -> tuple[list[float], list[float], float]:
    """Return pictures per second of both sides, and the largest difference of the logits."""
    channels, side, _ = CASES[name]
    net, predictor = build(name)
    images, _ = random_pictures(count, side, channels)
    plain_loop(net, images[:128]), predictor.logits(images[:500])  # not counted
    theirs, ours, difference = [], [], 0.0
    for _ in range(rounds):
        speed, wanted = timed(lambda some: plain_loop(net, some), images)
        theirs.append(speed)
        speed, found = timed(predictor.logits, images)
        ours.append(speed)
        difference = max(difference, float(np.abs(wanted - found).max()))
    return theirs, ours, difference


def measure_sizes(name: str, rounds: int, count: int, sizes: list[int]) -> list[list[float]]:
    """Return pictures per second of the predictor, for each batch size those of all rounds."""
    channels, side, _ = CASES[name]
    _, predictor = build(name)
    images, _ = random_pictures(count, side, channels)
    predictor.logits(images[:500])  # not counted
    speeds: list[list[float]] = [[] for _ in sizes]
    for _ in range(rounds):
        for size, found in zip(sizes, speeds, strict=True):
            found.append(timed(lambda some, size=size: predictor.logits(some, size), images)[0])
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--sizes", type=numbers)
    arguments = parser.parse_args()
    if arguments.sizes:
        print(f"| net | {' | '.join(map(str, arguments.sizes))} |\n|---|{'---|' * len(arguments.sizes)}")
        for name in arguments.only.split(","):
            speeds = measure_sizes(name, arguments.rounds, arguments.pictures, arguments.sizes)
            print(f"| {name} | {' | '.join(spread(found) for found in speeds)} |", flush=True)
        return
    print("| net | plain loop, pictures/s | striate, pictures/s | ratio | largest difference |\n|---|---|---|---|---|")
    for name in arguments.only.split(","):
        theirs, ours, difference = measure(name, arguments.rounds, arguments.pictures)
        ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
        figures = f"{spread(theirs)} | {spread(ours)} | {spread(ratios, '{:.2f}')} | {difference:.1g}"
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
