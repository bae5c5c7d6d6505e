"""Losses and answers that are not finite: the run stops and says where, `best` stays what it was, nothing is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import Count
from tests.faults.trainings import NET, Host, assert_same_run, newest_step, train_arguments

from striate.models.user import load_class
from striate.predictor.predictor import load_predictor
from striate.runs.checkpoint import check_checkpoint, list_checkpoints
from striate.runs.journal import read_results, read_steps
from striate.runs.model_file import first_not_finite
from striate.runs.tensors import read_tensors

# The same net, until BatchNorm has seen so many batches: then it answers with what no loss can use.
POISONED = NET.replace(
    "return self.layers(x)",
    """answers, seen = self.layers(x), getattr(self.layers[1], "num_batches_tracked", 0)
        return answers POISON if seen > 30 and self.training == IN_TRAINING else answers""",
)
POISONS = {
    "NaN while training": ("True", "* float('nan')", "the loss became nan"),
    "an infinite loss": ("True", "+ torch.tensor([0.0] + [-float('inf')] * 9)", "the loss became inf"),
    "NaN while validating": ("False", "* float('nan')", "the validation split became infinite or not a number"),
}


@pytest.mark.parametrize("what", POISONS)
def test_a_net_that_stops_making_sense(
    host: Host, place: Path, whole: Path, finish: Callable[[Path], Path], what: str, count: Count
) -> None:
    """The first epoch is good and gives a best; the second is not."""
    training, poison, told = POISONS[what]
    run, net = place / "run", place / "net.py"
    net.write_text(POISONED.replace("IN_TRAINING", training).replace("POISON", poison), encoding="utf-8")
    process = host.start(place, *train_arguments("run"))
    assert process.wait() == 1, process.stderr
    assert told in process.stderr and "at step" in process.stderr and "--lr" in process.stderr, process.stderr
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    best_is_of_the_first_epoch(run)
    steps, losses = read_steps(run)
    assert steps[-1] >= 30 and all(math.isfinite(loss) for loss in losses)
    saved = list_checkpoints(run / "checkpoints")[-1]
    check_checkpoint(saved)
    assert first_not_finite(read_tensors(saved / "state.safetensors")) is None
    # The cause mended, it goes on as if nothing had happened.
    net.write_text(NET, encoding="utf-8")
    assert_same_run(whole, finish(run))
    count("losses that are not finite survived", 1, 1)


def best_is_of_the_first_epoch(run: Path) -> None:
    """Assert that the best model is that of epoch 1, and answers with numbers."""
    card = json.loads((run / "model.json").read_text())
    assert card["weights"]["epoch"] == 1
    results = read_results(run)
    assert len(results) == 1 and results[0].val_accuracy == card["metrics"]["val_accuracy"]
    net = load_class(f"{run.parent / 'net.py'}:Net")
    predictor = load_predictor(run, model=net, device="cpu")
    assert np.isfinite(predictor.logits(np.zeros((2, 8, 8, 1), np.uint8))).all()


def test_a_learning_rate_far_too_high(host: Host, place: Path) -> None:
    """From the first epoch on nothing is finite, so there is no best; a resumed run ends in the same step."""
    arguments = ["train", "digits", "--model", "three-conv", "--out", "run", "--save-every", "1"]
    process = host.start(place, *arguments, "--optimizer", "sgd", "--lr", "1e30", "--schedule", "constant")
    assert process.wait() == 1, process.stderr
    run, first = place / "run", process.stderr
    assert "became" in first and "--lr 1e+29" in first
    assert not (run / "model.json").exists() and not (run / "weights" / "best.safetensors").exists()
    assert newest_step(run) <= len(read_steps(run)[0])
    process = host.start(place, "resume", "run")
    assert process.wait() == 1
    assert first.splitlines()[0] in process.stderr
