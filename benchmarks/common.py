"""What the benchmarks of nets share: learners on random pictures, timed epochs, a card for a net without a run."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from pictures import random_pictures
from torch import nn

from striate.data.batches import Batches
from striate.data.preprocess import Preprocess
from striate.device import Plan
from striate.errors import UsageError
from striate.models.registry import create_model, native_shape
from striate.runs.model_file import ModelCard
from striate.training.loop import Learner, Progress, train_epoch
from striate.training.losses import make_loss
from striate.training.optim import make_optimizer
from striate.training.schedule import rate

CPU = torch.device("cpu")
SMALL_SIDES = (32, 64, 96, 128, 224)


def plain_preprocess(side: int, channels: int) -> Preprocess:
    """Return the preprocessing of random pictures."""
    return Preprocess((side, side), "stretch", channels, (127.5,) * channels, (73.9,) * channels)


def small_input(name: str) -> tuple[int, int]:
    """Return (channels, side) of a net's own input where that is small, else of the smallest that it takes."""
    _, channels, (side, _) = native_shape(name)
    for small in SMALL_SIDES if side > max(SMALL_SIDES[:3]) else (side,):
        try:
            create_model(name, 10, channels, small)
        except UsageError:
            continue
        return channels, small
    return channels, side


def untrained_card(net: nn.Module, name: str, options: dict[str, Any], preprocess: Preprocess) -> ModelCard:
    """Return what an export wants to know of a net of the registry with ten classes that belongs to no run."""
    return ModelCard(
        name=name,
        class_name=type(net).__name__,
        options=options,
        num_classes=10,
        in_channels=preprocess.channels,
        input_size=preprocess.size,
        classes=[str(number) for number in range(10)],
        preprocess=preprocess.to_json(),
        output="softmax",
        temperature=1.0,
        weights={"file": "weights/best.safetensors", "sha256": "0" * 64, "epoch": 0},
    )


def make_learner(
    net: nn.Module, plan: Plan, *, side: int, channels: int, batch_size: int, steps: int, optimizer: str = "sgd"
) -> Learner:
    """Put a learner together that trains `steps` steps an epoch on random pictures, as the plan says."""
    pictures, labels = random_pictures(steps * batch_size, side, channels)
    net = net.to(memory_format=plan.memory_format)  # type: ignore[call-overload]
    return Learner(
        net=net,
        optimizer=make_optimizer(net, optimizer, lr=0.001),
        loss=make_loss("cross-entropy", 10, CPU),
        rate=partial(rate, schedule="constant", peak=0.001),
        total_steps=10**9,
        batches=Batches(
            pictures,
            labels,
            np.arange(len(pictures)),
            plain_preprocess(side, channels),
            batch_size=batch_size,
            seed=0,
            device=CPU,
            channels_last=plan.channels_last,
        ),
        plan=plan,
        device=CPU,
        seed=0,
    )


def epoch_seconds(learner: Learner) -> float:
    """Train one epoch; return its seconds."""
    began = time.perf_counter()
    for _ in train_epoch(learner, Progress()):
        pass
    return time.perf_counter() - began
