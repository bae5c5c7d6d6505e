"""From settings and data to net and learner: what can be refused is refused here, before a run folder is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from striate.data import augment
from striate.data.batches import Batches
from striate.device import Plan, available_threads, choose_device, denormals_flushed, key, make_plan, processor_flags
from striate.errors import UsageError
from striate.models.advice import advise, check_registered
from striate.models.initialise import initialise
from striate.models.joining import head_layers, parameters_of
from striate.models.registry import create_model
from striate.models.summary import Summary, check_fits, summarise
from striate.models.timm_nets import is_timm, timm_version
from striate.models.user import instantiate, load_class, take_logits
from striate.settings.train import TrainSettings
from striate.training.average import Lookahead, WeightAverage
from striate.training.distributed import ALONE, Alone, remarks
from striate.training.loop import Learner
from striate.training.losses import balanced_weights, make_loss
from striate.training.material import Material, Report
from striate.training.optim import make_optimizer
from striate.training.schedule import UNKNOWN, rate
from striate.training.starting import FirstWeights, Start, take

OWN = "own:"  # prefix of settings.model for a user's module, of which only the class name is kept

# Enough patches for a covariance of 12 × 12: airbench takes as many pictures (K. Jordan 2024, arXiv:2404.00498, § 3.2).
WHITENING_PICTURES = 5_000
WHITENING_PIXELS = 2**25  # of large pictures fewer: these are 400 MB as floats in three channels


@dataclass
class NetParts:
    """A net that fits the data, with what was said about it."""

    net: nn.Module
    name: str | None  # the registry's, or None for a user's own
    options: dict[str, Any]
    summary: Summary
    notes: list[str]
    library: str = ""  # package and version that a net of another's comes from
    first: FirstWeights | None = None  # what it begins with, where that was trained before


@denormals_flushed()
def prepare_net(
    settings: TrainSettings,
    material: Material,
    own: Any,
    processes: int = 1,
    start: Start | FirstWeights | None = None,
    report: Report = lambda line: None,
) -> NetParts:
    """Build the net from a key of the seed, and run it once on two empty pictures before anything else happens.

    `own` is a user's module or its class; `processes` share each batch; `start`: first weights, to be read or as a run
    has kept them. Raises UsageError naming the layer that does not fit.
    """
    classes, channels = len(material.parts.train.classes), material.preprocess.channels
    size = material.preprocess.size
    shape = (channels, *size)
    notes: list[str] = []
    torch.manual_seed(key(settings.seed, "init"))
    own = typed_class(settings) if own is None else own
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
        check_registered(net)
        note = take_logits(net, shape)
        notes += [note] if note else []
    smallest = _smallest_part(settings, len(material.split.train), processes)
    check_fits(net, shape, classes, smallest_batch=min(2, smallest))
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UsageError("the net has nothing to train", "no parameter asks for a gradient", "add a layer with weights")
    other = {parameter.dtype for parameter in net.parameters()} - {torch.float32}
    if other:
        raise UsageError(
            f"the net's weights are {', '.join(map(str, other))}",
            "striate trains float32 weights; --precision says in what it computes",
            "make it with net.float()",
        )
    if own is not None:
        notes += advise(net, shape, settings.loss)
    initialise(net, settings.init)
    first = take(start, net, settings, material, report) if isinstance(start, Start) else start
    if first is not None:
        net.load_state_dict({**net.state_dict(), **first.tensors})
        notes.append(first.told())
    fit_whitening: Any = getattr(net, "fit_whitening", None)
    if fit_whitening is not None and first is None:
        train = material.split.train
        # Spread over all of them: a folder of pictures lies there class by class.
        most = min(WHITENING_PICTURES, max(1, WHITENING_PIXELS // math.prod(size)))
        spread = np.linspace(0, len(train) - 1, min(len(train), most)).astype(np.int64)
        fit_whitening(material.preprocess.normalise(torch.from_numpy(material.train_images[train[spread]])))
    name = settings.model if own is None else None
    library = timm_version() if is_timm(name) else ""
    return NetParts(net, name, dict(settings.model_option), summarise(net, shape), notes, library, first)


def typed_class(settings: TrainSettings) -> Any:
    """Return the class that `--model net.py:MyNet` names; None for a net of the registry."""
    return load_class(settings.model) if settings.model is not None and ".py:" in settings.model else None


def prepare_learner(
    settings: TrainSettings, material: Material, parts: NetParts, plan: Plan | None, team: Alone = ALONE
) -> Learner:
    """Choose device and plan, move the net there, and build optimizer, loss, schedule and batches.

    `plan` given (by resume): replayed, so that the same bits come out. `team`: the processes that share each batch.
    """
    device = _place(settings, material, parts, team)
    plan = plan or make_plan(
        device,
        precision=settings.precision,
        threads=settings.threads,
        step_macs=parts.summary.macs * math.ceil(settings.batch_size / team.size),
        # A net of the user's own gets pictures as a DataLoader gives them: in channels-last a `view` in it would fail.
        channels_last=parts.name is not None and any(isinstance(m, nn.Conv2d) for m in parts.net.modules()),
        flags=processor_flags(),
        available_threads=available_threads(),
    )
    net = parts.net.to(device=device, memory_format=plan.memory_format)  # type: ignore[call-overload]
    split, train = material.split, material.parts.train
    balance = _balance(settings, material, parts)
    batches = Batches(
        material.train_images,
        train.labels,
        split.train,
        material.preprocess,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=device,
        operations=augment.parse(settings.augment),
        num_classes=len(train.classes),
        channels_last=plan.channels_last,
        balanced=balance == "sampler",
        blocks=material.blocks,
        share=(team.rank, team.size),
    )
    weights = None
    if balance == "loss":
        weights = balanced_weights(torch.from_numpy(train.labels[split.train]), len(train.classes))
    whitening = settings.whitening_epochs
    frozen, thaw = _frozen(settings, parts, len(batches))
    return Learner(
        net=net,
        optimizer=make_optimizer(
            net,
            settings.optimizer,
            frozen=frozen,
            thaw=thaw,
            lr=settings.lr,
            bias_lr=settings.bias_lr,
            head_lr=settings.head_lr,
            whitening_steps=None if whitening is None else math.ceil(len(batches) * whitening),
            momentum=settings.momentum,
            side_momentum=settings.side_momentum,
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
        total_steps=len(batches) * settings.epochs if settings.time is None else UNKNOWN,
        measured_steps=0 if settings.time is None else UNKNOWN,
        batches=batches,
        plan=plan,
        device=device,
        seed=settings.seed,
        clip=settings.clip,
        average=_average(settings, net),
        accumulate=settings.accumulate,
        team=team,
        frozen_norms=_frozen_norms(net, frozen),
        thaw=thaw,
    )


def _frozen(settings: TrainSettings, parts: NetParts, steps_per_epoch: int) -> tuple[set[str], int]:
    """Return the names of the parameters that --freeze keeps, and the step from which they are trained; say so."""
    if settings.freeze is None:
        return set(), 0
    net = parts.net
    trained = set(parts.first.new if parts.first is not None else ()) | parameters_of(net, head_layers(net))
    named = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    frozen = named.keys() - trained
    if not frozen or not named.keys() & trained:
        raise UsageError(
            f"--freeze has no effect on {type(net).__name__}",
            "all that it has is its head" if not frozen else "its head is not known: it has no linear layer",
            "leave out --freeze",
        )
    count = sum(named[name].numel() for name in frozen)
    epochs = f"for {settings.freeze} epochs" if settings.freeze != "all" else "to the end"
    parts.notes.append(f"frozen {epochs}: {count:,} of {parts.summary.parameters:,} parameters")
    return set(frozen), UNKNOWN if settings.freeze == "all" else int(settings.freeze) * steps_per_epoch


def _frozen_norms(net: nn.Module, frozen: set[str]) -> frozenset[str]:
    """Return the names of the BatchNorms in the frozen part of a net: one whose own weights are trained is not."""
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad} - frozen
    return frozenset(
        name
        for name, layer in net.named_modules()
        if frozen
        and isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and not any(f"{name}.{own}" in trained for own, _ in layer.named_parameters())
    )


def _place(settings: TrainSettings, material: Material, parts: NetParts, team: Alone) -> torch.device:
    """Return this process's device, and note what is to be said of it and of its team.

    On GPUs BatchNorm measures the whole batch. Raises UsageError for a batch that a team cannot share.
    """
    device, note = choose_device(settings.device)
    device = team.place(device)
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in parts.net.modules())
    parts.notes += [line for line in (note, *remarks(team, device, normed)) if line]
    if team.size > 1 and normed and device.type == "cuda":
        parts.net = nn.SyncBatchNorm.convert_sync_batchnorm(parts.net)
    batch = min(settings.batch_size, len(material.split.train))
    if batch < team.size:
        raise UsageError(
            f"a batch of {batch} has no part for each of {team.size} processes",
            "some would never have anything to do",
            f"use --batch-size {team.size} or more, or fewer processes",
        )
    return device


def _balance(settings: TrainSettings, material: Material, parts: NetParts) -> str:
    if settings.balance != "auto":
        return settings.balance
    if not material.is_uneven:
        return "none"
    low, high = material.train_counts.min(), material.train_counts.max()
    parts.notes.append(
        f"classes are uneven ({low:,} to {high:,} train pictures): rare ones weigh more (--balance none: not)"
    )
    return "loss"


def _schedule(settings: TrainSettings, steps_per_epoch: int) -> Callable[..., float]:
    return partial(
        rate,
        schedule=settings.schedule,
        peak=settings.lr,
        warmup=settings.warmup,
        steps_per_epoch=steps_per_epoch,
        step_epochs=settings.step_epochs,
        step_factor=settings.step_factor,
    )


def _average(settings: TrainSettings, net: nn.Module) -> WeightAverage | None:
    if settings.lookahead is not None:
        return Lookahead(net, settings.lookahead)
    return WeightAverage(net, settings.ema) if settings.ema is not None else None


def _smallest_part(settings: TrainSettings, pictures: int, processes: int = 1) -> int:
    """Return the pictures in the smallest part of a batch that the net will see."""
    batches = [min(settings.batch_size, pictures), pictures % settings.batch_size or settings.batch_size]
    shares = [share for batch in batches for share in (batch // processes, math.ceil(batch / processes)) if share]
    return min((share - 1) % math.ceil(share / settings.accumulate) + 1 for share in shares)
