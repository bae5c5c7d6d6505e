"""Larger nets trained by striate, a plain torch loop, skorch and Keras 3 on JAX: the same net, batch and optimizer.

    python benchmarks/same_net.py [--rounds 5] [--only alexnet,resnet18,vgg16] [--steps 4] [--precision auto]
        [--sides plain,skorch,keras_jax,striate] [--environments DIR]
    python benchmarks/same_net.py --prepare keras_jax

AlexNet on 96 × 96 pixels, ResNet-18 in its form for CIFAR (a first convolution of 3 × 3 with stride 1, no first pool)
and VGG-16 with BatchNorm and one linear layer, on 32 × 32; pictures per second. The plain loop has torchvision's net
and the pictures in memory as normalised floats, so it decodes and normalises nothing: a DataLoader, forward,
`loss.item()`, backward, step, in fp32. skorch has the same net, its own loop and loader; Keras has the same net in its
own layers (keras_nets.py), compiled by JAX in the first steps, and the same floats. striate's side is its training loop
with the same net of its registry. Each side runs in its own process, the sides in turn; the first steps are not
counted. The plain loop needs torchvision (the dev extra), skorch and Keras environments of their own (environments.py);
a side without one is left out, with a word.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import environments
from figures import figure_of, spread
from pictures import random_pictures

# net: side in pixels, batch
CASES = {"alexnet": (96, 128), "resnet18": (32, 128), "vgg16": (32, 128)}
# net: options with which ours is torchvision's as it stands below
OPTIONS: dict[str, dict[str, Any]] = {"vgg16": {"batch_norm": True, "dropout": 0.0}}
WARM_UP = 2  # steps


def torchvision_net(name: str) -> Any:
    """Return torchvision's net in the form described above, for ten classes."""
    import torch
    from torch import nn
    from torchvision import models

    torch.manual_seed(0)
    if name == "alexnet":
        net: Any = models.alexnet(num_classes=10)
        net.classifier[4] = nn.Linear(4096, 1024)  # as in the article
        net.classifier[6] = nn.Linear(1024, 10)
    elif name == "resnet18":
        net = models.resnet18(num_classes=10)
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    else:
        net = models.vgg16_bn(num_classes=10)
        net.avgpool, net.classifier = nn.Identity(), nn.Linear(512, 10)
    return net


def float_pictures(name: str, steps: int, channels_last: bool = False) -> tuple[Any, Any]:
    """Return normalised float32 pictures (N, 3, H, W) or (N, H, W, 3) for all steps, and int64 labels (N,)."""
    side, batch = CASES[name]
    pictures, labels = random_pictures((WARM_UP + steps) * batch, side, 3)
    pictures = pictures if channels_last else pictures.transpose(0, 3, 1, 2)
    return ((pictures.astype("float32") / 255 - 0.5) / 0.29).copy(order="C"), labels


def run_plain(name: str, steps: int, precision: str) -> float:
    """Train as one writes it; return pictures per second."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    _, batch = CASES[name]
    floats, labels = (torch.from_numpy(array) for array in float_pictures(name, steps))
    loader = DataLoader(TensorDataset(floats, labels), batch_size=batch, shuffle=True)
    net = torchvision_net(name).train()
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    began = 0.0
    for step, (images, targets) in enumerate(loader):
        if step == WARM_UP:
            began = time.perf_counter()
        loss = loss_function(net(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return steps * batch / (time.perf_counter() - began)


def run_skorch(name: str, steps: int, precision: str) -> float:
    """Train with skorch; return pictures per second."""
    import skorch
    import torch

    class Clock(skorch.callbacks.Callback):
        steps, began, ended = 0, 0.0, 0.0

        def on_batch_end(self, net: Any, **_: Any) -> None:
            Clock.steps += 1
            Clock.ended = time.perf_counter()
            if Clock.steps == WARM_UP:
                Clock.began = Clock.ended

    _, batch = CASES[name]
    net = skorch.NeuralNetClassifier(
        torchvision_net(name),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.001,
        batch_size=batch,
        max_epochs=1,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[("clock", Clock)],
    )
    net.fit(*float_pictures(name, steps))
    return steps * batch / (Clock.ended - Clock.began)


def run_keras(name: str, steps: int, precision: str) -> float:
    """Train with Keras on JAX; return pictures per second."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras_nets import make_net

    class Clock(keras.callbacks.Callback):
        began, ended = 0.0, 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])  # JAX returns before it has computed
            Clock.ended = time.perf_counter()
            if batch + 1 == WARM_UP:
                Clock.began = Clock.ended

    side, batch = CASES[name]
    net = make_net(name, side)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(loss=loss, optimizer=keras.optimizers.SGD(0.001, momentum=0.9))
    net.fit(*float_pictures(name, steps, channels_last=True), batch_size=batch, verbose=0, callbacks=[Clock()])
    return steps * batch / (Clock.ended - Clock.began)


def run_striate(name: str, steps: int, precision: str) -> float:
    """Train with striate's own loop; return pictures per second."""
    from striate.settings.layers import resolve_train
    from striate.training import loop
    from striate.training.begin import start_job
    from striate.training.material import as_parts

    side, batch = CASES[name]
    settings: dict[str, Any] = {
        "model": name, "model_option": OPTIONS.get(name, {}), "data": "made",
        "recipe": "generic", "batch_size": batch, "validation": 0, "test": 1, "device": "cpu",
        "optimizer": "sgd", "lr": 0.001, "precision": precision, "weight_decay": 0.0, "schedule": "constant",
    }  # fmt: skip
    loop.RECORD_STEPS = 1  # so that the first steps can be told from the others
    pictures, labels = random_pictures((WARM_UP + steps) * batch + 1, side, 3)
    with tempfile.TemporaryDirectory() as folder:
        resolved, _, _ = resolve_train({**settings, "out": f"{folder}/run"}, origin="argument", environ={})
        job = start_job(resolved, data=as_parts((pictures, labels)), report=lambda line: None)
        began = 0.0
        for _ in loop.train_epoch(job.learner, job.progress):
            if job.progress.step == WARM_UP:
                began = time.perf_counter()
        return steps * batch / (time.perf_counter() - began)


SIDES: dict[str, Callable[[str, int, str], float]] = {
    "plain": run_plain,
    "skorch": run_skorch,
    "keras_jax": run_keras,
    "striate": run_striate,
}


def measure(name: str, side: str, arguments: argparse.Namespace) -> float:
    """Run one side in a process of its own."""
    foreign = side in environments.NAMES
    python = environments.python_of(arguments.environments, side) if foreign else sys.executable
    command = [str(python), __file__, "--child", side, "--only", name, "--steps", str(arguments.steps)]
    command += ["--precision", arguments.precision]
    with tempfile.TemporaryDirectory() as folder:
        environ = environments.environ_of(folder) if foreign else None
        return figure_of(f"{name} ({side})", command, environ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--steps", type=int, default=4, help="steps that are counted")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    environments.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.prepare:
        environments.prepare(arguments.environments, arguments.prepare)
        return
    if arguments.child:
        print(json.dumps(SIDES[arguments.child](arguments.only, arguments.steps, arguments.precision)))
        return
    sides = present(arguments)
    others = [side for side in sides if side != sides[0]]
    heads = [f"{side}, pictures/s" for side in sides] + [f"{side} / {sides[0]}" for side in others]
    print(f"| net | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for name in arguments.only.split(","):
        rounds = [{side: measure(name, side, arguments) for side in sides} for _ in range(arguments.rounds)]
        cells = [spread([one[side] for one in rounds], "{:,.1f}") for side in sides]
        cells += [spread([one[side] / one[sides[0]] for one in rounds], "{:.2f}") for side in others]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def present(arguments: argparse.Namespace) -> list[str]:
    """Return the sides that can run; the first is what the others are compared with. Say which cannot."""
    wanted = [side for side in SIDES if side in arguments.sides.split(",")]
    absent = {
        side: environments.why_absent(arguments.environments, side) for side in wanted if side in environments.NAMES
    }
    for side, reason in absent.items():
        if reason:
            print(f"{side} is left out: {reason}\n")
    return [side for side in wanted if not absent.get(side)]


if __name__ == "__main__":
    main()
