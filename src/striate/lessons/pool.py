"""The lesson `pool`: maximum, average and sum of windows, and how little a shift is forgiven."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from striate.data.builtin import load_named
from striate.lessons.lesson import (
    Frame,
    Grid,
    Lesson,
    Part,
    Picture,
    Scene,
    Table,
    Text,
    Values,
    factor,
    number,
    rows_text,
    shape,
    size_text,
)
from striate.lessons.reading import read_map
from striate.lessons.titles import TITLES
from striate.lessons.windows import MOST_STEPS, Sliding

INPUT, SIZE, STRIDE = "0,1,2;3,4,5;6,7,8", 2, 1
DIGITS, FURTHEST = 100, 3  # pictures that are shifted, and by how many pixels at most


def pool_lesson(
    input: Any = None, channels: int | None = None, size: int | None = None, stride: int | None = None
) -> Lesson:
    """Return the lesson on pooling. `input` is typed as for `conv`. Raises UsageError for what does not fit."""
    own = any(value is not None for value in (input, channels, size, stride))
    cells = read_map(INPUT if input is None else input, "--input", channels)
    side = size or SIZE
    windows = Sliding((cells.shape[1], cells.shape[2]), (side, side), stride or (side if own else STRIDE))
    parts = [worked_part(cells, windows)]
    if not own:
        parts += [sizes_part(), one_pixel_part(), shift_part()]
    return Lesson("pool", *TITLES["pool"], tuple(parts))


def pooled(cells: Values, windows: Sliding) -> dict[str, Values]:
    """Return maximum, average and sum of the windows of a map (C, H, W)."""
    held = windows.gather(cells)
    return {"max": held.max(axis=3), "average": held.mean(axis=3), "sum": held.sum(axis=3)}


def worked_part(cells: Values, windows: Sliding) -> Part:
    """Return the part that works out every window."""
    made = pooled(cells, windows)
    layer = nn.MaxPool2d(windows.kernel, windows.stride)
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    before, after = size_text(cells.shape), size_text(made["max"].shape)
    says = [
        Text(
            f"Input {before}, window {shape(windows.kernel)}, stride {windows.stride}. Height: {windows.formula(0)};"
            f" width: {windows.formula(1)}. The output is {after}.",
            f"输入 {before}，窗口 {shape(windows.kernel)}，步幅 {windows.stride}。高：{windows.formula(0)}；宽："
            f"{windows.formula(1)}。输出为 {after}。",
        ),
        Text(
            f"Nothing is learnt: {parameters} parameters. Each channel is pooled by itself, so their number stays:"
            f" {len(cells)} before, {len(made['max'])} after.",
            f"这里没有要学的东西：参数 {parameters} 个。各通道分别池化，通道数不变：之前 {len(cells)}，"
            f"之后 {len(made['max'])}。",
        ),
    ]
    if made["max"].size <= 36:
        told = {name: "; ".join(rows_text(channel) for channel in values) for name, values in made.items()}
        says.append(
            Text(
                f"Maximum: {told['max']}. Average: {told['average']}. Sum: {told['sum']}.",
                f"最大值：{told['max']}。平均值：{told['average']}。总和：{told['sum']}。",
            )
        )
    return Part(
        "worked",
        Text("Step by step", "一步一步算"),
        tuple(says),
        _scene(cells, windows, made),
        numbers={**made, "parameters": parameters},
    )


def _scene(cells: Values, windows: Sliding, made: dict[str, Values]) -> Scene:
    places = list(np.ndindex(made["max"].shape))
    frames = [Frame(Text("Nothing is known yet.", "尚未开始。"), filled=dict.fromkeys(made, 0), ends=False)]
    for done, (channel, row, column) in enumerate(places[:MOST_STEPS]):
        held = [(channel, i, j) for i, j in windows.cells(row, column)]
        values = [float(cells[at]) for at in held]
        best, mean, total = (float(made[name][channel, row, column]) for name in ("max", "average", "sum"))
        where = (
            f" of channel {channel + 1}" if len(cells) > 1 else "",
            f"通道 {channel + 1}，" if len(cells) > 1 else "",
        )
        listed = ", ".join(number(value) for value in values) if len(values) <= 16 else f"{len(values)} …"
        added = " + ".join(factor(value) for value in values) if len(values) <= 16 else "…"
        frames.append(
            Frame(
                Text(f"Row {row + 1}, column {column + 1}{where[0]}", f"{where[1]}第 {row + 1} 行第 {column + 1} 列"),
                f"max({listed}) = {number(best)};  {added} = {number(total)};  {number(total)}/{len(values)} ="
                f" {number(mean)}",
                {"input": held},
                {name: [(channel, row, column)] for name in made} | {"input": [at for at in held if cells[at] == best]},
                dict.fromkeys(made, done + 1),
            )
        )
    return Scene(
        (
            Grid("input", Text("input", "输入"), cells),
            Grid("max", Text("maximum", "最大值"), made["max"], "output"),
            Grid("average", Text("average", "平均值"), made["average"], "output"),
            Grid("sum", Text("sum", "总和"), made["sum"], "output"),
        ),
        tuple(frames),
        max(0, len(places) - MOST_STEPS),
    )


def sizes_part() -> Part:
    """Return the part on the sizes of usual poolings."""
    rows, numbers = [], {}
    for side, kernel, stride, used in (
        (28, 2, 2, Text("LeNet", "LeNet")),
        (55, 3, 2, Text("AlexNet: windows overlap", "AlexNet：窗口重叠")),
        (27, 3, 2, Text("AlexNet", "AlexNet")),
        (13, 3, 2, Text("AlexNet", "AlexNet")),
        (7, 2, 2, Text("the last row and column are not read", "最后一行和一列读不到")),
        (7, 7, 1, Text("the whole map: global pooling", "整张特征图：全局池化")),
    ):
        windows = Sliding((side, side), (kernel, kernel), stride)
        rows.append((f"{side}×{side}", f"{kernel}×{kernel}", str(stride), windows.formula(), used))
        numbers[f"{side}, {kernel}, {stride}"] = windows.lengths[0]
    columns = (
        Text("map", "特征图"),
        Text("window", "窗口"),
        Text("stride", "步幅"),
        Text("output size", "输出尺寸"),
        Text("where", "用于"),
    )
    return Part(
        "sizes",
        Text("Sizes", "尺寸"),
        (
            Text(
                "Mostly the stride is as large as the window, so that every cell is read once and the sides are"
                " halved.",
                "通常步幅与窗口一样大：每个元素恰好读一次，高和宽减半。",
            ),
        ),
        table=Table(columns, tuple(rows), right=(2,)),
        numbers=numbers,
    )


def one_pixel_part() -> Part:
    """Return the part in which one bright cell moves through windows of 2×2."""
    windows = Sliding((4, 4), (2, 2), 2)
    grids, frames, answers = [], [], []
    for shift in range(3):
        cells = np.zeros((1, 4, 4))
        cells[0, 0, shift] = 8
        answers.append(pooled(cells, windows)["max"])
        grids += [
            Grid(f"input {shift}", Text(f"shifted by {shift}", f"右移 {shift}"), cells, "input"),
            Grid(f"max {shift}", Text("maximum", "最大值"), answers[-1], "output"),
        ]
        told = rows_text(answers[-1][0])
        frames.append(
            Frame(
                Text(f"Shifted by {shift}: {told}", f"右移 {shift}：{told}"),
                at={f"input {shift}": [(0, 0, shift)], f"max {shift}": [(0, 0, shift // 2)]},
            )
        )
    kept = [bool(np.array_equal(answers[0], answer)) for answer in answers]
    return Part(
        "one-pixel",
        Text("One bright cell moves", "一个亮点的移动"),
        (
            Text(
                "Windows of 2×2, stride 2. Within its window the cell may move and the answer stays; one step more,"
                " over the border, and the answer moves too. So pooling forgives a shift of one pixel half of the"
                " time.",
                "窗口 2×2，步幅 2。亮点在窗口内移动，结果不变；再移一步越过边界，结果就跟着变。所以平移一个像素，"
                "池化大约只有一半的机会“看不出来”。",
            ),
        ),
        Scene(tuple(grids), tuple(frames)),
        numbers={"same_as_unshifted": kept},
    )


def shift_part() -> Part:
    """Return the part that measures on the digits how much a shift changes the picture and its pooled maps."""
    digits = load_named("digits").train.images[:DIGITS, :, :, 0].astype(np.float64)  # (N, 8, 8)
    room = np.pad(digits, ((0, 0), (FURTHEST, FURTHEST), (FURTHEST + 1, FURTHEST + 4)))  # (N, 14, 15 or more)
    room = room[:, :, : room.shape[2] - room.shape[2] % 2]
    windows = Sliding((room.shape[1], room.shape[2]), (2, 2), 2)
    ways = {"picture": lambda images: images, **{name: _pooling(name, windows) for name in ("max", "average")}}
    changes = {
        name: [_change(way(room), way(np.roll(room, shift, axis=2))) for shift in range(FURTHEST + 1)]
        for name, way in ways.items()
    }
    moved = pooled(np.roll(room, 2, axis=2), windows)["max"]
    exact = float(np.abs(moved - np.roll(pooled(room, windows)["max"], 1, axis=2)).max())
    rows = tuple(
        (str(shift), *(f"{100 * changes[name][shift]:.0f} %" for name in ways)) for shift in range(FURTHEST + 1)
    )
    columns = (
        Text("shift in pixels", "平移像素"),
        Text("picture itself", "原图"),
        Text("maximum 2×2", "最大值 2×2"),
        Text("average 2×2", "平均值 2×2"),
    )
    first = room[0].astype(np.uint8)[..., None]
    second = np.roll(room[0], 1, axis=1).astype(np.uint8)[..., None]
    pictures = [Picture(Text("a digit", "一个数字"), first), Picture(Text("shifted by one", "右移一个像素"), second)]
    for image, title in (
        (first, Text("its maximum 2×2", "最大值 2×2")),
        (second, Text("shifted, then maximum", "右移后取最大值")),
    ):
        made = pooled(image[None, ..., 0].astype(np.float64), windows)["max"][0]
        pictures.append(Picture(title, made.astype(np.uint8)[..., None]))
    return Part(
        "shift",
        Text("A shifted picture", "图片平移之后"),
        (
            Text(
                f"{DIGITS} digits, shifted to the right. The table has the change against the unshifted one: the"
                " length of the difference, divided by the length of the unshifted.",
                f"取 {DIGITS} 张手写数字，向右平移。表中是与未平移时相比的变化：差的长度除以未平移时的长度。",
            ),
            Text(
                f"A shift of one pixel changes the picture by {100 * changes['picture'][1]:.0f} %, and what maximum"
                f" pooling makes of it still by {100 * changes['max'][1]:.0f} %. Pooling makes a net a little less"
                " sensitive to shifts; it does not make it invariant.",
                f"平移一个像素，原图变化 {100 * changes['picture'][1]:.0f} %，"
                f"最大池化之后仍变化 {100 * changes['max'][1]:.0f} %。池化只是让网络对平移不那么敏感，谈不上平移不变。",
            ),
            Text(
                "A shift by the stride is another matter: the answer is the same, shifted by one cell (largest"
                f" difference {number(exact)}).",
                f"若恰好平移一个步幅，结果则完全相同，只是也移了一格（最大差 {number(exact)}）。",
            ),
        ),
        table=Table(columns, rows, right=(0, 1, 2, 3)),
        pictures=tuple(pictures),
        numbers={**changes, "shift_by_stride": exact},
    )


def _pooling(name: str, windows: Sliding) -> Any:
    return lambda images: pooled(images, windows)[name]


def _change(before: Values, after: Values) -> float:
    """Return the mean over pictures (N, H, W) of |after − before| / |before|, lengths as Euclid's."""
    difference = np.linalg.norm((after - before).reshape(len(before), -1), axis=1)
    return float((difference / np.linalg.norm(before.reshape(len(before), -1), axis=1)).mean())
