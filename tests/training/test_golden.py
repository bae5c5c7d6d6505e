"""The first 20 losses of two recipes, to the last digit: arithmetic that should not change has not changed.

They are kept in golden.json by torch's version, the processor and the number of threads, for all of these choose the
kernels and so the last digits. Under a key that is not there the losses are compared to 1e-3 with those of the first
key, and the test says so. After a change that is meant to change them, and for a new key:

    python tests/training/test_golden.py --add
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from striate.device import processor_name
from striate.settings.layers import resolve_train
from striate.training.begin import start_job
from striate.training.loop import train_epoch

GOLDEN = Path(__file__).with_name("golden.json")
STEPS, THREADS = 20, 1
CASES: dict[str, dict[str, Any]] = {
    "digits": {"data": "digits"},
    "airnet-muon": {
        "data": "digits", "model": "airnet", "model_option": {"widths": [8, 16, 16], "head_scale": 1.0}, "size": 24,
        "epochs": 2, "batch_size": 100, "optimizer": "muon", "lr": 0.24, "bias_lr": 0.053, "head_lr": 0.67,
        "momentum": 0.6, "weight_decay": 0.001, "whitening_epochs": 1, "lookahead": 0.95, "accumulate": 2, "clip": 5,
        "schedule": "triangular", "label_smoothing": 0.2, "augment": "shift:1",
    },
}  # fmt: skip


def key() -> str:
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {processor_name()}, {THREADS} thread"


def first_losses(case: str, folder: Path) -> list[float]:
    given = {**CASES[case], "precision": "fp32", "threads": THREADS, "device": "cpu", "out": folder / case}
    settings, _, _ = resolve_train(given, origin="argument", environ={})
    job = start_job(settings, report=lambda line: None)
    losses: list[float] = []
    while len(losses) < STEPS:
        losses += [loss for rows in train_epoch(job.learner, job.progress) for _, _, _, loss in rows]
        job.progress.next_epoch()
    return losses[:STEPS]


@pytest.mark.parametrize("case", CASES)
def test_the_first_losses_are_what_they_were(case: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    losses = first_losses(case, tmp_path)
    if key() in golden:
        assert losses == golden[key()][case], f"the losses of {case} changed; if they should: --add"
        return
    first = next(iter(golden))
    warnings.warn(f"no golden losses for {key()}: compared to 1e-3 with those of {first}", stacklevel=1)
    assert losses == pytest.approx(golden[first][case], rel=1e-3, abs=1e-3)


def add() -> None:
    """Write this machine's losses under its key."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        golden[key()] = {case: first_losses(case, Path(folder)) for case in CASES}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {key()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", action="store_true", required=True, help="record the losses of this machine")
    parser.parse_args()
    add()
