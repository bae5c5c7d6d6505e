"""When and how a run is saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from striate.files import remove_temporaries
from striate.runs.checkpoint import clean_checkpoints, restore_best, save_checkpoint
from striate.runs.folder import RunFolder
from striate.runs.journal import Journal
from striate.training.material import Report

# `save_every: auto`: at epoch ends and after so many seconds, but never so often that saving takes more than 1 % of the
# time.
AUTO_SECONDS = 60.0
AUTO_SHARE = 0.01


class Saver:
    """Saves a run when it is due.

    `every`: `auto`; a number of steps (`200`) or of seconds (`60s`), and at epoch ends; None: at epoch ends.
    A save changes nothing in the run: no number depends on when it happens. `times` and `seconds` count the saves and
    what they cost, waiting for the disk included.
    """

    def __init__(self, folder: RunFolder, journal: Journal, every: str | None, report: Report) -> None:
        self.folder = folder
        self.journal = journal
        self.every = every
        self.report = report
        self.times = 0
        self.seconds = 0.0
        self._saved: Mapping[str, Any] | None = None
        self._used = ""
        self._step = 0
        self._at = time.monotonic()
        self._cost = 0.0

    def go_on_from(self, checkpoint: str, state: Mapping[str, Any]) -> None:
        """Take over where a checkpoint of that name and state stands: it need not be saved again."""
        self._used, self._saved, self._step = checkpoint, state, int(state["progress"]["step"])

    def begin(self, step: int, epoch: int) -> None:
        """Clear what a run that was cut off left behind, and cut the logs back to where it goes on."""
        clean_checkpoints(self.folder.checkpoints, self._used)
        for folder in (self.folder.path, self.folder.weights):
            remove_temporaries(folder)
        missing = self.journal.rewind(step, epoch)
        if missing:
            self.report(f"{self.journal.steps_path} lacks {missing} of the {step} steps so far: someone changed it")
        self._at = time.monotonic()

    def is_due(self, step: int, *, epoch_ended: bool = False) -> bool:
        """Say whether to save now."""
        elapsed = time.monotonic() - self._at
        if self.every == "auto":
            return elapsed >= max(0.0 if epoch_ended else AUTO_SECONDS, self._cost / AUTO_SHARE)
        if epoch_ended or self.every is None:
            return epoch_ended
        if self.every.endswith("s"):
            return elapsed >= int(self.every[:-1])
        return step - self._step >= int(self.every)

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], best_sha256: str = "") -> None:
        """Save now. Raises WriteFailed with path and reason, and the last checkpoint is then untouched."""
        began, step = time.perf_counter(), int(state["progress"]["step"])
        self.journal.sync()
        best = restore_best(self.folder.path, best_sha256, self.report) if best_sha256 else None
        save_checkpoint(self.folder.checkpoints, step, tensors, state, best)
        self._saved, self._step, self._at = state, step, time.monotonic()
        self._cost = time.perf_counter() - began
        self.times += 1
        self.seconds += self._cost

    def is_saved(self, state: Mapping[str, Any]) -> bool:
        """Say whether just this state is what was saved last."""
        return state == self._saved
