"""How a net is while it is trained: activations and gradients on one small batch that stays the same (health.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from striate.models.dry_run import Trace, set_mode, traced, undisturbed
from striate.runs.folder import FORMAT, RunFolder
from striate.training.loop import Learner
from striate.training.material import Material, Report

FILE = "health.json"

# Enough to see whether a unit answers to anything, and few enough that a look costs as much as a step or two.
MOST_PICTURES, LEAST_PICTURES, PIXELS = 64, 8, 2**19
END = 0.05  # a sigmoid under it or over 1 − it passes on less than a fifth of what it does in its middle

_ATEN: Any = torch.ops.aten
_KINDS: Mapping[Any, str] = {
    _ATEN.relu.default: "relu",
    _ATEN.relu_.default: "relu",
    _ATEN.hardtanh.default: "relu6",
    _ATEN.hardtanh_.default: "relu6",
    _ATEN.sigmoid.default: "sigmoid",
    _ATEN.sigmoid_.default: "sigmoid",
    _ATEN.tanh.default: "tanh",
    _ATEN.tanh_.default: "tanh",
}


class HealthLog:
    """Looks at a net at the end of epochs 1, 2, 4, 8 … and of the last, and writes what it finds to health.json.

    Nothing that training goes by is touched: buffers, modes, gradients and random numbers are as before.
    """

    def __init__(self, folder: RunFolder, learner: Learner, material: Material, report: Report) -> None:
        self.folder = folder
        self.learner = learner
        self.material = material
        self.report = report
        self._batch: tuple[Tensor, Tensor] | None = None

    def end_epoch(self, epoch: int, step: int, *, last: bool) -> None:
        """Measure where epoch (from 1) is one of those that are looked at; a run that went on replaces what it redoes.

        A net that cannot be looked at is trained all the same, and that is said.
        """
        if not (last or epoch & (epoch - 1) == 0):
            return
        if self._batch is None:
            self._batch = fixed_batch(self.learner, self.material)
        try:
            found = measure(self.learner, *self._batch)
        except (RuntimeError, TypeError, ValueError) as error:
            self.report(f"the net's activations cannot be measured: {str(error).partition(chr(10))[0]}")
            return
        before = read_health(self.folder)
        kept = [one for one in before if one["epoch"] < epoch]
        record = {"format": FORMAT, "pictures": len(self._batch[1]), "epochs": kept}
        record["epochs"] = [*kept, {"epoch": epoch, "step": step, **found}]
        self.folder.write_json(FILE, record)


def read_health(folder: RunFolder) -> list[dict[str, Any]]:
    """Return what was measured at the ends of epochs, [] where nothing was. Raises DataError for a damaged file."""
    return folder.read_json(FILE)["epochs"] if folder.file(FILE).is_file() else []


def fixed_batch(learner: Learner, material: Material) -> tuple[Tensor, Tensor]:
    """Return pictures (B, C, H, W) and labels (B,), spread over the train set, as the net sees them unaugmented."""
    height, width = material.preprocess.size
    train = material.split.train
    most = min(MOST_PICTURES, max(LEAST_PICTURES, PIXELS // (height * width)), len(train))
    chosen = train[np.linspace(0, len(train) - 1, most).astype(np.int64)]
    at_size = replace(material.preprocess, fit="stretch")  # from the larger pictures that are kept for `crop`
    pictures = torch.from_numpy(at_size.geometry_all(material.train_images[chosen])).to(learner.device)
    labels = torch.from_numpy(material.parts.train.labels[chosen]).to(learner.device)
    return material.preprocess.normalise(pictures, learner.plan.channels_last), labels


def measure(learner: Learner, pictures: Tensor, labels: Tensor) -> dict[str, Any]:
    """Run one batch forward and back in evaluation mode; return its loss and what `activations` and weights show.

    activations: a row for each ReLU, sigmoid and tanh that ran, in order: `layer` it ran in, `kind`, `units` (channels
    or features), `dead` (share of units that are 0 for every picture), `saturated` (share of answers at an end),
    `slope` (mean derivative), `spread` (standard deviation over the pictures, mean of the units).
    weights: a row for each matrix or filter bank that is trained: root mean square of weight and of its gradient.
    """
    net = learner.net
    named = [(name, weight) for name, weight in net.named_parameters() if weight.ndim >= 2 and weight.requires_grad]
    with undisturbed(net), torch.enable_grad():  # to the end of the backward pass: it may need the buffers, too
        set_mode(net, False)
        with traced(net) as trace, _Watch(trace) as watch, learner.plan.autocast(learner.device):
            loss = learner.loss(net(pictures), labels)
        gradients = torch.autograd.grad(loss, [weight for _, weight in named], allow_unused=True)
    weights = [
        {"layer": name.removesuffix(".weight"), "weight": _size(weight), "gradient": _size(gradient)}
        for (name, weight), gradient in zip(named, gradients, strict=True)
        if gradient is not None
    ]
    return {"loss": float(loss.detach()), "activations": watch.rows, "weights": weights}


class _Watch(TorchDispatchMode):
    """Sees every ReLU, sigmoid and tanh that runs, as a layer or as a function."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.rows: list[dict[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = _KINDS.get(func)
        if kind is not None and out.ndim >= 2:
            name = self.trace.running[-1].name if self.trace.running else ""
            self.rows.append({"layer": name, "kind": kind, **_activation(kind, out.detach().float())})
        return out


def _activation(kind: str, out: Tensor) -> dict[str, Any]:
    answers = out.flatten(2) if out.ndim > 2 else out.unsqueeze(2)  # (B, units, positions)
    if kind in ("sigmoid", "tanh"):
        middle = answers if kind == "sigmoid" else (answers + 1) / 2
        slope = 4 * middle * (1 - middle) if kind == "tanh" else middle * (1 - middle)
        saturated, dead = ((middle < END) | (middle > 1 - END)).float().mean(), torch.zeros(())
    else:
        slope = (answers > 0).float()
        saturated, dead = torch.zeros(()), (answers.amax((0, 2)) <= 0).float().mean()
    spread = answers.std(0, correction=0).mean()
    numbers = {"dead": dead, "saturated": saturated, "slope": slope.mean(), "spread": spread}
    return {"units": answers.shape[1], **{name: round(float(value), 6) for name, value in numbers.items()}}


def _size(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())
