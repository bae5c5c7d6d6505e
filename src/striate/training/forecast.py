"""How long a run will take, and how many steps fit into a given time: arithmetic on what its first steps took."""

from __future__ import annotations

import math
from dataclasses import dataclass

from striate.errors import DataError
from striate.runs.folder import RunFolder
from striate.training.loop import Learner

# With --time the number of steps is fixed after so much of it; no schedule is far from its start by then.
MEASURED_SHARE = 0.03
# An answer costs a third of a training step: the backward pass computes two products for each of the forward pass.
ANSWER_SHARE = 1 / 3
FILE = "time.json"


@dataclass
class Pace:
    """How long a step takes, from the end of the first block of steps on: kernels and memory are made ready in it."""

    first: tuple[int, float] | None = None
    last: tuple[int, float] = (0, 0.0)

    def note(self, step: int, seconds: float) -> None:
        """Note that `step` steps were done after `seconds` of training."""
        self.first, self.last = self.first or (step, seconds), (step, seconds)

    @property
    def step_seconds(self) -> float | None:
        """Seconds a step, or None before two blocks are done."""
        if self.first is None or self.last[0] == self.first[0]:
            return None
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


def guess_pause(step_seconds: float, batch_size: int, pictures: float) -> float:
    """Return the seconds that answering so many validation pictures will take, before it was done once."""
    return ANSWER_SHARE * step_seconds * pictures / batch_size


def whole_seconds(total_steps: int, steps_per_epoch: int, step_seconds: float, pause: float) -> float:
    """Return the seconds of a whole run, with a pause of so many seconds after each epoch."""
    return total_steps * step_seconds + math.ceil(total_steps / steps_per_epoch) * pause


def steps_within(seconds: float, steps_per_epoch: int, step_seconds: float, pause: float) -> int:
    """Return the steps that fit into so many seconds; a pause is spread over the steps of its epoch. At least one."""
    return max(1, int(seconds / (step_seconds + pause / steps_per_epoch)))


def fix_length(learner: Learner, folder: RunFolder, step: int, total_steps: int) -> None:
    """Fix the number of steps after `step` of them, first in time.json: so a resumed run has just as many."""
    folder.write_json(FILE, {"format": 1, "total_steps": total_steps, "measured_steps": step})
    learner.total_steps, learner.measured_steps = total_steps, step


def restore_length(learner: Learner, folder: RunFolder) -> None:
    """Give a learner the number of steps that time.json records, if it is there. Raises DataError if it is damaged."""
    if not folder.file(FILE).is_file():
        return
    value = folder.read_json(FILE)
    try:
        measured, total = int(value["measured_steps"]), int(value["total_steps"])
        if not 0 < measured < total:
            raise ValueError(f"{measured} steps of {total} were measured")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder.file(FILE)} is damaged", str(error), "restore it, or train again") from error
    learner.total_steps, learner.measured_steps = total, measured
