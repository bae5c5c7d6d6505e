"""Where does a training step's time go? Shares of each article's loop in striate, by Python's own profiler.

    python benchmarks/profile_step.py [--only lenet5]

The profiler slows Python down and not the kernels, so the share of Python is an upper bound. Data: STRIATE_DATA.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
from typing import Any

from tutorial_loops import CASES, warmed_job

from striate.training.loop import train_epoch

# name → (file, function) whose whole time is counted
PARTS = {
    "forward": ("models", "forward"),
    "loss": ("functional.py", ("binary_cross_entropy_with_logits", "cross_entropy")),
    "backward": ("autograd", "backward"),
    "optimizer": ("optim", "step"),
    "batches": ("batches.py", "epoch"),
    "record": ("loop.py", "take"),
    "seed": ("device.py", "seed_step"),
}


def shares(name: str) -> dict[str, float]:
    """Return the share of each part of the time of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        job = warmed_job(CASES[name], folder)
        profile = cProfile.Profile()
        profile.enable()
        for _ in train_epoch(job.learner, job.progress):
            pass
        profile.disable()
    stats: Any = pstats.Stats(profile)
    found = {part: 0.0 for part in PARTS}
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():
        for part, (place, functions) in PARTS.items():
            wanted = functions if isinstance(functions, tuple) else (functions,)
            if function in wanted and place in file and ("striate" in file or part in ("loss", "backward")):
                # The outermost call of a part holds the others.
                found[part] = max(found[part], cumulative)
    found["rest"] = stats.total_tt - sum(found.values())
    return {part: seconds / stats.total_tt for part, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES))
    names = parser.parse_args().only.split(",")
    print("| net | " + " | ".join([*PARTS, "rest"]) + " |\n|---|" + "---|" * (len(PARTS) + 1))
    for name in names:
        print(f"| {name} | " + " | ".join(f"{100 * share:.0f} %" for share in shares(name).values()) + " |", flush=True)


if __name__ == "__main__":
    main()
