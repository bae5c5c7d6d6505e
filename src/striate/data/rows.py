"""Rows: some pictures of a data set at the net's size, made when they are asked for, and never all of them at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from striate.data.dataset import Images
from striate.data.disk import Indices, let_go
from striate.data.preprocess import Preprocess


@dataclass(frozen=True, eq=False)
class Rows:
    """The pictures `indices` (n,) of uint8 (N, H, W, C), brought to the size of `preprocess` where one is given.

    It is read like an array of pictures: `len`, `shape`, and a slice, a number or several of them in brackets.
    """

    images: Images
    indices: Indices
    preprocess: Preprocess | None = None
    threads: int | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, rows: slice) -> Rows:
        """Return some of them, which are not read yet either."""
        return replace(self, indices=self.indices[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W, C), as an array of them all would have it."""
        one = self.images.shape[1:] if self.preprocess is None else (*self.preprocess.size, self.preprocess.channels)
        return (len(self), *one)

    def __getitem__(self, key: Any) -> Images:
        chosen = np.atleast_1d(self.indices[key])
        found = self.images[chosen]
        let_go(self.images)
        if self.preprocess is not None:
            found = self.preprocess.geometry_all(found, self.threads)
        return found[0] if np.ndim(self.indices[key]) == 0 else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all of them: for few."""
        return self[:] if dtype is None else self[:].astype(dtype)


Pictures = Images | Rows  # what is asked for in slices
