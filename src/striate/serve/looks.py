"""What /explain answers, as plain data: layers, kernels, maps, one cell, a class map; computed by the torch net.

Imported when something is first explained: to classify needs no torch.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from striate.data.dataset import Images
from striate.errors import UsageError, unknown_name
from striate.explain.cam import METHODS, class_maps, last_layer_with_maps
from striate.explain.features import (
    Layer,
    cell,
    kernels,
    layer_output,
    layers_with_kernels,
    left_out,
    list_layers,
)
from striate.explain.looking import at_rest, net_batches, watched
from striate.predictor.predictor import Predictor

# An answer holds at most so many numbers of maps or kernels: 4 MB, or 5.6 MB as text.
MOST_NUMBERS = 1 << 20
# The overview shows the first maps of each layer at most this large.
THUMBNAILS, THUMBNAIL_SIDE, MOST_UNITS = 4, 32, 256


def packed(values: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON: its shape, and its numbers little-endian in base64, float32 or uint8."""
    kind = "uint8" if values.dtype == np.uint8 else "float32"
    content = np.ascontiguousarray(values, "u1" if kind == "uint8" else "<f4").tobytes()
    return {"shape": list(values.shape), "dtype": kind, "base64": base64.b64encode(content).decode("ascii")}


def layers(predictor: Predictor) -> dict[str, Any]:
    """Return the layers in the order in which they run, and which of them have kernels and a class map."""
    net, shape = predictor.net, input_shape(predictor)
    found = list_layers(net, np.zeros((1, *shape), np.float32))
    modules = dict(net.named_modules())
    return {
        "input_shape": list(shape),
        "layers": [_layer(layer, modules[_module_of(layer.name, modules)]) for layer in found],
        "kernel_layers": layers_with_kernels(net, shape),
        "cam_layer": last_layer_with_maps(found),
        "left_out": left_out(found),
    }


def layer_kernels(predictor: Predictor, layer: str | None, channels: slice | None) -> dict[str, Any]:
    """Return kernels (O, I, kh, kw) of a layer, or the first that has any, for the output channels asked for."""
    net, shape = predictor.net, input_shape(predictor)
    known = layers_with_kernels(net, shape)
    if layer is None and not known:
        raise UsageError(f"{type(net).__name__} has no kernels", "none of its layers is a convolution")
    name = known[0] if layer is None else _module_of(layer, dict(net.named_modules()))
    found = kernels(net, name, shape)
    bias = getattr(dict(net.named_modules())[name], "bias", None)
    chosen = _chosen(channels, len(found), found[0].size)
    return {
        "layer": name,
        "shape": list(found.shape),
        "channels": [chosen.start, chosen.stop],
        "kernels": packed(found[chosen]),
        "bias": None if bias is None else packed(bias.detach().float().cpu().numpy()[chosen]),
    }


def layer_maps(predictor: Predictor, seen: Images, layer: str, channels: slice | None) -> dict[str, Any]:
    """Return what a layer makes of a picture uint8 (H, W, C): maps (C, H, W), or single numbers (F,)."""
    made = layer_output(predictor.net, _batch(predictor, seen), layer)[0]
    chosen = _chosen(channels, len(made), max(1, made[0].size))
    return {
        "layer": layer,
        "shape": list(made.shape),
        "channels": [chosen.start, chosen.stop],
        "low": _number(made.min()),
        "high": _number(made.max()),
        "values": packed(made[chosen]),
    }


def overview(predictor: Predictor, seen: Images) -> dict[str, Any]:
    """Return small pictures of what every layer makes of a picture uint8 (H, W, C), for a look at the whole net.

    The first maps of each, thinned out to small sides, or the first numbers of a layer of single ones (1, 1, F); as
    levels 0–255 where 0 stands for `low` and 255 for `high` of the layer.
    """
    found: list[dict[str, Any]] = []
    names = {layer.name for layer in list_layers(predictor.net, _batch(predictor, seen))}

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if name not in names or not isinstance(output, Tensor) or output.dim() not in (2, 4):
            return
        small = output[0, :MOST_UNITS][None, None] if output.dim() == 2 else output[0, :THUMBNAILS]
        step = 1 if output.dim() == 2 else -(-max(small.shape[1:]) // THUMBNAIL_SIDE)
        values = np.nan_to_num(small[:, ::step, ::step].float().cpu().numpy())
        low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
        levels = np.rint((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        found.append({"layer": name, "low": low, "high": high, "thumbnails": packed(levels)})

    with at_rest(predictor.net), watched(predictor.net, see):
        predictor.net(_batch(predictor, seen))
    return {"layers": found}


def one_cell(predictor: Predictor, seen: Images, layer: str, channel: int, y: int, x: int) -> dict[str, Any]:
    """Return what one number of a layer sees of a picture uint8 (H, W, C), and the multiply-adds it comes from."""
    found = cell(predictor.net, _batch(predictor, seen)[0], layer, channel, y, x)
    terms, window = found.terms, found.window
    return {
        "layer": layer,
        "cell": [channel, y, x],
        "value": _number(found.value),
        "field": None if found.field is None else list(found.field),
        "terms": None
        if terms is None
        else {
            "inputs": packed(terms.inputs),
            "weights": packed(terms.weights),
            "products": packed(terms.products),
            "channels": list(terms.channels),
            "bias": terms.bias,
            "total": _number(terms.total),
        },
        "window": None if window is None else {"rule": window.rule, "inputs": packed(window.inputs)},
    }


def class_map(
    predictor: Predictor, seen: Images, target: str | None, layer: str | None, method: str | None
) -> dict[str, Any]:
    """Return where a picture uint8 (H, W, C) speaks for a class, float32 (H, W) from 0 to 1.

    `target` is a class's name; None is the class that the net answers.
    """
    if target is not None and target not in predictor.classes:
        raise unknown_name("class", target, predictor.classes)
    logits = predictor.logits(np.stack([seen]))[0]
    number = int(logits.argmax()) if target is None else predictor.classes.index(target)
    method = method or METHODS[0]
    found = class_maps(predictor.net, _batch(predictor, seen), number, layer, method)[0]
    return {
        "class": predictor.classes[number],
        "method": method,
        "layer": layer or last_layer_with_maps(list_layers(predictor.net, _batch(predictor, seen))),
        "score": _number(logits[number]),
        "map": packed(found),
    }


def input_shape(predictor: Predictor) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of what the net takes."""
    return predictor.preprocess.channels, *predictor.preprocess.size


def _batch(predictor: Predictor, seen: Images) -> Tensor:
    return next(net_batches(predictor, np.stack([seen])))  # (1, C, H, W)


def _layer(layer: Layer, module: nn.Module) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": list(layer.shape),
        "parameters": sum(parameter.numel() for parameter in module.parameters(recurse=False)),
        "settings": _short(module.extra_repr()),
        "kernel": [module.out_channels, *module.weight.shape[1:]] if isinstance(module, nn.Conv2d) else None,
        "has_maps": layer.has_maps,
        "has_terms": isinstance(module, nn.Conv2d | nn.Linear),
    }


def _module_of(name: str, modules: dict[str, nn.Module]) -> str:
    """Return the name of a layer's module: `relu` of its second run, `relu#2`."""
    base, _, number = name.rpartition("#")
    return base if name not in modules and number.isdigit() else name


def _number(value: Any) -> float | None:
    """Return a number, or None for one that JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def _short(text: str) -> str:
    line = text.replace("\n", " ")
    return line if len(line) <= 120 else line[:119] + "…"


def _chosen(channels: slice | None, count: int, size: int) -> slice:
    """Return the channels of an answer: those asked for that are there, no more than fit."""
    start = 0 if channels is None else int(channels.start)
    stop = count if channels is None else min(int(channels.stop), count)
    if not 0 <= start < count or stop <= start:
        raise UsageError(f"there are no channels {start}:{stop}", f"the layer has {count}, counted from 0")
    return slice(start, min(stop, start + max(1, MOST_NUMBERS // max(1, size))))
