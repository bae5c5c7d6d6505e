"""The lesson `linear-as-conv`: a fully connected layer is a convolution whose kernel is as large as the map."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from striate.lessons.lesson import Frame, Grid, Lesson, Part, Scene, Table, Text, factor, number, shape
from striate.lessons.reading import check_weights, counted, read_depth
from striate.lessons.titles import TITLES

# The two cases of the articles: a small map, and AlexNet's last one before its first fully connected layer.
CASES = ((3, 3, 5), (6, 6, 256))
OUTPUTS = 4096


def linear_lesson(input: str | None = None, outputs: int | None = None) -> Lesson:
    """Return the lesson. `input` is a shape `HxWxC`. Raises UsageError for a layer that is too large."""
    given = CASES if input is None else (read_depth(input, "--input"),)
    many = outputs or OUTPUTS
    cases = [compare_layers(sides, many) for sides in given]
    return Lesson(
        "linear-as-conv", *TITLES["linear-as-conv"], (small_part(), cases_part(cases), slide_part(given[0], many))
    )


def layers(sides: tuple[int, int, int], outputs: int) -> tuple[nn.Linear, nn.Conv2d]:
    """Return a linear layer for a map (H, W, C) and the convolution that has the same weights.

    The weights are whole numbers from −2 to 2, so that float32 adds them up without rounding in any order.
    """
    height, width, channels = sides
    check_weights(height * width * channels * outputs, f"{shape(sides)} → {outputs}")
    linear = skip_init(nn.Linear, height * width * channels, outputs)
    convolution = skip_init(nn.Conv2d, channels, outputs, (height, width))
    assert isinstance(linear, nn.Linear) and isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        linear.weight.copy_(_whole_numbers(linear.weight.shape, seed=1))
        linear.bias.copy_(_whole_numbers(linear.bias.shape, seed=2))
    convolution.weight = nn.Parameter(linear.weight.detach().view(outputs, channels, height, width))
    convolution.bias = nn.Parameter(linear.bias.detach())
    return linear, convolution


def compare_layers(sides: tuple[int, int, int], outputs: int) -> dict[str, Any]:
    """Compute a map (H, W, C) through both layers; return sizes, parameters and the largest difference."""
    height, width, channels = sides
    linear, convolution = layers(sides, outputs)
    field = _whole_numbers(torch.Size((1, channels, height, width)), seed=0)
    with torch.no_grad():
        by_linear, by_convolution = linear(field.flatten(1)), convolution(field)
    return {
        "input": list(sides),
        "outputs": outputs,
        "linear_parameters": sum(parameter.numel() for parameter in linear.parameters()),
        "convolution_parameters": sum(parameter.numel() for parameter in convolution.parameters()),
        "convolution_output": list(by_convolution.shape[1:]),
        "largest_difference": float((by_linear - by_convolution.flatten(1)).abs().max()),
        "first_outputs": by_linear[0, :4].tolist(),
    }


def small_part() -> Part:
    """Return the part that shows the same sum as a row of a matrix and as a kernel."""
    cells, many = counted((2, 2, 2), 10), 3
    flat = cells.reshape(-1)
    rows = np.stack([counted((flat.size,), 5, first=k) for k in range(many)])
    sums = rows @ flat
    first = Frame(
        Text("A matrix with one row for each output.", "矩阵的每一行对应一个输出。"), filled={"output": 0}, ends=False
    )
    frames = [first]
    for k, row in enumerate(rows):
        terms = " + ".join(f"{factor(value)}·{factor(weight)}" for value, weight in zip(flat, row))
        whole = [(int(c), int(i), int(j)) for c, i, j in np.ndindex(cells.shape)]
        lit = {
            "input": whole,
            f"kernel {k}": whole,
            "flat": [(0, 0, n) for n in range(flat.size)],
            "matrix": [(0, k, n) for n in range(flat.size)],
        }
        says = Text(
            f"Row {k + 1} of the matrix holds kernel {k + 1}.",
            f"矩阵第 {k + 1} 行就是卷积核 {k + 1}。",
        )
        frames.append(Frame(says, f"{terms} = {number(sums[k])}", lit, {"output": [(0, k, 0)]}, {"output": k + 1}))
    kernels = tuple(
        Grid(f"kernel {k}", Text(f"kernel {k + 1}", f"卷积核 {k + 1}"), row.reshape(cells.shape), "weight", group="k")
        for k, row in enumerate(rows)
    )
    return Part(
        "small",
        Text("The same sum, written twice", "同一个和的两种写法"),
        (
            Text(
                f"A map of 2×2×2 has {flat.size} numbers. Flattened it meets a row of the matrix; unflattened it meets"
                " a kernel of 2×2×2. The products are the same, and so is their sum.",
                f"2×2×2 的特征图有 {flat.size} 个数。展平后与矩阵的一行相乘；不展平，就与 2×2×2 的卷积核相乘。"
                "乘积相同，和也相同。",
            ),
        ),
        Scene(
            (
                Grid("input", Text("map", "特征图"), cells),
                *kernels,
                Grid("flat", Text("map, flattened", "展平的特征图"), flat[None, None]),
                Grid("matrix", Text("matrix", "矩阵"), rows[None], "weight"),
                Grid("output", Text("output", "输出"), sums[None, :, None], "output"),
            ),
            tuple(frames),
        ),
        numbers={"output": sums},
    )


def cases_part(cases: list[dict[str, Any]]) -> Part:
    """Return the part that computes real sizes both ways."""
    rows = []
    for case in cases:
        sides, outputs = case["input"], case["outputs"]
        sum_of = f"({'·'.join(str(side) for side in sides)} + 1)·{outputs}"
        rows.append(
            (
                f"{shape(sides)} → {outputs}",
                sum_of,
                f"{case['linear_parameters']:,}",
                f"{case['convolution_parameters']:,}",
                number(case["largest_difference"]),
            )
        )
    columns = (
        Text("layer", "层"),
        Text("parameters", "参数算法"),
        Text("fully connected", "全连接"),
        Text("as convolution", "写成卷积"),
        Text("largest difference", "输出最大差"),
    )
    return Part(
        "cases",
        Text("Both computed", "两种都算一遍"),
        (
            Text(
                "The same weights, once as nn.Linear and once as nn.Conv2d whose kernel is the whole map. All numbers"
                " are whole, so that nothing is rounded:",
                "同样的权重，一次用 nn.Linear，一次用卷积核等于整张特征图的 nn.Conv2d。所有数都取整数，没有舍入误差：",
            ),
        ),
        table=Table(columns, tuple(rows), right=(2, 3, 4)),
        numbers={"cases": cases},
    )


def slide_part(sides: tuple[int, int, int], outputs: int) -> Part:
    """Return the part on a larger map: the convolution slides over it, the linear layer refuses it."""
    height, width, channels = sides
    linear, convolution = layers(sides, outputs)
    larger = _whole_numbers(torch.Size((1, channels, height + 1, width + 1)), seed=3)
    with torch.no_grad():
        slid = convolution(larger)
        corner = linear(larger[:, :, 1:, 1:].flatten(1))
    difference = float((slid[..., 1, 1] - corner).abs().max())
    refused = _refusal(linear, larger)
    return Part(
        "slide",
        Text("What it is good for", "有什么用"),
        (
            Text(
                f"A map of {shape((height + 1, width + 1, channels))} does not fit the linear layer: “{refused}”.",
                f"换成 {shape((height + 1, width + 1, channels))} 的特征图，全连接层就拒绝：“{refused}”。",
            ),
            Text(
                f"The convolution slides over it and answers at each place: {shape((*slid.shape[2:], outputs))}. The"
                f" last place equals the linear layer on that corner (largest difference {number(difference)}). So a"
                " net made of convolutions alone takes larger pictures and gives a map of answers.",
                f"卷积则在上面滑动，每处给出一个回答：{shape((*slid.shape[2:], outputs))}。"
                f"右下角的结果与全连接层作用于该角相同（最大差 {number(difference)}）。"
                "因此全卷积网络可以接受更大的图片，并给出一张“回答图”。",
            ),
        ),
        numbers={"output": list(slid.shape[1:]), "largest_difference": difference, "refused": refused},
    )


def _refusal(layer: nn.Module, field: Tensor) -> str:
    """Return what torch says when it refuses a flattened map."""
    try:
        layer(field.flatten(1))
    except RuntimeError as error:
        return str(error).splitlines()[0]
    raise AssertionError("the layer took a map of another size")


def _whole_numbers(sides: torch.Size, seed: int) -> Tensor:
    return torch.randint(-2, 3, sides, dtype=torch.float32, generator=torch.Generator().manual_seed(seed))
