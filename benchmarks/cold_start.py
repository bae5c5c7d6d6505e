"""From prompt to answer: one picture asked of an ONNX file by `striate predict`, and of torch by a plain script.

    python benchmarks/cold_start.py [--rounds 15]

Each is a whole process, started in turn with the other: seconds from its start to its end, median (smallest–largest),
and the seconds of the processor, which a busy machine changes less. The net is LeNet-5, untrained, with the same
weights on both sides; the largest difference of their probabilities is printed too. Needs onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import untrained_card
from PIL import Image

from striate.data.preprocess import Preprocess
from striate.exporting.onnx import build_graph
from striate.models import create_model

PLAIN = """
import json, sys
import numpy as np
import torch
from PIL import Image
from torch import nn

net = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
)
net.load_state_dict(torch.load(sys.argv[1], weights_only=True))
net.eval()
picture = torch.from_numpy(np.array(Image.open(sys.argv[2]), dtype=np.float32))[None, None] / 255
with torch.inference_mode():
    print(json.dumps(net(picture).softmax(1)[0].tolist()))
"""
PLAIN_LAYERS = (0, 3, 7, 9, 11)  # those with weights


def prepare(folder: Path) -> dict[str, list[str]]:
    """Write net and picture for both sides; return the two commands."""
    torch.manual_seed(0)
    net = create_model("lenet5", 10, 1, 28, activation="relu", pool="max").eval()
    card = untrained_card(net, "lenet5", {"activation": "relu", "pool": "max"}, Preprocess((28, 28), channels=1))
    (folder / "model.onnx").write_bytes(build_graph(net, card, "an untrained net").SerializeToString())
    keys = [f"{layer}.{kind}" for layer in PLAIN_LAYERS for kind in ("weight", "bias")]
    torch.save(dict(zip(keys, net.state_dict().values(), strict=True)), folder / "plain.pt")
    (folder / "plain.py").write_text(PLAIN, encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    names = {name: str(folder / name) for name in ("model.onnx", "picture.png", "plain.py", "plain.pt")}
    return {
        "striate": [sys.executable, "-m", "striate", "predict", names["model.onnx"], names["picture.png"], "--json"],
        "plain torch": [sys.executable, names["plain.py"], names["plain.pt"], names["picture.png"]],
    }


def run_once(command: list[str]) -> tuple[float, float, str]:
    """Run one process; return its seconds, the processor's seconds, and what it printed."""
    before, began = os.times(), time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - began, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent, ended.stdout


def told(values: list[float]) -> str:
    """Return median, smallest and largest in seconds."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def main() -> None:
    """Run both sides in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        commands = prepare(Path(folder))
        printed = {name: run_once(command)[2] for name, command in commands.items()}  # not counted: files come in
        results = json.loads(printed["striate"])["results"][0]["probabilities"]
        difference = np.abs(np.array(list(results.values())) - json.loads(printed["plain torch"])).max()
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                measured[name].append(run_once(command)[:2])
    print(f"{rounds} processes each, in turn; probabilities differ by {difference:.1e} at most")
    for name, pairs in measured.items():
        seconds, spent = (list(column) for column in zip(*pairs, strict=True))
        print(f"{name:12} {told(seconds)} s, processor {told(spent)} s")
    ours, theirs = (statistics.median(pair[0] for pair in measured[name]) for name in commands)
    print(f"striate takes {ours / theirs:.2f} of the plain script's time")


if __name__ == "__main__":
    main()
