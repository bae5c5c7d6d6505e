"""A training run from claimed folder to tested model: epochs, saving, best weights, the one look at the test set."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from striate.device import peak_memory_mb
from striate.errors import Interrupted, NonFiniteLoss, StriateError
from striate.evaluation.evaluate import Evaluation, evaluate_pictures, write_predictions
from striate.evaluation.metrics import fit_temperature, loss, top_k
from striate.predictor.predictor import Predictor
from striate.runs.checkpoint import clean_checkpoints, save_checkpoint
from striate.runs.folder import RunFolder
from striate.runs.journal import EpochResult, Journal, StepRow
from striate.runs.model_file import ModelCard, write_card
from striate.runs.tensors import read_tensors, write_tensors
from striate.settings.train import TrainSettings
from striate.training.loop import Learner, Progress, ran_away, recompute_batchnorm, train_epoch
from striate.training.material import Material, Report
from striate.training.prepare import NetParts
from striate.training.state import first_non_finite, state_tensors

# Under it BatchNorm's running statistics are measured anew (docs/numbers.md, "BatchNorm and one picture").
SMALL_BATCH = 8


@dataclass
class Best:
    """The best epoch so far: highest validation accuracy, then lowest validation loss."""

    epoch: int = 0
    accuracy: float = -1.0
    loss: float = float("inf")
    sha256: str = ""
    epochs_since: int = 0

    def is_beaten_by(self, accuracy: float, loss: float) -> bool:
        """Say whether these figures are better; a loss that is not a number never is."""
        return loss == loss and (accuracy, -loss) > (self.accuracy, -self.loss)


@dataclass
class Job:
    """One run. Iterate over `run()`; it yields Progress within an epoch and an EpochResult at its end."""

    settings: TrainSettings
    material: Material
    parts: NetParts
    learner: Learner
    folder: RunFolder
    report: Report
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)
    stop_signal: int = 0
    evaluation: Evaluation | None = None
    temperature: float = 1.0
    _saved_step: int = 0
    _saved_at: float = 0.0

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder.path)
        # What is validated, tested and shipped: the average of the weights where there is one, else the net itself.
        self.tested = self.learner.net if self.learner.average is None else copy.deepcopy(self.learner.net)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.material.parts.train.classes

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return len(self.learner.batches) * self.settings.epochs

    def run(self) -> Iterator[Progress | EpochResult]:
        """Train to the end and test once.

        Yields after every few steps and at every epoch's end. A signal saves at the current step, marks the run and
        raises Interrupted; any other error marks the run failed.
        """
        with self.folder.lock(), self._listening():
            clean_checkpoints(self.folder.checkpoints)
            self.journal.rewind(self.progress.step, self.progress.epoch)
            self.folder.set_status("running", process=os.getpid())
            self._saved_at = time.monotonic()
            try:
                while self.progress.epoch < self.settings.epochs and not self._gives_up():
                    yield from self._run_epoch()
                self._finish()
            except BaseException as error:
                stopped = isinstance(error, (Interrupted, KeyboardInterrupt, GeneratorExit))
                reason = str(error).partition("\n")[0] or type(error).__name__
                with contextlib.suppress(StriateError):
                    state = "interrupted" if stopped else "failed"
                    self.folder.set_status(state, step=self.progress.step, reason=reason)
                raise

    def _run_epoch(self) -> Iterator[Progress | EpochResult]:
        rows: list[StepRow] = []
        for block in train_epoch(self.learner, self.progress):
            rows += block
            if self.stop_signal or self._save_is_due():
                self.journal.add_steps(rows)
                rows = []
                self._save()
            if self.stop_signal:
                raise self._interrupted()
            yield self.progress
        self.journal.add_steps(rows)
        result = self._end_epoch()
        self.journal.add_result(result)
        self.progress.next_epoch()
        self._save()
        yield result
        if self.stop_signal:
            raise self._interrupted()

    def _end_epoch(self) -> EpochResult:
        progress = self.progress
        last = progress.epoch + 1 == self.settings.epochs
        has_validation = len(self.material.split.validation) > 0
        val_loss = val_accuracy = None
        if has_validation or last:
            self._update_tested(progress.epoch)
        if has_validation:
            logits, labels = self._logits("validation")
            val_loss = loss(logits, labels, self.settings.loss)
            val_accuracy = top_k(logits, labels, 1) / len(labels)
            self.best.epochs_since += 1
            if self.best.is_beaten_by(val_accuracy, val_loss):
                digest = self._write_weights("best")
                self.best = Best(progress.epoch + 1, val_accuracy, val_loss, digest)
                self._write_card({"val_accuracy": val_accuracy})
        return EpochResult(
            epoch=progress.epoch + 1,
            step=progress.step,
            seconds=round(progress.seconds, 3),
            lr=progress.lr,
            train_loss=progress.loss_sum / progress.seen,
            train_accuracy=progress.correct / progress.seen,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            images_per_second=round(self._pictures_done() / max(progress.seconds, 1e-9), 1),
            peak_memory_mb=round(peak_memory_mb(), 1),
        )

    def _finish(self) -> None:
        digest = self._write_weights("last")
        if self.best.epoch:
            self.tested.load_state_dict(read_tensors(self.folder.weights / "best.safetensors"))
        else:
            self._write_weights("best")
            self.best = Best(self.progress.epoch, sha256=digest)
        metrics: dict[str, Any] = {}
        if len(self.material.split.validation):
            logits, labels = self._logits("validation")
            self.temperature = fit_temperature(logits, labels, self.settings.output)
            metrics["val_accuracy"] = self.best.accuracy
        if len(self.material.split.test):
            part, images, indices = self.material.pictures("test")
            self.evaluation = evaluate_pictures(
                self.predictor(), part, images, indices, split="test", loss_kind=self.settings.loss
            )
            self.folder.write_json("evaluation.json", self.evaluation.record)
            write_predictions(self.folder.file("predictions.csv"), self.evaluation, self.classes)
            metrics["test_accuracy"] = self.evaluation.record["top1"]["value"]
        self._write_card(metrics)
        self.folder.set_status("finished", epoch=self.progress.epoch, step=self.progress.step)

    def predictor(self) -> Predictor:
        """Return the net as it is tested, with its preprocessing and class names."""
        return Predictor(
            self.tested,
            self.material.preprocess,
            self.classes,
            output=self.settings.output,
            temperature=self.temperature,
            name=self.folder.name,
            device=self.learner.device,
            channels_last=self.learner.plan.channels_last,
        )

    def _update_tested(self, epoch: int) -> None:
        if self.learner.average is not None:
            self.tested.load_state_dict(self.learner.average.state)
        wanted = self.settings.recompute_batchnorm
        if wanted == "on" or (wanted == "auto" and self.settings.batch_size < SMALL_BATCH):
            recompute_batchnorm(self.tested, self.learner.batches, epoch)

    def _logits(self, split: str) -> tuple[Any, Any]:
        part, images, indices = self.material.pictures(split)
        logits = self.predictor().logits(images)
        if not np.isfinite(logits).all():
            raise self._ran_away(f"the net's answers on the {split} split became infinite or not a number")
        return logits, part.labels[indices]

    def _ran_away(self, what: str) -> NonFiniteLoss:
        progress = self.progress
        return ran_away(what, progress.step, progress.epoch + (progress.step_in_epoch > 0), progress.lr)

    def _gives_up(self) -> bool:
        patience = self.settings.early_stop
        if patience is None or self.best.epochs_since < patience:
            return False
        self.report(f"stopped early: no better validation for {patience} epochs")
        return True

    def _pictures_done(self) -> int:
        return len(self.material.split.train) * self.progress.epoch + self.progress.seen

    def _save_is_due(self) -> bool:
        wanted = self.settings.save_every
        if wanted is None:
            return False
        if wanted.endswith("s"):
            return time.monotonic() - self._saved_at >= int(wanted[:-1])
        return self.progress.step - self._saved_step >= int(wanted)

    def _save(self) -> None:
        if self._saved_step == self.progress.step and self.progress.step_in_epoch:
            return
        tensors = state_tensors(self.learner)
        broken = first_non_finite(self.learner, tensors)
        if broken is not None:
            raise self._ran_away(f"{broken} became infinite or not a number")
        state = {"format": 1, "progress": asdict(self.progress), "best": _plain(asdict(self.best))}
        save_checkpoint(self.folder.checkpoints, self.progress.step, tensors, state)
        self._saved_step, self._saved_at = self.progress.step, time.monotonic()

    def _write_weights(self, which: str) -> str:
        tensors: Mapping[str, Tensor] = self.tested.state_dict()
        return write_tensors(self.folder.weights / f"{which}.safetensors", tensors)

    def _write_card(self, metrics: dict[str, Any]) -> None:
        summary, preprocess = self.parts.summary, self.material.preprocess
        card = ModelCard(
            name=self.parts.name,
            class_name=type(self.learner.net).__name__,
            options=self.parts.options,
            num_classes=len(self.classes),
            in_channels=preprocess.channels,
            input_size=preprocess.size,
            classes=list(self.classes),
            preprocess=preprocess.to_json(),
            output=self.settings.output,
            temperature=self.temperature,
            weights={"file": "weights/best.safetensors", "sha256": self.best.sha256, "epoch": self.best.epoch},
            metrics={**metrics, "parameters": summary.parameters, "macs": summary.macs},
            licence=self.material.parts.licence,
        )
        write_card(self.folder.path, card)

    def _interrupted(self) -> Interrupted:
        name = signal.Signals(self.stop_signal).name
        return Interrupted(
            f"stopped by {name} at step {self.progress.step}; everything is saved",
            "",
            f"go on with: striate resume {self.folder.path}",
            exit_code=128 + self.stop_signal,
        )

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Let the first SIGINT or SIGTERM ask for a save; a second one acts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, _frame: Any) -> None:
            self.stop_signal = number
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    # JSON knows no infinity: before the first validation the best loss is written as null.
    return {name: None if value == float("inf") else value for name, value in values.items()}
