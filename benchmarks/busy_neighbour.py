"""Training alone and beside one busy program, with threads that spin while they wait and with threads that sleep.

    python benchmarks/busy_neighbour.py [--rounds 3] [--recipe mnist-99] [--pictures 10000]

Each run is a process of its own: `striate train` of a recipe on its first pictures. OpenMP's threads spin for a while
where OMP_WAIT_POLICY is not set; the command sets PASSIVE then, and here is also run without. The neighbour is a
Python process that loops. The four kinds take turns; pictures per second of training alone, as the run says.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import spread

# What `striate` does but for the setting.
COMMAND = "import sys; from striate.cli.main import run; sys.exit(run(sys.argv[1:]))"


def run(policy: str | None, recipe: str, pictures: int) -> float:
    """Train once; return pictures per second of training."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-c", COMMAND, "train", "--recipe", recipe, "--train-range", f"0:{pictures}"]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
        subprocess.run([*command, "--out", str(out)], env=environment, check=True, capture_output=True)
        with open(out / "results.csv", encoding="utf-8", newline="") as stream:
            return float(list(csv.DictReader(stream))[-1]["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", default="mnist-99")
    parser.add_argument("--pictures", type=int, default=10_000)
    arguments = parser.parse_args()
    kinds = [(policy, busy) for busy in (False, True) for policy in (None, "PASSIVE")]
    speeds: dict[tuple[str | None, bool], list[float]] = {kind: [] for kind in kinds}
    for _ in range(arguments.rounds):
        for policy, busy in kinds:
            neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
            try:
                speeds[policy, busy].append(run(policy, arguments.recipe, arguments.pictures))
            finally:
                if neighbour is not None:
                    neighbour.kill()
                    neighbour.wait()
    print("| | spinning, pictures/s | sleeping, pictures/s | sleeping / spinning |\n|---|---|---|---|")
    for busy, told in ((False, "alone"), (True, "beside a busy program")):
        spinning, sleeping = speeds[None, busy], speeds["PASSIVE", busy]
        ratios = [one / other for one, other in zip(sleeping, spinning, strict=True)]
        print(f"| {told} | {spread(spinning)} | {spread(sleeping)} | {spread(ratios, '{:.2f}')} |")


if __name__ == "__main__":
    main()
