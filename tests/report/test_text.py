"""The lines of a run: few, whole, and with the numbers that a person looks for."""

from __future__ import annotations

from typing import Any

import pytest

from striate.report import text
from striate.report.text import (
    closing,
    count,
    duration,
    epoch_row,
    human,
    hyper_parameters,
    opening,
    percent,
    typed_net,
)

SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "lr": 0.1,
    "schedule": "one-cycle",
    "weight_decay": 0.0005,
    "decoupled": True,
    "batch_size": 64,
    "loss": "cross-entropy",
    "label_smoothing": 0.1,
    "clip": 1.0,
    "ema": 0.999,
    "balance": "loss",
    "augment": "shift:2,flip",
    "epochs": 3,
    "time": None,
    "side_momentum": 0.85,
    "bias_lr": None,
    "head_lr": None,
    "lookahead": None,
}
FACTS: dict[str, Any] = {
    "environment": {"device_name": "A Processor", "device": "cpu", "torch": "2.10.0"},
    "data": {
        "name": "cifar10",
        "counts": {"train": 45000, "validation": 5000, "test": 10000},
        "classes": [str(i) for i in range(10)],
        "picture": {"size": [32, 40], "channels": 3},
        "geometry": [],
        "findings": [],
        "left_out": [],
        "mean": [127.5, 51.0, 0.0],
        "std": [255.0, 25.5, 2.55],
    },
    "net": {"name": "alexnet", "parameters": 44428106, "macs": 123456789, "input_size": (96, 96)},
    "settings": SETTINGS,
    "plan": {"precision": "fp32", "threads": 2, "reason": "channels-last, all cores"},
    "steps_per_epoch": 704,
    "notes": ["no GPU found: using the CPU"],
}
RESULT: dict[str, Any] = {
    "epoch": 2,
    "step": 1408,
    "seconds": 75.3,
    "lr": 0.05,
    "train_loss": 0.12345,
    "train_accuracy": 0.98765,
    "val_loss": 0.2,
    "val_accuracy": 0.95,
    "images_per_second": 12345.6,
    "peak_memory_mb": 812.3,
}
EVALUATION: dict[str, Any] = {
    "top1": {"value": 0.95, "low": 0.945, "high": 0.955},
    "samples": 10000,
    "per_class": [
        {"class": "cat", "samples": 1000, "precision": 0.8, "recall": 0.7, "f1": 0.75},
        {"class": "dog", "samples": 9000, "precision": 0.97, "recall": 0.98, "f1": 0.975},
        {"class": "never shown", "samples": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0},
    ],
}


def closing_facts(**changed: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "results": [{**RESULT, "epoch": 1, "val_accuracy": 0.96, "val_loss": 0.1}, RESULT],
        "best_epoch": 1,
        "evaluation": EVALUATION,
        "seconds": 80.0,
        "folder": "runs/cifar10-alexnet-1",
        "pictures": ["samples.png", "curves.png"],
        "next": ["striate predict runs/cifar10-alexnet-1 picture.png", "striate serve runs/cifar10-alexnet-1"],
    }
    return {**facts, **changed}


def test_the_opening_names_machine_data_net_training_and_plan() -> None:
    lines = opening(FACTS)
    whole = "\n".join(lines)
    for words in (
        *("A Processor", "torch 2.10.0", "45,000 train, 5,000 validation, 10,000 test", "10 classes"),
        *("40×32 pixels", "colour", "seen at 96×96 pixels", "0.5000 ± 1.0000, 0.2000 ± 0.1000, 0.0000 ± 0.0100"),
        *("44,428,106 parameters", "123.5 million multiply-adds", "3 epochs of 704 steps", "fp32", "2 threads"),
        "no GPU found",
    ):
        assert words in whole, words
    timed = "\n".join(opening({**FACTS, "settings": {**SETTINGS, "time": "10m"}}))
    assert "10m of training" in timed and "3 epochs" not in timed and "of 704 steps" in timed
    plain = opening({**FACTS, "net": {**FACTS["net"], "input_size": (32, 40)}})
    assert "seen at" not in "\n".join(plain)


def test_hyper_parameters_name_what_is_on_and_only_that() -> None:
    line = hyper_parameters(SETTINGS)
    for words in (
        *("sgd (momentum 0.9, nesterov)", "lr 0.1", "one-cycle schedule", "weight decay 0.0005 decoupled", "batch 64"),
        *("cross-entropy", "label smoothing 0.1", "clip 1", "average of weights 0.999", "balance by loss"),
        "augment shift:2,flip",
    ):
        assert words in line, words
    off = {"weight_decay": 0.0, "label_smoothing": 0.0, "clip": None, "ema": None, "balance": "none"}
    plain = hyper_parameters({**SETTINGS, **off, "optimizer": "adam", "augment": "none"})
    assert plain == "adam, lr 0.1, one-cycle schedule, batch 64, cross-entropy"
    muon = hyper_parameters({**SETTINGS, "optimizer": "muon", "head_lr": 0.67, "lookahead": 0.9})
    assert muon.startswith("muon (momentum 0.9, of the others 0.85), lr 0.1")
    assert "lr of the head 0.67" in muon and "lookahead 0.9" in muon and "lr of biases" not in muon
    assert "weight decay 0.0005 coupled" in hyper_parameters({**SETTINGS, "decoupled": False})


def test_the_closing_tells_best_train_test_speed_and_what_next() -> None:
    whole = "\n".join(closing(closing_facts()))
    assert whole.endswith("\n          striate serve runs/cifar10-alexnet-1")
    for words in (
        *("epoch 1: validation 96.00 %, loss 0.1000", "loss 0.1235, accuracy 98.77 %"),
        *("accuracy 95.00 % (95 % interval 94.50 % to 95.50 %, 10,000 pictures)", "1 min 20 s in all", "812 MB"),
        *("12,346 pictures/s", "runs/cifar10-alexnet-1 (samples.png, curves.png)", "next      striate predict"),
    ):
        assert words in whole, words


def test_the_weakest_class_was_shown() -> None:
    line = next(line for line in closing(closing_facts()) if line.startswith("weakest"))
    assert "cat" in line and "80.00 %" in line and "70.00 %" in line


def test_test_time_augmentation_is_a_line_of_its_own() -> None:
    augmented = {"value": 0.96, "low": 0.955, "high": 0.965, "kind": "mirror-shift"}
    lines = closing(closing_facts(evaluation={**EVALUATION, "top1_tta": augmented}))
    assert "tta       accuracy 96.00 % with test-time augmentation (mirror-shift)" in lines
    assert any(line.startswith("test      accuracy 95.00 %") for line in lines)
    assert not any(line.startswith("tta") for line in closing(closing_facts()))


def test_without_validation_and_without_test() -> None:
    last = {**RESULT, "val_loss": None, "val_accuracy": None}
    lines = closing(closing_facts(results=[last], best_epoch=2, evaluation=None))
    assert any("epoch 2, the last" in line for line in lines)
    assert not any(line.startswith(("test", "weakest")) for line in lines)


def test_a_run_prints_at_most_25_lines_besides_its_epochs() -> None:
    assert len(opening(FACTS)) + 1 + len(closing(closing_facts())) <= 25 - 8, "room for eight notes is left"
    assert all("\n" not in line for line in [*opening(FACTS), *closing(closing_facts())])


def test_rows_stand_below_their_headings() -> None:
    wide = {**RESULT, "epoch": 999, "train_loss": 12.3456, "images_per_second": 123456.0, "seconds": 99999.9}
    for row in (epoch_row(RESULT, 3), epoch_row({**RESULT, "val_loss": None, "val_accuracy": None}, 100)):
        assert len(row) == len(text.ROW_HEADER)
    assert len(epoch_row({**wide, "lr": 1.234e-05}, 999)) == len(text.ROW_HEADER)
    assert "98.77 %" in epoch_row(RESULT, 3) and "2/3" in epoch_row(RESULT, 3)
    assert epoch_row({**RESULT, "val_loss": None, "val_accuracy": None}, 3).split()[4:6] == ["-", "-"]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (percent(0.98765), "98.77 %"),
        (percent(1.0), "100.00 %"),
        (human(416), "416"),
        (human(416_500), "416.5 thousand"),
        (human(1_200_000), "1.2 million"),
        (human(3e9), "3 billion"),
        (duration(0.04), "0.0 s"),
        (duration(59.94), "59.9 s"),
        (duration(61), "1 min 1 s"),
        (duration(3599.7), "1 h 0 min"),
        (duration(7260), "2 h 1 min"),
        (count(1, "thread"), "1 thread"),
        (count(1200, "step"), "1,200 steps"),
    ],
)
def test_numbers_as_a_person_says_them(found: str, wanted: str) -> None:
    assert found == wanted


def test_a_net_of_ones_own_is_named_as_it_was_typed() -> None:
    assert (
        typed_net("striate train d --model 'my nets/b.py:Net' --epochs 3\nstriate resume d", "Net")
        == "my nets/b.py:Net"
    )
    assert typed_net("striate train d --model=b.py:Net", "Net") == "b.py:Net"
    assert typed_net("striate.train('it\\'s', model=Net)", "Net") == typed_net("", "Net") == "net.py:Net"
    assert typed_net("striate train d --model b.py:Other", "Net") == "net.py:Net"
