"""Batches: from uint8 pictures in memory to float tensors on the device, with no Python per picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from striate.data import augment
from striate.data.dataset import Images, Labels
from striate.data.mixing import mix_labels
from striate.data.operation import Context, Operation
from striate.data.preprocess import Preprocess
from striate.device import generator
from striate.errors import UsageError

# Without augmentation a chunk of several batches is gathered and normalised at once and then handed out as views:
# at one picture a step the calls would otherwise cost more than the net.
CHUNK_BYTES = 4 * 1024 * 1024

# No thread prepares the next batch while this one computes: data take about a hundredth of an epoch of airnet on
# CIFAR-10, and where all cores compute there is none left to do it on.


class Batches:
    """The train pictures, in an order that is a function of (seed, epoch) alone.

    `images` uint8 (N, H, W, C) at `augment.store_size`, which is the net's size but for `crop`; `labels` int64 (N,);
    `indices` those that are used. Yields float32 (B, C, H, W), channels-last unless told otherwise, and int64 (B,) on
    the device, or float32 (B, num_classes) where labels are mixed; the last batch holds the rest.
    `share` (number, of how many): this process's equal part of every batch, the same pictures as in the whole.
    `balanced`: every class as often, whatever its number of pictures (`order`).
    Raises UsageError for an augmentation that is too strong for the pictures.
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
        operations: Sequence[Operation] = (),
        num_classes: int = 0,
        channels_last: bool = True,
        share: tuple[int, int] = (0, 1),
        balanced: bool = False,
    ) -> None:
        self.images = torch.from_numpy(images)
        self.labels = torch.from_numpy(labels)
        self.indices = torch.from_numpy(indices)
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.changes, self.mixing = augment.split(operations, preprocess.size)
        self.num_classes = num_classes
        self.channels_last = channels_last
        self.balanced = balanced
        self.share = share
        if self.mixing is not None and num_classes < 1:
            raise UsageError(f"{self.mixing} without num_classes", "mixed labels need it", "give num_classes")
        # Once on one picture: what is too strong for this size is refused before the first epoch.
        augment.apply(self.changes, self.images[:1], Context(torch.Generator(), torch.zeros(1, dtype=torch.int64)))
        picture_bytes = 4 * math.prod(self.images.shape[1:])
        self._plain = not operations and share == (0, 1)
        self._chunk = max(1, CHUNK_BYTES // max(1, picture_bytes * batch_size)) if self._plain else 1

    def __len__(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.indices) / self.batch_size)

    def order(self, epoch: int) -> torch.Tensor:
        """Return the indices of all train pictures in the order of this epoch, int64 (n,).

        `balanced`: as many of each class, n in all. Rare pictures come again, some common ones wait for another epoch.
        """
        random = generator(self.seed, "order", epoch)
        shuffled = self.indices[torch.randperm(len(self.indices), generator=random)]
        if not self.balanced:
            return shuffled
        labels = self.labels[shuffled]
        members = [shuffled[labels == label] for label in labels.unique()]
        each = math.ceil(len(shuffled) / len(members))
        drawn = torch.cat([some.repeat(math.ceil(each / len(some)))[:each] for some in members])
        return drawn[torch.randperm(len(drawn), generator=random)[: len(shuffled)]]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of an epoch from `first_step` on; the same ones whether or not it was interrupted."""
        order = self.order(epoch)
        for step in range(first_step, len(self), self._chunk):
            chosen = order[step * self.batch_size : (step + self._chunk) * self.batch_size]
            if self._plain:
                floats, labels = self._to_floats(self._gather(chosen)), self.labels[chosen].to(self.device)
                yield from zip(floats.split(self.batch_size), labels.split(self.batch_size), strict=True)
            else:
                yield self._augmented(chosen, epoch, step)

    def sample(self, epoch: int, pictures: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield up to `pictures` of this epoch's pictures in batches, without augmentation; no batch is left over."""
        order = self.order(epoch)[:pictures]
        at_size = replace(self.preprocess, fit="stretch")  # from the larger pictures that are kept for `crop`
        for chosen in order.split(self.batch_size):
            if len(chosen) == min(self.batch_size, len(order)):
                floats = self._to_floats(torch.from_numpy(at_size.geometry_all(self._gather(chosen).numpy())))
                yield floats, self.labels[chosen].to(self.device)

    def _augmented(self, chosen: torch.Tensor, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather, change and mix this process's share of the batch `chosen` (B,)."""
        rows = torch.arange(len(chosen)).tensor_split(self.share[1])[self.share[0]]
        context = Context(generator(self.seed, "augment", epoch, step), chosen, epoch, self.seed)
        labels = self.labels[chosen]
        if self.mixing is None:
            pictures = augment.apply(self.changes, self._gather(chosen[rows]), context, rows)
            return self._to_floats(pictures), labels[rows].to(self.device)
        # Partners are drawn over the whole batch, so that those in another process's share are gathered here as well.
        mixed = replace(context, generator=generator(self.seed, "mix", epoch, step))
        partners = self.mixing.partners(mixed)[rows]
        needed, places = torch.unique(torch.cat((rows, partners)), return_inverse=True)
        pictures = augment.apply(self.changes, self._gather(chosen[needed]), context, needed)
        own, others = (pictures.index_select(0, place) for place in places.split(len(rows)))
        drawn = self.mixing.draw(mixed, (pictures.shape[1], pictures.shape[2]))[rows]
        pictures, share = self.mixing.mix(own, others, drawn)
        soft = mix_labels(labels[rows], labels[partners], share, self.num_classes)
        return self._to_floats(pictures), soft.to(self.device)

    def _gather(self, chosen: torch.Tensor) -> torch.Tensor:
        return self.images.index_select(0, chosen)  # a tenth of the time of images[chosen]

    def _to_floats(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.preprocess.normalise(pictures.to(self.device), self.channels_last)  # (B, C, H, W)


def versions(images: Images, operations: Sequence[Operation], epochs: int) -> Images:
    """Return what training would show of pictures uint8 (N, H, W, C) in its first epochs: (epochs, N, H, W, C).

    The pictures are one batch, and the net's size is their own. To be looked at: mixed values are rounded.
    """
    count, height, width, channels = images.shape
    store = Preprocess(augment.store_size(operations, (height, width)), channels=channels)
    as_they_are = Preprocess((height, width), channels=channels, std=(1.0,) * channels)
    everything, labels = np.arange(count), np.zeros(count, dtype=np.int64)
    source = Batches(
        store.geometry_all(images), labels, everything, as_they_are,
        batch_size=count, seed=0, device=torch.device("cpu"), operations=operations, num_classes=1,
    )  # fmt: skip
    out = np.empty((epochs, *images.shape), dtype=np.uint8)
    for epoch in range(epochs):
        [(floats, _)] = source.epoch(epoch)  # (N, C, H, W)
        out[epoch, source.order(epoch).numpy()] = floats.permute(0, 2, 3, 1).round().numpy()
    return out
