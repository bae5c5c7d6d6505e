"""From which size of step on do a second thread and oneDNN's kernels pay? Sets the limits in device.py.

    python benchmarks/small_steps.py [--rounds 3]

Trains each net on random pictures with three plans in turn: plain kernels on one thread, oneDNN on one thread, oneDNN
on all threads; prints microseconds a step (median of the rounds) beside the step's multiply-adds.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from common import epoch_seconds, make_learner

from striate.device import Plan
from striate.models.registry import create_model
from striate.models.summary import summarise

CASES = (
    ("mlp", 28, 1), ("mlp", 28, 16), ("mlp", 28, 64), ("mlp", 28, 256),
    ("strided-cnn", 28, 1), ("strided-cnn", 28, 16), ("strided-cnn", 28, 64), ("strided-cnn", 28, 256),
    ("three-conv", 8, 64), ("three-conv", 28, 4), ("three-conv", 28, 16), ("three-conv", 28, 64),
    ("lenet5", 28, 1), ("lenet5", 28, 8), ("lenet5", 28, 32), ("lenet5", 28, 128),
)  # fmt: skip


def microseconds(net: str, side: int, batch_size: int, threads: int, onednn: bool) -> tuple[float, int]:
    """Return microseconds a step, and the multiply-adds of its forward pass."""
    torch.manual_seed(0)
    module = create_model(net, 10, 1, side)
    steps = max(20, min(400, 4_000 // batch_size))
    plan = Plan("fp32", True, threads, onednn, "")
    learner = make_learner(module, plan, side=side, channels=1, batch_size=batch_size, steps=steps, optimizer="adam")
    epoch_seconds(learner)  # not counted
    return epoch_seconds(learner) / steps * 1e6, summarise(module, (1, side, side)).macs * batch_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    threads = torch.get_num_threads()
    plans = ((1, False), (1, True), (threads, True))
    print(
        f"| net, side, batch | million multiply-adds | plain, 1 thread | oneDNN, 1 thread | oneDNN, {threads} threads |"
    )
    print("|---|---|---|---|---|")
    rows = []
    for net, side, batch_size in CASES:
        timed: list[list[float]] = [[] for _ in plans]
        macs = 0
        for _ in range(rounds):
            for times, (number, onednn) in zip(timed, plans, strict=True):
                value, macs = microseconds(net, side, batch_size, number, onednn)
                times.append(value)
        rows.append((macs, f"{net}, {side}, {batch_size}", [statistics.median(times) for times in timed]))
    for macs, name, medians in sorted(rows):
        cells = " | ".join(
            f"{'**' if m == min(medians) else ''}{m:,.0f}{'**' if m == min(medians) else ''}" for m in medians
        )
        print(f"| {name} | {macs / 1e6:.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
