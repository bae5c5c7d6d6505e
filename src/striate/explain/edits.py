"""How an answer changes as a picture is edited: shifted, rotated, flipped, scaled, erased, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from striate.data.dataset import Images
from striate.errors import unknown_name

EDITS = ("shift", "rotate", "flip", "scale", "erase")
SHIFTS = 12  # steps on either side, at most
FARTHEST = 0.25  # of the side that a picture is shifted by
ANGLES = tuple(range(-180, 181, 15))
FACTORS = tuple(2 ** (step / 6) for step in range(-6, 7))
SHARES = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Curve:
    """The answers to one edit of a picture at several strengths.

    `strengths` (S,) in `unit`; `none` is the place of the one that changes nothing. `images` uint8 (S, H, W, C) are
    the edited pictures, `probabilities` (S, K) the answers. A flip has three points, with `names` of their own.
    """

    edit: str
    unit: str
    strengths: tuple[float, ...]
    none: int
    images: Images
    probabilities: NDArray[np.float64]
    names: tuple[str, ...] = ()


def edit_curves(
    ask: Callable[[Images], NDArray[np.float64]],
    picture: Images,
    edits: Sequence[str] = EDITS,
    fill: Sequence[float] | float = 0.0,
) -> list[Curve]:
    """Return the probabilities of every class against the strength of each edit of a picture uint8 (H, W, C).

    `ask` gives probabilities (S, K) for pictures (S, H, W, C) at the net's size. What comes in at an edge repeats the
    pixels of that edge; what is erased becomes `fill`, of 0 to 255, a number or one a channel. `shift` gives two
    curves, to the right and down. Raises UsageError for an unknown edit.
    """
    curves = []
    for edit in edits:
        if edit not in _MAKERS:
            raise unknown_name("edit", edit, EDITS)
        for name, unit, strengths, none, images, names in _MAKERS[edit](picture, np.asarray(fill)):
            curves.append(Curve(name, unit, tuple(strengths), none, images, ask(images), names))
    return curves


def shifted(picture: Images, down: int, right: int) -> Images:
    """Return a picture moved by whole pixels; the edge that it leaves is repeated."""
    height, width = picture.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.ascontiguousarray(picture[rows][:, columns])


def turned(picture: Images, degrees: float = 0.0, factor: float = 1.0) -> Images:
    """Return a picture turned counter-clockwise and enlarged about its middle, sampled bilinearly and rounded."""
    height, width = picture.shape[:2]
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    # From a pixel of the result to its place in the source, both on axes from −1 to 1.
    places = torch.tensor([[[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]]])
    planes = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]  # (1, C, H, W)
    grid = functional.affine_grid(places, [1, 1, height, width], align_corners=False)
    sampled = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


def erased(picture: Images, share: float, fill: NDArray[Any]) -> Images:
    """Return a picture whose middle is filled: a box with so large a share of each side."""
    height, width = picture.shape[:2]
    rows, columns = round(share * height), round(share * width)
    top, left = (height - rows) // 2, (width - columns) // 2
    changed = picture.copy()
    changed[top : top + rows, left : left + columns] = np.clip(np.round(fill), 0, 255).astype(np.uint8)
    return changed


def _shifts(picture: Images, fill: NDArray[Any]) -> Any:
    for name, length, down in (("shift right", picture.shape[1], 0), ("shift down", picture.shape[0], 1)):
        farthest = max(1, int(length * FARTHEST))
        step = -(-farthest // SHIFTS)
        steps = [*range(-(farthest // step) * step, farthest + 1, step)]
        images = [shifted(picture, by * down, by * (1 - down)) for by in steps]
        yield name, "pixels", steps, steps.index(0), np.stack(images), ()


def _turns(picture: Images, fill: NDArray[Any]) -> Any:
    images = [turned(picture, degrees=angle) for angle in ANGLES]
    yield "rotate", "degrees, counter-clockwise", ANGLES, ANGLES.index(0), np.stack(images), ()


def _flips(picture: Images, fill: NDArray[Any]) -> Any:
    images = np.stack([picture, picture[:, ::-1], picture[::-1]])
    yield "flip", "", (0, 1, 2), 0, images, ("as it is", "left to right", "upside down")


def _scales(picture: Images, fill: NDArray[Any]) -> Any:
    images = [turned(picture, factor=factor) for factor in FACTORS]
    yield "scale", "times its size", FACTORS, FACTORS.index(1), np.stack(images), ()


def _erasures(picture: Images, fill: NDArray[Any]) -> Any:
    images = [erased(picture, share, fill) for share in SHARES]
    yield "erase", "of each side, in the middle", SHARES, 0, np.stack(images), ()


_MAKERS: dict[str, Callable[[Images, NDArray[Any]], Any]] = {
    "shift": _shifts,
    "rotate": _turns,
    "flip": _flips,
    "scale": _scales,
    "erase": _erasures,
}
