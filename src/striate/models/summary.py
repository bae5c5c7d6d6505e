"""The layer table of any net, and the dry run that tells before the first epoch whether a net fits its data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from striate.models.diagnose import explain_output, run_explained
from striate.models.dry_run import Call, example_pictures

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class LayerRow:
    """One run of one layer: its qualified name, its class, the shape it returns for one picture, its own parameters.

    `macs` are multiply-adds for one picture, of convolutions and linear layers; other layers count none.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """A net's layers in the order in which they run, and the sums over the whole net."""

    rows: tuple[LayerRow, ...]
    input_shape: Shape
    parameters: int
    trainable: int
    macs: int


def summarise(net: nn.Module, input_shape: Shape) -> Summary:
    """Run a net once on one picture (C, H, W) in evaluation mode and return its layer table.

    The net's buffers, modes and random numbers stay as they were. A layer that runs twice has two rows and its
    parameters in the first. Parameters of layers that do not run stand in the sum only; multiply-adds of functions
    such as `F.linear` are not counted. UsageError where the net does not fit the picture, as in `check_fits`.
    """
    trace = run_explained(net, example_pictures(net, 1, input_shape), training=False)
    counted: set[Tensor] = set()
    rows = []
    for call in trace.ended:
        own = [parameter for parameter in call.module.parameters(recurse=False) if parameter not in counted]
        if not call.is_layer and not own:
            continue
        counted.update(own)
        rows.append(
            LayerRow(
                name=call.name or type(net).__name__,
                kind=type(call.module).__name__,
                output_shape=(call.output_shape or ())[1:],
                parameters=sum(parameter.numel() for parameter in own),
                macs=count_macs(call),
            )
        )
    return Summary(
        rows=tuple(rows),
        input_shape=input_shape,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        trainable=sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad),
        macs=sum(row.macs for row in rows),
    )


def count_macs(call: Call) -> int:
    """Return the multiply-adds of one run of a convolution or a linear layer, biases left out; 0 for other layers."""
    layer, shape = call.module, call.output_shape
    if shape is None or not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        return 0
    # Each number of the output is one dot product with one row (one kernel) of the weights.
    return math.prod(shape) * math.prod(layer.weight.shape[1:])


def check_fits(net: nn.Module, input_shape: Shape, num_classes: int, smallest_batch: int = 2) -> None:
    """Run a net on two pictures (C, H, W), in training and in evaluation mode, and refuse it if anything does not fit.

    With `smallest_batch=1` the training mode is also tried on a single picture, which BatchNorm may refuse. The net's
    buffers, modes and random numbers stay as they were. UsageError names the layer, the shape it got, the shape it
    wanted and what to write; or says why the output is not (pictures, num_classes).
    """
    runs = [(2, True), (2, False)]
    if smallest_batch == 1:
        runs.append((1, True))
    for count, training in runs:
        trace = run_explained(net, example_pictures(net, count, input_shape), training)
        problem = explain_output(net, trace, training, count, num_classes)
        if problem is not None:
            raise problem
