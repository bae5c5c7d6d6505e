"""Augmentation that samples pictures anew: small rotation, scale and shear, and the random-resized crop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from striate.data.operation import Change, Context, in_pieces

WIDEST = 4 / 3  # a crop's widest shape, as in Szegedy et al. 2015; its tallest is 3/4


@dataclass(frozen=True)
class Affine(Change):
    """Turn by −degrees … degrees, scale by 1 − scale … 1 + scale and shear by −shear … shear degrees, about the middle.

    Sampled bilinearly in one pass, in float32; outside the picture is 0; uint8 results are rounded.
    """

    name: ClassVar[str] = "affine"
    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        return torch.rand((len(context), 3), generator=context.generator) * 2 - 1

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self == Affine() or len(batch) == 0:
            return batch
        return in_pieces(self._change, batch, drawn)

    def _change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        count, height, width, _ = batch.shape
        angle = torch.deg2rad(drawn[:, 0] * self.degrees)[:, None, None]  # (B, 1, 1), as the next four
        size = (1 + drawn[:, 1] * self.scale)[:, None, None]
        slant = torch.tan(torch.deg2rad(drawn[:, 2] * self.shear))[:, None, None]
        cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
        rows, columns = _middles(height, batch.device).view(1, -1, 1), _middles(width, batch.device).view(1, 1, -1)
        # From a pixel of the result to its place in the source. (affine_grid does this three times slower.)
        grid = torch.empty((count, height, width, 2), device=batch.device)
        torch.add(
            (cosine - sine * slant) * columns, (cosine * slant + sine) * (height / width) * rows, out=grid[..., 0]
        )
        torch.add(-sine * (width / height) * columns, cosine * rows, out=grid[..., 1])
        return _sample(batch, grid, outside="zeros")


@dataclass(frozen=True)
class Crop(Change):
    """Cut out a window of `least` … 1 of the picture's area, 3/4 to 4/3 as wide as the picture, and scale it to `size`.

    The random-resized crop of Szegedy et al. 2015, arXiv:1409.4842, § 6. The share of the area is drawn evenly, then
    the logarithm of the shape among those that fit, then the place: no window is drawn in vain. `size` (H, W) of the
    result; None keeps the picture's own. Sampled bilinearly without antialiasing, which is right down to about half
    the size; uint8 results are rounded.
    """

    name: ClassVar[str] = "crop"
    least: float
    size: tuple[int, int] | None = field(default=None, repr=False)

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        return torch.rand((len(context), 4), generator=context.generator)

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        size = self.size or (batch.shape[1], batch.shape[2])
        if self.least == 1 and size == (batch.shape[1], batch.shape[2]):
            return batch
        return in_pieces(self._change, batch, drawn, size)

    def _change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        goal_height, goal_width = self.size or (batch.shape[1], batch.shape[2])
        area = self.least + (1 - self.least) * drawn[:, 0]  # (B,), as the next five: shares of the picture's sides
        shape = torch.exp((2 * drawn[:, 1] - 1) * (-area.log()).clamp(max=math.log(WIDEST)))
        tall, wide = (area / shape).sqrt(), (area * shape).sqrt()
        top, left = drawn[:, 2] * (1 - tall), drawn[:, 3] * (1 - wide)
        # A window's middle and its half side, on the axis −1 … 1 of the whole picture.
        rows = (2 * top + tall - 1)[:, None] + tall[:, None] * _middles(goal_height, batch.device)  # (B, goal H)
        columns = (2 * left + wide - 1)[:, None] + wide[:, None] * _middles(goal_width, batch.device)
        shown = (len(batch), goal_height, goal_width)
        grid = torch.stack((columns[:, None, :].expand(shown), rows[:, :, None].expand(shown)), dim=3)
        return _sample(batch, grid, outside="border")


def _middles(length: int, device: torch.device) -> Tensor:
    """Return the places of the pixels' middles on an axis, −1 … 1 from border to border, as grid_sample counts."""
    return (torch.arange(length, device=device) * 2 + 1) / length - 1


def _sample(batch: Tensor, grid: Tensor, outside: str) -> Tensor:
    """Sample pictures (n, H, W, C) bilinearly at the places (n, h, w, 2): float32 (n, h, w, C)."""
    planes = batch.permute(0, 3, 1, 2).to(torch.float32).contiguous()  # (n, C, H, W)
    sampled = functional.grid_sample(planes, grid, mode="bilinear", padding_mode=outside, align_corners=False)
    return sampled.permute(0, 2, 3, 1)
