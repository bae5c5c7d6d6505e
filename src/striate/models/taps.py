"""Which inputs each output of a window reads along one axis: int64 (outputs, taps), NO_TAP where there is none."""

from __future__ import annotations

import numpy as np

from striate.models.receptive import NO_TAP, Taps


def window(outputs: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Taps:
    """Return the taps of a convolution or a pool; what lies beyond the map is padding."""
    return np.arange(outputs)[:, None] * stride - padding + np.arange(kernel)[None, :] * dilation


def transposed(inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    """Return the taps of a transposed convolution: output o reads input i where o = i·stride − padding + t·dilation."""
    offset = np.arange(outputs)[:, None] + padding - np.arange(kernel)[None, :] * dilation
    source = offset // stride
    return np.where((offset % stride == 0) & (source >= 0) & (source < inputs), source, NO_TAP)


def adaptive(inputs: int, outputs: int) -> Taps:
    """Return the taps of an adaptive pool: from ⌊i·n/m⌋ to before ⌈(i+1)·n/m⌉."""
    place = np.arange(outputs)
    begins, ends = place * inputs // outputs, -((place + 1) * inputs // -outputs)
    reach = np.arange((ends - begins).max())[None, :]
    return np.minimum(begins[:, None] + reach, ends[:, None] - 1)


def nearest(inputs: int, outputs: int) -> Taps:
    """Return the taps of nearest-neighbour enlargement."""
    return (np.arange(outputs) * inputs // outputs)[:, None]


def linear(inputs: int, outputs: int, align_corners: bool) -> Taps:
    """Return the taps of (bi)linear enlargement: the two neighbours, where both have weight."""
    place = np.arange(outputs)
    if align_corners:
        source = place * (inputs - 1) / max(outputs - 1, 1)
    else:
        source = np.maximum((place + 0.5) * inputs / outputs - 0.5, 0.0)
    before = np.floor(source + 1e-9).astype(np.int64)
    after = np.where(source - before > 1e-6, before + 1, before)
    return np.clip(np.stack([before, after], 1), 0, inputs - 1)


def mirrored(inputs: int, before: int, after: int) -> Taps:
    """Return the taps of reflection padding."""
    place = np.abs(np.arange(-before, inputs + after))
    return np.where(place >= inputs, 2 * (inputs - 1) - place, place)[:, None]


def repeated(inputs: int, before: int, after: int) -> Taps:
    """Return the taps of replication padding."""
    return np.clip(np.arange(-before, inputs + after), 0, inputs - 1)[:, None]
