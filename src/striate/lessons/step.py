"""The lesson `step`: forward, loss, backward and one step of gradient descent for y = wx + b, with every number."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from striate.errors import UsageError
from striate.lessons.lesson import Cell, Frame, Grid, Lesson, Part, Scene, Table, Text, Values, factor, number
from striate.lessons.reading import read_numbers
from striate.lessons.titles import TITLES

X, Y, W, B, RATE, STEPS = "1,3", "3,7", 1.0, 0.0, 0.1, 5


def step_lesson(
    x: Any = None,
    y: Any = None,
    w: float | None = None,
    b: float | None = None,
    lr: float | None = None,
    steps: int | None = None,
) -> Lesson:
    """Return the lesson. Raises UsageError where `x` and `y` differ in length."""
    xs, ys = read_numbers(X if x is None else x, "--x"), read_numbers(Y if y is None else y, "--y")
    if len(xs) != len(ys):
        raise UsageError(
            f"--x has {len(xs)} numbers and --y {len(ys)}",
            "each x needs the y that it should give",
            "give both as many",
        )
    start = (W if w is None else w, B if b is None else b)
    rate = RATE if lr is None else lr
    path = descend(xs, ys, start, rate, steps or STEPS)
    return Lesson("step", *TITLES["step"], (one_step_part(xs, ys, start, rate), path_part(xs, path, rate)))


def work_out(x: Values, y: Values, w: float, b: float) -> dict[str, Any]:
    """Return predictions, errors, loss (mean of squares) and both gradients, by hand."""
    prediction = w * x + b
    error = prediction - y
    return {
        "prediction": prediction,
        "error": error,
        "squared": error**2,
        "loss": float((error**2).mean()),
        "dw": float((2 * error * x).mean()),
        "db": float((2 * error).mean()),
    }


def by_autograd(x: Values, y: Values, w: float, b: float) -> tuple[float, float, float]:
    """Return loss, dw and db as torch finds them."""
    weight, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (w, b))
    loss = ((weight * torch.from_numpy(x) + bias - torch.from_numpy(y)) ** 2).mean()
    loss.backward()
    assert weight.grad is not None and bias.grad is not None
    return loss.item(), weight.grad.item(), bias.grad.item()


def descend(x: Values, y: Values, start: tuple[float, float], rate: float, steps: int) -> list[tuple[float, ...]]:
    """Return (w, b, loss, dw, db) before the first step and after each; ends where a number leaves the finite."""
    w, b = start
    path: list[tuple[float, ...]] = []
    for _ in range(steps + 1):
        with np.errstate(all="ignore"):
            known = work_out(x, y, w, b)
        row = (w, b, known["loss"], known["dw"], known["db"])
        if not np.isfinite(row).all():
            break
        path.append(row)
        w, b = w - rate * known["dw"], b - rate * known["db"]
    return path


def one_step_part(x: Values, y: Values, start: tuple[float, float], rate: float) -> Part:
    """Return the part that works out one step, number by number."""
    w, b = start
    known = work_out(x, y, w, b)
    found = by_autograd(x, y, w, b)
    difference = max(abs(mine - its) for mine, its in zip((known["loss"], known["dw"], known["db"]), found))
    after = (w - rate * known["dw"], b - rate * known["db"])
    then = work_out(x, y, *after)
    return Part(
        "one-step",
        Text("Forward, loss, backward, step", "前向、损失、反向、更新"),
        (
            Text(
                f"{_counted(len(x), 'point', 'points')}; w = {number(w)}, b = {number(b)}, learning rate"
                f" {number(rate)}. The loss is the mean of the squared errors.",
                f"{len(x)} 个数据点；w = {number(w)}，b = {number(b)}，学习率 {number(rate)}。损失是误差平方的平均值。",
            ),
            Text(
                f"The step takes the loss from {number(known['loss'])} to {number(then['loss'])}. Autograd finds the"
                f" same loss and gradients: dL/dw = {number(found[1])}, dL/db = {number(found[2])} (largest difference"
                f" {number(round(difference, 9))}).",
                f"这一步把损失从 {number(known['loss'])} 变为 {number(then['loss'])}。自动求导得到同样的损失和梯度："
                f"dL/dw = {number(found[1])}，dL/db = {number(found[2])}（最大差 {number(round(difference, 9))}）。",
            ),
        ),
        _scene(x, y, start, rate, known, after, then["loss"]),
        numbers={**known, "w": after[0], "b": after[1], "loss_after": then["loss"], "autograd": list(found)},
    )


Lit = dict[str, list[Cell]]
Move = tuple[Text, str, Lit, str]  # what is done, the sum, the cells it reads, the grid it fills


def _scene(
    x: Values,
    y: Values,
    start: tuple[float, float],
    rate: float,
    known: dict[str, Any],
    after: tuple[float, float],
    loss_after: float,
) -> Scene:
    def grid(key: str, title: Text, values: Any, role: str, down: bool = True) -> Grid:
        cells = np.asarray(values, dtype=np.float64).reshape((1, -1, 1) if down else (1, 1, -1))
        return Grid(key, title, cells, role)

    grids = (
        grid("x", Text("x", "x"), x, "input"),
        grid("y", Text("y", "y"), y, "input"),
        grid("parameters", Text("w, b", "w、b"), start, "weight", down=False),
        grid("prediction", Text("prediction", "预测"), known["prediction"], "output"),
        grid("error", Text("error", "误差"), known["error"], "output"),
        grid("squared", Text("squared", "平方"), known["squared"], "output"),
        grid("loss", Text("loss", "损失"), known["loss"], "output"),
        grid("gradients", Text("dL/dw, dL/db", "dL/dw、dL/db"), (known["dw"], known["db"]), "output", down=False),
        grid("after", Text("new w, b", "新的 w、b"), after, "weight", down=False),
    )
    made = dict.fromkeys(("prediction", "error", "squared", "loss", "gradients", "after"), 0)
    frames = [Frame(Text("Data, weight and bias are given.", "已知数据、权重和偏置。"), filled=dict(made), ends=False)]
    shapes = {one.key: one.cells.shape for one in grids}
    for says, sums, lit, key in [*_forward(x, y, start, known), *_backward(x, start, rate, known, after)]:
        row, column = divmod(made[key], shapes[key][2])
        made[key] += 1
        frames.append(Frame(says, sums, lit, {key: [(0, row, column)]}, dict(made)))
    says = Text("Forward once more: the loss after the step", "再前向一次：更新后的损失")
    frames.append(Frame(says, f"L = {number(loss_after)}", {"after": [(0, 0, 0), (0, 0, 1)]}, {}, dict(made)))
    return Scene(grids, tuple(frames))


def _forward(x: Values, y: Values, start: tuple[float, float], known: dict[str, Any]) -> list[Move]:
    """Return the moves from the data to the loss."""
    w, b = start
    points = range(len(x))
    prediction, error, squared = (known[name] for name in ("prediction", "error", "squared"))
    moves: list[Move] = []
    for n in points:
        says = Text(f"Forward, point {n + 1}: wx + b", f"前向，第 {n + 1} 点：wx + b")
        sums = f"{factor(w)}·{factor(x[n])} + {factor(b)} = {number(prediction[n])}"
        moves.append((says, sums, {"x": [(0, n, 0)], "parameters": [(0, 0, 0), (0, 0, 1)]}, "prediction"))
    for n in points:
        says = Text(f"Error, point {n + 1}: prediction − y", f"误差，第 {n + 1} 点：预测 − y")
        sums = f"{factor(prediction[n])} − {factor(y[n])} = {number(error[n])}"
        moves.append((says, sums, {"prediction": [(0, n, 0)], "y": [(0, n, 0)]}, "error"))
    for n in points:
        says = Text(f"Squared, point {n + 1}", f"平方，第 {n + 1} 点")
        moves.append((says, f"{factor(error[n])}² = {number(squared[n])}", {"error": [(0, n, 0)]}, "squared"))
    says = Text("Loss: the mean of the squares", "损失：平方的平均值")
    added = " + ".join(number(value) for value in squared)
    lit: Lit = {"squared": [(0, n, 0) for n in points]}
    return [*moves, (says, f"({added})/{len(x)} = {number(known['loss'])}", lit, "loss")]


def _backward(
    x: Values, start: tuple[float, float], rate: float, known: dict[str, Any], after: tuple[float, float]
) -> list[Move]:
    """Return the moves from the loss to the new weight and bias."""
    column = [(0, n, 0) for n in range(len(x))]
    by_w = " + ".join(f"{factor(error)}·{factor(value)}" for error, value in zip(known["error"], x))
    by_b = " + ".join(factor(error) for error in known["error"])
    moves: list[Move] = [
        (
            Text("Backward: dL/dw is 2/n times the sum of error · x", "反向：dL/dw = 2/n 乘以 误差·x 之和"),
            f"2/{len(x)}·({by_w}) = {number(known['dw'])}",
            {"error": column, "x": column},
            "gradients",
        ),
        (
            Text("Backward: dL/db is 2/n times the sum of the errors", "反向：dL/db = 2/n 乘以误差之和"),
            f"2/{len(x)}·({by_b}) = {number(known['db'])}",
            {"error": column},
            "gradients",
        ),
    ]
    for n, name in enumerate("wb"):
        slope = known[f"d{name}"]
        says = Text(f"Step: {name} − learning rate · dL/d{name}", f"更新：{name} − 学习率 · dL/d{name}")
        sums = f"{factor(start[n])} − {number(rate)}·{factor(slope)} = {number(after[n])}"
        moves.append((says, sums, {"parameters": [(0, 0, n)], "gradients": [(0, 0, n)]}, "after"))
    return moves


def largest_rate(x: Values) -> float:
    """Return the rate beyond which descent leaves the minimum: 2 / the largest eigenvalue of the loss's Hessian."""
    hessian = 2 / len(x) * np.array([[(x * x).sum(), x.sum()], [x.sum(), len(x)]])
    return float(2 / np.linalg.eigvalsh(hessian)[-1])


def path_part(x: Values, path: list[tuple[float, ...]], rate: float) -> Part:
    """Return the part with the steps that follow, and the learning rate at which they would fail."""
    limit = largest_rate(x)
    rows = tuple((str(n), *(number(value) for value in row)) for n, row in enumerate(path))
    columns = tuple(
        Text(name, name_zh)
        for name, name_zh in (
            ("step", "步"),
            ("w", "w"),
            ("b", "b"),
            ("loss", "损失"),
            ("dL/dw", "dL/dw"),
            ("dL/db", "dL/db"),
        )
    )
    verdict = (
        Text("The rate here is below it.", "此处的学习率低于它。")
        if rate < limit
        else Text("The rate here is not below it: see the loss.", "此处的学习率不低于它：请看损失。")
    )
    return Part(
        "path",
        Text("And on", "继续走"),
        (
            Text(
                f"Each further step does the same. For these x a learning rate of {number(limit)} or more never"
                f" arrives: each step overshoots. {verdict.en}",
                f"之后每一步都一样。对这组 x，学习率达到 {number(limit)} 就再也走不到最低点：每一步都迈过了头。"
                f"{verdict.zh}",
            ),
        ),
        table=Table(columns, rows, right=tuple(range(6))),
        numbers={"path": [list(row) for row in path], "largest_rate": limit},
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
