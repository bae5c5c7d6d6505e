"""Augmentation that mixes two pictures of a batch and their labels: mixup and cutmix.

Both act after all changes, on uint8 or float pictures in units of 0–255. As mean and std are the same for both pictures
and the shares add up to 1, that is the same as mixing the normalised pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from striate.data.operation import Context, Operation


@dataclass(frozen=True)
class Mixing(Operation):
    """Mix each picture with a partner from the same batch; a share is drawn from Beta(alpha, alpha) for each picture.

    The partners of a batch are a permutation of it. With alpha 0 every picture stays what it is.
    """

    alpha: float

    def partners(self, context: Context) -> Tensor:
        """Draw the row of each picture's partner: a permutation, int64 (B,)."""
        return torch.randperm(len(context), generator=context.generator)

    def mix(self, pictures: Tensor, partners: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Mix pictures (n, H, W, C) with their partners of the same shape, by the numbers `drawn` for each.

        Returns new pictures, and float32 (n,): the share of each that is the picture itself and not its partner.
        """
        raise NotImplementedError

    def _shares(self, context: Context) -> Tensor:
        """Draw the pictures' own shares, float32 (B,)."""
        # torch draws from Beta only with its own global generator.
        seed = int(torch.randint(0, 2**63 - 1, (1,), generator=context.generator))
        if self.alpha == 0:
            return torch.ones(len(context))
        return torch.from_numpy(np.random.default_rng(seed).beta(self.alpha, self.alpha, len(context))).float()


@dataclass(frozen=True)
class Mixup(Mixing):
    """The weighted mean of two pictures, in float32. Source: Zhang et al. 2018, arXiv:1710.09412."""

    name: ClassVar[str] = "mixup"

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        return self._shares(context)[:, None]

    def mix(self, pictures: Tensor, partners: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        # In place and in long rows: broadcasting over four axes takes ten times as long.
        mixed = partners.reshape(len(partners), -1).to(torch.float32, copy=True)
        mixed.lerp_(pictures.reshape(len(pictures), -1).to(torch.float32), drawn)
        return mixed.view(pictures.shape), drawn[:, 0]


@dataclass(frozen=True)
class Cutmix(Mixing):
    """A box of the partner pasted into the picture, at the same place; the shares are those of the pixels.

    The box has the picture's shape and the partner's share of its area; its middle is any pixel, and what leaves the
    picture is cut off. Source: Yun et al. 2019, arXiv:1905.04899.
    """

    name: ClassVar[str] = "cutmix"

    def draw(self, context: Context, size: tuple[int, int]) -> Tensor:
        side = (1 - self._shares(context)).sqrt()
        edges = []
        for length in size:
            long = (side * length).long()
            first = torch.randint(0, length, (len(context),), generator=context.generator) - long // 2
            edges += [first.clamp(0, length), (first + long).clamp(0, length)]
        return torch.stack(edges, dim=1)  # (B, 4): top, bottom, left, right

    def mix(self, pictures: Tensor, partners: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        height, width, channels = pictures.shape[1:]
        top, bottom, left, right = drawn[:, :, None].unbind(1)  # each (n, 1)
        row = torch.arange(height, device=pictures.device)
        column = torch.arange(width, device=pictures.device).repeat_interleave(channels)
        rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
        box = (rows[:, :, None] & columns[:, None, :]).to(pictures.dtype)  # (n, H, W · C): 1 inside, 0 outside
        # Products of whole rows take a fifth of the time that torch.where needs.
        mixed = pictures.reshape(box.shape) * (1 - box)
        mixed += partners.reshape(box.shape) * box
        share = 1 - ((bottom - top) * (right - left))[:, 0] / (height * width)
        return mixed.view(pictures.shape), share


def mix_labels(labels: Tensor, partners: Tensor, share: Tensor, num_classes: int) -> Tensor:
    """Return float32 (n, num_classes): `share` (n,) at each picture's label int64 (n,), the rest at its partner's."""
    mixed = torch.zeros((len(labels), num_classes), device=labels.device)
    mixed.scatter_add_(1, labels[:, None], share[:, None])
    return mixed.scatter_add_(1, partners[:, None], 1 - share[:, None])
