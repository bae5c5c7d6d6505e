"""BatchNorm folded into the layer before it, for a net that only answers: one pass over each map less."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from striate.models.dry_run import set_mode
from striate.models.layers import check_least, check_picture

# Their `forward` is known: a class of the user's that has its own may do more than its name says.
_WEIGHTED = (nn.Conv2d.forward, nn.Linear.forward)
_NORMS = (nn.BatchNorm1d.forward, nn.BatchNorm2d.forward)


def fold_batchnorm(net: nn.Module) -> nn.Module:
    """Return a copy of `net` whose convolutions and linear layers do the work of the BatchNorms behind them.

    In evaluation mode BatchNorm is one multiplication and one addition a channel, which the weights before it can
    take over (Jacob et al. 2018, arXiv:1712.05877, § 3.2). Folded is where nothing else sees what goes in between.
    The net itself is not changed; it is returned as it is where there is nothing to fold, or where torch.fx cannot
    tell the order of its layers before pictures are seen. The copy is for evaluation mode only.
    """
    pairs = _pairs(net)
    if not pairs:
        return net
    folded = copy.deepcopy(net)
    for layer_name, norm_name in pairs:
        _fold(folded.get_submodule(layer_name), folded.get_submodule(norm_name))
        parent, _, name = norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Identity())
    set_mode(folded, False)
    return folded


def _pairs(net: nn.Module) -> list[tuple[str, str]]:
    """Return the names of (layer, the BatchNorm that alone takes its output), each called once in a pass."""
    modules = dict(net.named_modules(remove_duplicate=False))
    if not any(type(module).forward in _NORMS for module in modules.values()):
        return []
    was_training = net.training
    set_mode(net, False)
    try:
        # The nets' own look at a picture's shape is one step of the graph: traced inside, it would have to decide.
        graph = fx.Tracer(autowrap_functions=(check_least, check_picture)).trace(net)
    except Exception:  # whatever a user's forward raises for a stand-in: the net is then left as it is
        return []
    finally:
        set_mode(net, was_training)
    calls = [node for node in graph.nodes if node.op == "call_module"]
    called = [modules[str(node.target)] for node in calls]
    pairs = []
    for node, norm in zip(calls, called, strict=True):
        before: Any = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        layer = modules[str(before.target)]
        if called.count(layer) == called.count(norm) == 1 and _can_fold(layer, norm):
            pairs.append((str(before.target), str(node.target)))
    return pairs


def _can_fold(layer: Any, norm: Any) -> bool:
    return (
        type(layer).forward in _WEIGHTED
        and type(norm).forward in _NORMS
        and norm.running_mean is not None
        and isinstance(layer, nn.Linear) == isinstance(norm, nn.BatchNorm1d)
        and len(layer.weight) == norm.num_features
        and not any(nn.utils.parametrize.is_parametrized(module) for module in (layer, norm))
        and not any(module._forward_hooks or module._forward_pre_hooks for module in (layer, norm))
    )


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    """Give `layer` the weights with which it answers as `layer` and then `norm` do; summed in float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()  # (C,)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    weight = layer.weight
    scaled = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))  # (C, …)
    layer.weight = nn.Parameter(torch.empty_like(weight).copy_(scaled), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
