"""The training loop: forward, loss, backward, step, record. Read this first."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from striate.data.batches import Batches
from striate.device import Plan, seed_step
from striate.errors import NonFiniteLoss
from striate.models.dry_run import set_mode
from striate.runs.journal import StepRow
from striate.training.optim import LossFunction, WeightAverage

# Losses stay on the device and are read so many steps, or so many seconds, at a time: no step waits for the one before.
RECORD_STEPS = 64
RECORD_SECONDS = 0.5


@dataclass
class Progress:
    """Where a run stands: all of it is saved in a checkpoint, so a resumed run counts on as if it had never stopped.

    `step` counts all steps, `step_in_epoch` those of epoch `epoch` (from 0); the sums are of this epoch so far.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    lr: float = 0.0

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.step_in_epoch, self.loss_sum, self.correct, self.seen, self.epoch_seconds = 0, 0.0, 0, 0, 0.0


@dataclass
class Learner:
    """The parts that a step needs, put together by job.py."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    loss: LossFunction
    rate: Callable[[int], float]
    batches: Batches
    plan: Plan
    device: torch.device
    seed: int
    clip: float | None = None
    average: WeightAverage | None = None
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]


def train_epoch(learner: Learner, progress: Progress) -> Iterator[list[StepRow]]:
    """Train the rest of one epoch; every RECORD_STEPS steps, or after RECORD_SECONDS, yield (step, epoch, lr, loss).

    The caller may save whenever rows come out: `progress` and the learner then stand between two steps.
    Raises NonFiniteLoss with the step and its learning rate before rows of that block come out.
    """
    net, optimizer, device = learner.net, learner.optimizer, learner.device
    set_mode(net, True)
    for parameter in learner.parameters:  # a net of the user's may come with gradients
        parameter.grad = None
    record = _Record(progress)
    with learner.plan.active():
        for images, labels in learner.batches.epoch(progress.epoch, progress.step_in_epoch):
            lr = learner.rate(progress.step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            seed_step(device, learner.seed, progress.epoch, progress.step_in_epoch)

            with learner.plan.autocast(device):
                logits = net(images)  # (B, K)
                loss = learner.loss(logits, labels)
            loss.backward()
            if learner.clip is not None:
                nn.utils.clip_grad_norm_(learner.parameters, learner.clip)
            optimizer.step()
            for parameter in learner.parameters:  # optimizer.zero_grad() does the same in four times the time
                parameter.grad = None
            if learner.average is not None:
                learner.average.update(net, progress.step)

            progress.step += 1
            progress.step_in_epoch += 1
            record.add(lr, loss, logits, labels)
            if record.is_due():
                yield record.take()
        if len(record):
            yield record.take()


class _Record:
    """Losses, logits and labels of the last steps, read from the device together."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.rates: list[float] = []
        self.losses: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.began = time.perf_counter()

    def __len__(self) -> int:
        return len(self.rates)

    def add(self, lr: float, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.rates.append(lr)
        self.losses.append(loss.detach())
        self.logits.append(logits.detach())
        self.labels.append(labels)

    def is_due(self) -> bool:
        return len(self.rates) >= RECORD_STEPS or time.perf_counter() - self.began > RECORD_SECONDS

    def take(self) -> list[StepRow]:
        """Read the losses, add them to the epoch's sums and start anew."""
        progress = self.progress
        losses = torch.stack(self.losses).float().tolist()
        first = progress.step - len(self)
        rows = [(first + i + 1, progress.epoch + 1, lr, loss) for i, (lr, loss) in enumerate(zip(self.rates, losses))]
        for step, epoch, lr, loss in rows:
            if not math.isfinite(loss):
                raise ran_away(f"the loss became {loss}", step, epoch, lr)
        labels = torch.cat(self.labels)
        sizes = [len(batch) for batch in self.labels]
        for loss, size in zip(losses, sizes):  # one by one: the sum must not depend on where the blocks end
            progress.loss_sum += loss * size
        progress.correct += int((torch.cat(self.logits).argmax(1) == labels).sum())
        progress.seen += len(labels)
        progress.lr = self.rates[-1]
        elapsed = time.perf_counter() - self.began
        progress.seconds += elapsed
        progress.epoch_seconds += elapsed
        self.rates, self.losses, self.logits, self.labels = [], [], [], []
        self.began = time.perf_counter()
        return rows


def ran_away(what: str, step: int, epoch: int, lr: float) -> NonFiniteLoss:
    """Build the error for training that left the finite numbers: where, with which learning rate, what to try."""
    return NonFiniteLoss(
        f"{what} at step {step} (epoch {epoch})",
        f"with learning rate {lr:.4g} the weights ran away, or the pictures or labels hold nonsense",
        f"try --lr {lr / 10:.2g}, or --clip 1",
    )


def recompute_batchnorm(net: nn.Module, batches: Batches, epoch: int, pictures: int = 4_000) -> None:
    """Measure BatchNorm's running statistics anew, on up to `pictures` train pictures in batches as in training.

    Needed after training with very small batches: the running average then follows the last few pictures alone.
    Each layer's statistics become the plain mean over these batches (momentum None), computed with the weights as they
    are; no weight changes. All other layers are in evaluation mode, dropout among them: the statistics are for that
    mode. A layer that the net keeps frozen in training stays as it is.
    """
    was_training = net.training
    set_mode(net, True)
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
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
