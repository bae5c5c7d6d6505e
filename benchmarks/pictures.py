"""Random pictures; numpy alone, so that any environment can make them."""

from __future__ import annotations

import numpy as np


def random_pictures(count: int, side: int, channels: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 (N, H, W, C) and int64 labels (N,)."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return pictures, random.integers(0, classes, count)
