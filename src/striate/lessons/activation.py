"""The lesson `activation`: without one layers collapse into one; with a poor one the gradient fades."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from striate.lessons.lesson import Chart, Frame, Grid, Lesson, Part, Scene, Table, Text, factor, number, rows_text
from striate.lessons.titles import TITLES

DEPTH, WIDTH, SEED = 20, 64, 0
DEPTHS = (2, 5, 10, 20)
LEAK = 0.01  # torch's default slope
PLACES = (-10.0, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0)
SAMPLES = 256
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky relu": lambda values: torch.nn.functional.leaky_relu(values, LEAK),
}
# Weights are drawn with the variance gain²/width that suits each: Glorot and Bengio 2010, He and others 2015.
GAINS = {"sigmoid": 1.0, "tanh": 1.0, "relu": 2**0.5, "leaky relu": (2 / (1 + LEAK**2)) ** 0.5}


def activation_lesson(depth: int | None = None, width: int | None = None, seed: int | None = None) -> Lesson:
    """Return the lesson; gradients are measured through nets of up to `depth` layers of `width` units."""
    deep = depth or DEPTH
    depths = (*(one for one in DEPTHS if one < deep), deep)
    measured = {name: measure(name, depths, width or WIDTH, SEED if seed is None else seed) for name in ACTIVATIONS}
    parts = (collapse_part(), saturation_part(), gradients_part(measured, depths, width or WIDTH))
    return Lesson("activation", *TITLES["activation"], parts)


def collapse_part() -> Part:
    """Return the part in which two linear layers are one, until a ReLU stands between them."""
    first, second = np.array([[1.0, -2.0], [3.0, 1.0]]), np.array([[2.0, 1.0], [-1.0, 1.0]])
    joined = second @ first
    x = np.array([1.0, 2.0])
    hidden, at_once = first @ x, joined @ x
    output = second @ hidden
    bent = second @ np.maximum(hidden, 0)
    a, b = np.array([1.0, 2.0]), np.array([-1.0, 0.0])
    through = [second @ np.maximum(first @ one, 0) for one in (a, b, a + b)]

    def column(key: str, title: Text, values: np.ndarray, role: str) -> Grid:
        return Grid(key, title, np.atleast_2d(values)[None] if values.ndim == 2 else values[None, :, None], role)

    grids = (
        column("x", Text("x", "x"), x, "input"),
        column("first", Text("W₁", "W₁"), first, "weight"),
        column("hidden", Text("W₁x", "W₁x"), hidden, "output"),
        column("second", Text("W₂", "W₂"), second, "weight"),
        column("output", Text("W₂(W₁x)", "W₂(W₁x)"), output, "output"),
        column("joined", Text("W₂W₁", "W₂W₁"), joined, "weight"),
        column("at_once", Text("(W₂W₁)x", "(W₂W₁)x"), at_once, "output"),
    )
    frames = [
        Frame(
            Text("Two layers without an activation.", "两层线性层，中间没有激活函数。"),
            filled={"hidden": 0, "output": 0, "joined": 0, "at_once": 0},
            ends=False,
        )
    ]
    known = {"hidden": 0, "output": 0, "joined": 0, "at_once": 0}
    for matrix, values, by, made in (
        ("first", first, x, "hidden"),
        ("second", second, hidden, "output"),
        ("joined", joined, x, "at_once"),
    ):
        if made == "at_once":
            known = {**known, "joined": 4}
            says = Text("Both matrices multiplied give one.", "两个矩阵相乘，得到一个矩阵。")
            told = f"W₂W₁ = [{rows_text(second)}]·[{rows_text(first)}] = [{rows_text(joined)}]"
            lit = {"first": _whole(first), "second": _whole(second)}
            frames.append(Frame(says, told, lit, {"joined": _whole(joined)}, dict(known)))
        for i, row in enumerate(values):
            known = {**known, made: i + 1}
            terms = " + ".join(f"{factor(weight)}·{factor(value)}" for weight, value in zip(row, by))
            source = {"first": "x", "second": "hidden", "joined": "x"}[matrix]
            lit = {matrix: [(0, i, 0), (0, i, 1)], source: [(0, 0, 0), (0, 1, 0)]}
            name = {"hidden": "W₁x", "output": "W₂(W₁x)", "at_once": "(W₂W₁)x"}[made]
            says = Text(f"{name}, row {i + 1}", f"{name} 第 {i + 1} 行")
            frames.append(Frame(says, f"{terms} = {number(row @ by)}", lit, {made: [(0, i, 0)]}, dict(known)))
    vectors = {name: rows_text(values[None]) for name, values in (("out", output), ("once", at_once), ("bent", bent))}
    split = rows_text((through[0] + through[1])[None])
    whole = rows_text(through[2][None])
    return Part(
        "collapse",
        Text("Without an activation two layers are one", "没有激活函数，两层等于一层"),
        (
            Text(
                f"W₂(W₁x) = ({vectors['out']}) and (W₂W₁)x = ({vectors['once']}): one matrix does the work of both,"
                " and so of a hundred.",
                f"W₂(W₁x) = ({vectors['out']})，(W₂W₁)x = ({vectors['once']})：一个矩阵就能顶两层，一百层也一样。",
            ),
            Text(
                f"With a ReLU between them the answer is ({vectors['bent']}). No matrix can do that: for a linear map"
                f" f(a) + f(b) = f(a + b), here with a = ({rows_text(a[None])}) and b = ({rows_text(b[None])}) the"
                f" left side is ({split}), the right one ({whole}).",
                f"中间加上 ReLU，结果为 ({vectors['bent']})。没有哪个矩阵能做到：线性变换应有 f(a) + f(b) = f(a + b)，"
                f"而取 a = ({rows_text(a[None])})、b = ({rows_text(b[None])}) 时，左边为 ({split})，右边为 ({whole})。",
            ),
        ),
        Scene(grids, tuple(frames)),
        numbers={
            "layers": output,
            "one_matrix": at_once,
            "with_relu": bent,
            "f_a_plus_f_b": through[0] + through[1],
            "f_of_sum": through[2],
        },
    )


def slopes(name: str, places: tuple[float, ...] = PLACES) -> tuple[list[float], list[float]]:
    """Return the values and slopes of an activation at places, the slopes from autograd."""
    x = torch.tensor(places, dtype=torch.float64, requires_grad=True)
    y = ACTIVATIONS[name](x)
    y.sum().backward()
    assert x.grad is not None
    return y.tolist(), x.grad.tolist()


def saturation_part() -> Part:
    """Return the part on values and slopes: where a sigmoid is flat, nothing is learnt."""
    known = {name: slopes(name) for name in ACTIVATIONS}
    rows = tuple(
        (number(place), *(f"{number(known[name][0][i])} / {number(known[name][1][i])}" for name in ACTIVATIONS))
        for i, place in enumerate(PLACES)
    )
    fine = tuple(float(place) for place in np.linspace(-8, 8, 401))
    steepest = max(slopes("sigmoid", fine)[1])
    ends = slopes("sigmoid", (5.0, 10.0))[1]
    return Part(
        "saturation",
        Text("Saturation", "饱和"),
        (
            Text(
                f"Each cell: value / slope. The sigmoid's slope is at most {number(steepest)}, at 0; at 5 it is"
                f" {number(ends[0])}, at 10 {number(ends[1])}. A saturated unit passes almost no gradient on.",
                f"每格为“函数值 / 斜率”。sigmoid 的斜率在 0 处最大，仅 {number(steepest)}；"
                f"在 5 处为 {number(ends[0])}，在 10 处为 {number(ends[1])}。单元一旦饱和，几乎传不出梯度。",
            ),
            Text(
                f"Through 20 sigmoids the slopes multiply to at most {number(steepest)}²⁰ = {number(steepest**20)}."
                f" The ReLU's slope is 1 on the right, and 0 on the left; the leaky ReLU keeps {number(LEAK)} there."
                " (At 0 torch takes the left slope.)",
                f"穿过 20 个 sigmoid，斜率连乘最多只有 {number(steepest)}²⁰ = {number(steepest**20)}。"
                f"ReLU 右侧斜率为 1，左侧为 0；leaky ReLU 左侧保留 {number(LEAK)}。（0 处 torch 取左侧斜率。）",
            ),
        ),
        table=Table((Text("x", "x"), *(Text(name, name) for name in ACTIVATIONS)), rows, right=(0, 1, 2, 3, 4)),
        numbers={
            "steepest_sigmoid": steepest,
            "bound_20": steepest**20,
            "slopes": {name: known[name][1] for name in ACTIVATIONS},
        },
    )


def measure(name: str, depths: tuple[int, ...], width: int, seed: int) -> dict[int, float]:
    """Return, for each depth, how much of the gradient is left after passing back through so many layers.

    Measured: the norm of the gradient at the input divided by that at the output, for 256 normal inputs and weights
    drawn with variance gain²/width.
    """
    left = {}
    for depth in depths:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(SAMPLES, width, dtype=torch.float64, generator=generator).requires_grad_()
        after = x
        for _ in range(depth):
            weight = torch.randn(width, width, dtype=torch.float64, generator=generator) * (GAINS[name] / width**0.5)
            after = ACTIVATIONS[name](after @ weight.T)
        back = torch.randn(after.shape, dtype=torch.float64, generator=generator)
        after.backward(back)
        assert x.grad is not None
        left[depth] = float(x.grad.norm() / back.norm())
    return left


def gradients_part(measured: dict[str, dict[int, float]], depths: tuple[int, ...], width: int) -> Part:
    """Return the part with the gradients measured through nets of growing depth."""
    rows = tuple((name, *(_short(left[depth]) for depth in depths)) for name, left in measured.items())
    sigmoid, relu = measured["sigmoid"][depths[-1]], measured["relu"][depths[-1]]
    columns = (Text("activation", "激活函数"), *(Text(f"{depth} layers", f"{depth} 层") for depth in depths))
    return Part(
        "gradients",
        Text("Gradients through many layers", "梯度穿过许多层"),
        (
            Text(
                f"Measured: layers of {width} units, {SAMPLES} random inputs, weights drawn as each activation's"
                " authors advise. The number is how long the gradient is at the input, where it is 1 at the output.",
                f"实测：每层 {width} 个单元，{SAMPLES} 个随机输入，权重按各激活函数的通行做法初始化。"
                "表中是梯度传回输入时的长度，以输出处为 1。",
            ),
            Text(
                f"After {depths[-1]} layers the sigmoid leaves {_short(sigmoid)}, the ReLU {_short(relu)}. The first"
                " layers of a net learn as fast as their gradient is long: in a deep net of sigmoids, not at all.",
                f"{depths[-1]} 层之后，sigmoid 只剩 {_short(sigmoid)}，ReLU 还有 {_short(relu)}。"
                "前几层学得多快，取决于梯度有多长：sigmoid 网络一深，前几层就什么也学不到。",
            ),
        ),
        table=Table(columns, rows, right=tuple(range(1, len(columns)))),
        chart=Chart(
            Text("layers", "层数"),
            Text("gradient left", "剩余梯度"),
            tuple(float(depth) for depth in depths),
            {name: tuple(left[depth] for depth in depths) for name, left in measured.items()},
        ),
        numbers=measured,
    )


def _short(value: float) -> str:
    """Write a measured number with two digits: what the seed decides needs no more."""
    return number(float(f"{value:.2g}"))


def _whole(values: np.ndarray) -> list[tuple[int, int, int]]:
    return [(0, int(i), int(j)) for i, j in np.ndindex(values.shape)]
