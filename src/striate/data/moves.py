"""Augmentation that moves or covers whole pixels: shift, flip, alternating flip, cutout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from striate.data.operation import Change, Context
from striate.device import key
from striate.errors import UsageError, unknown_name

FILLS = ("zero", "reflect")


@dataclass(frozen=True)
class Shift(Change):
    """Move each picture by −pixels … pixels along both axes, each value as likely.

    What comes in at the border is 0 (`zero`) or the picture mirrored without its border row (`reflect`, which needs
    sides longer than `pixels`). Raises UsageError for other fills and for pictures that small.
    """

    name: ClassVar[str] = "shift"
    pixels: int
    fill: str = "zero"

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        return torch.randint(0, 2 * self.pixels + 1, (len(context), 2), generator=context.generator)

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self.pixels == 0:
            return batch
        count, height, width, channels = batch.shape
        # Gathering from a train set padded once would save 15 ms of an epoch of MNIST, for twice its memory and as much
        # time for padding it.
        padded = _padded(batch, self.pixels, self.fill)  # (B, H + 2p, W + 2p, C)
        padded_height, padded_width = padded.shape[1:3]
        # Every row of a window is one run of bytes: gathering runs is ten times quicker than gathering pixels.
        first = torch.arange(count, device=batch.device) * padded_height + drawn[:, 0]
        first = (first * padded_width + drawn[:, 1]) * channels
        between = padded_width * channels
        starts = first[:, None] + torch.arange(0, height * between, between, device=batch.device)  # (B, H)
        run = width * channels
        runs = padded.view(-1).as_strided((max(padded.numel() - run + 1, 0), run), (1, 1))
        return runs.index_select(0, starts.view(-1)).view(batch.shape)


@dataclass(frozen=True)
class Flip(Change):
    """Mirror each picture left to right with probability 1/2. Not for digits and letters."""

    name: ClassVar[str] = "flip"

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        return torch.randint(0, 2, (len(context), 1), generator=context.generator)

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        count, turned = len(batch), drawn[:, 0]
        # Behind the pictures stand the mirrored ones; each row then takes the one or the other.
        mirrored = batch.index_select(0, turned.nonzero()[:, 0]).flip(2)
        both = torch.cat((batch, mirrored)).reshape(count + len(mirrored), math.prod(batch.shape[1:]))
        place = torch.where(turned > 0, count - 1 + turned.cumsum(0), torch.arange(count, device=batch.device))
        return both.index_select(0, place).view(batch.shape)


@dataclass(frozen=True)
class AlternatingFlip(Flip):
    """Mirror each picture in every other epoch; which half begins is a hash of seed and picture.

    So within any two epochs in a row each picture is seen both ways, where `flip` shows a quarter of them mirrored
    twice and a quarter never. Draws nothing. Source: Jordan 2024, arXiv:2404.00498, § 3.6.
    """

    name: ClassVar[str] = "altflip"

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        begins = scramble(context.indices, key(context.seed, "altflip")) & 1
        return (begins ^ (context.epoch & 1))[:, None]


@dataclass(frozen=True)
class Cutout(Change):
    """Cover a square of `side` × `side` pixels with `fill`, its centre at any pixel, cut off at the border.

    Source: DeVries and Taylor 2017, arXiv:1708.04552.
    """

    name: ClassVar[str] = "cutout"
    side: int
    fill: int = 0

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        centres = [torch.randint(0, length, (len(context),), generator=context.generator) for length in size]
        return torch.stack(centres, dim=1)

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self.side == 0:
            return batch
        count, height, width, channels = batch.shape
        span = torch.arange(self.side, device=batch.device) - self.side // 2
        # The centre lies in the picture, so a row moved to the border is a row that the square covers anyway.
        rows = (drawn[:, :1] + span).clamp_(0, height - 1) + height * torch.arange(count, device=batch.device)[:, None]
        columns = (drawn[:, 1:] + span).clamp_(0, width - 1)
        covered = (rows[:, :, None] * width + columns[:, None, :]).view(-1)  # (B · side · side,)
        out = batch.clone(memory_format=torch.contiguous_format)
        out.view(-1, channels).index_fill_(0, covered, self.fill)
        return out


# The constants of splitmix64 as int64 numbers.
_STEP, _FIRST, _SECOND = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def scramble(numbers: Tensor, seed: int) -> Tensor:
    """Hash int64 numbers so that neighbours have nothing in common: the numbers' places in splitmix64's sequence.

    Products and sums wrap around at 2⁶⁴. Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
    """
    mixed = numbers * _STEP + seed
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    # `>>` repeats the sign's bit from the left; splitmix64 shifts zeros in.
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _padded(batch: Tensor, pixels: int, fill: str) -> Tensor:
    """Add `pixels` on all four sides: contiguous (B, H + 2p, W + 2p, C)."""
    count, height, width, channels = batch.shape
    if fill == "zero":
        padded = batch.new_zeros((count, height + 2 * pixels, width + 2 * pixels, channels))
        padded[:, pixels : pixels + height, pixels : pixels + width] = batch
        return padded
    if fill != "reflect":
        raise unknown_name("fill of shift", fill, FILLS)
    if pixels >= min(height, width):
        raise UsageError(
            f"shift:{pixels}:reflect on pictures of {height}×{width}",
            "a picture has no more rows to mirror than its own",
            f"shift by at most {min(height, width) - 1}",
        )
    padded = batch.new_empty((count, height + 2 * pixels, width + 2 * pixels, channels))
    padded[:, pixels : pixels + height, pixels : pixels + width] = batch
    for axis, length in ((1, height), (2, width)):  # the border row itself is not repeated
        near, far = padded.narrow(axis, pixels + 1, pixels), padded.narrow(axis, length - 1, pixels)
        padded.narrow(axis, 0, pixels).copy_(near.flip(axis))
        padded.narrow(axis, pixels + length, pixels).copy_(far.flip(axis))
    return padded
