"""Batches: from uint8 pictures, in memory or on disk, to float tensors on the device; no Python per picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from striate.data import augment
from striate.data.ahead import Ahead
from striate.data.dataset import Images, Labels
from striate.data.mixing import mix_labels
from striate.data.operation import Context, Operation
from striate.data.order import Blocks
from striate.data.preprocess import Preprocess
from striate.device import fits, generator, send
from striate.errors import UsageError

# Without augmentation a chunk of several batches is gathered and normalised at once and then handed out as views:
# at one picture a step the calls would otherwise cost more than the net.
CHUNK_BYTES = 4 * 1024 * 1024

# No thread prepares the next batch while this one computes: data take about a hundredth of an epoch of airnet on
# CIFAR-10, and where all cores compute there is none left to do it on. Pictures on disk are read by one (ahead.py).

Take = Callable[[torch.Tensor], torch.Tensor]  # rows of a batch (rising) → their pictures


class Batches:
    """The train pictures, in an order that is a function of (seed, epoch) alone.

    `images` uint8 (N, H, W, C) at `augment.store_size`, which is the net's size but for `crop`; `labels` int64 (N,);
    `indices` those that are used. Yields float32 (B, C, H, W), channels-last unless told otherwise, and int64 (B,) on
    the device, or float32 (B, num_classes) where labels are mixed; the last batch holds the rest.
    `share` (number, of how many): this process's equal part of every batch, the same pictures as in the whole.
    `balanced`: every class as often, whatever its number of pictures (`order`).
    `blocks`: shuffled in blocks that are read ahead, for pictures on disk (order.py); None shuffles all of them.
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
        blocks: Blocks | None = None,
    ) -> None:
        self.images = images
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
        self.blocks = blocks
        # A map of a file may be read-only, of which torch makes no tensor.
        self._tensor = torch.from_numpy(images) if images.flags.writeable and blocks is None else None
        # Augmentation is the processor's work; without it all pictures may lie on the GPU.
        if self._tensor is not None and not operations and fits(device, images.nbytes):
            self._tensor = self._tensor.to(device)
        if self.mixing is not None and num_classes < 1:
            raise UsageError(f"{self.mixing} without num_classes", "mixed labels need it", "give num_classes")
        # Once on one picture: what is too strong for this size is refused before the first epoch.
        first = torch.zeros(1, dtype=torch.int64)
        augment.apply(self.changes, self._gather(first), Context(torch.Generator(), first))
        picture_bytes = 4 * math.prod(images.shape[1:])
        self._plain = not operations and share == (0, 1)
        self._chunk = max(1, CHUNK_BYTES // max(1, picture_bytes * batch_size)) if self._plain else 1

    def __len__(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.indices) / self.batch_size)

    def order(self, epoch: int) -> torch.Tensor:
        """Return the indices of all train pictures in the order of this epoch, int64 (n,).

        `balanced`: as many of each class, n in all. Rare pictures come again, some common ones wait for another epoch.
        """
        return self._arranged(epoch)[0]

    def _arranged(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the order of an epoch, and where each lot of it that is read at once ends."""
        random = generator(self.seed, "order", epoch)
        if self.blocks is not None:
            drawn = self._drawn(random) if self.balanced else self.indices
            return self.blocks.arrange(drawn, random, again=self.balanced)
        drawn = self._drawn(random) if self.balanced else self.indices[self._shuffled(random)]
        return drawn, torch.tensor([len(drawn)])

    def _shuffled(self, random: torch.Generator) -> torch.Tensor:
        return torch.randperm(len(self.indices), generator=random)

    def _drawn(self, random: torch.Generator) -> torch.Tensor:
        """Return as many pictures of each class, n in all, shuffled."""
        shuffled = self.indices[self._shuffled(random)]
        labels = self.labels[shuffled]
        members = [shuffled[labels == label] for label in labels.unique()]
        each = math.ceil(len(shuffled) / len(members))
        drawn = torch.cat([some.repeat(math.ceil(each / len(some)))[:each] for some in members])
        return drawn[torch.randperm(len(drawn), generator=random)[: len(shuffled)]]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of an epoch from `first_step` on; the same ones whether or not it was interrupted."""
        order, ends = self._arranged(epoch)
        first = first_step * self.batch_size
        with nullcontext() if self.blocks is None else Ahead(self.images, order, ends, first) as ahead:
            for step in range(first_step, len(self), self._chunk):
                begin = step * self.batch_size
                chosen = order[begin : begin + self._chunk * self.batch_size]
                take = partial(self._take, ahead, chosen, begin)
                if self._plain:
                    floats, labels = self._to_floats(take()), self.labels[chosen].to(self.device)
                    yield from zip(floats.split(self.batch_size), labels.split(self.batch_size), strict=True)
                else:
                    yield self._augmented(chosen, epoch, step, take)

    def sample(self, epoch: int, pictures: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield up to `pictures` of this epoch's pictures in batches, without augmentation; no batch is left over."""
        order = self.order(epoch)[:pictures]
        at_size = replace(self.preprocess, fit="stretch")  # from the larger pictures that are kept for `crop`
        for chosen in order.split(self.batch_size):
            if len(chosen) == min(self.batch_size, len(order)):
                floats = self._to_floats(torch.from_numpy(at_size.geometry_all(self._gather(chosen).cpu().numpy())))
                yield floats, self.labels[chosen].to(self.device)

    def _augmented(self, chosen: torch.Tensor, epoch: int, step: int, take: Take) -> tuple[torch.Tensor, torch.Tensor]:
        """Take, change and mix this process's share of the batch `chosen` (B,); `take` gives rows of it."""
        rows = torch.arange(len(chosen)).tensor_split(self.share[1])[self.share[0]]
        context = Context(generator(self.seed, "augment", epoch, step), chosen, epoch, self.seed)
        labels = self.labels[chosen]
        if not len(rows):  # a batch smaller than the team
            return self._to_floats(self._gather(chosen[rows])), labels[rows].to(self.device)
        if self.mixing is None:
            pictures = augment.apply(self.changes, take(rows), context, rows)
            return self._to_floats(pictures), labels[rows].to(self.device)
        # Partners are drawn over the whole batch, so that those in another process's share are gathered here as well.
        mixed = replace(context, generator=generator(self.seed, "mix", epoch, step))
        partners = self.mixing.partners(mixed)[rows]
        needed, places = torch.unique(torch.cat((rows, partners)), return_inverse=True)
        pictures = augment.apply(self.changes, take(needed), context, needed)
        own, others = (pictures.index_select(0, place) for place in places.split(len(rows)))
        drawn = self.mixing.draw(mixed, (pictures.shape[1], pictures.shape[2]))[rows]
        pictures, share = self.mixing.mix(own, others, drawn)
        soft = mix_labels(labels[rows], labels[partners], share, self.num_classes)
        return self._to_floats(pictures), soft.to(self.device)

    def _take(
        self, ahead: Ahead | None, chosen: torch.Tensor, begin: int, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the pictures of `rows` (rising; None for all) of `chosen`, which begins at `begin` of the order."""
        if ahead is None:
            return self._gather(chosen if rows is None else chosen[rows])
        return ahead.take(begin + (torch.arange(len(chosen)) if rows is None else rows))

    def _gather(self, chosen: torch.Tensor) -> torch.Tensor:
        if self._tensor is None:
            return torch.from_numpy(self.images[chosen.numpy()])
        return self._tensor.index_select(0, chosen.to(self._tensor.device))  # a tenth of the time of images[chosen]

    def _to_floats(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.preprocess.normalise(send(pictures, self.device), self.channels_last)  # (B, C, H, W)


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
