"""What the output of one operation of torch sees of the picture, from what its inputs see: a rule for each operation.

An operation without a rule gives None: its receptive field cannot be known, and the table says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from striate.models import follow_places as moving
from striate.models import follow_windows as windows
from striate.models import taps
from striate.models.receptive import Fields, Inputs, Rule, Shape, collapse, each, moved, union


def pointwise(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """Each number of the output is made of the inputs' numbers at its own place, broadcast as torch does."""
    aligned = []
    for own, fields in inputs:
        shift = len(shape) - len(own)
        if shift < 0:
            return None
        places = {dim: dim + shift for dim in range(len(own)) if own[dim] == shape[dim + shift]}
        aligned.append(each(fields, lambda axis, places=places: moved(axis, places)))  # type: ignore[misc]
    return union([rows for rows, _ in aligned]), union([columns for _, columns in aligned])


def _first(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """Pass the first input on: what stands beside it changes numbers and not places."""
    return pointwise(inputs[:1], arguments, shape)


def _everything(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """Each number of the output may be made of all numbers of the inputs."""
    flat = [each(fields, lambda axis: collapse(axis, axis.dims)) for _, fields in inputs]
    return union([rows for rows, _ in flat]), union([columns for _, columns in flat])


def _product(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """A product of matrices: the last axis of the one and the last but one of the other are summed over."""
    left, right = [argument for argument in arguments if isinstance(argument, Tensor)][-2:]
    found: list[Fields] = []
    for matrix, dim, keeps in ((left, left.dim() - 1, left.dim() - 2), (right, max(right.dim() - 2, 0), None)):
        position = next((fields for own, fields in inputs if own == tuple(matrix.shape)), None)
        if position is None:
            continue
        places = {d: d for d in range(matrix.dim() - 2)}
        places[matrix.dim() - 2 if keeps is not None else matrix.dim() - 1] = (
            len(shape) - 2 if keeps is not None else len(shape) - 1
        )
        found.append(each(position, lambda a, dim=dim, places=places: moved(collapse(a, [dim]), places)))  # type: ignore[misc]
    if not found or len(inputs) > 2:
        return _everything(inputs, arguments, shape)
    return union([rows for rows, _ in found]), union([columns for _, columns in found])


def _reduce(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    """A sum, mean or maximum over axes, which then are one entry long or gone."""
    own, fields = inputs[0]
    named = next((a for a in arguments[1:] if isinstance(a, list | int) and not isinstance(a, bool)), None)
    dims = [named] if isinstance(named, int) else named
    gone = {dim % len(own) for dim in dims} if dims else set(range(len(own)))
    if len(shape) == len(own):
        places = {dim: dim for dim in range(len(own)) if dim not in gone}
    else:
        places = {dim: place for place, dim in enumerate(d for d in range(len(own)) if d not in gone)}
    return each(fields, lambda axis: moved(collapse(axis, gone), places))


def _norm(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    last = range(len(own) - len(arguments[1]), len(own))
    return each(fields, lambda axis: collapse(axis, last))


def _vector_norm(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    return _reduce(inputs, [arguments[0], *arguments[2:]], shape)


def _softmax(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    return each(fields, lambda axis: collapse(axis, [arguments[1] % len(own)]))


def _batch_norm(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    measures = arguments[5] is True  # statistics of this very batch: every number sees the whole map
    return _everything(inputs, arguments, shape) if measures else _first(inputs, arguments, shape)


def _glu(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    dim = (arguments[1] if len(arguments) > 1 else -1) % len(own)
    return None if any(dim in axis.dims for axis in fields) else fields


def _restride(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    own, fields = inputs[0]
    return fields if own == shape else None  # in torch, a change of memory format; anything else is not followed


def _copy(inputs: Inputs, arguments: Sequence[Any], shape: Shape) -> Fields | None:
    return pointwise(inputs[-1:], arguments, shape)


RULES: dict[str, Rule] = {
    "convolution": windows.convolution,
    "max_pool2d_with_indices": windows.pool(2, True),
    "max_pool3d_with_indices": windows.pool(3, True),
    **{f"avg_pool{count}d": windows.pool(count, False) for count in (1, 2, 3)},
    **{f"_adaptive_avg_pool{count}d": windows.resample(count, taps.adaptive) for count in (2, 3)},
    **{f"adaptive_max_pool{count}d": windows.resample(count, taps.adaptive) for count in (2, 3)},
    "upsample_nearest2d": windows.resample(2, taps.nearest),
    "upsample_bilinear2d": windows.bilinear,
    "constant_pad_nd": windows.bordered(windows.blank),
    "reflection_pad2d": windows.bordered(taps.mirrored),
    "replication_pad2d": windows.bordered(taps.repeated),
    "pixel_shuffle": windows.shuffle,
    "pixel_unshuffle": windows.unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _first),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze", "_reshape_alias"), moving.view),
    **dict.fromkeys(("expand", "copy", "lift_fresh", "alias", "detach", "contiguous"), pointwise),
    "permute": lambda inputs, arguments, shape: moving.permute(inputs, arguments[1]),
    **dict.fromkeys(("transpose", "t"), moving.transpose),
    "unsqueeze": moving.unsqueeze,
    "slice": moving.sliced,
    "select": moving.select,
    **dict.fromkeys(("split", "split_with_sizes"), moving.split),
    "index": moving.index,
    "flip": moving.flip,
    "roll": moving.roll,
    "repeat": moving.repeat,
    "cat": moving.cat,
    "stack": moving.stack,
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), _product),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std", "logsumexp", "prod"), _reduce),
    "linalg_vector_norm": _vector_norm,
    "native_layer_norm": _norm,
    "native_group_norm": _everything,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), _batch_norm),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "_prelu_kernel", "native_dropout"), _first),
    **dict.fromkeys(("hardswish", "log_sigmoid_forward", "rrelu_with_noise"), _first),
    **dict.fromkeys(("_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("_native_multi_head_attention", "_scaled_dot_product_flash_attention_for_cpu"), _everything),
    **dict.fromkeys(("_scaled_dot_product_attention_math", "_scaled_dot_product_efficient_attention"), _everything),
    "glu": _glu,
    "as_strided": _restride,
    "copy_": _copy,
}
