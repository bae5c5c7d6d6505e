"""Class activation maps: where a picture speaks for a class, from the maps of one layer and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from striate.errors import UsageError, unknown_name
from striate.explain.features import Layer, check_layer, list_layers
from striate.explain.looking import (
    Batch,
    Floats,
    Targets,
    as_input,
    as_targets,
    at_rest,
    picture_pixels,
    pieces,
    scores,
    watched,
)

METHODS = ("grad-cam", "layer-cam")
WITHOUT_MAPS = "use occlusion or integrated gradients, which need no maps (--method occlusion,integrated-gradients)"


def class_maps(
    net: nn.Module, batch: Batch, targets: Targets, layer: str | None = None, method: str = "grad-cam"
) -> Floats:
    """Return where each picture speaks for its target class: float32 (N, H, W) at the pictures' size, from 0 to 1.

    `batch` (N, C, H, W), normalised (`Predictor.preprocess.normalise`); `targets` one class number, or one a picture.
    `layer` as `list_layers` names it; None takes the last one whose map is larger than 1×1. The map of the layer is
    scaled up bilinearly and divided by its greatest value; a picture in which nothing speaks for the class gets zeros.
    Each picture's map is its own, whatever else is in the batch; large batches are worked through in pieces.
    Raises UsageError for an unknown layer, method or class, and for a net without such a layer (an MLP).
    Sources: Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391; LayerCAM, Jiang et al. 2021, IEEE TIP 30.
    """
    raw = torch.from_numpy(raw_class_maps(net, batch, targets, layer, method)).clamp_min(0)[:, None]  # (N, 1, h, w)
    size = tuple(batch.shape[2:])
    large = functional.interpolate(raw, size, mode="bilinear", align_corners=False)[:, 0]  # (N, H, W)
    greatest = large.amax((1, 2), keepdim=True)
    return torch.where(greatest > 0, large / greatest.clamp_min(torch.finfo(large.dtype).tiny), 0.0).numpy()


def raw_class_maps(
    net: nn.Module, batch: Batch, targets: Targets, layer: str | None = None, method: str = "grad-cam"
) -> Floats:
    """Return the maps as the papers sum them, float32 (N, h, w) at the layer's size, before the last ReLU.

    Grad-CAM: Σ over channels of the map times the mean of its gradient. LayerCAM: Σ of the map times its gradient where
    that is positive. The gradient is that of the class's logit.
    """
    if method not in METHODS:
        raise unknown_name("class activation map", method, METHODS)
    parts = []
    with at_rest(net):
        pictures = as_input(net, batch)
        numbers = as_targets(targets, len(pictures), pictures.device)
        known = list_layers(net, pictures)
        name = layer if layer is not None else default_layer(net, known)
        check_layer(net, known, name)
        for piece in pieces(len(pictures), picture_pixels(pictures)):
            maps, slopes = _maps_and_slopes(net, pictures[piece], numbers[piece], name, known)  # (n, C, h, w) both
            weights = slopes.mean((2, 3), keepdim=True) if method == "grad-cam" else slopes.clamp_min(0)
            parts.append((weights * maps).sum(1).float().cpu().numpy())
    return np.concatenate(parts)


def default_layer(net: nn.Module, layers: Sequence[Layer]) -> str:
    """Return the last layer with a map larger than 1×1. Raises UsageError where a net has none."""
    name = last_layer_with_maps(layers)
    if name is None:
        raise UsageError(
            f"{type(net).__name__} has no layer with a map",
            "a class activation map shows the places of a feature map, and this net's layers return single numbers",
            WITHOUT_MAPS,
        )
    return name


def _instead(layers: Sequence[Layer]) -> str:
    """Return what to ask for where a layer has no map: one that has, or a method that needs none."""
    names = [layer.name for layer in layers if layer.has_maps]
    if not names:
        return WITHOUT_MAPS
    some = names if len(names) <= 8 else [*names[:6], "…", names[-1]]
    return f"name one of {', '.join(some)}"


def last_layer_with_maps(layers: Sequence[Layer]) -> str | None:
    """Return the last layer with a map larger than 1×1, or None."""
    large = [layer.name for layer in layers if layer.has_maps and max(layer.shape[1:]) > 1]
    return large[-1] if large else None


def _maps_and_slopes(
    net: nn.Module, pictures: Tensor, targets: Tensor, layer: str, known: Sequence[Layer]
) -> tuple[Tensor, Tensor]:
    """Return a layer's maps (n, C, h, w) and the gradient of the targets' logits by them."""
    caught: list[Tensor] = []

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> Tensor | None:
        if name != layer:
            return None
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise UsageError(f"layer {layer} has no maps", f"it is {type(module).__name__}", _instead(known))
        # The net goes on with a copy, which later layers may overwrite; what is before the layer needs no gradient.
        caught.append(output.detach().clone().requires_grad_())
        return caught[0].clone()

    with watched(net, see), torch.enable_grad():
        total = scores(net, pictures, targets).sum()
        slopes = torch.autograd.grad(total, caught, allow_unused=True)[0] if caught and total.requires_grad else None
    if slopes is None:
        raise UsageError(f"the answer does not hang on layer {layer}", "no gradient reaches it", _instead(known))
    return caught[0].detach(), slopes
