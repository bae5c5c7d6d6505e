"""Which pixels an answer hangs on: occlusion, which needs nothing of the net, and integrated gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.explain.looking import (
    Batch,
    Floats,
    Targets,
    as_input,
    as_targets,
    at_rest,
    picture_pixels,
    pieces,
    scores,
)

STEPS = 50  # of the way from the baseline to the picture; Sundararajan et al. find 20 to 300 enough
WINDOWS_ACROSS = 7  # a window is about a seventh of the side, and moves by half of itself


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients `values` (N, C, H, W), and the check that they add up, both (N,).

    `wanted` is how much higher the class's logit is for the picture than for the baseline, `missing` the part of it
    that the values do not add up to: the error of summing over steps.
    """

    values: Floats
    wanted: Floats
    missing: Floats


def window_of(size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the window and the stride, each (rows, columns) in pixels, that suit pictures of a size."""
    height, width = (min(length, max(2, length // WINDOWS_ACROSS)) for length in size)
    return (height, width), (max(1, height // 2), max(1, width // 2))


def occlusion(
    net: nn.Module,
    batch: Batch,
    targets: Targets,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    baseline: float = 0.0,
) -> Floats:
    """Return by how much the target's logit falls when each place is covered: float32 (N, H, W).

    A window (rows, columns) is laid over the picture at every stride; a pixel gets the mean fall over the windows that
    cover it. What is covered becomes `baseline`, in the net's units: 0 is the mean of the training pictures. Above 0 a
    place speaks for the class, below 0 against it. `batch` and `targets` as `class_maps` takes them.
    Raises UsageError for a window that does not fit, and a stride that leaves pixels out.
    Source: Zeiler and Fergus 2014, arXiv:1311.2901.
    """
    with at_rest(net):
        pictures = as_input(net, batch)
        numbers = as_targets(targets, len(pictures), pictures.device)
        size = (pictures.shape[2], pictures.shape[3])
        usual_window, usual_stride = window_of(size)
        window, stride = window or usual_window, stride or usual_stride
        boxes = _boxes(size, window, stride)
        falls = torch.zeros((len(pictures), *size), dtype=torch.float64)
        covers = torch.zeros(size, dtype=torch.float64)
        whole = torch.cat(
            [scores(net, pictures[p], numbers[p]) for p in pieces(len(pictures), picture_pixels(pictures))]
        )
        for rows, columns in boxes:
            covers[rows, columns] += 1
        for n, picture in enumerate(pictures):
            for piece in pieces(len(boxes), picture_pixels(pictures)):
                covered = picture.repeat(piece.stop - piece.start, 1, 1, 1)
                for number, (rows, columns) in enumerate(boxes[piece]):
                    covered[number, :, rows, columns] = baseline
                fall = (whole[n] - scores(net, covered, numbers[n].expand(len(covered)))).double().cpu()
                for number, (rows, columns) in enumerate(boxes[piece]):
                    falls[n, rows, columns] += fall[number]
    return (falls / covers.clamp_min(1)).float().numpy()


def integrated_gradients(
    net: nn.Module, batch: Batch, targets: Targets, baseline: float | Batch = 0.0, steps: int = STEPS
) -> Integrated:
    """Return what each pixel adds to the target's logit on the way from a baseline to the picture.

    The gradient is summed over `steps` points of the straight way (Gauss and Legendre's), and multiplied by the way's
    length at each pixel. `baseline`: one number in the net's units (0 is the mean of the training pictures), or
    pictures of the batch's shape. `batch` and `targets` as `class_maps` takes them.
    Source: Sundararajan et al. 2017, arXiv:1703.01365.
    """
    if steps < 1:
        raise UsageError(f"integrated gradients over {steps} steps", "at least one is needed")
    with at_rest(net):
        pictures = as_input(net, batch)
        numbers = as_targets(targets, len(pictures), pictures.device)
        start = torch.as_tensor(baseline, dtype=pictures.dtype, device=pictures.device)
        ways = pictures - start  # (N, C, H, W)
        points, weights = _gauss_legendre(steps, pictures)
        values = torch.zeros_like(pictures)
        for n, way in enumerate(ways):
            origin = pictures[n] - way
            for piece in pieces(steps, picture_pixels(pictures)):
                leaf = (origin + points[piece] * way).requires_grad_()  # (s, C, H, W)
                with torch.enable_grad():
                    total = scores(net, leaf, numbers[n].expand(len(leaf))).sum()
                    slopes = torch.autograd.grad(total, leaf)[0]
                values[n] += way * (slopes * weights[piece]).sum(0)
        wanted = [
            scores(net, pictures[p], numbers[p]) - scores(net, (pictures - ways)[p], numbers[p])
            for p in pieces(len(pictures), picture_pixels(pictures))
        ]
        difference = torch.cat(wanted)
        missing = difference - values.double().sum((1, 2, 3)).to(difference.dtype)
    parts = (part.float().cpu().contiguous().numpy() for part in (values, difference, missing))
    return Integrated(*parts)


def _boxes(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the places of the windows, rows and columns; the last ones are cut at the picture's edge."""
    fits = all(1 <= side <= length for side, length in zip(window, size, strict=True))
    if not fits or any(not 1 <= move <= side for move, side in zip(stride, window, strict=True)):
        raise UsageError(
            f"a window of {window[0]}×{window[1]} pixels with stride {stride[0]}×{stride[1]} covers no picture of "
            f"{size[0]}×{size[1]}",
            "a side has to be from 1 to the picture's, a stride from 1 to the window's: every pixel is covered",
        )
    rows, columns = (
        [slice(step * move, min(length, step * move + side)) for step in range(math.ceil((length - side) / move) + 1)]
        for length, side, move in zip(size, window, stride, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def _gauss_legendre(steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points of (0, 1) and their weights, each (steps, 1, 1, 1), that integrate polynomials exactly."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    made = (torch.from_numpy(row).to(like).view(-1, 1, 1, 1) for row in ((points + 1) / 2, weights / 2))
    return next(made), next(made)
