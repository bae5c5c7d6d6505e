"""The training loop: forward, loss, backward, step, record. Read this first."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from striate.data.batches import Batches
from striate.device import Plan, seed_step
from striate.errors import NonFiniteLoss
from striate.models.dry_run import set_mode
from striate.runs.journal import StepRow
from striate.training.average import WeightAverage
from striate.training.distributed import ALONE, Alone
from striate.training.losses import Loss
from striate.training.schedule import UNKNOWN, fading_rate

# Losses stay on the device and are read so many steps, or so many seconds, at a time: no step waits for the one before.
RECORD_STEPS = 64
RECORD_SECONDS = 0.5

# What the loss of an auxiliary head counts beside the net's own (Szegedy et al. 2014, arXiv:1409.4842, § 5).
AUXILIARY_SHARE = 0.3


@dataclass
class Progress:
    """Where a run stands: all of it is saved in a checkpoint, so a resumed run counts on as if it had never stopped.

    `step` counts all steps, `step_in_epoch` those of epoch `epoch` (from 0); the sums are of this epoch so far.
    `seconds` are of training alone, `pauses` those of validation between epochs.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    pauses: float = 0.0
    lr: float = 0.0

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.step_in_epoch, self.loss_sum, self.correct, self.seen, self.epoch_seconds = 0, 0.0, 0, 0, 0.0


@dataclass
class Learner:
    """The parts that a step needs, put together by prepare.py.

    `rate(step, total_steps, peak=…)` is a pure function. Each group of the optimizer has a `peak`, a `begin`
    before which it is frozen, and an `end` if its rate falls to 0 by itself; `rate` without a peak is what is recorded.
    `accumulate`: parts in which a batch goes through the net. `measured_steps`: in so many first steps the total was
    not known yet. `frozen_norms`: BatchNorms that stay in evaluation mode before step `thaw`. `auxiliary_logits`: the
    net's method of that name, if it has one. `team`: the processes that train this net together.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    rate: Callable[..., float]
    total_steps: int
    batches: Batches
    plan: Plan
    device: torch.device
    seed: int
    clip: float | None = None
    average: WeightAverage | None = None
    accumulate: int = 1
    frozen_norms: frozenset[str] = frozenset()
    thaw: int = 0
    measured_steps: int = 0
    team: Alone = ALONE
    parameters: list[nn.Parameter] = field(init=False)
    auxiliary_logits: Callable[[], Iterable[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        offered = getattr(self.net, "auxiliary_logits", None)
        self.auxiliary_logits = offered if callable(offered) else tuple

    def total_at(self, step: int) -> int:
        """Return the total number of steps as it was known at `step`."""
        return self.total_steps if step >= self.measured_steps else UNKNOWN

    def norms_kept(self, step: int) -> frozenset[str]:
        """Return the names of the BatchNorms that keep their statistics at `step`: those of what is frozen then."""
        return self.frozen_norms if step < self.thaw else frozenset()

    def set_rates(self, step: int) -> float:
        """Give each group of parameters its rate of this step, and return the rate that is recorded.

        Parameters that are frozen before their `begin`, or whose rate has come to its `end`, ask for no gradient, which
        spares the backward pass of what lies before them; what has none is not changed. All of it is a function of the
        step alone, so a resumed run does the same.
        """
        total = self.total_at(step)
        for group in self.optimizer.param_groups:
            begin, end = group["begin"], group["end"]
            if end is None:
                group["lr"] = self.rate(step, total, peak=group["peak"])
            else:
                group["lr"] = fading_rate(step, end, peak=group["peak"])
            if begin or end is not None:
                for parameter in group["params"]:
                    parameter.requires_grad_(begin <= step and (end is None or step < end))
        return self.rate(step, total)

    def drawing(self, labels: Tensor, step_in_epoch: int) -> AbstractContextManager[Any]:
        """Return the context in which the net draws its random numbers (dropout) for this process's part of a batch."""
        whole = len(labels)
        if self.team.size > 1:
            whole = min(self.batches.batch_size, len(self.batches.indices) - step_in_epoch * self.batches.batch_size)
        return self.team.drawing(self.device, len(labels), whole)

    @contextlib.contextmanager
    def asking_again(self) -> Iterator[None]:
        """Let every parameter that is trained ask for a gradient again at the end: a net of the user's is theirs."""
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(True)

    def add_auxiliary(self, loss: Tensor, labels: Tensor) -> Tensor:
        """Add to the loss of a batch those of the net's auxiliary heads, which answered on the way; most have none."""
        for logits in self.auxiliary_logits():
            loss = loss + AUXILIARY_SHARE * self.loss(logits, labels)
        return loss

    def parts(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield a batch in `accumulate` parts, with the share that the mean loss of each has in that of the batch.

        The share is None for a batch in one part. Of a batch smaller than the team some process has nothing.
        """
        if not len(labels):
            return
        if self.accumulate == 1:
            yield images, labels, None
            return
        whole = self.loss.mass(labels)
        for some, theirs in zip(images.chunk(self.accumulate), labels.chunk(self.accumulate), strict=True):
            yield some, theirs, self.loss.mass(theirs) / whole


def train_epoch(learner: Learner, progress: Progress) -> Iterator[list[StepRow]]:
    """Train the rest of one epoch; every RECORD_STEPS steps, or after RECORD_SECONDS, yield (step, epoch, lr, loss).

    The caller may save whenever rows come out: `progress` and the learner then stand between two steps. The epoch ends
    early where the learner's total number of steps is reached.
    Raises NonFiniteLoss with the step and its learning rate instead of the rows of that block; the error holds those
    before it.
    """
    net, optimizer, device, team = learner.net, learner.optimizer, learner.device, learner.team
    set_mode(net, True)
    for name in learner.norms_kept(progress.step):
        net.get_submodule(name).eval()
    for parameter in learner.parameters:  # a net of the user's may come with gradients
        parameter.grad = None
    record = _Record(progress, team)
    with learner.plan.active():
        for batch, its_labels in learner.batches.epoch(progress.epoch, progress.step_in_epoch):
            lr = learner.set_rates(progress.step)
            seed_step(device, learner.seed, progress.epoch, progress.step_in_epoch)

            for images, labels, share in learner.parts(batch, its_labels):
                with learner.plan.autocast(device), learner.drawing(its_labels, progress.step_in_epoch):
                    logits = net(images)  # (B, K)
                    loss = learner.loss(logits, labels)
                    trained = learner.add_auxiliary(loss, labels)
                trained.backward(share)
                record.add(loss, logits, labels, share)
            team.average_gradients(net, learner.parameters, learner.loss, its_labels)
            if learner.clip is not None:
                nn.utils.clip_grad_norm_(learner.parameters, learner.clip)
            optimizer.step()
            for parameter in learner.parameters:  # optimizer.zero_grad() does the same in four times the time
                parameter.grad = None
            if learner.average is not None:
                learner.average.update(net, progress.step, learner.total_at(progress.step))

            progress.step += 1
            progress.step_in_epoch += 1
            record.end_step(lr)
            if record.is_due():
                yield record.take()
            if progress.step >= learner.total_steps:
                break
        if len(record):
            yield record.take()


class _Record:
    """Losses, logits and labels of the last steps, read from the device together."""

    def __init__(self, progress: Progress, team: Alone) -> None:
        self.progress = progress
        self.team = team
        self._start()

    def _start(self) -> None:
        self.rates: list[float] = []
        self.losses: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.step_of: list[int] = []  # the step, counted in this block, of each of the losses
        self.began = time.perf_counter()

    def __len__(self) -> int:
        return len(self.rates)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, share: Tensor | None) -> None:
        self.losses.append(loss.detach() if share is None else loss.detach() * share)
        self.logits.append(logits.detach())
        self.labels.append(labels)
        self.step_of.append(len(self))

    def end_step(self, lr: float) -> None:
        self.rates.append(lr)

    def is_due(self) -> bool:
        is_due = len(self) >= RECORD_STEPS or time.perf_counter() - self.began > RECORD_SECONDS
        return self.team.block_ends(len(self), is_due)

    def take(self) -> list[StepRow]:
        """Read the losses, add them to the epoch's sums and start anew."""
        progress = self.progress
        pace = len(self) / max(1e-9, time.perf_counter() - self.began)  # steps a second
        next_block = int(min(RECORD_STEPS, max(1, RECORD_SECONDS * pace)))
        losses, sizes, correct = [0.0] * len(self), [0] * len(self), 0
        if self.losses:  # where a batch is smaller than the team there may be none
            for step, loss, labels in zip(self.step_of, torch.stack(self.losses).float().tolist(), self.labels):
                losses[step] += loss
                sizes[step] += len(labels)
            labels = torch.cat(self.labels)
            if labels.is_floating_point():  # mixed labels (B, K): the class with the greatest share
                labels = labels.argmax(1)
            correct = int((torch.cat(self.logits).argmax(1) == labels).sum())
        losses, sizes, correct = self.team.whole_batches(losses, sizes, correct, next_block)
        first = progress.step - len(self)
        rows = [(first + i + 1, progress.epoch + 1, lr, loss) for i, (lr, loss) in enumerate(zip(self.rates, losses))]
        for place, (step, epoch, lr, loss) in enumerate(rows):
            if not math.isfinite(loss):
                error = ran_away(f"the loss became {loss}", step, epoch, lr)
                error.rows = rows[:place]
                raise error
        for loss, size in zip(losses, sizes):  # one by one: the sum must not depend on where the blocks end
            progress.loss_sum += loss * size
        progress.correct += correct
        progress.seen += sum(sizes)
        progress.lr = self.rates[-1]
        elapsed = time.perf_counter() - self.began
        progress.seconds += elapsed
        progress.epoch_seconds += elapsed
        self._start()
        return rows


def ran_away(what: str, step: int, epoch: int, lr: float) -> NonFiniteLoss:
    """Build the error for training that left the finite numbers: where, with which learning rate, what to try."""
    return NonFiniteLoss(
        f"{what} at step {step} (epoch {epoch})",
        f"with learning rate {lr:.4g} the weights ran away, or the pictures or labels hold nonsense",
        f"try --lr {lr / 10:.2g}, or --clip 1",
    )


def recompute_batchnorm(
    net: nn.Module, batches: Batches, epoch: int, pictures: int = 4_000, kept: frozenset[str] = frozenset()
) -> None:
    """Measure BatchNorm's running statistics anew, on up to `pictures` train pictures in batches as in training.

    Needed after training with very small batches: the running average then follows the last few pictures alone.
    Each layer's statistics become the plain mean over these batches (momentum None), computed with the weights as they
    are; no weight changes. All other layers are in evaluation mode, dropout among them: the statistics are for that
    mode. A layer that the net keeps frozen in training, or whose name is in `kept`, stays as it is.
    """
    was_training = net.training
    set_mode(net, True)
    named = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for name, norm in named if norm.track_running_stats and name not in kept]
    layers = [layer for layer in norms if layer.training]
    momenta = [layer.momentum for layer in layers]
    set_mode(net, False)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.training = True
    try:
        with torch.no_grad():
            for images, _ in batches.sample(epoch, pictures if layers else 0):
                net(images)
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
        set_mode(net, was_training)
