"""Larger nets trained by striate and by a plain torch loop: the same net, batch and optimizer; pictures per second.

    python benchmarks/same_net.py [--rounds 5] [--only alexnet,resnet18,vgg16] [--steps 4] [--precision auto]

AlexNet on 96 × 96 pixels, ResNet-18 in its form for CIFAR (a first convolution of 3 × 3 with stride 1, no first pool)
and VGG-16 with BatchNorm and one linear layer, on 32 × 32. The plain loop has torchvision's net and the pictures in
memory as normalised floats, so it decodes and normalises nothing: a DataLoader, forward, `loss.item()`, backward, step,
in fp32. striate's side is its training loop with the same net of its registry. Each side runs in its own process, the
two in turn; the first steps are not counted. Needs torchvision (the dev extra).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

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


def run_plain(name: str, steps: int, precision: str) -> float:
    """Train as one writes it; return pictures per second."""
    import torch
    from common import random_pictures
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    side, batch = CASES[name]
    pictures, labels = random_pictures((WARM_UP + steps) * batch, side, 3)
    floats = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.29
    loader = DataLoader(TensorDataset(floats.contiguous(), torch.from_numpy(labels)), batch_size=batch, shuffle=True)
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


def run_striate(name: str, steps: int, precision: str) -> float:
    """Train with striate's own loop; return pictures per second."""
    from common import random_pictures

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


def measure(name: str, side: str, steps: int, precision: str) -> float:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--child", side, "--only", name, "--steps", str(steps)]
    done = subprocess.run([*command, "--precision", precision], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ({side}) failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--steps", type=int, default=4, help="steps that are counted")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--child", choices=("plain", "striate"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work = {"plain": run_plain, "striate": run_striate}[arguments.child]
        print(json.dumps(work(arguments.only, arguments.steps, arguments.precision)))
        return
    from common import spread

    print("| net | plain loop, pictures/s | striate, pictures/s | ratio |\n|---|---|---|---|")
    for name in arguments.only.split(","):
        pairs = [
            [measure(name, side, arguments.steps, arguments.precision) for side in ("plain", "striate")]
            for _ in range(arguments.rounds)
        ]
        plain, ours = ([pair[i] for pair in pairs] for i in range(2))
        ratios = [b / a for a, b in pairs]
        figures = f"{spread(plain, '{:,.1f}')} | {spread(ours, '{:,.1f}')} | {spread(ratios, '{:.2f}')}"
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
