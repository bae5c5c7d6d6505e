"""How close is training to what the machine can do? FLOP/s of an epoch over those of its convolutions alone.

    python benchmarks/share_of_peak.py [--rounds 5] [--steps 10] [--only airnet,lenet5] [--precision auto]

The yardstick is oneDNN itself: each convolution and linear layer of the net alone, with the shapes, layout, precision
and threads of the training, forward and backward (only the gradients that training needs), again and again; of each
layer the quickest call counts. Training and yardstick take turns. What is missing to 100 % is everything else: the
other layers, data, loss, optimizer, record, Python, and layers that wait for memory between two calls.
A multiply-add counts as two operations.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from common import CPU, epoch_seconds, make_learner
from figures import spread
from torch import Tensor, nn
from torch.nn import functional

from striate.device import Plan, available_threads, make_plan, processor_flags
from striate.models.dry_run import example_pictures
from striate.models.registry import create_model
from striate.models.summary import summarise

# net: channels, side, options, batch
CASES: dict[str, tuple[int, int, dict[str, Any], int]] = {
    "airnet": (3, 32, {"widths": (64, 256, 256)}, 500),
    "lenet5": (1, 28, {"activation": "relu", "pool": "max"}, 256),
}
CALLS = 4  # of a layer in a round


@dataclass
class Layer:
    """One convolution or linear layer as training calls it: what comes in, and which gradients are asked."""

    name: str
    module: Any
    pictures: Tensor
    wants_input: bool
    wants_weight: bool
    best: float = math.inf
    operations: int = field(init=False)

    def __post_init__(self) -> None:
        with torch.no_grad():
            output = self.module(self.pictures)
        weight = self.module.weight
        macs = output.numel() * weight[0].numel()
        self.operations = 2 * macs * (1 + self.wants_input + self.wants_weight)
        self.gradient = torch.randn_like(output)

    def time(self) -> None:
        """Call the kernels once, forward and backward; keep the shortest time."""
        began = time.perf_counter()
        if isinstance(self.module, nn.Conv2d):
            self._convolve()
        else:
            self._multiply()
        self.best = min(self.best, time.perf_counter() - began)

    def _convolve(self) -> None:
        conv, weight = self.module, self.module.weight
        bias = None if conv.bias is None else conv.bias
        functional.conv2d(self.pictures, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        mask = [self.wants_input, self.wants_weight, bias is not None and bias.requires_grad]
        if any(mask):
            torch.ops.aten.convolution_backward(
                self.gradient, self.pictures, weight, None if bias is None else [len(bias)], conv.stride, conv.padding,
                conv.dilation, False, [0, 0], conv.groups, mask,
            )  # fmt: skip

    def _multiply(self) -> None:
        functional.linear(self.pictures, self.module.weight, self.module.bias)
        if self.wants_input:
            self.gradient @ self.module.weight
        if self.wants_weight:
            self.gradient.T @ self.pictures


def layers_of(net: nn.Module, shape: tuple[int, int, int], batch: int, plan: Plan) -> list[Layer]:
    """Return the net's convolutions and linear layers with inputs as they get, in the plan's precision."""
    kind = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    found: list[tuple[str, Any, tuple[int, ...], bool]] = []
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def look(module: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            found.append((name, module, tuple(inputs[0].shape[1:]), inputs[0].requires_grad))

        return look

    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            handles.append(module.register_forward_hook(watch(name)))
    net(example_pictures(net, 2, shape))
    for handle in handles:
        handle.remove()
    layers = []
    for name, module, form, wants_input in found:
        pictures = torch.randn(batch, *form, dtype=kind)
        if pictures.ndim == 4:
            pictures = pictures.contiguous(memory_format=plan.memory_format)
        wants_weight = module.weight.requires_grad
        layers.append(Layer(name, copy.deepcopy(module).to(kind), pictures, wants_input, wants_weight))
    return layers


def measure(name: str, precision: str, steps: int, rounds: int) -> tuple[Plan, list[Layer], list[float], list[float]]:
    """Return the plan, the layers with their best times, and for each round FLOP/s of training and the share."""
    channels, side, options, batch = CASES[name]
    torch.manual_seed(0)
    net = create_model(name, 10, channels, side, **options)
    plan = make_plan(
        CPU,
        precision=precision,
        threads=0,
        step_macs=summarise(net, (channels, side, side)).macs * batch,
        channels_last=True,
        flags=processor_flags(),
        available_threads=available_threads(),
    )
    learner = make_learner(net, plan, side=side, channels=channels, batch_size=batch, steps=steps)
    layers = layers_of(net, (channels, side, side), batch, plan)
    operations = sum(layer.operations for layer in layers)
    epoch_seconds(learner)  # not counted
    seconds = []
    for _ in range(rounds):
        seconds.append(epoch_seconds(learner) / steps)
        with plan.active(), torch.no_grad():
            for layer in layers:
                for _ in range(CALLS):
                    layer.time()
    alone = sum(layer.best for layer in layers)
    return plan, layers, [operations / each for each in seconds], [alone / each for each in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="steps an epoch")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        plan, layers, speeds, shares = measure(name, arguments.precision, arguments.steps, arguments.rounds)
        print(f"{name}, batch {CASES[name][3]}, {plan.precision}, {plan.threads} threads ({plan.reason})\n")
        print("| layer | GFLOP a step | alone, ms | alone, GFLOP/s |\n|---|---|---|---|")
        for layer in layers:
            speed = layer.operations / layer.best / 1e9
            print(f"| {layer.name} | {layer.operations / 1e9:.2f} | {layer.best * 1e3:.2f} | {speed:,.0f} |")
        whole, alone = sum(layer.operations for layer in layers), sum(layer.best for layer in layers)
        print(f"| together | {whole / 1e9:.2f} | {alone * 1e3:.2f} | {whole / alone / 1e9:,.0f} |\n")
        giga, percent = [speed / 1e9 for speed in speeds], [100 * share for share in shares]
        print(f"training: {spread(giga)} GFLOP/s, {spread(percent)} % of the layers alone\n", flush=True)


if __name__ == "__main__":
    main()
