"""Time and memory against pictures, side and batch, from data that fit in memory to data that do not.

    python benchmarks/scaling.py [--model strided-cnn] [--memory 64mb] [--rows pictures,side,batch]

Every cell is a `striate train` in a process of its own, on pictures made for it (an .npz file of noise in ten classes,
stored, not compressed). One thing changes at a time; the rest is 28 × 28 × 3 pictures, 4,000 of them, in batches of 64:

- pictures ×1 … ×16: 4,000 to 64,000, where 64 MB are allowed: the larger ones lie on disk and are shuffled in blocks;
- side 28 … 224: 1,000 pictures of each, the largest past the allowance;
- batch 16 … 256.

Columns: whether the pictures lay on disk; seconds from the command to its end, and of its first epoch's training alone;
pictures a second of that; the most anonymous memory (RssAnon: what no file backs, the system cannot take it back), and
how much more that is than in the first cell of the table. Linux only; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TIMES, SIDES, BATCHES = (1, 2, 4, 8, 16), (28, 56, 112, 224), (16, 64, 256)
BASE_SIDE, BASE_BATCH, PER_SIDE = 28, 64, 1_000


@dataclass(frozen=True)
class Cell:
    """One training: so many pictures of a side, in batches."""

    pictures: int
    side: int
    batch: int

    @property
    def megabytes(self) -> float:
        """Decoded size of the pictures."""
        return self.pictures * self.side * self.side * 3 / 2**20


def write_pictures(path: Path, cell: Cell) -> None:
    """Write an .npz file of noise, a little brighter for each class, in pieces; labels are in order of class."""
    random = np.random.default_rng(0)
    labels = np.arange(cell.pictures) * 10 // cell.pictures
    images = np.lib.format.open_memmap(
        path.with_suffix(".npy"), mode="w+", dtype=np.uint8, shape=(cell.pictures, cell.side, cell.side, 3)
    )
    for start in range(0, cell.pictures, 256):
        some = labels[start : start + 256]
        noise = random.integers(0, 150, (len(some), cell.side, cell.side, 3), dtype=np.uint8)
        images[start : start + 256] = noise + (10 * some[:, None, None, None]).astype(np.uint8)
    images.flush()
    np.savez(path, images=images, labels=labels)
    path.with_suffix(".npy").unlink()


def anonymous_mb(process: int) -> float:
    """Return the megabytes of anonymous memory that a process holds now: a counter, cheap enough for many looks."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("RssAnon:")[1].split()[0]) / 1024 if "RssAnon:" in status else 0.0


def measure(cell: Cell, arguments: argparse.Namespace) -> tuple[bool, float, float, float, float]:
    """Train once: on disk or not, seconds of all, of the epoch, pictures a second, the most anonymous megabytes."""
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        path, out = Path(folder) / "pictures.npz", Path(folder) / "run"
        write_pictures(path, cell)
        command = [sys.executable, "-m", "striate", "train", str(path), "--model", arguments.model, "--quiet"]
        command += ["--size", str(cell.side), "--batch-size", str(cell.batch), "--epochs", "1", "--save-every", "none"]
        command += ["--memory", arguments.memory, "--out", str(out), "--recipe", "generic"]
        began, peak = time.perf_counter(), 0.0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            peak = max(peak, anonymous_mb(process.pid))
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{cell}: {process.stderr.read() if process.stderr else ''}")
        on_disk = bool(json.loads((out / "data.json").read_text(encoding="utf-8"))["order"]["on_disk"])
        header, *rows = (out / "results.csv").read_text(encoding="utf-8").splitlines()
        told = dict(zip(header.split(","), rows[0].split(","), strict=True))
        return on_disk, seconds, float(told["seconds"]), float(told["images_per_second"]), peak


def table(name: str, cells: list[tuple[str, Cell]], arguments: argparse.Namespace) -> None:
    """Measure cells and print their table."""
    print(f"\n| {name} | decoded, MB | lies | all, s | epoch, s | pictures/s | anonymous, MB | grown, MB |")
    print("|---|---|---|---|---|---|---|---|")
    first = 0.0
    for told, cell in cells:
        on_disk, seconds, epoch, speed, peak = measure(cell, arguments)
        first = first or peak
        values = [f"{seconds:.1f}", f"{epoch:.1f}", f"{speed:,.0f}", f"{peak:,.0f}"]
        where = "on disk" if on_disk else "in memory"
        print(f"| {told} | {cell.megabytes:,.0f} | {where} | {' | '.join(values)} | {peak - first:+,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="strided-cnn")
    parser.add_argument("--memory", default="64mb")
    parser.add_argument("--pictures", type=int, default=4_000, help="of ×1")
    parser.add_argument("--rows", default="pictures,side,batch")
    parser.add_argument("--work", type=Path, help="folder for the pictures; default: the system's for temporary files")
    arguments = parser.parse_args()
    rows = {
        "pictures": [(f"×{n}: {n * arguments.pictures:,}", Cell(n * arguments.pictures, BASE_SIDE, BASE_BATCH))
                     for n in TIMES],
        "side": [(f"{side} × {side}", Cell(PER_SIDE, side, BASE_BATCH)) for side in SIDES],
        "batch": [(f"{batch}", Cell(arguments.pictures, BASE_SIDE, batch)) for batch in BATCHES],
    }  # fmt: skip
    print(f"{arguments.model}, one epoch, {arguments.memory} of memory allowed for the pictures")
    for name in arguments.rows.split(","):
        table(name, rows[name], arguments)


if __name__ == "__main__":
    main()
