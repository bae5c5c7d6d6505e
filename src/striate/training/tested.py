"""The net as it is validated, tested and shipped: its average, where there is one, with BatchNorm that fits it."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from striate.predictor.predictor import Predictor
from striate.predictor.torch_backend import predictor_of
from striate.runs.doubt import Doubt
from striate.settings.train import TrainSettings
from striate.training.loop import Learner, Progress, ran_away, recompute_batchnorm
from striate.training.material import Material

# Under it BatchNorm's running statistics are measured anew (docs/numbers.md, "BatchNorm and one picture").
SMALL_BATCH = 8


class Tested:
    """`net` is the net itself, or a copy that holds the average of its weights; `name` is told with an answer."""

    def __init__(self, settings: TrainSettings, material: Material, learner: Learner, name: str) -> None:
        self.settings = settings
        self.material = material
        self.learner = learner
        self.name = name
        self.net = learner.net if learner.average is None else copy.deepcopy(learner.net)

    def is_wanted(self, progress: Progress) -> tuple[bool, bool]:
        """Say at an epoch's end whether the net is to be brought up to date, and whether it is to be validated."""
        last, every = progress.step >= self.learner.total_steps, self.settings.validate_every
        due = last or (every > 0 and (progress.epoch + 1) % every == 0)
        validates = due and len(self.material.split.validation) > 0
        return validates or last, validates

    def update(self, epoch: int) -> None:
        """Take over the average, and measure BatchNorm's statistics with the pictures of this epoch."""
        if self.learner.average is not None:
            self.net.load_state_dict(self.learner.average.state)
        wanted = self.settings.recompute_batchnorm
        if wanted == "on" or (wanted == "auto" and self.settings.batch_size < SMALL_BATCH):
            kept = self.learner.norms_kept(epoch * len(self.learner.batches))
            recompute_batchnorm(self.net, self.learner.batches, epoch, kept=kept)

    def restore(self, epoch: int) -> None:
        """Be as after so many epochs where a run goes on: after the last one nothing else brings the average back."""
        if self.learner.average is not None and epoch:
            with self.learner.plan.active():
                self.update(epoch - 1)

    def predictor(self, *, temperature: float = 1.0, doubt: Doubt | None = None, fold: bool = True) -> Predictor:
        """Return it with its preprocessing and class names; `fold` for a net that is trained."""
        return predictor_of(
            self.net,
            self.material.preprocess,
            self.material.parts.train.classes,
            output=self.settings.output,
            temperature=temperature,
            doubt=doubt,
            name=self.name,
            device=self.learner.device,
            channels_last=self.learner.plan.channels_last,
            threads=self.learner.plan.answer_threads,
            fold=fold,
        )

    def logits(self, split: str, progress: Progress) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return logits (n, K) and labels (n,) of a split, of which each process of a team answers its part.

        Raises NonFiniteLoss for answers that are not finite.
        """
        part, images, indices = self.material.pictures(split)
        logits = self.learner.team.answers(self.predictor(fold=False).logits, images, len(part.classes))
        if not np.isfinite(logits).all():
            what = f"the net's answers on the {split} split became infinite or not a number"
            raise ran_away(what, progress.step, progress.epoch + (progress.step_in_epoch > 0), progress.lr)
        return logits, part.labels[indices]
