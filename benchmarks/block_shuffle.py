"""What does shuffling in blocks cost in accuracy, and how good a shuffle is it? docs/large.md has the table.

    python benchmarks/block_shuffle.py [--data fashion-mnist] [--pictures 6000] [--epochs 3] [--seeds 5]

The train pictures are sorted by class, as a folder of class folders lies on disk: the hard case. The same recipe is
trained with every order; only the order differs. Accuracies are of the official test set, over the seeds; the
difference is from whole shuffling, seed by seed, with the 95 % interval of its mean (Student's t).

- chosen: the blocks that striate chooses where the memory allowed is a quarter, or a sixteenth, of the pictures.
- the others are coarser than any that it chooses, to show where it begins to matter. The last one mixes one block at a
  time, each of a single class: no shuffling that deserves the name.

Measures of the order, over the first five epochs: two pictures of a batch are from the same block (share of the pairs);
correlation between the place on disk and the turn in the epoch, by size; pictures of a class in a batch, their variance
over that of whole shuffling (1 is as good as whole; the formula of docs/large.md in brackets).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

import striate
from striate.data.batches import Batches
from striate.data.builtin import load_named
from striate.data.dataset import Dataset, Parts
from striate.data.order import Blocks
from striate.data.preprocess import Preprocess

T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # by the number of seeds


def sorted_part(name: str, pictures: int) -> Parts:
    """Return the first `pictures` of a named set's train pictures, sorted by class, and its test set."""
    parts = load_named(name)
    first = parts.train.take(slice(0, pictures))
    assert parts.test is not None
    return Parts(name, first.take(np.argsort(first.labels, kind="stable")), test=parts.test)


def measures(part: Dataset, blocks: Blocks | None, batch: int) -> tuple[float, float, float]:
    """Return the share of pairs from one block, the correlation, and the variance of classes over whole shuffling."""
    size = 1 if blocks is None else blocks.pictures
    preprocess = Preprocess(part.size, channels=part.channels)
    source = Batches(
        part.images, part.labels, np.arange(len(part)), preprocess,
        batch_size=batch, seed=0, device=torch.device("cpu"), blocks=blocks,
    )  # fmt: skip
    same, correlation, spread = [], [], []
    classes = len(part.classes)
    for epoch in range(5):
        order = source.order(epoch).numpy()
        whole = order[: len(order) // batch * batch].reshape(-1, batch)
        places = whole // size
        equal = (places[:, :, None] == places[:, None]).sum(axis=(1, 2)) - batch
        same.append(equal.mean() / (batch * (batch - 1)))
        correlation.append(abs(np.corrcoef(np.arange(len(order)), order)[0, 1]))
        counts = np.stack([np.bincount(part.labels[row], minlength=classes) for row in whole])
        share = np.bincount(part.labels, minlength=classes) / len(part)
        wanted = batch * share * (1 - share)
        spread.append(float(((counts - batch * share) ** 2).mean(axis=0).sum() / wanted.sum()))
    return float(np.mean(same)), float(np.mean(correlation)), float(np.mean(spread))


def formula(count: int, blocks: Blocks, batch: int) -> float:
    """Return what docs/large.md promises for the variance, for pictures sorted by class."""
    size, mixed, all_of_them = blocks.pictures, blocks.held // 2, count / blocks.pictures
    same = (size - 1) / max(1, size * mixed - 1)
    return 1 + (batch - 1) * same * max(0.0, 1 - mixed / all_of_them)


def accuracies(parts: Parts, order: str, arguments: argparse.Namespace) -> list[float]:
    """Train once for each seed; return the test accuracies."""
    found = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = striate.train(
                parts, model=arguments.model, epochs=arguments.epochs, batch_size=arguments.batch, seed=seed,
                order=order, validation=0, quiet=True, out=Path(folder) / "run",
            )  # fmt: skip
            found.append(run.evaluation["top1"]["value"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--pictures", type=int, default=6_000)
    parser.add_argument("--model", default="three-conv")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11))
    arguments = parser.parse_args()
    parts = sorted_part(arguments.data, arguments.pictures)
    images = parts.train.images
    chosen = [("chosen, memory for a ", Blocks.within(images.nbytes // n, images[:1].nbytes), n) for n in (4, 16)]
    orders: list[tuple[str, Blocks | None]] = [("whole", None)]
    orders += [(f"{told}{'quarter' if n == 4 else 'sixteenth'}", blocks) for told, blocks, n in chosen]
    orders += [("coarse", Blocks(*pair)) for pair in ((50, 32), (250, 8))]
    orders += [("one block at a time", Blocks(max(1, len(images) // 24), 2))]
    print(
        f"{arguments.data}, {len(images):,} train pictures sorted by class, {arguments.model},"
        f" {arguments.epochs} epochs, batches of {arguments.batch}, {arguments.seeds} seeds\n"
    )
    print("| order | blocks of | held | of one block | correlation | variance (formula) | accuracy | against whole |")
    print("|---|---|---|---|---|---|---|---|")
    whole: list[float] = []
    for name, blocks in orders:
        same, correlation, spread = measures(parts.train, blocks, arguments.batch)
        found = accuracies(parts, "whole" if blocks is None else str(blocks), arguments)
        whole = whole or found
        gaps = [100 * (one - other) for one, other in zip(found, whole, strict=True)]
        half = T_95[len(gaps)] * statistics.stdev(gaps) / len(gaps) ** 0.5
        cells = [name, "–", "–"] if blocks is None else [name, f"{blocks.pictures:,}", f"{blocks.held:,}"]
        promised = "" if blocks is None else f" ({formula(len(images), blocks, arguments.batch):.2f})"
        cells += [f"{100 * same:.2f} %", f"{correlation:.3f}", f"{spread:.2f}{promised}"]
        cells += [f"{100 * statistics.mean(found):.2f} % ± {100 * statistics.stdev(found):.2f}"]
        cells += ["" if blocks is None else f"{statistics.mean(gaps):+.2f} ± {half:.2f} points"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
