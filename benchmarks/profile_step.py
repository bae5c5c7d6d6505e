"""Where does a training step's time go? Two profiles of an epoch in striate.

    python benchmarks/profile_step.py [--only lenet5]
    python benchmarks/profile_step.py --kernels [--only airnet,lenet5]

The first is by Python's own profiler, for the articles' small steps. It slows Python down and not the kernels, so the
share of Python is an upper bound. `--kernels` is by torch's profiler: the share of each kind of kernel, forward and
backward; the rest is what lies between the kernels, Python and the profiler itself. airnet trains with the recipe
`cifar10`. Data: STRIATE_DATA.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from tutorial_loops import CASES, Case, warmed_job

from striate.training.loop import train_epoch

AIRNET = Case("cifar10", 5_000, 1_000)

# name → (file, function) whose whole time is counted
PARTS = {
    "forward": ("models", "forward"),
    "loss": ("losses.py", "__call__"),
    "backward": ("autograd", "backward"),
    "optimizer": ("training", "step"),
    "batches": ("batches.py", "epoch"),
    "record": ("loop.py", "take"),
    "seed": ("device.py", "seed_step"),
}
# name → beginnings of the names of torch's operations; the first that fits the operation or one around it
KERNELS = {
    "data": ("data",),
    "optimizer": ("optimizer",),
    "conv backward": ("aten::convolution_backward",),
    "conv forward": ("aten::conv2d", "aten::convolution", "aten::_convolution", "aten::mkldnn_conv"),
    "BatchNorm": ("aten::batch_norm", "aten::native_batch_norm", "NativeBatchNorm"),
    "pool": (
        *("aten::max_pool", "aten::avg_pool", "aten::adaptive_", "aten::amax"),
        *("MaxPool", "AvgPool", "Adaptive", "Amax"),
    ),
    "activation": (
        *("aten::gelu", "aten::relu", "aten::silu", "aten::sigmoid", "aten::leaky", "aten::clamp_min", "aten::tanh"),
        *("aten::threshold", "Gelu", "Relu", "Silu", "Sigmoid", "LeakyRelu", "Tanh"),
    ),
    "linear": ("aten::linear", "aten::addmm", "aten::mm", "Addmm", "AddmmBackward", "MmBackward"),
    "loss": ("aten::cross_entropy", "aten::log_softmax", "aten::nll", "aten::binary_cross", "LogSoftmax", "Nll"),
}


def shares(name: str) -> dict[str, float]:
    """Return the share of each part of the time of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        job = warmed_job(case_of(name), folder)
        watched = cProfile.Profile()
        watched.enable()
        for _ in train_epoch(job.learner, job.progress):
            pass
        watched.disable()
    stats: Any = pstats.Stats(watched)
    found = {part: 0.0 for part in PARTS}
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():
        for part, (place, wanted) in PARTS.items():
            if function == wanted and place in file and ("striate" in file or part == "backward"):
                # The outermost call of a part holds the others.
                found[part] = max(found[part], cumulative)
    found["rest"] = stats.total_tt - sum(found.values())
    return {part: seconds / stats.total_tt for part, seconds in found.items()}


def kernel_shares(name: str) -> dict[str, float]:
    """Return the share of each kind of kernel of the time of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        job = warmed_job(case_of(name), folder, "auto")
        learner = job.learner
        epoch, step = learner.batches.epoch, learner.optimizer.step
        learner.batches.epoch = lambda *which: labelled(epoch(*which))
        learner.optimizer.step = record_function("optimizer")(step)
        with profile(activities=[ProfilerActivity.CPU]) as watched:
            began = time.perf_counter()
            for _ in train_epoch(learner, job.progress):
                pass
            whole = (time.perf_counter() - began) * 1e6
    found = {kind: 0.0 for kind in KERNELS}
    for event in watched.events():
        kind = kind_of(event)
        if kind is not None:
            found[kind] += event.self_cpu_time_total
    found["rest"] = whole - sum(found.values())
    return {kind: microseconds / whole for kind, microseconds in found.items()}


def labelled(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield batches; making each stands in the profile as `data`."""
    while True:
        with record_function("data"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def kind_of(event: Any) -> str | None:
    """Return the kind of kernel that an operation, or the nearest one around it, belongs to."""
    while event is not None:
        own = event.name.removeprefix("autograd::engine::evaluate_function: ")
        for kind, beginnings in KERNELS.items():
            if own.startswith(beginnings):
                return kind
        event = event.cpu_parent
    return None


def case_of(name: str) -> Case:
    """Return the recipe and the number of pictures."""
    return AIRNET if name == "airnet" else CASES[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    look, kinds = (kernel_shares, KERNELS) if arguments.kernels else (shares, PARTS)
    names = (arguments.only or ("airnet,lenet5" if arguments.kernels else ",".join(CASES))).split(",")
    print("| net | " + " | ".join([*kinds, "rest"]) + " |\n|---|" + "---|" * (len(kinds) + 1))
    for name in names:
        print(f"| {name} | " + " | ".join(f"{100 * share:.0f} %" for share in look(name).values()) + " |", flush=True)


if __name__ == "__main__":
    main()
