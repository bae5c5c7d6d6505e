"""The order of an epoch's pictures where they lie on disk: neighbours are read together, in blocks, and mixed.

Whole shuffling would read every picture from another place. Here blocks of neighbours are taken in a random order, some
hundreds of them at a time, and batches are drawn from all pictures of those at random. docs/large.md says how good that
is, and what it costs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from striate.errors import UsageError

PREFIX = "blocks:"

# Many blocks are a good shuffle, large ones are quick to read: a disk with a moving head reads half a megabyte in about
# the time that it takes to find it, a solid-state disk any page. More than 1 GB, of which such blocks are made, would
# only make the first batch of an epoch wait longer. With a few dozen, pictures that lie class by class cost points of
# accuracy (docs/large.md).
MOST_HELD_BYTES = 1 << 30
WANTED_BLOCKS, LEAST_BLOCKS = 2048, 512
PAGE = 4096


@dataclass(frozen=True)
class Blocks:
    """Blocks of `pictures` neighbours, of which `held` are in memory at once.

    Half of those are mixed, and batches are drawn from them; the other half is read meanwhile. Raises UsageError for
    values that cannot be.
    """

    pictures: int
    held: int

    def __post_init__(self) -> None:
        if self.pictures < 1 or self.held < 2:
            raise UsageError(
                f"blocks of {self.pictures} pictures, {self.held} held",
                "a block has a picture or more, and two blocks or more are held",
                "write --order blocks:64,512",
            )

    def __str__(self) -> str:
        return f"{PREFIX}{self.pictures},{self.held}"

    @classmethod
    def parse(cls, text: str) -> Blocks:
        """Read what `str` gives. Raises UsageError."""
        numbers = re.fullmatch(rf"{PREFIX}(\d{{1,9}}),(\d{{1,9}})", text)
        if numbers is None:
            raise UsageError(f"{text!r} is no order", "expected blocks:PICTURES,HELD", "write --order blocks:64,512")
        return cls(int(numbers[1]), int(numbers[2]))

    @classmethod
    def within(cls, allowance: int, picture_bytes: int) -> Blocks:
        """Choose them for pictures of so many bytes: half of the allowance (bytes) is for those that are held."""
        room = min(allowance // 2, MOST_HELD_BYTES)
        block = max(room // WANTED_BLOCKS, min(PAGE, room // LEAST_BLOCKS))
        pictures = max(1, block // picture_bytes)
        return cls(pictures, max(2, room // (pictures * picture_bytes)))

    def arrange(
        self, drawn: torch.Tensor, random: torch.Generator, *, again: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the numbers of pictures `drawn` (n,) in an order of blocks, and where each lot of it ends (lots,).

        A lot is what half of the held blocks give, mixed. `again`: a number may be drawn more than once. Each time it
        comes in another visit to its block, so that the pictures of a rare class do not all come in one lot.
        """
        blocks = drawn // self.pictures
        if again:
            blocks += _earlier(drawn) * (int(blocks.max()) + 1)
        visits, which = blocks.unique(return_inverse=True)
        lots = torch.randperm(len(visits), generator=random)[which] // max(1, self.held // 2)
        mixed = torch.randperm(len(drawn), generator=random)
        order = mixed[lots[mixed].argsort(stable=True)]
        return drawn[order], lots.bincount().cumsum(0)


def _earlier(numbers: torch.Tensor) -> torch.Tensor:
    """Return for each of (n,) how many times the same number stands before it."""
    ordered, places = numbers.sort(stable=True)
    earlier = torch.empty_like(numbers)
    earlier[places] = torch.arange(len(numbers)) - torch.searchsorted(ordered, ordered)
    return earlier
