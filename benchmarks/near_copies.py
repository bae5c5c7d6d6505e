"""What the search for near copies finds: photographs saved again in eleven ways, and three whole public data sets.

    STRIATE_DATA=DIR python benchmarks/near_copies.py [--size 64]

For each way: how many of the photographs are found together with their copies, and how many pairs of two different
photographs are called alike. For each data set: the pairs found in its train set, those of two classes among them, and
the processor's seconds. These are the numbers of docs/check.md.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from striate.data.builtin import load_named
from striate.data.hashes import find_duplicates
from striate.data.preprocess import Preprocess


def at_quality(quality: int) -> Callable[[Image.Image], Image.Image]:
    def save(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return save


def resized(part: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((image.width // part, image.height // part), Image.Resampling.LANCZOS)


def brighter(by: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: ImageEnhance.Brightness(image).enhance(by)


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 50": at_quality(50),
    "JPEG quality 20": at_quality(20),
    "half the size": resized(2),
    "a quarter of the size": resized(4),
    "15 % darker": brighter(0.85),
    "10 % brighter": brighter(1.1),
    "20 % brighter": brighter(1.2),
    "contrast 80 %": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "1 pixel off, two sides": lambda image: image.crop((1, 1, image.width, image.height)),
    "1 pixel off, all round": lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
    "3 % off, two sides": lambda image: image.crop((image.width * 3 // 100, image.height * 3 // 100, *image.size)),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=64)
    size = parser.parse_args().size
    root = Path(os.environ["STRIATE_DATA"])
    preprocess = Preprocess((size, size), "crop", 3)

    def seen(image: Image.Image) -> np.ndarray:
        return preprocess.geometry(np.asarray(image.convert("RGB")))

    files = sorted(path for path in (root / "hymenoptera").rglob("*") if path.is_file())
    originals = [Image.open(path).convert("RGB") for path in files]
    count, first = len(originals), [seen(image) for image in originals]
    print(f"{count} photographs at {size}×{size}: {len(find_duplicates(np.stack(first), [''] * count).alike)} pairs")
    for name, change in WAYS.items():
        images = np.stack([*first, *(seen(at_quality(85)(change(image).convert("RGB"))) for image in originals)])
        found = find_duplicates(images, [""] * len(images))
        together = int((found.groups[count:] == found.groups[:count]).sum())
        wrong = int((found.alike[:, 0] % count != found.alike[:, 1] % count).sum())
        print(f"{name:<24} {together:>4} of {count} found, {wrong} wrong pairs", flush=True)
    for name in ("mnist", "fashion-mnist", "cifar10"):
        part = load_named(name, root, False, lambda line: None).train
        began = time.process_time()
        found = find_duplicates(part.images, [""] * len(part))
        took = time.process_time() - began
        across = int((part.labels[found.alike[:, 0]] != part.labels[found.alike[:, 1]]).sum())
        print(f"{name}: {len(part):,} pictures, {len(found.same)} same, {len(found.alike)} alike", end=" ")
        print(f"({across} of two classes), {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
