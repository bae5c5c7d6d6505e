"""More of the lesson `conv`: strides and dilation, padding that keeps the size, and convolutions of 1×1."""

from __future__ import annotations

import numpy as np

from striate.lessons.lesson import Part, Table, Text, Values, number
from striate.lessons.reading import counted
from striate.lessons.windows import Sliding, convolution_scene, convolve

SIDE = 7  # of the map whose sizes are listed
# GoogLeNet's block 3a (Szegedy and others, 2014, table 1): 28×28×192, reduced to 16 channels before 32 kernels of 5×5
MAP, DEEP, REDUCED, KERNEL, WIDE = 28, 192, 16, 5, 32


def stride_part() -> Part:
    """Return the part on what stride, padding and dilation do to the size, with the floor."""
    rows, sizes = [], {}
    for kernel, stride, padding, dilation in (
        (3, 1, 0, 1),
        (3, 2, 0, 1),
        (3, 3, 0, 1),
        (3, 3, 1, 1),
        (3, 1, 0, 2),
        (3, 1, 2, 2),
        (4, 2, 0, 1),
    ):
        windows = Sliding((SIDE, SIDE), (kernel, kernel), stride, (padding,) * 4, dilation)
        left = (windows.padded[0] - windows.reach[0]) % stride
        rows.append((f"{kernel}×{kernel}", str(stride), str(padding), str(dilation), windows.formula(), str(left)))
        sizes[f"kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}"] = windows.lengths[0]
    columns = (
        Text("kernel", "卷积核"),
        Text("stride", "步幅"),
        Text("padding", "填充"),
        Text("dilation", "膨胀率"),
        Text("output size", "输出尺寸"),
        Text("rows never read", "读不到的行数"),
    )
    return Part(
        "stride",
        Text("Stride, padding, dilation", "步幅、填充、膨胀率"),
        (
            Text(
                f"The stride is how far the window moves, the dilation how far apart its cells lie. On {SIDE}×{SIDE}:",
                f"步幅是窗口每次移动的距离，膨胀率是窗口内相邻元素的间距。以 {SIDE}×{SIDE} 为例：",
            ),
            Text(
                "⌊ ⌋ rounds down: where the stride does not come out even, the last rows and columns are not read.",
                "⌊ ⌋ 表示向下取整：步幅除不尽时，最后几行、几列不会被读到。",
            ),
        ),
        table=Table(columns, tuple(rows), right=(1, 2, 3, 5)),
        numbers=sizes,
    )


def same_part() -> Part:
    """Return the part on padding that keeps the size."""
    side = 5
    rows = []
    for kernel in (1, 3, 5):
        padding = (kernel - 1) // 2
        without = Sliding((side, side), (kernel, kernel))
        kept = Sliding((side, side), (kernel, kernel), padding=(padding,) * 4)
        rows.append((f"{kernel}×{kernel}", without.formula(), str(padding), kept.formula()))
    cells = counted((1, 3, 3), 10)
    weights = np.ones((1, 1, 3, 3))
    windows = Sliding((3, 3), (3, 3), padding=(1, 1, 1, 1))
    output = convolve(cells, weights, windows)
    columns = (
        Text("kernel", "卷积核"),
        Text("no padding", "不填充"),
        Text("same: p", "保持尺寸的填充 p"),
        Text("with it", "填充后"),
    )
    return Part(
        "same",
        Text("Padding that keeps the size", "保持尺寸的填充"),
        (
            Text(
                "Without padding each layer of k×k takes k − 1 rows and columns away. With p = (k − 1)/2 the size"
                f" stays. On {side}×{side}:",
                "不填充时，每经过一层 k×k 卷积就少 k − 1 行和 k − 1 列。取 p = (k − 1)/2，尺寸不变。"
                f"以 {side}×{side} 为例：",
            ),
            Text(
                "Below, 3×3 with a padding of 1 and a kernel of ones: at the corners it finds only four cells of the"
                f" input, the rest are zeros. The middle adds up all nine: {number(output[0, 1, 1])}.",
                "下面是 3×3 输入、填充 1、全 1 卷积核：在角上只碰到四个输入元素，其余是填充的零；"
                f"正中则把九个全加起来，得 {number(output[0, 1, 1])}。",
            ),
        ),
        convolution_scene(cells, weights, windows, Text("kernel", "卷积核")),
        Table(columns, tuple(rows), right=(2,)),
        numbers={"output": output},
    )


def one_by_one_part() -> Part:
    """Return the part on 1×1 convolutions, which mix channels and change their number."""
    cells = counted((3, 2, 2), 10)
    up, down = _mixing(5, 3), _mixing(2, 3)
    windows = Sliding((2, 2), (1, 1))
    more, fewer = convolve(cells, up, windows), convolve(cells, down, windows)
    as_layer = np.einsum("kc,crw->krw", down[:, :, 0, 0], cells)  # a linear layer at every place
    area = MAP * MAP
    direct = area * DEEP * KERNEL**2 * WIDE
    reduce, then = area * DEEP * REDUCED, area * REDUCED * KERNEL**2 * WIDE
    table = Table(
        (Text("way", "做法"), Text("multiply-adds", "乘加次数"), Text("in all", "合计")),
        (
            (
                Text(f"{KERNEL}×{KERNEL} at once", f"直接 {KERNEL}×{KERNEL}"),
                f"{MAP}·{MAP}·{DEEP}·{KERNEL}·{KERNEL}·{WIDE}",
                f"{direct:,}",
            ),
            (
                Text(f"1×1 to {REDUCED}, then {KERNEL}×{KERNEL}", f"先 1×1 降到 {REDUCED}，再 {KERNEL}×{KERNEL}"),
                f"{MAP}·{MAP}·{DEEP}·{REDUCED} + {MAP}·{MAP}·{REDUCED}·{KERNEL}·{KERNEL}·{WIDE}",
                f"{reduce + then:,}",
            ),
        ),
        right=(2,),
    )
    return Part(
        "one-by-one",
        Text("Convolutions of 1×1", "1×1 卷积"),
        (
            Text(
                "A kernel of 1×1 looks at one place and mixes its channels: a linear layer, the same at every place."
                f" Computed both ways the largest difference is {number(np.abs(as_layer - fewer).max())}.",
                "1×1 卷积核只看一个位置，把该处的各通道混合：等于在每个位置用同一个线性层。"
                f"两种算法结果的最大差为 {number(np.abs(as_layer - fewer).max())}。",
            ),
            Text(
                f"It changes the number of channels and nothing else. Up: 3 → {len(up)} with (3 + 1)·{len(up)} ="
                f" {4 * len(up)} parameters; down: 3 → {len(down)} with (3 + 1)·{len(down)} = {4 * len(down)} (below).",
                f"它只改变通道数。升维：3 → {len(up)}，参数 (3 + 1)·{len(up)} = {4 * len(up)}；降维：3 → {len(down)}，"
                f"参数 (3 + 1)·{len(down)} = {4 * len(down)}（见下）。",
            ),
            Text(
                f"Going down first makes the next layer cheap. GoogLeNet does it before its {KERNEL}×{KERNEL} kernels,"
                f" and saves a factor of {number(direct / (reduce + then))}:",
                f"先降维，后一层就便宜。GoogLeNet 在 {KERNEL}×{KERNEL} 卷积之前这样做，"
                f"计算量减到 1/{number(direct / (reduce + then))}：",
            ),
        ),
        convolution_scene(cells, down, windows, Text("kernel", "卷积核")),
        table,
        numbers={"up": more, "down": fewer, "direct": direct, "reduced": reduce + then},
    )


def _mixing(count: int, channels: int) -> Values:
    return np.stack([counted((channels, 1, 1), 5, first=k) for k in range(count)])
