"""From settings and data to net and learner: what can be refused is refused here, before a run folder is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from striate.data import augment
from striate.data.batches import Batches
from striate.device import Plan, available_threads, choose_device, key, make_plan, processor_flags
from striate.errors import UsageError
from striate.models.initialise import initialise
from striate.models.registry import create_model
from striate.models.summary import Summary, check_fits, summarise
from striate.models.user import instantiate, load_class, take_logits, warn_probabilities
from striate.settings.train import TrainSettings
from striate.training.loop import Learner
from striate.training.material import Material
from striate.training.optim import WeightAverage, balanced_weights, make_loss, make_optimizer, rate

OWN = "own:"  # prefix of settings.model for a user's module, of which only the class name is kept

# Enough patches for a covariance of 12 × 12: airbench takes as many pictures (K. Jordan 2024, arXiv:2404.00498, § 3.2).
WHITENING_PICTURES = 5_000


@dataclass
class NetParts:
    """A net that fits the data, with what was said about it."""

    net: nn.Module
    name: str | None  # the registry's, or None for a user's own
    options: dict[str, Any]
    summary: Summary
    notes: list[str]


def prepare_net(settings: TrainSettings, material: Material, own: Any) -> NetParts:
    """Build the net from a key of the seed, and run it once on two empty pictures before anything else happens.

    `own` is a user's module or its class. Raises UsageError naming the layer that does not fit.
    """
    classes, channels = len(material.parts.train.classes), material.preprocess.channels
    size = material.preprocess.size
    shape = (channels, *size)
    notes: list[str] = []
    torch.manual_seed(key(settings.seed, "init"))
    if own is None and settings.model is not None and ".py:" in settings.model:
        own = load_class(settings.model)
    if own is None:
        if settings.model is None:
            raise UsageError(f"no net is named for {settings.data}", "", 'name one: model="lenet5", or model=MyNet()')
        if settings.model.startswith(OWN):
            raise UsageError(
                f"this run's net is your own class {settings.model.removeprefix(OWN)}",
                "a run folder holds weights, never code",
                "give it: --model net.py:MyNet, or model=MyNet() in Python",
            )
        net = create_model(settings.model, classes, channels, size, **settings.model_option)
    else:
        if settings.model_option and isinstance(own, nn.Module):
            raise UsageError(
                "--model-option has no effect on a module that is already built", "", "set it in your class"
            )
        net = own if isinstance(own, nn.Module) else instantiate(own, classes, channels, size, **settings.model_option)
        notes += [note for note in (take_logits(net, shape), warn_probabilities(net, shape)) if note]
    last_batch = len(material.split.train) % settings.batch_size or settings.batch_size
    check_fits(net, shape, classes, smallest_batch=min(2, last_batch))
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UsageError("the net has nothing to train", "no parameter asks for a gradient", "add a layer with weights")
    other = {parameter.dtype for parameter in net.parameters()} - {torch.float32}
    if other:
        raise UsageError(
            f"the net's weights are {', '.join(map(str, other))}",
            "striate trains float32 weights; --precision says in what it computes",
            "make it with net.float()",
        )
    initialise(net, settings.init)
    fit_whitening: Any = getattr(net, "fit_whitening", None)
    if fit_whitening is not None:
        shown = torch.from_numpy(material.train_images[material.split.train[:WHITENING_PICTURES]])
        fit_whitening(material.preprocess.normalise(shown))
    name = settings.model if own is None else None
    return NetParts(net, name, dict(settings.model_option), summarise(net, shape), notes)


def prepare_learner(settings: TrainSettings, material: Material, parts: NetParts, plan: Plan | None) -> Learner:
    """Choose device and plan, move the net there, and build optimizer, loss, schedule and batches.

    `plan` given (by resume): replayed, so that the same bits come out.
    """
    device, note = choose_device(settings.device)
    if note:
        parts.notes.append(note)
    plan = plan or make_plan(
        device,
        precision=settings.precision,
        threads=settings.threads,
        step_macs=parts.summary.macs * settings.batch_size,
        # A net of the user's own gets pictures as a DataLoader gives them: in channels-last a `view` in it would fail.
        channels_last=parts.name is not None and any(isinstance(m, nn.Conv2d) for m in parts.net.modules()),
        flags=processor_flags(),
        available_threads=available_threads(),
    )
    net = parts.net.to(device=device, memory_format=plan.memory_format)  # type: ignore[call-overload]
    split, train = material.split, material.parts.train
    operations = augment.parse(settings.augment)
    # Once on one picture: what is too strong for this size is refused now.
    augment.apply(operations, torch.from_numpy(material.train_images[:1]), torch.Generator())
    batches = Batches(
        material.train_images,
        train.labels,
        split.train,
        material.preprocess,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=device,
        operations=operations,
        channels_last=plan.channels_last,
    )
    weights = None
    if settings.class_weights == "balanced":
        weights = balanced_weights(torch.from_numpy(train.labels[split.train]), len(train.classes))
    return Learner(
        net=net,
        optimizer=make_optimizer(
            net,
            settings.optimizer,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            decoupled=settings.decay_is_decoupled,
        ),
        loss=make_loss(
            settings.loss,
            len(train.classes),
            device,
            label_smoothing=settings.label_smoothing,
            class_weights=weights,
        ),
        rate=_schedule(settings, len(batches)),
        batches=batches,
        plan=plan,
        device=device,
        seed=settings.seed,
        clip=settings.clip,
        average=WeightAverage(net, settings.ema) if settings.ema is not None else None,
    )


def _schedule(settings: TrainSettings, steps_per_epoch: int) -> Callable[[int], float]:
    total = steps_per_epoch * settings.epochs

    def rate_of(step: int) -> float:
        return rate(
            step,
            total,
            schedule=settings.schedule,
            peak=settings.lr,
            warmup=settings.warmup,
            steps_per_epoch=steps_per_epoch,
            step_epochs=settings.step_epochs,
            step_factor=settings.step_factor,
        )

    return rate_of
