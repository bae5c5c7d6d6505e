"""The rows of the layer table: one for each layer that ran, and for each function that changed a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from striate.models.dry_run import Call, Trace
from striate.models.layer_sums import mac_sum, operation_sums, parameter_sum, size_sums
from striate.models.receptive import Field, field_of
from striate.models.watching import Operation

Shape = tuple[int, int, int]

BYTES = 4  # of a float32
#: Functions in a `forward` that have a row of their own where they change a shape, under the name a user knows.
_FUNCTIONS = {
    "convolution": "conv",
    "max_pool1d": "max_pool1d",
    "max_pool2d_with_indices": "max_pool2d",
    "avg_pool1d": "avg_pool1d",
    "avg_pool2d": "avg_pool2d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "adaptive_max_pool2d": "adaptive_max_pool2d",
    "upsample_nearest2d": "interpolate",
    "upsample_bilinear2d": "interpolate",
    "constant_pad_nd": "pad",
    "reflection_pad2d": "pad",
    "replication_pad2d": "pad",
    "pixel_shuffle": "pixel_shuffle",
    "pixel_unshuffle": "pixel_unshuffle",
    "mean": "mean",
    "amax": "amax",
    "cat": "cat",
    "stack": "stack",
    "slice": "slice",
    "view": "flatten",
    "_unsafe_view": "flatten",
    "addmm": "linear",
    "mm": "matmul",
    "bmm": "matmul",
}


@dataclass(frozen=True)
class LayerRow:
    """One run of one layer: its qualified name, its class, the shape it returns for one picture, its own parameters.

    A function called in a `forward` that changes a shape or multiplies has a row too, of kind `function`. `macs` are
    multiply-adds for one picture, None where they are not known, and `share` their part of the net's, a fraction, None
    where the net's are not known. The three sums say how size,
    parameters and multiply-adds come about (`⌊(28 − 5)/2⌋ + 1 = 12`, one sum or one for each axis). `memory` is the
    output in bytes (float32, one picture), 0 where it takes the place of the input. `field` is what one number of the
    output sees of the picture, None where that cannot be known.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int | None
    share: float | None = 0.0
    memory: int = 0
    size_sums: tuple[str, ...] = ()
    parameter_sum: str = ""
    mac_sum: str = ""
    field: Field | None = None


def table_of(net: nn.Module, trace: Trace, input_shape: Shape) -> tuple[LayerRow, ...]:
    """Return the rows of a watched run on one picture (C, H, W), which may have ended in the middle."""
    counted: set[Tensor] = set()
    picture, (counted_macs, whole) = input_shape[1:], all_macs(trace)
    total = max(counted_macs, 1) if whole else None
    rows = []
    for step in trace.steps:
        if isinstance(step, Call):
            own = [parameter for parameter in step.module.parameters(recurse=False) if parameter not in counted]
            if step.is_layer or own:
                counted.update(own)
                rows.append(_layer_row(net, step, own, picture, total))
        elif _has_row(net, *step):
            rows.append(_function_row(*step, picture, total))
    return tuple(rows)


def all_macs(trace: Trace) -> tuple[int, bool]:
    """Return the multiply-adds of the operations whose cost is known, and whether that is all of them."""
    found = [step[1].macs for step in trace.steps if not isinstance(step, Call)]
    return sum(macs or 0 for macs in found), None not in found


def _share(macs: int | None, total: int | None) -> float | None:
    return None if macs is None or total is None else macs / total


def _layer_row(
    net: nn.Module, call: Call, own: Sequence[nn.Parameter], picture: tuple[int, int], total: int | None
) -> LayerRow:
    shape = (call.output_shape or ())[1:]
    macs = call.macs if _is_one_row(net, call) else 0  # otherwise its functions have rows of their own
    return LayerRow(
        name=call.name or type(net).__name__,
        kind=type(call.module).__name__,
        output_shape=shape,
        parameters=sum(parameter.numel() for parameter in own),
        macs=macs,
        share=_share(macs, total),
        memory=0 if call.is_view else math.prod(shape) * BYTES,
        size_sums=size_sums(call.module, call.input_shape, call.output_shape),
        parameter_sum=parameter_sum(call.module, list(own)),
        mac_sum=mac_sum(call.module, call.output_shape),
        field=field_of(call.fields, picture),
    )


def _function_row(owner: Call, operation: Operation, picture: tuple[int, int], total: int | None) -> LayerRow:
    shape = (operation.output_shape or ())[1:]
    return LayerRow(
        name=f"{owner.name}.{_FUNCTIONS.get(operation.name, operation.name.strip('_'))}".removeprefix("."),
        kind="function",
        output_shape=shape,
        parameters=0,
        macs=operation.macs,
        share=_share(operation.macs, total),
        memory=0 if operation.is_view else math.prod(shape) * BYTES,
        size_sums=operation_sums(operation),
        field=field_of(operation.fields, picture),
    )


def _is_one_row(net: nn.Module, call: Call) -> bool:
    """Whether one row says all that a module does: of a layer, but not of a net whose `forward` calls functions."""
    return call.is_layer and (call.module is not net or type(net).__module__.startswith("torch.nn."))


def _has_row(net: nn.Module, owner: Call, operation: Operation) -> bool:
    if _is_one_row(net, owner):
        return False
    if operation.macs is None:
        return True
    if operation.name not in _FUNCTIONS or not operation.input_shapes:
        return False
    before, after = operation.input_shapes[0], operation.output_shape
    if operation.macs:
        return True
    if after is None or before == after or operation.fields is None:
        return False
    if operation.name in ("view", "_unsafe_view"):  # flattening, and not the turning of axes within
        return min(len(before), len(after)) == 2 < max(len(before), len(after)) and before[0] == after[0]
    return True


def lines_of(rows: Sequence[LayerRow], failed: Call | None, most: int = 12) -> list[str]:
    """Return the last rows as aligned text, with the sum behind each size, and the module that failed after them."""
    cells = [("layer", "kind", "output", "how its size comes about")]
    cells += [
        (row.name, row.kind, "x".join(map(str, row.output_shape)), ", ".join(row.size_sums)) for row in rows[-most:]
    ]
    if failed is not None:
        cells.append((failed.name or "forward", type(failed.module).__name__, "fails", ""))
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = ["  ".join((*(row[i].ljust(widths[i]) for i in range(3)), row[3])).rstrip() for row in cells]
    if len(rows) > most:
        lines.insert(1, f"… {len(rows) - most} before these")
    return lines
