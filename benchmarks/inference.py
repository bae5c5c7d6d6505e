"""One net asked through eager torch, onnxruntime and OpenVINO, in turn: latency of 1 picture, throughput of 128.

    python benchmarks/inference.py [--rounds 15] [--only lenet5,airnet,resnet18] [--batches 1,128] [--threads 0]

All sides get the same weights and the same random pictures, uint8 (N, H, W, C), and give logits: normalisation is part
of what is timed. torch is striate's own backend, which answers `evaluate` and `predict`; onnxruntime and OpenVINO run
the file that `striate export` writes, the first as `striate predict model.onnx` does. A ratio is torch's time divided
by the side's, in the same round; the last column is the largest difference from torch's probabilities. A net that is
not registered, and OpenVINO where it is not installed, are left out, with a word.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from common import plain_preprocess, untrained_card
from figures import numbers, spread
from pictures import random_pictures

from striate.device import available_threads
from striate.exporting.onnx import build_graph
from striate.models import create_model, list_models
from striate.predictor.onnx_backend import INPUT, LOGITS, OnnxBackend
from striate.predictor.probabilities import probabilities
from striate.predictor.torch_backend import TorchBackend

NETS = {"lenet5": (1, 28), "airnet": (3, 32), "resnet18": (3, 224)}
CLASSES = 10
SECONDS_A_CALL = 0.02  # a round of quick calls is several of them

Side = Callable[[np.ndarray], np.ndarray]


def openvino_side(content: bytes, threads: int) -> Side:
    """Return what asks OpenVINO for logits."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(content), "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    )
    return lambda images: np.array(compiled({INPUT: images})[LOGITS])


def sides_of(name: str, channels: int, side: int, threads: int) -> dict[str, Side]:
    """Build a net once, and return each way to ask it."""
    torch.manual_seed(0)
    net = create_model(name, CLASSES, channels, side).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocess = plain_preprocess(side, channels)
    card = untrained_card(net, name, {}, preprocess)
    eager = TorchBackend(net, preprocess, threads=threads, fold=True)
    content = build_graph(net, card, "a benchmark").SerializeToString()
    graph = OnnxBackend(content, name, threads)
    sides: dict[str, Side] = {
        "torch": lambda images: eager.logits(images, len(images)),
        "onnxruntime": lambda images: graph.logits(images, len(images)),
    }
    if find_spec("openvino") is not None:
        sides["OpenVINO"] = openvino_side(content, threads)
    return sides


def measure(sides: dict[str, Side], images: np.ndarray, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the milliseconds a call of each side in each round, and the largest difference from torch."""
    answers = {name: probabilities(ask(images)) for name, ask in sides.items()}  # not counted
    differences = {name: float(np.abs(found - answers["torch"]).max()) for name, found in answers.items()}
    calls: dict[str, int] = {}
    for name, ask in sides.items():
        began = time.perf_counter()
        ask(images)
        calls[name] = max(1, round(SECONDS_A_CALL / (time.perf_counter() - began)))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, ask in sides.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                ask(images)
            times[name].append(1000 * (time.perf_counter() - began) / calls[name])
    return times, differences


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default=",".join(NETS))
    parser.add_argument("--batches", type=numbers, default=[1, 128])
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    arguments = parser.parse_args()
    threads = arguments.threads or available_threads()
    if find_spec("openvino") is None:
        print("OpenVINO is not installed, and left out\n")
    print(f"{threads} threads")
    print("| net | batch | side | ms a batch | pictures/s | times torch | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.only.split(","):
        if name not in list_models():
            print(f"| {name} | | not registered, and left out | | | | |")
            continue
        channels, side = NETS[name]
        sides = sides_of(name, channels, side, threads)
        for batch in arguments.batches:
            images, _ = random_pictures(batch, side, channels)
            times, differences = measure(sides, images, arguments.rounds)
            for ask, found in times.items():
                speeds = [1000 * batch / time for time in found]
                ratios = [eager / own for eager, own in zip(times["torch"], found, strict=True)]
                figures = f"{spread(found, '{:.2f}')} | {spread(speeds)} | {spread(ratios, '{:.2f}')}"
                print(f"| {name} | {batch} | {ask} | {figures} | {differences[ask]:.1g} |", flush=True)


if __name__ == "__main__":
    main()
