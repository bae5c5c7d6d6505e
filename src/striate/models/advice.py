"""What a net that fits its data may still do wrong, told before the first epoch: refused, or said in a note.

Each rule looks at what the net does on a few pictures of noise, and at nothing it could only guess.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.diagnose import run_explained
from striate.models.dry_run import Trace, example_pictures, last_place, set_mode, traced, undisturbed

Shape = tuple[int, int, int]

PICTURES = 8
#: A difference that rounding can make between two batches, as a share of the largest output.
ROUNDING = 1e-3
_POSITIVE = ("relu", "relu6", "exp", "softplus", "square", "abs", "threshold", "clamp_min")
_WITHIN_ONE = ("hardsigmoid", "clamp", "hardtanh")


def check_registered(net: nn.Module) -> None:
    """Refuse a net whose trainable layers stand in a plain list, tuple or dict: torch does not see them there.

    A list of layers that the net also holds as attributes is harmless, and so is one of frozen layers.
    """
    known = set(net.modules())
    for name, module in net.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or isinstance(value, nn.Module):
                continue
            hidden = [layer for layer in _modules_in(value) if layer not in known]
            parameters = sum(p.numel() for layer in hidden for p in layer.parameters() if p.requires_grad)
            if parameters:
                kind = type(value).__name__
                better = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
                owner = f"{name}.{attribute}".removeprefix(".")
                raise UsageError(
                    f"{type(net).__name__}'s {owner} is a Python {kind} of layers, whose {parameters:,} parameters "
                    "torch does not see",
                    "they would be neither trained nor saved",
                    f"write self.{attribute} = {better}(…) in place of the {kind}, or nn.Sequential(*…)",
                )


def advise(net: nn.Module, input_shape: Shape, loss: str) -> list[str]:
    """Return notes on a user's net that fits pictures (C, H, W); loss is the name of the loss that will train it.

    UsageError for a net that would train without learning what it should: outputs that are probabilities already, which
    every loss here would turn into probabilities again; no gradient to any weight; a backward pass that fails.
    """
    pictures = example_pictures(net, PICTURES, input_shape)
    trace = run_explained(net, pictures, training=False, watched=True)
    assert trace.watch is not None
    maker = trace.watch.maker_of(trace.output)
    if not bool(torch.isfinite(trace.output).all()):
        raise UsageError(
            f"the outputs of {type(net).__name__} are not finite, on pictures of noise from 0 to 1",
            "no loss can be computed of nan or inf",
            "look for a division by zero, a logarithm or a root of what may be 0 or below",
        )
    _refuse_probabilities(net, trace, maker, loss)
    notes = [
        _end(net, trace.output, maker),
        _drops_at_the_end(net, trace.output, pictures),
        _steady(net, trace.output, pictures),
    ]
    return [note for note in notes if note] + _unused(net, pictures)


def _refuse_probabilities(net: nn.Module, trace: Trace, maker: str, loss: str) -> None:
    output, name = trace.output.double(), type(net).__name__
    sigmoids = loss != "cross-entropy"
    if maker == "log_softmax" and not sigmoids:
        return  # a second log-softmax changes nothing
    by_hand = bool((output >= 0).all()) and output.shape[1] > 1 and torch.allclose(
        output.sum(dim=1), torch.ones_like(output[:, 0]), atol=1e-4
    )  # fmt: skip
    if maker not in ("softmax", "sigmoid", "log_softmax") and not by_hand:
        return
    applied = maker if maker in ("sigmoid", "log_softmax") else "softmax"
    what = f"the outputs of {name} have been through a {applied} already"
    if maker == "softmax" and not by_hand:
        what += ", and not over the classes: softmax(dim=1) is the axis of the classes"
    elif applied == "softmax":
        what += ": they sum to one"
    own = "sigmoid" if sigmoids else "softmax"
    raise UsageError(
        what,
        f"the loss {loss} takes logits and applies its own {own}: twice, the gradients become faint and the "
        "probabilities wrong",
        f"return the numbers before the {applied}"
        + (", and add --loss binary-cross-entropy" if applied == "sigmoid" and not sigmoids else ""),
    )


def _end(net: nn.Module, output: Tensor, maker: str) -> str | None:
    """Say what the last function takes away from the logits."""
    name, classes = type(net).__name__, output.shape[1]
    if maker in _POSITIVE and output.min() >= 0:
        return (
            f"{name} ends in {maker}: its logits are never negative, and a class whose logit is cut to 0 gets no "
            f"gradient; take the {maker} after the last layer away"
        )
    if maker == "tanh":
        best = math.exp(2) / (math.exp(2) + classes - 1)
        return (
            f"{name} ends in tanh: its logits lie between -1 and 1, so that of {classes} classes none can be given "
            f"more than {100 * best:.0f} %; take the tanh after the last layer away"
        )
    if maker in _WITHIN_ONE:
        return f"{name} ends in {maker}, which bounds its logits; return the numbers before it"
    return None


def _drops_at_the_end(net: nn.Module, output: Tensor, pictures: Tensor) -> str | None:
    trained = run_explained(net, pictures, training=True).output
    dropped = (trained == 0).double().mean() - (output == 0).double().mean()
    if dropped < 0.02 or not bool((output != 0).any()):
        return None
    return (
        f"{type(net).__name__} has a dropout after its last layer: in training it sets logits to 0 at random; "
        "put it before the last layer"
    )


def _steady(net: nn.Module, output: Tensor, pictures: Tensor) -> str | None:
    """Say if answers hang on chance, or on the other pictures of the batch."""
    name = type(net).__name__
    with undisturbed(net):
        torch.manual_seed(1)  # other random numbers than before, should it draw any
        set_mode(net, False)
        again = net(pictures)
    scale = float(output.abs().max()) * ROUNDING
    if float((output - again).abs().max()) > scale:
        return (
            f"{name} answers differently each time, also in evaluation mode: write F.dropout(x, "
            "training=self.training), or nn.Dropout as a layer"
        )
    try:
        alone = [run_explained(net, pictures[i : i + 1], training=False).output for i in range(2)]
    except UsageError as error:
        return f"{name} cannot answer for a single picture: {error.what}"
    if any(one.shape != output[:1].shape for one in alone):
        shape = tuple(alone[0].shape)
        return f"{name} returns shape {shape} for a single picture: write flatten(1) in place of squeeze()"
    if float((output[:2] - torch.cat(alone)).abs().max()) > scale:
        return (
            f"{name}'s answer for a picture hangs on the other pictures of its batch: look for an operation along "
            "axis 0, or a view or permute that mixes the batch with another axis"
        )
    return None


def _unused(net: nn.Module, pictures: Tensor) -> list[str]:
    """Name the layers that no gradient reaches, in training mode."""
    parameters = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    if not parameters:
        return []
    gradients, ran = _gradients(net, pictures, list(parameters.values()))
    lacking: dict[str, int] = {}  # layer -> its parameters without a gradient
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        if gradient is None:
            owner = name.rpartition(".")[0]
            lacking[owner] = lacking.get(owner, 0) + parameter.numel()
    idle = {owner: count for owner, count in lacking.items() if owner and net.get_submodule(owner) not in ran}
    notes = []
    for owner, count in idle.items():
        kind = type(net.get_submodule(owner))
        title = f"{owner} nn.{kind.__name__}" if kind.__module__.startswith("torch.") else f"{owner} {kind.__name__}"
        notes.append(f"{title} is never used: forward does not call it, and its {count:,} parameters stay as they are")
    cut = [owner or "the net's own parameters" for owner in lacking if owner not in idle]
    if cut:
        notes.append(
            f"no gradient reaches {', '.join(cut)}: what is computed there is not in the output, or went through "
            "detach, no_grad or argmax"
        )
    return notes


def _gradients(net: nn.Module, pictures: Tensor, parameters: list[nn.Parameter]) -> tuple[Any, set[nn.Module]]:
    """Return the gradient of the summed outputs by each parameter, and the modules that ran."""
    # A pass that drops whole layers at random may leave one out: the gradients of two passes are joined.
    joined: list[Any] = [None] * len(parameters)
    ran: set[nn.Module] = set()
    for training in (True, False):
        with undisturbed(net), traced(net) as trace, torch.enable_grad():
            set_mode(net, training)
            try:
                output = net(pictures)
            except RuntimeError as error:
                raise _backward_failure(net, error) from error
            if not output.requires_grad:
                raise UsageError(
                    f"no gradient reaches any weight of {type(net).__name__}",
                    "its output is cut off from its weights, as detach, .data, numpy, no_grad and argmax do",
                    "take that out of forward",
                )
            heads = getattr(net, "auxiliary_logits", None)  # trained beside the output, as in the training loop
            total = output.sum() + sum(logits.sum() for logits in (heads() if callable(heads) else ()))
            try:
                found = torch.autograd.grad(total, parameters, allow_unused=True)
            except RuntimeError as error:
                raise _backward_failure(net, error) from error
        joined = [one if one is not None else other for one, other in zip(joined, found, strict=True)]
        ran |= {call.module for call in trace.ended}
    return joined, ran


def _backward_failure(net: nn.Module, error: RuntimeError) -> UsageError:
    text = str(error).partition("\n")[0]
    what = f"{type(net).__name__} runs forward and fails on the way back"
    if "leaf Variable" in text and "in-place" in text:
        place = last_place(error)
        cause = f"a weight is written over in forward (at {place})" if place else "a weight is written over in forward"
        return UsageError(f"{type(net).__name__} cannot be trained", cause, "write w.relu() in place of w.relu_()")
    if "inplace operation" in text:
        fix = "write x = x + y in place of x += y, and relu(x) in place of relu_(x) or inplace=True"
        return UsageError(what, "numbers that the gradient needs were written over", fix)
    place = last_place(error)
    return UsageError(what, f"{text} (at {place})" if place else text)


def _modules_in(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _modules_in(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _modules_in(entry)
