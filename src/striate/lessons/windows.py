"""Windows that slide over a map: how many fit, where each lies, and the sum that is worked out in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from striate.errors import UsageError
from striate.lessons.lesson import Cell, Frame, Grid, Scene, Text, Values, factor, number, shape
from striate.models.sizes import output_size, window_sum

MOST_STEPS = 400  # of a scene; more would make a page slow, and nobody steps through them
ONE_BY_ONE_UP_TO = 150  # multiply-adds: so many are shown one at a time
MOST_TERMS = 30  # of a sum written out; of more, the sums of the channels
MOST_CHANNEL_SUMS = 12

Padding = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(frozen=True)
class Sliding:
    """Windows of `kernel` (height, width) over a map of `size` (height, width)."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: int = 1
    padding: Padding = (0, 0, 0, 0)
    dilation: int = 1

    def __post_init__(self) -> None:
        for side, span, room in zip(("high", "wide"), self.reach, self.padded):
            if span > room:
                raise UsageError(
                    f"a window that reaches over {shape(self.reach)} cells does not fit into {shape(self.padded)}",
                    f"it is not {side} enough" + (f"; dilation {self.dilation} spreads it" * (self.dilation > 1)),
                    "take a smaller kernel, or more --padding",
                )

    @property
    def reach(self) -> tuple[int, int]:
        """Cells from one end of the window to the other: d·(k − 1) + 1."""
        height, width = (self.dilation * (side - 1) + 1 for side in self.kernel)
        return height, width

    @property
    def padded(self) -> tuple[int, int]:
        """Size of the map with its padding."""
        top, bottom, left, right = self.padding
        return self.size[0] + top + bottom, self.size[1] + left + right

    @property
    def lengths(self) -> tuple[int, int]:
        """Windows along each side: ⌊(n + p + p − (d·(k − 1) + 1)) / s⌋ + 1."""
        height, width = (
            output_size(room, kernel, self.stride, dilation=self.dilation)
            for room, kernel in zip(self.padded, self.kernel)
        )
        return height, width

    def formula(self, axis: int = 0) -> str:
        """Return the sum that gives the number of windows along an axis, with its floor."""
        before, after = self.padding[2 * axis : 2 * axis + 2]
        return window_sum(
            self.size[axis], self.kernel[axis], self.stride, (before, after), self.dilation, self.lengths[axis]
        )

    def cells(self, row: int, column: int) -> list[tuple[int, int]]:
        """Return the cells (row, column) of the padded map that a window holds, row by row."""
        top, left = row * self.stride, column * self.stride
        return [
            (top + self.dilation * i, left + self.dilation * j)
            for i in range(self.kernel[0])
            for j in range(self.kernel[1])
        ]

    def pad(self, cells: Values) -> Values:
        """Return a map (C, H, W) with zeros laid around it."""
        top, bottom, left, right = self.padding
        return np.pad(cells, ((0, 0), (top, bottom), (left, right)))

    def gather(self, cells: Values) -> Values:
        """Return what the windows hold of a map (C, H, W), as (C, rows, columns, kernel height · kernel width)."""
        down, across = (
            self.stride * np.arange(count)[:, None] + self.dilation * np.arange(side)
            for count, side in zip(self.lengths, self.kernel)
        )
        held = self.pad(cells)[:, down[:, None, :, None], across[None, :, None, :]]  # (C, rows, columns, h, w)
        return held.reshape(*held.shape[:3], -1)


def convolve(cells: Values, kernels: Values, windows: Sliding) -> Values:
    """Return the cross-correlation (K, H, W) of a map (C, H, W) with kernels (K, C, h, w), as nets compute it."""
    return np.einsum("crwn,kcn->krw", windows.gather(cells), kernels.reshape(*kernels.shape[:2], -1))


def flipped(kernels: Values) -> Values:
    """Turn kernels by half a turn, which makes the true convolution of the cross-correlation."""
    return kernels[..., ::-1, ::-1]


def convolution_scene(cells: Values, kernels: Values, windows: Sliding, kernel_title: Text) -> Scene:
    """Return the scene of a convolution: the window moves, products are added up, the output fills.

    Small ones show each multiply-add, larger ones each output cell, the first 400 of them.
    """
    output = convolve(cells, kernels, windows)
    count, rows, columns = output.shape
    in_detail = output.size * kernels[0].size <= ONE_BY_ONE_UP_TO
    frames = [
        Frame(
            Text("The kernel lies over the first window of the input.", "卷积核对准输入左上角的第一个窗口。"),
            filled={"output": 0},
            window={"input": _lit(windows, 0, 0, len(cells)), _key(0): _all_cells(kernels[0])},
            ends=False,
        )
    ]
    places = [(k, row, column) for k in range(count) for row in range(rows) for column in range(columns)]
    for done, place in enumerate(places[:MOST_STEPS]):
        frames += _steps_of(cells, kernels, windows, place, done, in_detail)
    return Scene(
        grids=(
            Grid("input", Text("input", "输入"), windows.pad(cells), "input", windows.padding),
            *(
                Grid(_key(k), _numbered(kernel_title, k, count), kernels[k], "weight", group="kernel")
                for k in range(count)
            ),
            Grid("output", Text("output", "输出"), output, "output"),
        ),
        frames=tuple(frames),
        left_out=max(0, len(places) - MOST_STEPS),
    )


def _steps_of(cells: Values, kernels: Values, windows: Sliding, place: Cell, done: int, in_detail: bool) -> list[Frame]:
    """Return the frames of one output cell."""
    k, row, column = place
    values, weights = windows.pad(cells), kernels[k]
    window, kernel = _lit(windows, row, column, len(cells)), _all_cells(weights)
    products = [(values[at], weights[by]) for at, by in zip(window, kernel)]
    total = sum(value * weight for value, weight in products)
    many = f", kernel {k + 1}" if len(kernels) > 1 else ""
    many_zh = f"，卷积核 {k + 1}" if len(kernels) > 1 else ""
    says = Text(f"Row {row + 1}, column {column + 1}{many}", f"第 {row + 1} 行第 {column + 1} 列{many_zh}")
    lit = {"input": window, _key(k): kernel}
    frames = []
    for n in range(len(products) - 1) if in_detail else ():
        terms = " + ".join(f"{factor(value)}·{factor(weight)}" for value, weight in products[: n + 1])
        so_far = number(sum(value * weight for value, weight in products[: n + 1]))
        at = {"input": [window[n]], _key(k): [kernel[n]]}
        frames.append(Frame(says, f"{terms} = {so_far} …", lit, at, {"output": done}, ends=False))
    last = {"input": [window[-1]], _key(k): [kernel[-1]]} if in_detail else {}
    at = {**last, "output": [place]}
    frames.append(Frame(says, _sum_text(products, len(cells), total), lit, at, {"output": done + 1}))
    return frames


def _sum_text(products: Sequence[tuple[float, float]], channels: int, total: float) -> str:
    """Write a sum of products: all of them, channel by channel in parentheses; of many, the channels' sums alone."""
    each = len(products) // channels
    parts = [products[start : start + each] for start in range(0, len(products), each)]
    sums = [number(sum(value * weight for value, weight in part)) for part in parts]
    shown = sums[:MOST_CHANNEL_SUMS] + ["…"] * (len(sums) > MOST_CHANNEL_SUMS)
    by_channel = " + ".join(f"({one})" if one.startswith("−") else one for one in shown)
    if len(products) > MOST_TERMS:
        return f"{by_channel} = {number(total)}"
    written = [" + ".join(f"{factor(value)}·{factor(weight)}" for value, weight in part) for part in parts]
    if channels == 1 or each == 1:
        return f"{' + '.join(written)} = {number(total)}"
    return f"({') + ('.join(written)}) = {by_channel} = {number(total)}"


def _lit(windows: Sliding, row: int, column: int, channels: int) -> list[Cell]:
    return [(channel, i, j) for channel in range(channels) for i, j in windows.cells(row, column)]


def _all_cells(values: Values) -> list[Cell]:
    return [(int(c), int(i), int(j)) for c, i, j in np.ndindex(values.shape)]


def _key(kernel: int) -> str:
    return f"kernel {kernel + 1}"


def _numbered(title: Text, kernel: int, count: int) -> Text:
    return title if count == 1 else Text(f"{title.en} {kernel + 1}", f"{title.zh} {kernel + 1}")
