"""Loading a folder of photographs: striate against torchvision's ImageFolder and DataLoader with 0 and 2 workers.

    python benchmarks/folder_loading.py --work DIR [--pictures 5000] [--size 96] [--rounds 3] [--json out.json]

Makes a folder of JPEGs of 1 to 12 megapixels in DIR, once (5,000 take about 10 GB), and adds the photographs of
hymenoptera where STRIATE_DATA has them. Each side runs in a process of its own, in turn; nothing is trained, the
batches (64 pictures, float32, normalised, shuffled) are only taken. Both sides scale to --size and crop the centre.

- torchvision: ImageFolder, Resize, CenterCrop, ToTensor, Normalize; DataLoader with its defaults. Every epoch decodes.
- striate, first run: the folder is listed, all headers are read, every picture is decoded and stored in an empty cache
  (epoch 1), then batches come from memory (epoch 2 is batches alone).
- striate, later run: the same with the cache that the first run left: files are read and their digests taken.

The files are read once before, so that all find them in the system's file cache as far as memory allows. Peak memory
is the most that the process and its workers held together, looked at four times a second (Linux); torch is part of it.
"against" is the other side's time over this one's, for epoch 1 and epoch 2.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from figures import memory_of, spread

BATCH = 64
SIDES = ("torchvision, 0 workers", "torchvision, 2 workers", "striate, first run", "striate, later run")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(width: int, height: int, seed: int) -> bytes:
    """Return a JPEG that costs about what a photograph of its size does: detail at every scale and some noise."""
    from PIL import Image

    chance = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for side, weight in ((4, 60), (16, 40), (64, 25), (256, 14), (1024, 6)):
        coarse = chance.normal(
            0, 1, (side * height // max(width, height) + 1, side * width // max(width, height) + 1, 3)
        )
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel].astype(np.float32))
            total[..., channel] += weight * np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    total += chance.normal(0, 4, total.shape).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def generate(folder: Path, pictures: int) -> None:
    """Write `pictures` JPEGs in two classes; each is one of 24 with a comment of its own, so that no two are equal."""
    done = folder.with_suffix(".txt")
    if done.is_file() and done.read_text() == str(pictures):
        return
    shutil.rmtree(folder, ignore_errors=True)
    kinds = []
    for number in range(24):
        pixels = 1e6 + 11e6 * number / 23
        across, down = ((4, 3), (3, 4), (3, 2), (16, 9))[number % 4]
        unit = (pixels / (across * down)) ** 0.5
        kinds.append(photograph(int(across * unit), int(down * unit), number))
        print(f"\rpicture {number + 1} of 24", end="", file=sys.stderr)
    order = np.random.default_rng(0).permutation(pictures)
    for number in range(pictures):
        picture = kinds[order[number] % 24]
        comment = f"{number:08}".encode()
        path = folder / ("ants", "bees")[number % 2] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture[:2] + b"\xff\xfe\x00\x0a" + comment + picture[2:])
    print(f"\r{pictures:,} pictures written to {folder}", file=sys.stderr)
    done.write_text(str(pictures))


def count_batches(batches: Iterable[Any]) -> int:
    """Take all batches and return how many pictures were in them."""
    return sum(len(pictures) for pictures, _ in batches)


def run_torchvision(folder: Path, size: int, workers: int) -> list[float]:
    """Return the seconds of two epochs."""
    import torch
    from torchvision import datasets, transforms

    began = time.perf_counter()
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    data = datasets.ImageFolder(folder, transforms.Compose([*steps, transforms.Normalize(MEAN, STD)]))
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers)
    seconds = []
    for _ in range(2):
        assert count_batches(loader) == len(data)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def run_striate(folder: Path, size: int, cache: Path) -> list[float]:
    """Return the seconds of two epochs; the first holds all that is done once."""
    import torch

    from striate.data.batches import Batches
    from striate.data.cache import Cache
    from striate.data.loading import load_pictures, read_headers
    from striate.data.preprocess import Preprocess
    from striate.data.sources import open_source

    began = time.perf_counter()
    preprocess = Preprocess((size, size), "crop", 3, tuple(255 * m for m in MEAN), tuple(255 * s for s in STD))
    with open_source(folder) as source:
        headers = read_headers(source.records)
        loaded = load_pictures(source.records, preprocess, cache=Cache(cache, report=print))
    labels = np.array([source.classes.index(source.records[i].label or "") for i in loaded.good], np.int64)
    assert len(headers) == len(loaded.good) == len(source.records), loaded.failures
    seconds = []
    for epoch in range(2):
        batches = Batches(
            loaded.images, labels, np.arange(len(labels)), preprocess,
            batch_size=BATCH, seed=0, device=torch.device("cpu"),
        )  # fmt: skip
        assert count_batches(batches.epoch(epoch)) == len(labels)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def child(side: str, folder: Path, size: int, cache: Path) -> list[float]:
    """Run one side here; return its seconds an epoch."""
    import torch  # noqa: F401  importing is not loading

    name, _, rest = side.partition(", ")
    if name == "striate":
        return run_striate(folder, size, cache)
    import torchvision  # noqa: F401

    return run_torchvision(folder, size, int(rest[0]))


def measure(side: str, folder: Path, size: int, cache: Path) -> dict[str, Any]:
    """Run one side in a process of its own: seconds an epoch, and the most megabytes seen."""
    if side == "striate, first run":
        shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, __file__, "--child", side, "--work", str(folder), "--size", str(size)]
    process = subprocess.Popen([*command, "--cache", str(cache)], stdout=subprocess.PIPE, text=True)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid, "Pss"))
        time.sleep(0.25)
    out = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{side} failed")
    print(f"  {side}: {out.strip()} s, {peak:,.0f} MB", file=sys.stderr)
    return {"seconds": json.loads(out.splitlines()[-1]), "memory": peak}


def compare(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all sides in turn on one folder and print its table."""
    files = sorted(folder.rglob("*.jp*g"))
    size = sum(len(path.read_bytes()) for path in files)
    print(f"\n{name}: {len(files):,} JPEGs, {size / 2**20:,.0f} MB, to {arguments.size} pixels\n", flush=True)
    rounds = [
        {side: measure(side, folder, arguments.size, arguments.work / "cache") for side in SIDES}
        for _ in range(arguments.rounds)
    ]
    print("| side | epoch 1, s | epoch 2, s | against 0 workers | against 2 workers | peak, MB |")
    print("|---|---|---|---|---|---|")
    for side in SIDES:
        cells = [spread([one[side]["seconds"][epoch] for one in rounds], "{:.2f}") for epoch in (0, 1)]
        for other in SIDES[:2]:
            ratios = [
                spread([one[other]["seconds"][epoch] / one[side]["seconds"][epoch] for one in rounds], "{:.1f}×")
                for epoch in (0, 1)
            ]
            cells.append(", ".join(ratios))
        cells.append(spread([one[side]["memory"] for one in rounds], "{:,.0f}"))
        print(f"| {side} | {' | '.join(cells)} |", flush=True)
    return {"pictures": len(files), "bytes": size, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.work, arguments.size, arguments.cache)))
        return
    generated = arguments.work / f"generated-{arguments.pictures}"
    generate(generated, arguments.pictures)
    folders = {"generated": generated}
    photographs = Path(os.environ.get("STRIATE_DATA", "")) / "hymenoptera" / "train"
    if os.environ.get("STRIATE_DATA") and photographs.is_dir():
        folders["hymenoptera"] = photographs
    results = {name: compare(name, folder, arguments) for name, folder in folders.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
