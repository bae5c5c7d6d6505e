"""Augmentation in a run: pictures kept larger for `crop`, and training on mixed labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from striate.errors import UsageError
from striate.runs.journal import read_results, read_steps
from striate.training.job import Job

Start = Callable[..., Job]


def test_crop_keeps_larger_pictures_to_train_on_and_nothing_else(start: Start) -> None:
    plain, cropped = start("plain"), start("cropped", augment="crop:0.35,flip")
    assert plain.material.train_images.shape == (240, 8, 8, 1)
    assert cropped.material.train_images.shape == (240, 9, 9, 1)  # 1.15 · 8 = 9.2
    assert cropped.material.preprocess == plain.material.preprocess, "mean and std are those of the net's size"
    for split in ("train", "validation", "test"):
        (_, ours, _), (_, theirs, _) = (job.material.pictures(split) for job in (cropped, plain))
        assert np.array_equal(ours, theirs)
    assert {tuple(images.shape[1:]) for images, _ in cropped.learner.batches.epoch(0)} == {(1, 8, 8)}


@pytest.mark.parametrize("augment", ["crop:0.5", "altflip,mixup:0.4", "cutmix:1"])
def test_a_run_learns_with_it(start: Start, augment: str) -> None:
    job = start("run", augment=augment, epochs=4, recompute_batchnorm="on")
    for _ in job.run():
        pass
    results = read_results(job.folder.path)
    assert results[-1].train_loss < results[0].train_loss
    assert job.evaluation is not None and job.evaluation.record["top1"]["value"] > 0.5


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy", "mean-squared-error"])
def test_mixing_with_alpha_0_changes_no_loss(start: Start, loss: str) -> None:
    losses = []
    for name, augment in (("plain", "none"), ("mixed", "mixup:0")):
        job = start(name, augment=augment, loss=loss, epochs=1)
        for _ in job.run():
            pass
        losses.append(read_steps(job.folder.path)[1])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def test_too_strong_or_unknown_is_refused_before_a_folder_is_made(start: Start, tmp_path: Path) -> None:
    for augment in ("shift:9:reflect,crop:0.5", "saturation:0.5", "mixup:0.2,flip"):
        with pytest.raises(UsageError):
            start("run", augment=augment)
    assert not (tmp_path / "run").exists()
