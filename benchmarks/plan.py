"""Is the plan ever slower than plain fp32? The nets of the registry under their plan and under torch's defaults.

    python benchmarks/plan.py [--rounds 5] [--batch 64] [--steps 8] [--only lenet5,airnet] [--precision auto]

Of nets of one class only the smallest is tried, unless --only names others. Each trains on random pictures of its own
size, or the smallest it takes where that is large, in turn as the plan says and in fp32 with torch's own layout,
threads and kernels. One epoch of each goes before and is not counted. A ratio above 1 means that the plan is quicker.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from common import CPU, epoch_seconds, make_learner, small_input
from figures import spread
from torch import nn

from striate.device import Plan, available_threads, make_plan, processor_flags
from striate.models.registry import create_model, list_families
from striate.models.summary import summarise


def measure(name: str, batch_size: int, steps: int, rounds: int, precision: str) -> tuple[Plan, list[float]]:
    """Return the plan, and for each round the seconds of plain fp32 over those of the plan."""
    channels, side = small_input(name)
    torch.manual_seed(0)
    nets = [create_model(name, 10, channels, side) for _ in range(2)]
    plan = make_plan(
        CPU,
        precision=precision,
        threads=0,
        step_macs=summarise(nets[0], (channels, side, side)).macs * batch_size,
        channels_last=any(isinstance(module, nn.Conv2d) for module in nets[0].modules()),
        flags=processor_flags(),
        available_threads=available_threads(),
    )
    plain = Plan("fp32", False, available_threads(), True, "torch's defaults")
    learners = [
        make_learner(net, chosen, side=side, channels=channels, batch_size=batch_size, steps=steps)
        for net, chosen in zip(nets, (plain, plan), strict=True)
    ]
    for learner in learners:  # not counted
        epoch_seconds(learner)
    ratios = []
    for _ in range(rounds):
        seconds = [epoch_seconds(learner) for learner in learners]
        ratios.append(seconds[0] / seconds[1])
    return plan, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="steps an epoch")
    parser.add_argument("--only", default=",".join(family[0] for family in list_families()))
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    print("| net, input | plan | plain fp32 / plan |\n|---|---|---|")
    slower = []
    for name in arguments.only.split(","):
        channels, side = small_input(name)
        plan, ratios = measure(name, arguments.batch, arguments.steps, arguments.rounds, arguments.precision)
        told = f"{plan.precision}, {plan.threads} threads: {plan.reason}"
        print(f"| {name}, {channels}×{side}×{side} | {told} | {spread(ratios, '{:.2f}')} |", flush=True)
        if statistics.median(ratios) < 1.0:
            slower.append(name)
    print("slower in the median: " + (", ".join(slower) or "none"))


if __name__ == "__main__":
    main()
