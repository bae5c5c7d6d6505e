"""Batches: from uint8 pictures in memory to float tensors on the device, with no Python per picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from striate.data import augment
from striate.data.dataset import Images, Labels
from striate.data.preprocess import Preprocess
from striate.device import generator

# Without augmentation a chunk of several batches is gathered and normalised at once and then handed out as views:
# at one picture a step the calls would otherwise cost more than the net.
CHUNK_BYTES = 4 * 1024 * 1024


class Batches:
    """The train pictures, in an order that is a function of (seed, epoch) alone.

    `images` uint8 (N, H, W, C) at the net's size, `labels` int64 (N,), `indices` those that are used.
    Yields float32 (B, C, H, W), channels-last unless told otherwise, and int64 (B,) on the device; the last batch
    holds the rest.
    """

    def __init__(
        self,
        images: Images,
        labels: Labels,
        indices: NDArray[np.int64],
        preprocess: Preprocess,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        operations: tuple[Any, ...] = (),
        channels_last: bool = True,
    ) -> None:
        self.images = torch.from_numpy(images)
        self.labels = torch.from_numpy(labels)
        self.indices = torch.from_numpy(indices)
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.operations = operations
        self.channels_last = channels_last
        picture_bytes = 4 * math.prod(self.images.shape[1:])
        self._chunk = 1 if operations else max(1, CHUNK_BYTES // max(1, picture_bytes * batch_size))

    def __len__(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.indices) / self.batch_size)

    def order(self, epoch: int) -> torch.Tensor:
        """Return the indices of all train pictures in the order of this epoch, int64 (n,)."""
        shuffled = torch.randperm(len(self.indices), generator=generator(self.seed, "order", epoch))
        return self.indices[shuffled]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of an epoch from `first_step` on; the same ones whether or not it was interrupted."""
        order = self.order(epoch)
        for step in range(first_step, len(self), self._chunk):
            chosen = order[step * self.batch_size : (step + self._chunk) * self.batch_size]
            pictures = self.images[chosen]  # (chunk, H, W, C) uint8
            if self.operations:
                pictures = augment.apply(self.operations, pictures, generator(self.seed, "augment", epoch, step))
            floats, labels = self._to_floats(pictures), self.labels[chosen].to(self.device)
            yield from zip(floats.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def sample(self, epoch: int, pictures: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield up to `pictures` of this epoch's pictures in batches, without augmentation; no batch is left over."""
        order = self.order(epoch)[:pictures]
        for chosen in order.split(self.batch_size):
            if len(chosen) == min(self.batch_size, len(order)):
                yield self._to_floats(self.images[chosen]), self.labels[chosen].to(self.device)

    def _to_floats(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.preprocess.normalise(pictures.to(self.device), self.channels_last)  # (B, C, H, W)
