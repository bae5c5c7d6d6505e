"""Sentences for a net that does not fit its data: which layer, what it got, what it wanted, what to write."""

from __future__ import annotations

import contextlib
import math
import re

import torch
from torch import Tensor, nn

from striate.errors import UsageError, near_names
from striate.models.dry_run import Call, Trace, last_place, set_mode, traced, undisturbed
from striate.models.table import lines_of, table_of
from striate.models.torch_words import in_plain_words

Shape = tuple[int, ...]
RUN_TOGETHER = "the pictures of the batch were run together before it, as view(n) and view(-1, n) do"


def run_explained(net: nn.Module, pictures: Tensor, training: bool, watched: bool = False) -> Trace:
    """Run a net once, undisturbed, and return the record; a failure raises UsageError about the layer it came from."""
    with undisturbed(net), traced(net, pictures if watched else None) as trace:
        set_mode(net, training)
        try:
            trace.output = net(pictures)
        except (UsageError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            explained = explain_failure(net, trace, tuple(pictures.shape), error)
            explained.detail = layer_lines(net, pictures, training)
            raise explained from error
    return trace


def layer_lines(net: nn.Module, pictures: Tensor, training: bool) -> list[str]:
    """Return the layer table of a run on `pictures` as lines, up to the layer that fails if one does."""
    with undisturbed(net), traced(net, pictures) as trace:
        set_mode(net, training)
        # The failure itself is told by whoever asks for the table.
        with contextlib.suppress(Exception):
            net(pictures)
    rows = table_of(net, trace, (pictures.shape[1], pictures.shape[2], pictures.shape[3]))
    return lines_of(rows, trace.running[-1] if trace.running else None) if rows else []


def explain_failure(net: nn.Module, trace: Trace, batch_shape: Shape, error: Exception) -> UsageError:
    """Turn the error of a net's run on a batch (B, C, H, W) into a sentence about the layer that raised it."""
    call = trace.running[-1] if trace.running else Call("", net, batch_shape)
    place = last_place(error)
    view = re.search(r"shape '(\[.*\])' is invalid for input of size (\d+)", str(error))
    problem = _python_fault(net, call, error) or _other_type(call, error)
    if problem is not None:
        pass
    elif view:
        problem = _view(net, trace, call, batch_shape, view.group(1), int(view.group(2)))
    elif call.input_shape is None:
        pass
    elif isinstance(call.module, nn.Linear):
        problem = _linear(call, call.module, call.input_shape, batch_shape[0])
    elif isinstance(call.module, nn.Conv2d):
        problem = _conv(call, call.module, call.input_shape, batch_shape[1:])
    elif isinstance(call.module, nn.MaxPool2d | nn.AvgPool2d):
        problem = _pool(call, call.module, call.input_shape)
    elif isinstance(call.module, nn.BatchNorm1d | nn.BatchNorm2d):
        problem = _batch_norm(call, call.module, call.input_shape)
    if problem is not None:
        what, cause, fix = problem
    else:
        cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        told = in_plain_words(str(error), call, call.input_shape or batch_shape)
        if told is not None:
            what, fix = f"{_owner(net, call)} {told[0]}", told[1]
        else:
            what = f"{_owner(net, call)} could not take a batch of shape {call.input_shape or batch_shape}"
            fix = _after(trace)
    return UsageError(what, f"{cause} (at {place})" if place else cause, fix)


def _python_fault(net: nn.Module, call: Call, error: Exception) -> tuple[str, str, str] | None:
    """Explain what is no matter of shapes: a `forward` that is missing or takes too little, a wrong name."""
    text, name = str(error), type(call.module).__name__
    if isinstance(error, NotImplementedError) and '"forward"' in text:
        what = f"{name} has no forward"
        return what, "torch calls it with the pictures", "write `def forward(self, x):` inside the class, indented"
    if isinstance(error, TypeError) and re.search(rf"\b{name}\.forward\(\)", text):
        return f"{_owner(net, call)} takes other arguments", text, "write `def forward(self, x):`, with x the pictures"
    missing = re.search(r"object has no attribute '(\w+)'", text)
    if isinstance(error, AttributeError) and missing and text.startswith(f"'{name}' object"):
        near = near_names(missing[1], [child for child, _ in call.module.named_children()])
        fix = f"write self.{near[0]}" if near else f"make self.{missing[1]} in __init__"
        return f"{name} has no {missing[1]}", f"AttributeError: {text.partition('. Did')[0]}", fix
    return None


def _other_type(call: Call, error: Exception) -> tuple[str, str, str] | None:
    """Explain numbers of another type than the weights'."""
    text = str(error).partition("\n")[0]
    if not re.search(r"same dtype|expected scalar type|Input type .* (weight|bias) type|to have dtype", text):
        return None
    weight = next(iter(call.module.parameters()), None)
    own = "" if weight is None else f", which are {str(weight.dtype).removeprefix('torch.')}"
    what = f"{call.title or type(call.module).__name__} got numbers of another type than its weights{own}"
    return what, text, "take .double(), .half(), .long() and the like out of forward: striate gives float32"


def explain_output(net: nn.Module, trace: Trace, training: bool, batch: int, num_classes: int) -> UsageError | None:
    """Return what is wrong with the output of a run on `batch` pictures; None if it is (batch, num_classes) floats."""
    output, wanted = trace.output, (batch, num_classes)
    name = type(net).__name__
    if not isinstance(output, torch.Tensor):
        mode = "training" if training else "evaluation"
        kind = "None" if output is None else f"a {type(output).__name__}"
        what = f"{name} returns {kind} in {mode} mode, striate wants one tensor of logits {wanted}"
        if output is None:
            return UsageError(what, "its forward ends without a return", "end forward with `return x`")
        return UsageError(what, fix="return the logits alone from forward")
    shape = tuple(output.shape)
    if not output.dtype.is_floating_point:
        return UsageError(
            f"{name} returns {output.dtype} numbers, striate wants logits, which are floating-point",
            fix="return the numbers before argmax",
        )
    if shape == wanted:
        return None
    what = f"the output of {name} has shape {shape} instead of {wanted}"
    if shape == (batch,):
        return UsageError(
            what, "it has one number a picture and no axis of classes", _last_layer(trace, 1, num_classes)
        )
    if len(shape) < 2 or shape[0] != batch:
        return _folded(what, trace, batch)
    if len(shape) == 2:
        cause = f"the net gives {shape[1]} number{'s' * (shape[1] != 1)} a picture, the data has {num_classes} classes"
        return UsageError(what, cause, _last_layer(trace, shape[1], num_classes))
    if math.prod(shape[1:]) == num_classes:
        return UsageError(what, "its map was not flattened", "end forward with .flatten(1)")
    if shape[-1] == num_classes:
        cause = "the last linear layer was put on each row of a map"
        return UsageError(what, cause, "put nn.Flatten(), or .flatten(1), before the linear layers")
    fix = f"end with nn.AdaptiveAvgPool2d(1), nn.Flatten() and nn.Linear({shape[1]}, {num_classes})"
    return UsageError(what, "the net ends in maps, not in one number for each class", fix)


def _folded(what: str, trace: Trace, batch: int) -> UsageError:
    """Find the first layer that got another number of pictures than the net did."""
    for call in trace.layers:
        shape = call.input_shape
        if not shape or shape[0] == batch:
            continue
        per_picture, rest = divmod(math.prod(shape), batch)
        number = f", and in_features={per_picture} there" if isinstance(call.module, nn.Linear) and not rest else ""
        return UsageError(
            what,
            f"{call.title} got {shape} from {batch} picture{'s' * (batch != 1)}: {RUN_TOGETHER}",
            f"write x.flatten(1), or nn.Flatten(), before it{number}",
        )
    return UsageError(what, f"the batch axis of {batch} was lost after the last layer", "return it as it is")


def _last_layer(trace: Trace, got: int, num_classes: int) -> str:
    """Say what number to write in the layer that made the outputs, if it can be told."""
    for call in reversed(trace.layers):
        if isinstance(call.module, nn.Linear) and call.module.out_features == got:
            return f"write out_features={num_classes} in {call.title}"
        if isinstance(call.module, nn.Conv2d) and call.module.out_channels == got:
            return f"write out_channels={num_classes} in {call.title}"
    return f"let the last layer give {num_classes} numbers"


def _linear(call: Call, layer: nn.Linear, shape: Shape, batch: int) -> tuple[str, str, str] | None:
    if shape[-1] == layer.in_features:
        return None
    per_picture, rest = divmod(math.prod(shape), batch)
    wanted = f"{call.title} got a batch of shape {shape} and wants ({batch}, {layer.in_features})"
    same = per_picture == layer.in_features
    write = "" if same else f"nn.Linear(in_features={per_picture}, out_features={layer.out_features})"
    if (len(shape) == 1 or shape[0] != batch) and not rest:
        before = "write x.flatten(1), or nn.Flatten(), before it"
        return (
            wanted,
            f"{RUN_TOGETHER}; one picture has {per_picture} numbers",
            before + (f", and {write}" * (not same)),
        )
    if len(shape) == 4:
        cause = f"the map {shape[1:]} was not flattened; it has {per_picture} numbers"
        return wanted, cause, "put nn.Flatten() before it" + (f", and write {write}" * (not same))
    write = f"nn.Linear(in_features={shape[-1]}, out_features={layer.out_features})"
    return wanted, f"it gets {shape[-1]} numbers and was made for {layer.in_features}", f"write {write}"


def _conv(call: Call, layer: nn.Conv2d, shape: Shape, pictures: Shape) -> tuple[str, str, str] | None:
    if len(shape) != 4:
        what = f"{call.title} got a batch of shape {shape} and wants (pictures, {layer.in_channels}, height, width)"
        return what, "a convolution works on maps", "flatten only after the last convolution"
    if shape[1] != layer.in_channels:
        what = f"{call.title} got a batch of shape {shape} and wants ({shape[0]}, {layer.in_channels}, …)"
        cause = f"it gets {shape[1]} channel{'s' * (shape[1] != 1)} and was made for {layer.in_channels}"
        kernel = f"kernel_size={tuple(layer.kernel_size)}"
        fix = f"write nn.Conv2d(in_channels={shape[1]}, out_channels={layer.out_channels}, {kernel}, …)"
        if shape[1:] == pictures and {shape[1], layer.in_channels} == {1, 3}:
            fix += ": the pictures are " + ("in colour" if shape[1] == 3 else "gray")
        elif shape[1:] == (*pictures[1:], pictures[0]):
            fix = "take the permute before it away: striate gives (pictures, channels, height, width), as torch wants"
        return what, cause, fix
    if isinstance(layer.padding, str):
        return None
    spans = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(layer.kernel_size, layer.dilation)]
    lacks = [span - side - 2 * padding for span, side, padding in zip(spans, shape[2:], layer.padding)]
    if max(lacks) <= 0:
        return None
    padding = max(layer.padding[axis] + math.ceil(lacks[axis] / 2) for axis in (0, 1))
    what = f"{call.title} got maps of {shape[2]}x{shape[3]} and wants at least {_least(spans, layer.padding)}"
    cause = f"its kernel spans {spans[0]}x{spans[1]} pixels, which is more than the map"
    return what, cause, f"use larger pictures (--size), or write padding={padding}"


def _pool(call: Call, layer: nn.MaxPool2d | nn.AvgPool2d, shape: Shape) -> tuple[str, str, str] | None:
    if len(shape) < 3:
        return None
    kernel = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
    paddings = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,) * 2
    if all(side + 2 * padding >= span for side, padding, span in zip(shape[-2:], paddings, kernel)):
        return None
    what = f"{call.title} got maps of {shape[-2]}x{shape[-1]} and wants at least {_least(list(kernel), paddings)}"
    cause = "the layers before it have made the map too small"
    return what, cause, "use larger pictures (--size), or take this pool away"


def _batch_norm(call: Call, layer: nn.BatchNorm1d | nn.BatchNorm2d, shape: Shape) -> tuple[str, str, str] | None:
    kind = type(layer).__name__
    wanted_axes = (4,) if isinstance(layer, nn.BatchNorm2d) else (2, 3)
    if len(shape) not in wanted_axes:
        axes = "(pictures, channels, height, width)" if wanted_axes == (4,) else "(pictures, features)"
        other = "nn.BatchNorm1d" if wanted_axes == (4,) else "nn.BatchNorm2d"
        what = f"{call.title} got a batch of shape {shape} and wants {axes}"
        return what, f"nn.{kind} counts other axes", f"write {other}({shape[1] if len(shape) > 1 else '…'})"
    if shape[1] != layer.num_features:
        what = f"{call.title} got a batch of shape {shape} and wants {layer.num_features} channels"
        return what, f"it gets {shape[1]} and was made for {layer.num_features}", f"write nn.{kind}({shape[1]})"
    if layer.training and math.prod(shape) == shape[1]:
        what = f"{call.title} got one value for each channel, shape {shape}, and wants at least two"
        cause = "in training it takes the mean and variance over the batch and the map, and one value has none"
        return what, cause, "use a batch size of at least 2 that leaves no single picture over, or take this layer away"
    return None


def _view(net: nn.Module, trace: Trace, call: Call, batch_shape: Shape, view: str, size: int) -> tuple[str, str, str]:
    """Explain `view` and `reshape` with numbers that do not fit: the articles write them for one size of picture."""
    batch = batch_shape[0]
    before = call.input_shape if call.is_layer else next((run.output_shape for run in trace.ended[::-1]), batch_shape)
    per_picture, rest = divmod(size, batch)
    what = f"{_owner(net, call)} cannot bring a batch of shape {before} into shape {view}"
    pictures = f"{batch} picture{'s' * (batch != 1)} of {per_picture}"
    cause = f"the batch has {size} numbers: {pictures}" if not rest else f"it has {size} numbers"
    fix = "write x.flatten(1), or nn.Flatten(), in its place, which keeps the batch"
    return what, cause, fix if rest else f"{fix}; a linear layer after it has in_features={per_picture}"


def _owner(net: nn.Module, call: Call) -> str:
    """Name the module that failed: a layer by its title, a function inside forward by the class whose forward it is."""
    if call.is_layer and call.name:
        return call.title
    return f"{call.name} {type(call.module).__name__}.forward".strip()


def _after(trace: Trace) -> str:
    """Say where in the net it happened."""
    if not trace.ended:
        return ""
    last = trace.ended[-1]
    return f"look after {last.name or type(last.module).__name__}, which returned shape {last.output_shape}"


def _least(spans: list[int], paddings: tuple[int, ...]) -> str:
    return "x".join(str(max(1, span - 2 * padding)) for span, padding in zip(spans, paddings))
