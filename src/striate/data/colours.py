"""Augmentation of a picture's colours: brightness, contrast and saturation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from striate.data.operation import Change, Context, in_pieces
from striate.errors import UsageError

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class Colour(Change):
    """Multiply by 1 ∓ brightness, stretch about the mean by 1 ∓ contrast, about each pixel's gray by 1 ∓ saturation.

    One number of each for a picture, the same for all channels; the result is cut to 0–255, and rounded for uint8.
    Raises UsageError for saturation on pictures that have not three channels.
    """

    name: ClassVar[str] = "colour"
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        numbers = 3 if self.saturation else 2  # a third only where it is needed: the first two stay what they were
        return torch.rand((len(context), numbers), generator=context.generator) * 2 - 1

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self.saturation and batch.shape[3] != 3:
            raise UsageError(
                f"saturation on pictures of {batch.shape[3]} channels",
                "only red, green and blue have one",
                "leave it out, or write 0",
            )
        if self == Colour() or len(batch) == 0:
            return batch
        return in_pieces(self._change, batch, drawn)

    def _change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        flat = batch.reshape(len(batch), -1).to(torch.float32)  # (B, H · W · C)
        bright = 1 + drawn[:, :1] * self.brightness
        contrast = 1 + drawn[:, 1:2] * self.contrast
        # A float64 sum of whole numbers is exact, so that it does not depend on the number of threads.
        middle = flat.mean(dim=1, keepdim=True, dtype=torch.float64).to(torch.float32)
        changed = (flat * (bright * contrast)).add_(middle * bright * (1 - contrast))
        if self.saturation:
            pixels = changed.view(len(batch), -1, 3)  # (B, H · W, 3)
            gray = sum(weight * channel for weight, channel in zip(LUMA, pixels.unbind(2)))
            saturation = 1 + drawn[:, 2:, None] * self.saturation
            changed = (pixels * saturation).add_(gray[:, :, None] * (1 - saturation))  # type: ignore[index]
        return changed.clamp_(0, 255).view(batch.shape)
