"""The lesson `conv`: a convolution worked out cell by cell, with its size, its parameters and what it sees."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d

from striate.errors import UsageError
from striate.lessons.conv_more import one_by_one_part, same_part, stride_part
from striate.lessons.kernels import NAMED, kernels_part, named_kernel
from striate.lessons.lesson import (
    Frame,
    Grid,
    Lesson,
    Part,
    Scene,
    Table,
    Text,
    Values,
    number,
    rows_text,
    shape,
    size_text,
)
from striate.lessons.reading import read_kernels, read_map
from striate.lessons.titles import TITLES
from striate.lessons.windows import Padding, Sliding, convolution_scene, convolve, flipped

INPUT, KERNEL = "0,1,2;3,4,5;6,7,8", "0,1;2,3"


def conv_lesson(
    input: Any = None,
    kernel: Any = None,
    channels: int | None = None,
    kernels: int | None = None,
    stride: int | None = None,
    padding: int | str | None = None,
    dilation: int | None = None,
    picture: str | Path | None = None,
    with_pictures: bool = False,
) -> Lesson:
    """Return the lesson on convolution.

    `input` and `kernel` are texts such as `0,1,2;3,4,5` or `8x8x3`, or arrays; `kernel` may be a named one. Without
    any of them the whole lesson with its own examples; with one, that convolution alone. `picture` is a file for the
    named kernels, which `with_pictures` adds to a convolution of one's own. Raises UsageError for what does not fit.
    """
    own = any(value is not None for value in (input, kernel, channels, kernels, stride, padding, dilation))
    cells = read_map(INPUT if input is None else input, "--input", channels)
    weights = _read_weights(kernel, len(cells), kernels)
    windows = make_windows(cells, weights, stride or 1, 0 if padding is None else padding, dilation or 1)
    parts = [worked_part(cells, weights, windows), flipped_part(cells, weights, windows)]
    if own:
        parts += [sees_part(cells, weights, windows), parameters_part(cells, weights, windows)]
    else:
        many = read_map("8x8x3", "--input")
        five = read_kernels("3x3", "--kernel", 3, 5)
        over = make_windows(many, five, 1, 0, 1)
        parts += [channels_part(many, five, over), sees_part(many, five, over), parameters_part(many, five, over)]
        parts += [stride_part(), same_part(), one_by_one_part()]
    if not own or picture is not None or with_pictures:
        parts.append(kernels_part(picture))
    return Lesson("conv", *TITLES["conv"], tuple(parts))


def make_windows(cells: Values, kernels: Values, stride: int, padding: int | str, dilation: int) -> Sliding:
    """Return the windows of kernels (K, C, h, w) over a map (C, H, W). Raises UsageError where none fits."""
    height, width = kernels.shape[2:]
    root = math.isqrt(width)
    if height == 1 and root**2 == width > cells.shape[2] + 2 * _number(padding):
        numbers = kernels[0, 0, 0].reshape(root, root)
        raise UsageError(
            f"a kernel of {shape((height, width))} does not fit into {size_text(cells.shape)}",
            "numbers parted by commas stand in one row",
            f"write it in rows: --kernel '{rows_text(numbers).replace(', ', ',').replace('; ', ';')}'",
        )
    around = _same(height, width, stride, dilation) if padding == "same" else (int(padding),) * 4
    return Sliding((cells.shape[1], cells.shape[2]), (height, width), stride, _four(around), dilation)


def worked_part(cells: Values, kernels: Values, windows: Sliding) -> Part:
    """Return the part that works out every cell of a convolution."""
    output = convolve(cells, kernels, windows)
    terms = kernels[0].size
    size, out = size_text(cells.shape), size_text(output.shape)
    says = [
        Text(
            f"Input {size}, {_count(kernels)} of {shape(kernels.shape[2:])}{_through(cells)}, stride {windows.stride},"
            f" padding {_padding(windows)}, dilation {windows.dilation}.",
            f"输入 {size}，{_count_zh(kernels)} {shape(kernels.shape[2:])}{_through_zh(cells)}，"
            f"步幅 {windows.stride}，填充 {_padding(windows)}，膨胀率 {windows.dilation}。",
        ),
        Text(
            f"Height of the output: {windows.formula(0)}; width: {windows.formula(1)}. So the output is {out}.",
            f"输出高：{windows.formula(0)}；宽：{windows.formula(1)}。输出为 {out}。",
        ),
        Text(
            f"Each output cell takes {terms} multiply-adds, all of them {output.size} × {terms} ="
            f" {output.size * terms:,}.",
            f"每个输出元素需 {terms} 次乘加，总共 {output.size} × {terms} = {output.size * terms:,} 次。",
        ),
    ]
    return Part(
        "worked",
        Text("Step by step", "一步一步算"),
        tuple(says),
        convolution_scene(cells, kernels, windows, Text("kernel", "卷积核")),
        numbers={"output": output, "multiply_adds": output.size * terms, "output_size": list(windows.lengths)},
    )


def flipped_part(cells: Values, kernels: Values, windows: Sliding) -> Part:
    """Return the part that sets the true convolution, with the kernel turned, beside what nets compute."""
    here, turned = convolve(cells, kernels, windows), convolve(cells, flipped(kernels), windows)
    says = [
        Text(
            "What nets call convolution is cross-correlation. The true convolution of mathematics turns the kernel by"
            " half a turn first: its last number meets the window's first.",
            "网络里所说的“卷积”其实是互相关。数学上真正的卷积要先把卷积核旋转 180°：核的最后一个数对上窗口的第一个数。",
        ),
        Text(
            "A net that learns its kernel finds the turned one just as well, so the choice makes no difference there.",
            "卷积核是学出来的，网络同样能学到旋转后的核，因此用哪一种都无妨。",
        ),
    ]
    if here.size <= 36:
        told = "; ".join(rows_text(channel) for channel in here), "; ".join(rows_text(channel) for channel in turned)
        says.insert(
            1,
            Text(
                f"Cross-correlation: {told[0]}. True convolution: {told[1]}.",
                f"互相关：{told[0]}。真正的卷积：{told[1]}。",
            ),
        )
    if np.array_equal(here, turned):
        says.append(Text("Here both are the same.", "此处两者结果相同。"))
    return Part(
        "flipped",
        Text("The true convolution beside it", "与真正的卷积对照"),
        tuple(says),
        convolution_scene(cells, flipped(kernels), windows, Text("kernel, turned", "旋转 180° 的卷积核")),
        numbers={"cross_correlation": here, "convolution": turned},
    )


def channels_part(cells: Values, kernels: Values, windows: Sliding) -> Part:
    """Return the part on several channels and several kernels."""
    depth, (count, _, height, width) = len(cells), kernels.shape
    output = convolve(cells, kernels, windows)
    return Part(
        "channels",
        Text("Several channels, several kernels", "多通道与多卷积核"),
        (
            Text(
                f"A kernel is as deep as its input: {shape((height, width, depth))} = {height * width * depth} numbers"
                f" over {size_text(cells.shape)}. The sums of all {depth} channels are added, so one kernel gives one"
                " channel.",
                f"卷积核与输入同深：输入 {size_text(cells.shape)}，"
                f"核就是 {shape((height, width, depth))} = {height * width * depth} 个数。{depth} 个通道的和再相加，"
                "所以一个卷积核只产生一个输出通道。",
            ),
            Text(
                f"{count} kernels give {count} channels: the output is {size_text(output.shape)}.",
                f"{count} 个卷积核产生 {count} 个通道：输出为 {size_text(output.shape)}。",
            ),
        ),
        convolution_scene(cells, kernels, windows, Text("kernel", "卷积核")),
        numbers={"output": output, "output_size": [*windows.lengths, count]},
    )


def sees_part(cells: Values, kernels: Values, windows: Sliding) -> Part:
    """Return the part that finds by gradients which cells of the input an output cell depends on."""
    rows, columns = windows.lengths
    row, column = rows // 2, columns // 2
    seen = support(windows.padded, windows, (row, column), layers=1)
    at = [(0, int(i), int(j)) for i, j in np.argwhere(seen)]
    top, _, left, _ = windows.padding
    real = [cell for cell in at if 0 <= cell[1] - top < windows.size[0] and 0 <= cell[2] - left < windows.size[1]]
    zeros = len(at) - len(real)
    deeper = shape(field_of_two(windows))
    inside = [[i - top, j - left] for _, i, j in real]
    each = (f" in each of the {len(cells)} channels", "每个通道的") if len(cells) > 1 else ("", "")
    around = (f" (and on {zeros} zeros of the padding)", f"（另有 {zeros} 个填充的零）") if zeros else ("", "")
    says = (
        Text(
            f"The output cell in row {row + 1}, column {column + 1} depends on {len(real)} cells{each[0]}{around[0]}"
            " and on no other: its receptive field. Found by asking autograd which inputs have a gradient.",
            f"第 {row + 1} 行第 {column + 1} 列的输出只取决于{each[1]} {len(real)} 个输入元素{around[1]}，"
            "与其余元素无关，这就是它的感受野。由自动求导得出：看哪些输入有梯度。",
        ),
        Text(
            f"Two such layers, one after the other, see {deeper} of a map that is large enough: fields grow with"
            " depth.",
            f"这样的两层叠起来，在足够大的图上能看到 {deeper}：感受野随深度增大。",
        ),
    )
    shown = np.where(seen, 1.0, 0.0)[None]
    grid = Grid("seen", Text("cells seen", "看到的元素"), shown, "input", windows.padding)
    frame = Frame(Text("1: it has a gradient; 0: it has none.", "1 表示有梯度，0 表示没有。"), window={"seen": at})
    return Part(
        "sees",
        Text("What an output cell sees", "一个输出元素能看到什么"),
        says,
        Scene((grid,), (frame,)),
        numbers={
            "output_cell": [row, column],
            "cells": inside,
            "two_layers": deeper,
        },
    )


def parameters_part(cells: Values, kernels: Values, windows: Sliding) -> Part:
    """Return the part that counts parameters: shared kernels, one kernel for each place, a fully connected layer."""
    count, depth, height, width = kernels.shape
    rows, columns = windows.lengths
    inputs, outputs, weights = cells.size, count * rows * columns, depth * height * width
    shared, unshared, dense = (weights + 1) * count, (weights + 1) * outputs, (inputs + 1) * outputs
    inside = f"({height}·{width}·{depth} + 1)"
    table = Table(
        (Text("layer", "层"), Text("how it comes about", "算法"), Text("parameters", "参数量")),
        (
            (Text("convolution, kernels shared", "卷积，共享卷积核"), f"{inside}·{count}", f"{shared:,}"),
            (
                Text("a kernel for each place, not shared", "每个位置各用一核，不共享"),
                f"{inside}·{rows}·{columns}·{count}",
                f"{unshared:,}",
            ),
            (Text("fully connected", "全连接"), f"({inputs} + 1)·{outputs}", f"{dense:,}"),
        ),
        right=(2,),
    )
    return Part(
        "parameters",
        Text("Parameters", "参数量"),
        (
            Text(
                f"All give {size_text((count, rows, columns))} from {size_text(cells.shape)}. The + 1 is the bias of"
                " each output channel or cell; it is 0 in the sums above.",
                f"三者都把 {size_text(cells.shape)} 变成 {size_text((count, rows, columns))}。+ 1 是偏置，"
                "上面的计算中取 0。",
            ),
            Text(
                f"Sharing saves a factor of {number(unshared / shared)}, seeing only a window another"
                f" {number(dense / unshared)}.",
                f"共享省下 {number(unshared / shared)} 倍，只看局部窗口又省下 {number(dense / unshared)} 倍。",
            ),
        ),
        table=table,
        numbers={"shared": shared, "unshared": unshared, "dense": dense},
    )


def support(size: tuple[int, int], windows: Sliding, output: tuple[int, int], layers: int) -> NDArray[np.bool_]:
    """Return which cells of a map of `size` an output cell has a gradient to, after so many equal layers.

    All weights are 1, so that no gradient vanishes by chance; nothing is padded.
    """
    field = torch.ones(1, 1, *size, requires_grad=True)
    weight = torch.ones(1, 1, *windows.kernel)
    after = field
    for _ in range(layers):
        after = conv2d(after, weight, stride=windows.stride, dilation=windows.dilation)
    after[0, 0][output].backward()
    assert field.grad is not None
    return np.asarray(field.grad[0, 0] != 0)


def field_of_two(windows: Sliding) -> tuple[int, int]:
    """Return height and width of what a cell sees through two equal layers, found on a map just large enough."""
    height, width = (reach + windows.stride * (reach - 1) for reach in windows.reach)
    seen = support((height, width), windows, (0, 0), layers=2)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def _read_weights(kernel: Any, channels: int, count: int | None) -> Values:
    if kernel is None:
        kernel = KERNEL if channels == 1 and count is None else "2x2"
    if isinstance(kernel, str) and kernel in NAMED:
        return read_kernels(named_kernel(kernel), "--kernel", channels, count)
    if isinstance(kernel, str) and kernel.replace("-", "").isalpha():
        named_kernel(kernel)
    return read_kernels(kernel, "--kernel", channels, count)


def _same(height: int, width: int, stride: int, dilation: int) -> tuple[int, ...]:
    """Return the padding that keeps the size; of an odd total, the last row or column gets more, as in torch."""
    if stride > 1:
        raise UsageError(
            f"--padding same does not go with --stride {stride}",
            "a stride makes the output smaller, so that no padding keeps its size",
            f"write --padding {dilation * (height - 1) // 2}, or --stride 1",
        )
    totals = [dilation * (side - 1) for side in (height, width)]
    return (totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2)


def _number(padding: int | str) -> int:
    return 0 if padding == "same" else int(padding)


def _four(around: tuple[int, ...]) -> Padding:
    top, bottom, left, right = around
    return top, bottom, left, right


def _padding(windows: Sliding) -> str:
    around = windows.padding
    return str(around[0]) if len(set(around)) == 1 else ", ".join(str(side) for side in around)


def _count(kernels: Values) -> str:
    return "a kernel" if len(kernels) == 1 else f"{len(kernels)} kernels"


def _count_zh(kernels: Values) -> str:
    return "卷积核" if len(kernels) == 1 else f"{len(kernels)} 个卷积核，各"


def _through(cells: Values) -> str:
    return f" through all {len(cells)} channels" if len(cells) > 1 else ""


def _through_zh(cells: Values) -> str:
    return f"（贯穿全部 {len(cells)} 个通道）" if len(cells) > 1 else ""
