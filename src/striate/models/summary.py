"""The layer table of any net, and the dry run that tells before the first epoch whether a net fits its data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from striate.models.diagnose import explain_output, layer_lines, run_explained
from striate.models.dry_run import example_pictures
from striate.models.table import LayerRow, Shape, all_macs, table_of


@dataclass(frozen=True)
class Summary:
    """A net's layers in the order in which they run, and the sums over the whole net.

    `macs` are all multiply-adds whose number is known; `macs_known` says that these are all there are.
    """

    rows: tuple[LayerRow, ...]
    input_shape: Shape
    parameters: int
    trainable: int
    macs: int
    macs_known: bool = True

    @property
    def memory(self) -> int:
        """Bytes of all rows' outputs for one picture: what training keeps of it, about, to go back through."""
        return sum(row.memory for row in self.rows)

    @property
    def sizes(self) -> dict[str, int]:
        """What a model file says of the net's size: parameters, and multiply-adds where they are known."""
        return {"parameters": self.parameters, **({"macs": self.macs} if self.macs_known else {})}


def summarise(net: nn.Module, input_shape: Shape) -> Summary:
    """Run a net once on one picture (C, H, W) in evaluation mode and return its layer table.

    The net's buffers, modes and random numbers stay as they were. A layer that runs twice has two rows and its
    parameters in the first. Parameters of layers that do not run stand in the sum only. UsageError where the net does
    not fit the picture, as in `check_fits`.
    """
    trace = run_explained(net, example_pictures(net, 1, input_shape), training=False, watched=True)
    macs, whole = all_macs(trace)
    return Summary(
        rows=table_of(net, trace, input_shape),
        input_shape=input_shape,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        trainable=sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad),
        macs=macs,
        macs_known=whole,
    )


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
            problem.detail = layer_lines(net, example_pictures(net, count, input_shape), training)
            raise problem
