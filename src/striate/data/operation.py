"""What an operation of augmentation is: numbers drawn for a whole batch, and a change of pictures by them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from striate.errors import UsageError

PIECE = 1 << 18  # values changed at once in float32


@dataclass(frozen=True)
class Context:
    """The whole batch that numbers are drawn for, also where a process holds only some of its rows.

    `generator` on the CPU; `indices` int64 (B,), the number of each picture in its data set; `epoch` from 0.
    """

    generator: torch.Generator
    indices: Tensor
    epoch: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.generator.device.type != "cpu":
            raise UsageError(
                f"the generator is on {self.generator.device}", "augmentation draws on the CPU", "use a CPU generator"
            )

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Operation:
    """One kind of augmentation with its strength; `str` gives the text that `augment.parse` reads.

    A field with `repr=False` is no part of that text. Raises UsageError for a strength that is no number from 0.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field, value in dataclasses.asdict(self).items():
            if isinstance(value, (int, float)) and not 0 <= value < math.inf:
                raise UsageError(f"{self.name} with {field} {value}", "expected a number from 0")

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        """Draw the numbers for all pictures of a batch, each of `size` (H, W): one row (B, …) for each picture."""
        raise NotImplementedError

    def __str__(self) -> str:
        fields = [field for field in dataclasses.fields(self) if field.repr]
        values = [getattr(self, field.name) for field in fields]
        given = [i + 1 for i, field in enumerate(fields) if values[i] != field.default]
        shown = values[: max(given, default=min(1, len(values)))]
        return ":".join([self.name, *(repr(value) if isinstance(value, float) else str(value) for value in shown)])


class Change(Operation):
    """An operation on each picture by itself."""

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        """Change pictures (n, H, W, C) by the numbers `drawn` for them, row by row.

        The type is kept and the input is not changed. Where nothing is to do, the input itself may be returned.
        """
        raise NotImplementedError

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for a whole batch (B, H, W, C) and change it: a function of the two alone."""
        context = Context(generator, torch.arange(len(batch)))
        return self.change(batch, self.draw(context, (batch.shape[1], batch.shape[2])).to(batch.device))


def in_pieces(
    change: Callable[[Tensor, Tensor], Tensor], batch: Tensor, drawn: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """Change some pictures at a time, to floats that stay in the processor's cache, and round them for uint8.

    `size` (H, W) of the result, where it is another.
    """
    count, height, width, channels = batch.shape
    out = torch.empty((count, *(size or (height, width)), channels), dtype=batch.dtype, device=batch.device)
    together = max(1, PIECE // max(1, height * width * channels))
    for start in range(0, count, together):
        rows = slice(start, start + together)
        changed = change(batch[rows], drawn[rows])
        out[rows] = changed.round_().clamp_(0, 255) if batch.dtype == torch.uint8 else changed
    return out
