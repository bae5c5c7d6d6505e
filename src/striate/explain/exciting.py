"""The pictures of a data set that a channel answers most strongly to, and the place where it does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from striate.data.rows import Pictures
from striate.errors import UsageError
from striate.explain.features import Field, check_layer, list_layers, receptive_field
from striate.explain.looking import Batch, as_input, at_rest, net_batches, watched
from striate.predictor.predictor import Predictor


@dataclass(frozen=True)
class Excited:
    """One picture that excites a channel: its number, the greatest value in its map, and the place (y, x) of it.

    `field`: the pixels that this place hangs on (top, left, bottom, right; the last two left out), if asked for.
    """

    picture: int
    value: float
    place: tuple[int, int]
    field: Field | None = None


def most_exciting(
    net: nn.Module,
    batches: Iterable[Batch],
    layer: str,
    channels: Sequence[int] | None = None,
    count: int = 9,
) -> dict[int, list[Excited]]:
    """Return for each channel of a layer the `count` pictures with the greatest value in its map, greatest first.

    `batches` of normalised pictures (B, C, H, W), asked for one after the other and not kept; pictures are numbered in
    their order, and of equal values the earlier is taken. A layer of units has one place, (0, 0). None: all channels.
    Raises UsageError for an unknown layer or channel, and where there are no pictures.
    """
    best: list[Tensor] = []  # values, pictures, places: (C, count) each
    caught: list[Tensor] = []

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if name == layer and isinstance(output, Tensor) and output.dim() in (2, 4):
            caught.append(output.detach().clone())

    seen = 0
    with at_rest(net):
        for given in batches:
            batch = as_input(net, given)
            if not seen:
                check_layer(net, list_layers(net, batch), layer)
            caught.clear()
            with watched(net, see):
                net(batch)
            if not caught:
                raise UsageError(f"layer {layer} has no channels", "it returns neither maps nor units")
            flat = caught[0].flatten(2) if caught[0].dim() == 4 else caught[0][:, :, None]  # (B, C, h·w)
            width = caught[0].shape[3] if caught[0].dim() == 4 else 1
            chosen = _check_channels(layer, channels, flat.shape[1])
            values, places = flat[:, chosen].max(2)  # (B, c) each
            numbers = torch.arange(seen, seen + len(batch), device=values.device)[:, None].expand_as(values)
            best = _merge(best, [values.T, numbers.T, places.T], count)
            seen += len(batch)
    if not seen:
        raise UsageError("there are no pictures to choose from")
    rows = zip(*(part.tolist() for part in best), strict=True)
    return {
        channel: [
            Excited(int(picture), float(value), divmod(int(place), width))
            for value, picture, place in zip(*row, strict=True)
        ]
        for channel, row in zip(chosen, rows, strict=True)
    }


def exciting_pictures(
    predictor: Predictor,
    images: Pictures,
    layer: str,
    channels: Sequence[int] | None = None,
    count: int = 9,
) -> dict[int, list[Excited]]:
    """Return what `most_exciting` does, with fields, for uint8 pictures (N, H, W, C) at the net's size."""
    found = most_exciting(predictor.net, net_batches(predictor, images), layer, channels, count)
    height, width = predictor.preprocess.size
    shape = (predictor.preprocess.channels, height, width)
    fields: dict[tuple[int, int], Field | None] = {}
    with_fields = {}
    for channel, excited in found.items():
        told = []
        for one in excited:
            if one.place not in fields:
                fields[one.place] = receptive_field(predictor.net, shape, layer, (channel, *one.place))
            told.append(Excited(one.picture, one.value, one.place, fields[one.place]))
        with_fields[channel] = told
    return with_fields


def _check_channels(layer: str, channels: Sequence[int] | None, number: int) -> list[int]:
    chosen = list(range(number)) if channels is None else list(channels)
    for channel in chosen:
        if not 0 <= channel < number:
            raise UsageError(f"layer {layer} has no channel {channel}", f"it has {number} channels, counted from 0")
    return chosen


def _merge(best: list[Tensor], fresh: list[Tensor], count: int) -> list[Tensor]:
    """Join (values, pictures, places), each (C, n), and keep the greatest; the earlier picture of equal ones."""
    joined = [torch.cat(pair, dim=1) for pair in zip(best, fresh, strict=True)] if best else fresh
    order = joined[0].sort(dim=1, descending=True, stable=True).indices[:, :count]
    return [part.gather(1, order) for part in joined]
