"""Weights of one training put into a net for another: everything but the layers that answer for the classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.key_maps import COUNTER, rename
from striate.models.registry import create_model
from striate.models.timm_nets import is_timm

State = dict[str, Tensor]

SHOWN = 6


@dataclass(frozen=True)
class Taken:
    """What a net takes over: tensors by the net's own names, and which of its tensors stay as they were drawn."""

    tensors: State
    new: tuple[str, ...]

    @property
    def layers(self) -> list[str]:
        """Names of the layers that are taken, in the net's order."""
        return layers_of(self.tensors)

    @property
    def new_layers(self) -> list[str]:
        """Names of the layers that are new."""
        return layers_of(self.new)


def layers_of(tensors: Collection[str]) -> list[str]:
    """Return the names of the layers that tensors of a state dict belong to, each once."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in tensors))


def head_layers(net: nn.Module) -> list[nn.Module]:
    """Return the layers of a net that answer for the classes: as timm tells of its own, else the last linear one."""
    told = getattr(net, "pretrained_cfg", None)
    named = told.get("classifier") if isinstance(told, dict) else None
    names = [named] if isinstance(named, str) else list(named or ())
    modules = dict(net.named_modules())
    # A timm net without a head of its own keeps an empty layer under that name.
    found = [modules[name] for name in names if name in modules and next(modules[name].parameters(), None) is not None]
    linear: list[nn.Module] = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return found or linear[-1:]


def head_names(net: nn.Module, name: str | None, shape: tuple[int, ...], classes: int, **options: Any) -> set[str]:
    """Return the names of the tensors that hang on the number of classes; auxiliary heads among them.

    A net of the registry is compared with one for one class more, without memory; others as `head_layers` tells.
    """
    own = net.state_dict()
    if name is not None and not is_timm(name):
        with torch.device("meta"):
            other = create_model(name, classes + 1, shape[0], (shape[1], shape[2]), **options).state_dict()
        return {key for key in own if key not in other or own[key].shape != other[key].shape}
    return parameters_of(net, head_layers(net))


def parameters_of(net: nn.Module, layers: Collection[nn.Module]) -> set[str]:
    """Return the names in `net` of the parameters of some of its layers."""
    theirs = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {name for name, parameter in net.named_parameters() if id(parameter) in theirs}


def take_over(
    net: nn.Module,
    name: str | None,
    found: Mapping[str, Tensor],
    head: Collection[str],
    *,
    keep_head: bool,
    origin: str,
) -> Taken:
    """Return what `net` takes of the state dict `found`: all but the tensors in `head`, and those too if `keep_head`.

    Raises UsageError naming what is missing, left over, or of another shape.
    """
    own = net.state_dict()
    names = rename(name or "", found, [*own]) if name is not None else {key: key for key in found}
    state = {new: found[old] for old, new in names.items()}
    keeps = keep_head and all(key in state and state[key].shape == own[key].shape for key in head)
    new = () if keeps else tuple(key for key in own if key in head)
    wanted = [key for key in own if key not in new]
    missing = [key for key in wanted if key not in state and not key.endswith(COUNTER)]
    over = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != own[key].shape
    ]
    told = [
        f"{what}: {_some(entries)}"
        for what, entries in (("missing", missing), ("not in the net", over), ("shape", shapes))
        if entries
    ]
    if told:
        raise UsageError(
            f"the weights of {origin} do not fit the net",
            "; ".join(told),
            "name the net they were trained in, with its --model-option, and leave out --size",
        )
    kinds = {key: state[key].to(own[key].dtype) for key in wanted if key in state}
    return Taken(kinds, new)


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
