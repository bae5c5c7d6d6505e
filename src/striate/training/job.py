"""A training run from claimed folder to tested model: epochs, saving, best weights, the one look at the test set."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from striate.device import peak_memory_mb
from striate.errors import Interrupted, NonFiniteLoss, PeerLost, StriateError, WriteFailed
from striate.evaluation.evaluate import Evaluation, evaluate_pictures, write_predictions
from striate.evaluation.metrics import confusion, fit_temperature, loss, macro_f1, predictions, top_k
from striate.predictor.predictor import Predictor
from striate.runs.checkpoint import restore_best
from striate.runs.doubt import Doubt
from striate.runs.folder import RunFolder
from striate.runs.journal import EpochResult, Journal, StepRow
from striate.runs.model_file import ModelCard, write_card
from striate.runs.tensors import read_tensors, write_tensors
from striate.settings.train import TrainSettings
from striate.settings.values import parse_time
from striate.training.distributed import ALONE
from striate.training.doubting import measure_doubt
from striate.training.forecast import (
    MEASURED_SHARE,
    Pace,
    fix_length,
    guess_pause,
    restore_length,
    steps_within,
    whole_seconds,
)
from striate.training.health import HealthLog
from striate.training.loop import Learner, Progress, ran_away, train_epoch
from striate.training.material import Material, Report
from striate.training.prepare import NetParts
from striate.training.saving import Saver
from striate.training.schedule import UNKNOWN
from striate.training.state import first_non_finite, state_tensors
from striate.training.stopping import Stopping
from striate.training.tested import Tested


@dataclass
class Best:
    """The best epoch so far: highest score on the validation pictures, then lowest loss.

    The score is the accuracy; where classes are uneven the macro-F1, which does not forgive forgetting a rare one.
    """

    epoch: int = 0
    score: float = -1.0
    accuracy: float = -1.0
    loss: float = float("inf")
    sha256: str = ""
    epochs_since: int = 0

    def is_beaten_by(self, score: float, loss: float) -> bool:
        """Say whether these figures are better; a loss that is not a number never is."""
        return loss == loss and (score, -loss) > (self.score, -self.loss)


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
    evaluation: Evaluation | None = None
    temperature: float = 1.0
    doubt: Doubt | None = None
    pace: Pace = field(default_factory=Pace)
    # What holds the folder's lock, from before anything is read or written until the run ends.
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder.path)
        self.stopping = Stopping()
        self.saver = Saver(self.folder, self.journal, self.settings.save_every, self.report)
        self.team = self.learner.team
        self.tested = Tested(self.settings, self.material, self.learner, self.folder.name)
        restore_length(self.learner, self.folder)
        self.health = HealthLog(self.folder, self.learner, self.material, self.report)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.material.parts.train.classes

    @property
    def total_steps(self) -> int:
        """Steps of the whole run; UNKNOWN until --time has fixed them."""
        return self.learner.total_steps

    @property
    def epochs(self) -> int | None:
        """Epochs of the whole run, a begun one counted whole; None until --time has fixed the steps."""
        return None if self.total_steps == UNKNOWN else math.ceil(self.total_steps / len(self.learner.batches))

    @property
    def estimate(self) -> float | None:
        """Seconds of the whole training with its validations, from what the steps so far took; None at first."""
        if self.pace.step_seconds is None or self.total_steps == UNKNOWN:
            return None
        return whole_seconds(self.total_steps, len(self.learner.batches), self.pace.step_seconds, self._pause())

    @property
    def _again(self) -> str:
        launch, verb = self.team.launch, f"resume {self.folder.path}"
        return launch.command(verb) if launch is not None and launch.size > 1 else f"striate {verb}"

    def run(self) -> Iterator[Progress | EpochResult]:
        """Train to the end and test once.

        Yields after every few steps and at every epoch's end. A signal saves at the current step, marks the run and
        raises Interrupted; any other error marks the run failed.
        """
        listening = self.stopping.listening(self._interrupted)
        with self.held, listening, self.learner.plan.active(), self.learner.asking_again():
            try:
                self.saver.begin(self.progress.step, self.progress.epoch)
                self.folder.set_status("running", process=os.getpid())
                self._save()  # so that even a run killed in its first seconds can be resumed
                while self.team.tell(self._has_more() and not self._gives_up()):
                    yield from self._run_epoch()
                self._save()
                self._finish()
            except BaseException as error:
                if isinstance(error, WriteFailed):
                    error.fix = f"make room or mend the cause, then: {self._again}"
                if isinstance(error, PeerLost):
                    error.fix = f"go on from the last save: {self._again}"
                stopped = isinstance(error, (Interrupted, KeyboardInterrupt, GeneratorExit))
                reason = str(error).partition("\n")[0] or type(error).__name__
                with contextlib.suppress(StriateError):
                    state = "interrupted" if stopped else "failed"
                    self.folder.set_status(state, step=self.progress.step, reason=reason)
                raise

    def _run_epoch(self) -> Iterator[Progress | EpochResult]:
        rows: list[StepRow] = []
        try:
            # A run that was stopped after its very last step has only the epoch's end to come.
            for block in train_epoch(self.learner, self.progress) if self.progress.step < self.total_steps else ():
                rows += block
                self._measure()
                # What all agreed on, and not a signal that comes a moment later: the others would train on.
                stop, _ = self.team.agree(self.stopping.signal, self.total_steps)
                if stop or self.saver.is_due(self.progress.step):
                    self.journal.add_steps(rows)
                    rows = []
                    self._save()
                if stop:
                    self.stopping.signal = stop
                    self.team.meet()  # were others gone before, torchrun would end this process as well
                    raise self._interrupted()
                yield self.progress
        except NonFiniteLoss as error:
            self.journal.add_steps([*rows, *error.rows])
            raise
        began = time.perf_counter()
        self.journal.add_steps(rows)
        try:
            result = self._end_epoch()
        except Interrupted:  # while it validated; the resumed run validates anew
            self._save()
            raise
        self.journal.add_result(result)
        self.health.end_epoch(result.epoch, result.step, last=result.step >= self.total_steps)
        self.progress.next_epoch()
        self.progress.pauses += time.perf_counter() - began
        if self.stopping.signal or self.saver.is_due(self.progress.step, epoch_ended=True):
            self._save()
        yield result
        if self.stopping.signal:
            self._save()
            raise self._interrupted()

    def _end_epoch(self) -> EpochResult:
        progress = self.progress
        updates, validates = self.tested.is_wanted(progress)
        val_loss = val_accuracy = None
        if updates:
            with self.stopping.at_once():
                self.tested.update(progress.epoch)
        if validates:
            with self.stopping.at_once():
                logits, labels = self.tested.logits("validation", progress)
            val_loss = loss(logits, labels, self.settings.loss)
            val_accuracy = top_k(logits, labels, 1) / len(labels)
            self.best.epochs_since += max(1, self.settings.validate_every)
            score = val_accuracy
            if self.material.is_uneven:
                score = macro_f1(confusion(labels, predictions(logits), len(self.classes)))
            if self.best.is_beaten_by(score, val_loss):
                digest = self._write_weights("best")
                self.best = Best(progress.epoch + 1, score, val_accuracy, val_loss, digest)
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
        """Test the best weights, as `striate eval` does: in one process, the first of a team."""
        self.team.leave()
        self.learner.team = ALONE
        digest = self._write_weights("last")
        if self.best.epoch:
            self.tested.net.load_state_dict(read_tensors(restore_best(self.folder.path, self.best.sha256, self.report)))
        else:
            self._write_weights("best")
            self.best = Best(self.progress.epoch, sha256=digest)
        metrics: dict[str, Any] = {}
        if len(self.material.split.validation):
            with self.stopping.at_once():
                logits, labels = self.tested.logits("validation", self.progress)
            self.temperature = fit_temperature(logits, labels, self.settings.output)
            with self.stopping.at_once():
                self.doubt = measure_doubt(self.predictor(), self.material, self.folder)
            metrics["val_accuracy"] = self.best.accuracy
        if len(self.material.split.test):
            part, images, indices = self.material.pictures("test")
            kinds = {"loss_kind": self.settings.loss, "tta": self.settings.tta}
            with self.stopping.at_once():
                self.evaluation = evaluate_pictures(self.predictor(), part, images, indices, split="test", **kinds)
            self.folder.write_json("evaluation.json", self.evaluation.record)
            write_predictions(self.folder.file("predictions.csv"), self.evaluation, self.classes)
            metrics["test_accuracy"] = self.evaluation.record["top1"]["value"]
        self._write_card(metrics)
        self.folder.set_status(
            "finished",
            epoch=self.progress.epoch,
            step=self.progress.step,
            saves={"times": self.saver.times, "seconds": round(self.saver.seconds, 3)},
            sha256=self.folder.digests(),
        )

    def predictor(self) -> Predictor:
        """Return the net as it is tested, with its preprocessing and class names."""
        return self.tested.predictor(temperature=self.temperature, doubt=self.doubt)

    def _ran_away(self, what: str) -> NonFiniteLoss:
        progress = self.progress
        return ran_away(what, progress.step, progress.epoch + (progress.step_in_epoch > 0), progress.lr)

    def _gives_up(self) -> bool:
        patience = self.settings.early_stop
        gives_up = patience is not None and self.best.epochs_since >= patience
        if gives_up:
            self.report(f"stopped early: no better validation for {patience} epochs")
        return gives_up

    def _has_more(self) -> bool:
        return self.progress.step < self.total_steps or self.progress.step_in_epoch > 0

    def _measure(self) -> None:
        """Note how long the steps take; with --time fix their number once MEASURED_SHARE of it is over."""
        progress, per_epoch = self.progress, len(self.learner.batches)
        self.pace.note(progress.step, progress.seconds)
        step_seconds = self.pace.step_seconds
        if self.total_steps != UNKNOWN or step_seconds is None or self.settings.time is None:
            return
        given, spent = parse_time(self.settings.time), progress.seconds + progress.pauses
        if spent < MEASURED_SHARE * given:
            return
        more = steps_within(given - spent, per_epoch, step_seconds, self._pause())
        fix_length(self.learner, self.folder, progress.step, progress.step + more)
        self.report(
            f"{self.settings.time} of training: {self.total_steps:,} steps, {self.total_steps / per_epoch:.1f} epochs,"
            f" by the first {progress.step:,} steps"
        )

    def _pause(self) -> float:
        """Return the seconds between two epochs: as measured, or guessed before the first validation."""
        every = self.settings.validate_every
        if self.progress.epoch >= max(1, every):
            return self.progress.pauses / self.progress.epoch
        pictures = len(self.material.split.validation) / every if every else 0
        return guess_pause(self.pace.step_seconds or 0.0, self.settings.batch_size, pictures)

    def _pictures_done(self) -> int:
        return len(self.material.split.train) * self.progress.epoch + self.progress.seen

    def _save(self) -> None:
        state = {"format": 1, "progress": asdict(self.progress), "best": _plain(asdict(self.best))}
        if self.saver.is_saved(state):
            return
        tensors = state_tensors(self.learner)
        broken = first_non_finite(self.learner, tensors)
        if broken is not None and self.progress.step:
            raise self._ran_away(f"{broken} became infinite or not a number")
        self.saver.save(tensors, state, self.best.sha256)

    def _write_weights(self, which: str) -> str:
        return write_tensors(self.folder.weights / f"{which}.safetensors", self.tested.net.state_dict())

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
            metrics={**metrics, **summary.sizes},
            licence=self.material.parts.licence,
            doubt=self.doubt.to_json() if self.doubt is not None else None,
            library=self.parts.library,
        )
        write_card(self.folder.path, card)

    def _interrupted(self) -> Interrupted:
        name = signal.Signals(self.stopping.signal).name
        told = f"stopped by {name} at step {self.progress.step}; everything is saved"
        return Interrupted(told, "", f"go on with: {self._again}", exit_code=128 + self.stopping.signal)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    # JSON knows no infinity: before the first validation the best loss is written as null.
    return {name: None if value == float("inf") else value for name, value in values.items()}
