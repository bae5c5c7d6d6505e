"""The torch backend: a net and its run, on any device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from striate.data.preprocess import Preprocess
from striate.data.rows import Pictures
from striate.device import Plan, available_threads, check_precision, choose_device, denormals_flushed, processor_flags
from striate.models.dry_run import set_mode
from striate.predictor.augmented import Ask, ask_once
from striate.predictor.folding import fold_batchnorm
from striate.predictor.nets import OwnNet, load_net
from striate.predictor.predictor import Logits, Predictor
from striate.runs.doubt import Doubt
from striate.runs.model_file import read_doubt
from striate.runs.packed import open_model


class TorchBackend:
    """A net that is asked through torch: `preprocess` normalises, `net` gives logits.

    It computes in fp32 on all cores unless `precision` (bf16) and `threads` say otherwise. `fold`: BatchNorm is folded
    into a copy of the net's weights once, now; for a net that is trained no more.
    Raises UsageError for bf16 on a processor that does not compute in it.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        preprocess: Preprocess,
        *,
        device: torch.device | None = None,
        channels_last: bool = True,
        precision: str = "fp32",
        threads: int = 0,
        fold: bool = False,
    ) -> None:
        self.net = net
        self.answering = fold_batchnorm(net) if fold else net
        self.preprocess = preprocess
        self.device = device or torch.device("cpu")
        check_precision(precision, self.device, processor_flags())
        self.plan = Plan(precision, channels_last, threads or available_threads(), True, "")

    @property
    def precision(self) -> str:
        """Number format that it computes in: fp32 or bf16."""
        return self.plan.precision

    @property
    def threads(self) -> int:
        """How many threads it computes with."""
        return self.plan.threads

    def in_precision(self, precision: str) -> TorchBackend:
        """Return this backend computing in fp32 or bf16. Raises UsageError as the constructor does."""
        check_precision(precision, self.device, processor_flags())
        other = copy.copy(self)
        other.plan = replace(self.plan, precision=precision)
        return other

    def features(self, images: Pictures, batch_size: int) -> tuple[Logits, Logits | None]:
        """Return logits (N, K) and what the net's last layer takes, float32 (N, D), maps averaged over their places.

        The last layer is the one that is linear, or a convolution, and is computed last. None where there is none.
        """
        taken: dict[str, torch.Tensor] = {}
        parts = []

        def keep(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            taken["last"] = inputs[0]

        def ask(net: Callable[[torch.Tensor], torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
            logits = net(pictures)
            last = taken.get("last")
            if last is not None and len(last) == len(pictures):
                flat = last.flatten(2).mean(2) if last.dim() > 2 else last  # (B, D)
                parts.append(flat.float().cpu().numpy())
            return logits

        layers = [m for m in self.answering.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
        hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
        try:
            logits = self.logits(images, batch_size, ask)
        finally:
            for hook in hooks:
                hook.remove()
        found = np.concatenate(parts) if parts else None
        return logits, found if found is not None and found.ndim == 2 and len(found) == len(images) else None

    def logits(self, images: Pictures, batch_size: int, ask: Ask | None = None) -> Logits:
        """Return float32 logits (N, K) for uint8 pictures (N, H, W, C) at the net's size.

        In evaluation mode; the net's mode is put back afterwards.
        """
        net, plan, ask = self.answering, self.plan, ask or ask_once
        was_training = net.training
        set_mode(net, False)
        parts = []
        try:
            with torch.inference_mode(), plan.active():
                for start in range(0, len(images), batch_size):
                    batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
                    pictures = self.preprocess.normalise(batch.to(self.device), plan.channels_last)  # (B, C, H, W)
                    with plan.autocast(self.device):
                        logits = ask(net, pictures)  # (B, K)
                    parts.append(logits.float().cpu().numpy())
        finally:
            set_mode(net, was_training)
        return np.concatenate(parts)


def predictor_of(
    net: torch.nn.Module,
    preprocess: Preprocess,
    classes: Sequence[str],
    *,
    output: str = "softmax",
    temperature: float = 1.0,
    name: str = "",
    doubt: Doubt | None = None,
    **machine: Any,
) -> Predictor:
    """Return a Predictor that asks `net`; `machine`: what TorchBackend takes by name."""
    backend = TorchBackend(net, preprocess, **machine)
    return Predictor(backend, preprocess, classes, output=output, temperature=temperature, name=name, doubt=doubt)


@denormals_flushed()
def load_run(path: str | Path, *, device: str, model: OwnNet, precision: str, expect_sha256: str | None) -> Predictor:
    """Load the model of a run, or a packed one; see `load_predictor`."""
    stored = open_model(path)
    card = stored.card
    chosen, _ = choose_device(device)
    net = load_net(stored, model, expect_sha256)
    # A net of the user's own gets pictures laid out as a DataLoader gives them: in channels-last a `view` would fail.
    channels_last = card.name is not None and chosen.type != "mps"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return predictor_of(
        net.to(device=chosen, memory_format=layout),  # type: ignore[call-overload]
        Preprocess.from_json(card.preprocess),
        card.classes,
        output=card.output,
        temperature=card.temperature,
        name=stored.name,
        doubt=read_doubt(stored.card_path.parent, card),
        device=chosen,
        channels_last=channels_last,
        precision=precision,
        fold=True,
    )
