"""The lesson `head`: from maps to class scores, by a fully connected layer or by global average pooling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from striate.lessons.lesson import Frame, Grid, Lesson, Part, Scene, Table, Text, factor, number, shape
from striate.lessons.reading import check_weights, counted, read_depth
from striate.lessons.titles import TITLES

INPUT, CLASSES = "6x6x256", 10
HIDDEN = 4096  # of AlexNet and VGG


def head_lesson(input: str | None = None, classes: int | None = None) -> Lesson:
    """Return the lesson. `input` is the shape `HxWxC` of the last maps."""
    given, many = read_depth(input or INPUT, "--input"), classes or CLASSES
    check_weights(given[0] * given[1] * given[2] * many, f"{shape(given)} → {many}")
    parts = (small_part(), parameters_part(given, many), sizes_part(given, many), places_part(given, many))
    return Lesson("head", *TITLES["head"], parts)


def fully_connected(sides: tuple[int, int, int], classes: int, hidden: tuple[int, ...] = ()) -> nn.Sequential:
    """Return a head that flattens maps (H, W, C) and ends in `classes` scores."""
    widths = [sides[0] * sides[1] * sides[2], *hidden, classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def averaging(channels: int, classes: int) -> nn.Sequential:
    """Return a head of global average pooling and one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def small_part() -> Part:
    """Return the part that works out the average head on two maps."""
    cells = np.stack([counted((2, 2), 4), counted((2, 2), 10, first=6)])
    weights = np.array([[2.0, -1.0], [-1.0, 1.0], [0.0, 0.5]])
    means = cells.mean(axis=(1, 2))
    scores = weights @ means
    frames = [Frame(Text("Two maps of 2×2.", "两张 2×2 的特征图。"), filled={"means": 0, "scores": 0}, ends=False)]
    for c, mean in enumerate(means):
        held = [(c, int(i), int(j)) for i, j in np.ndindex(2, 2)]
        terms = " + ".join(factor(cells[at]) for at in held)
        says = Text(f"Channel {c + 1} becomes its mean.", f"通道 {c + 1} 变成它的平均值。")
        at = {"means": [(0, c, 0)]}
        frames.append(Frame(says, f"({terms})/4 = {number(mean)}", {"input": held}, at, {"means": c + 1, "scores": 0}))
    for k, score in enumerate(scores):
        terms = " + ".join(f"{factor(mean)}·{factor(weight)}" for mean, weight in zip(means, weights[k]))
        lit = {"means": [(0, c, 0) for c in range(2)], "weights": [(0, k, c) for c in range(2)]}
        frames.append(
            Frame(
                Text(f"Score of class {k + 1}.", f"第 {k + 1} 类的得分。"),
                f"{terms} = {number(score)}",
                lit,
                {"scores": [(0, k, 0)]},
                {"scores": k + 1},
            )
        )
    return Part(
        "small",
        Text("Global average pooling, step by step", "全局平均池化，一步一步算"),
        (
            Text(
                "Each map becomes one number, its mean; a small linear layer makes scores of them.",
                "每张特征图变成一个数，即它的平均值；再由一个小的线性层变成各类得分。",
            ),
        ),
        Scene(
            (
                Grid("input", Text("maps", "特征图"), cells),
                Grid("means", Text("means", "平均值"), means[None, :, None], "output"),
                Grid("weights", Text("weights", "权重"), weights[None], "weight"),
                Grid("scores", Text("scores", "得分"), scores[None, :, None], "output"),
            ),
            tuple(frames),
        ),
        numbers={"means": means, "scores": scores},
    )


def parameters_part(sides: tuple[int, int, int], classes: int) -> Part:
    """Return the part that counts the parameters of heads, by building them."""
    height, width, channels = sides
    flat = height * width * channels
    heads = (
        (
            Text(f"{shape(sides)}, fully connected", f"{shape(sides)}，全连接"),
            f"({flat} + 1)·{classes}",
            lambda: fully_connected(sides, classes),
        ),
        (
            Text(f"{shape(sides)}, two hidden layers", f"{shape(sides)}，两个隐藏层"),
            f"({flat} + 1)·{HIDDEN} + ({HIDDEN} + 1)·{HIDDEN} + ({HIDDEN} + 1)·{classes}",
            lambda: fully_connected(sides, classes, (HIDDEN, HIDDEN)),
        ),
        (
            Text(f"{shape(sides)}, average pooling", f"{shape(sides)}，平均池化"),
            f"({channels} + 1)·{classes}",
            lambda: averaging(channels, classes),
        ),
        (
            Text("AlexNet: 6×6×256, 1000 classes", "AlexNet：6×6×256，1000 类"),
            f"(9216 + 1)·{HIDDEN} + ({HIDDEN} + 1)·{HIDDEN} + ({HIDDEN} + 1)·1000",
            lambda: fully_connected((6, 6, 256), 1000, (HIDDEN, HIDDEN)),
        ),
        (
            Text("ResNet-50: 7×7×2048, 1000 classes", "ResNet-50：7×7×2048，1000 类"),
            "(2048 + 1)·1000",
            lambda: averaging(2048, 1000),
        ),
    )
    rows, counts = [], []
    for name, formula, make in heads:
        with torch.device("meta"):  # counted without memory for the weights
            counts.append(sum(parameter.numel() for parameter in make().parameters()))
        rows.append((name, formula, f"{counts[-1]:,}"))
    saved = number(counts[0] / counts[2])
    columns = (Text("head", "分类头"), Text("how it comes about", "算法"), Text("parameters", "参数量"))
    return Part(
        "parameters",
        Text("Parameters", "参数量"),
        (
            Text(
                "A fully connected layer has a weight for each place of each map; after averaging there is one for"
                f" each map. Here that is {saved} times fewer:",
                "全连接层对每张特征图的每个位置都有一个权重；取平均之后，每张特征图只需一个。"
                f"此处参数减少到 1/{saved}：",
            ),
        ),
        table=Table(columns, tuple(rows), right=(2,)),
        numbers={
            "fully_connected": counts[0],
            "hidden": counts[1],
            "average": counts[2],
            "alexnet": counts[3],
            "resnet50": counts[4],
        },
    )


def sizes_part(sides: tuple[int, int, int], classes: int) -> Part:
    """Return the part that feeds maps of other sizes to both heads."""
    height, width, channels = sides
    flat, mean = fully_connected(sides, classes), averaging(channels, classes)
    rows, taken = [], {}
    for size in ((height, width), (height + 2, width + 2), (2 * height, width + 3)):
        field = torch.zeros(1, channels, *size)
        answers = [_answer(head, field) for head in (flat, mean)]
        rows.append((shape((*size, channels)), *answers))
        taken[shape(size)] = answers
    columns = (Text("maps", "特征图"), Text("fully connected", "全连接"), Text("average pooling", "平均池化"))
    return Part(
        "sizes",
        Text("Other sizes", "换个尺寸"),
        (
            Text(
                "The fully connected head was built for one size and refuses all others. A mean can be taken of any"
                " map, so the same weights serve pictures of any size.",
                "全连接头只为一种尺寸而建，其余一概拒绝。平均值则对任何大小的特征图都能取，"
                "同一套权重可用于任意尺寸的图片。",
            ),
        ),
        table=Table(columns, tuple(rows)),
        numbers=taken,
    )


def places_part(sides: tuple[int, int, int], classes: int) -> Part:
    """Return the part on what averaging forgets: where something was."""
    height, width, channels = sides
    generator = torch.Generator().manual_seed(0)
    field = torch.randint(0, 10, (1, channels, height * width), generator=generator).double()
    mixed = field[:, :, torch.randperm(height * width, generator=generator)].view(1, channels, height, width)
    field = field.view(1, channels, height, width)
    weights = torch.Generator().manual_seed(1)
    changes = {}
    for name, head in (("fully_connected", fully_connected(sides, classes)), ("average", averaging(channels, classes))):
        for parameter in head.double().parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape, generator=weights).double()
        with torch.no_grad():
            changes[name] = float((head(field) - head(mixed)).abs().max())
    return Part(
        "places",
        Text("What the mean forgets", "取平均丢掉了什么"),
        (
            Text(
                f"Shuffle the {height * width} places of the maps, in all channels alike. The scores of the fully"
                f" connected head change by up to {number(changes['fully_connected'])}, those after averaging by"
                f" {number(round(changes['average'], 9))}: the mean does not know where something was.",
                f"把特征图的 {height * width} 个位置打乱（各通道打乱方式相同）："
                f"全连接头的得分最多改变 {number(changes['fully_connected'])}，"
                f"取平均的改变 {number(round(changes['average'], 9))}。平均值不知道东西在哪里。",
            ),
        ),
        numbers=changes,
    )


def _answer(head: nn.Module, field: Tensor) -> str | Text:
    try:
        with torch.no_grad():
            scores = head(field).shape[1]
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return Text(f"{scores} scores", f"{scores} 个得分")
