"""The lesson `batchnorm`: what it does while training and afterwards, and why a batch of one fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import instance_norm

from striate.errors import UsageError
from striate.lessons.lesson import Frame, Grid, Lesson, Part, Scene, Table, Text, Values, factor, number
from striate.lessons.reading import read_batches
from striate.lessons.titles import TITLES

INPUT, MOMENTUM, EPS = "1,3,5,7;2,4,6,8;0,2,4,10", 0.1, 1e-5  # momentum and eps are torch's defaults


def batchnorm_lesson(input: Any = None, momentum: float | None = None) -> Lesson:
    """Return the lesson. `input` holds batches of one feature, parted by semicolons."""
    batches = read_batches(INPUT if input is None else input, "--input")
    share = MOMENTUM if momentum is None else momentum
    for n, batch in enumerate(batches):
        if len(batch) < 2:
            raise UsageError(
                f"batch {n + 1} of --input has one number",
                torch_refusal(torch.zeros(1, 1), nn.BatchNorm1d(1)),
                "give each batch at least two numbers: 1,3;2,4",
            )
    steps = follow(batches, share)
    parts = (
        train_part(batches, steps, share),
        eval_part(batches[-1], steps[-1]),
        one_part(),
        momentum_part(share),
    )
    return Lesson("batchnorm", *TITLES["batchnorm"], parts)


def follow(batches: list[Values], momentum: float) -> list[dict[str, Any]]:
    """Return for each batch its mean, variances, normalised values, and the running statistics after it."""
    mean, variance = 0.0, 1.0
    steps = []
    for batch in batches:
        own, biased, unbiased = float(batch.mean()), float(batch.var()), float(batch.var(ddof=1))
        before = (mean, variance)
        mean = (1 - momentum) * mean + momentum * own
        variance = (1 - momentum) * variance + momentum * unbiased
        steps.append(
            {
                "mean": own,
                "variance": biased,
                "unbiased_variance": unbiased,
                "normalised": normalise(batch, own, biased),
                "before": before,
                "running_mean": mean,
                "running_variance": variance,
            }
        )
    return steps


def normalise(values: Values, mean: float, variance: float) -> Values:
    """Return (x − mean)/√(variance + eps)."""
    return (values - mean) / np.sqrt(variance + EPS)


def train_part(batches: list[Values], steps: list[dict[str, Any]], momentum: float) -> Part:
    """Return the part that follows batches in training."""
    return Part(
        "train",
        Text("In training", "训练模式"),
        (
            Text(
                "Each number becomes (x − mean)/√(variance + ε), with mean and variance of its own batch. The result"
                " has mean 0 and variance 1; a learnt scale γ and shift β follow, at first 1 and 0.",
                "每个数变成 (x − 均值)/√(方差 + ε)，均值和方差取自它所在的这一批。结果均值为 0、方差为 1；"
                "之后再乘以可学习的缩放 γ、加上平移 β，起初为 1 和 0。",
            ),
            Text(
                f"The running statistics move by momentum = {number(momentum)} towards each batch's: running ← (1 −"
                " m)·running + m·batch. They begin with 0 and 1. The running variance takes the batch's variance"
                " divided by n − 1.",
                f"移动统计量按动量 m = {number(momentum)} 向每一批靠近：移动值 ← (1 − m)·移动值 + m·本批。"
                "初值为 0 和 1。移动方差采用除以 n − 1 的方差。",
            ),
        ),
        _scene(batches, steps, momentum),
        numbers={"batches": [{name: step[name] for name in step if name != "before"} for step in steps]},
    )


def _scene(batches: list[Values], steps: list[dict[str, Any]], momentum: float) -> Scene:
    grids, frames = [], []
    keep = 1 - momentum
    running = {"running mean": 0, "running variance": 0}
    for k, (batch, step) in enumerate(zip(batches, steps)):
        input_key, output_key = f"batch {k}", f"normalised {k}"
        name, name_zh = (f" {k + 1}", f" {k + 1}") if len(batches) > 1 else ("", "")
        grids += [
            Grid(
                input_key,
                Text(f"batch{name}", f"第{name_zh} 批" if name else "一批"),
                batch[None, None],
                "input",
                group="batch",
            ),
            Grid(
                output_key, Text("normalised", "归一化后"), step["normalised"][None, None], "output", group="normalised"
            ),
        ]
        whole = [(0, 0, n) for n in range(len(batch))]
        unknown = {f"normalised {later}": 0 for later in range(k, len(batches))}
        added = " + ".join(factor(value) for value in batch)
        mean, variance = step["mean"], step["variance"]
        squares = " + ".join(f"{factor(value - mean)}²" for value in batch)
        first = ", ".join(number(value) for value in step["normalised"])
        n = len(batch)
        for says, sums, at in (
            (Text(f"Batch {k + 1}: mean", f"第 {k + 1} 批：均值"), f"({added})/{n} = {number(mean)}", {}),
            (Text(f"Batch {k + 1}: variance", f"第 {k + 1} 批：方差"), f"({squares})/{n} = {number(variance)}", {}),
            (
                Text(f"Batch {k + 1}: normalised", f"第 {k + 1} 批：归一化"),
                f"(x − {factor(mean)})/√({number(variance)} + ε) = {first}",
                {output_key: whole},
            ),
        ):
            filled = {**unknown, **running}
            if at:
                filled[output_key] = n
            frames.append(Frame(says, sums, {input_key: whole, output_key: whole}, at, filled))
        old_mean, old_variance = step["before"]
        done = {key: count for key, count in unknown.items() if key != output_key}
        for key, says, sums in (
            (
                "running mean",
                Text("Running mean", "移动均值"),
                f"{number(keep)}·{factor(old_mean)} + {number(momentum)}·{factor(mean)} ="
                f" {number(step['running_mean'])}",
            ),
            (
                "running variance",
                Text("Running variance", "移动方差"),
                f"{number(keep)}·{factor(old_variance)} + {number(momentum)}·{factor(step['unbiased_variance'])} ="
                f" {number(step['running_variance'])}",
            ),
        ):
            running = {**running, key: k + 1}
            frames.append(
                Frame(says, sums, {input_key: whole, output_key: whole}, {key: [(0, 0, k)]}, {**done, **running})
            )
    for key, name in (("running mean", "running_mean"), ("running variance", "running_variance")):
        title = Text(f"{key}, after each batch", f"{'移动均值' if key == 'running mean' else '移动方差'}（每批之后）")
        grids.append(Grid(key, title, np.array([[[step[name] for step in steps]]]), "weight"))
    return Scene(tuple(grids), tuple(frames))


def eval_part(batch: Values, last: dict[str, Any]) -> Part:
    """Return the part on evaluation: the same batch with the running statistics."""
    mean, variance = last["running_mean"], last["running_variance"]
    answered = normalise(batch, mean, variance)
    rows = tuple(
        (number(x), number(train), number(after)) for x, train, after in zip(batch, last["normalised"], answered)
    )
    columns = (Text("x", "x"), Text("in training", "训练模式"), Text("in evaluation", "评估模式"))
    return Part(
        "eval",
        Text("In evaluation", "评估模式"),
        (
            Text(
                "After model.eval() the batch's own numbers no longer count: (x −"
                f" {number(mean)})/√({number(variance)} + ε). So a picture gets one answer, whatever stands beside it"
                " in the batch.",
                f"model.eval() 之后不再看本批的统计量：(x − {number(mean)})/√({number(variance)} + ε)。"
                "于是一张图片只有一个答案，与同批还有谁无关。",
            ),
            Text(
                "Both columns differ: the running statistics are those of all batches so far and still hold some of"
                " the 0 and 1 they began with. A forgotten model.eval(), or too few steps, shows as an accuracy that"
                " is good in training and poor afterwards.",
                "两列不同：移动统计量来自至今所有的批，还残留着初值 0 和 1。忘了调用 model.eval()，或训练步数太少，"
                "就会出现训练时准确率高、之后却很差的现象。",
            ),
        ),
        table=Table(columns, rows, right=(0, 1, 2)),
        numbers={"train": last["normalised"], "eval": answered},
    )


def torch_refusal(values: torch.Tensor, layer: nn.Module) -> str:
    """Return what torch says when a layer in training refuses values."""
    try:
        layer.train()(values)
    except ValueError as error:
        return str(error)
    raise AssertionError("the layer took the values")


def one_part() -> Part:
    """Return the part on a batch of one."""
    flat = torch_refusal(torch.zeros(1, 8), nn.BatchNorm1d(8))
    single = torch_refusal(torch.zeros(1, 8, 1, 1), nn.BatchNorm2d(8))
    maps = torch.arange(2 * 2 * 3, dtype=torch.float64).remainder(7).view(1, 2, 2, 3)
    by_batch = nn.BatchNorm2d(2).double().train()(maps).detach()
    by_instance = instance_norm(maps, eps=EPS)
    difference = float((by_batch - by_instance).abs().max())
    return Part(
        "one",
        Text("Why a batch of one fails", "为什么一批只有一个样本会失败"),
        (
            Text(
                "One number is its own mean and has variance 0: (x − x)/√(0 + ε) = 0 whatever x is, so nothing of the"
                f" input is left. The variance with n − 1 would divide by 0. torch refuses: “{flat}”.",
                "只有一个数时，均值就是它自己，方差为 0：不管 x 是几，(x − x)/√(0 + ε) = 0，输入的信息荡然无存；"
                f"除以 n − 1 的方差更是除以 0。torch 直接拒绝：“{flat}”。",
            ),
            Text(
                f"Maps of 1×1 have one number a channel too: “{single}”.",
                f"1×1 的特征图每个通道也只有一个数：“{single}”。",
            ),
            Text(
                "Larger maps of a single picture pass, as their places are counted together. But then each picture is"
                " normalised by itself, which is instance normalisation (largest difference"
                f" {number(round(difference, 9))}), and what is learnt so does not fit the running statistics of"
                " evaluation.",
                "单张图片若特征图更大，则可以通过，因为各位置的数合在一起统计。但这等于每张图片各自归一化，"
                f"即实例归一化（最大差 {number(round(difference, 9))}），"
                "这样学到的东西与评估时用的移动统计量并不相配。",
            ),
            Text(
                "Way out: larger batches, drop_last=True, or another normalisation.",
                "出路：用更大的批，DataLoader 设 drop_last=True，或换别的归一化。",
            ),
        ),
        numbers={"flat": flat, "one_by_one": single, "difference_to_instance_norm": difference},
    )


def momentum_part(momentum: float) -> Part:
    """Return the part on how many batches the running statistics need."""
    counts = (1, 5, 10, 20, 50)
    reached = {count: 1 - (1 - momentum) ** count for count in counts}
    row = tuple(f"{100 * reached[count]:.1f} %" for count in counts)
    columns = tuple(Text(f"{count} batches" if count > 1 else "1 batch", f"{count} 批") for count in counts)
    needed = next((count for count in range(1, 100_000) if 1 - (1 - momentum) ** count >= 0.99), None)
    return Part(
        "momentum",
        Text("How long the running statistics take", "移动统计量要多久才准"),
        (
            Text(
                f"If all batches were alike, the running mean would have come so far towards theirs after n batches:"
                f" 1 − (1 − {number(momentum)})ⁿ" + (f". For 99 % it takes {needed}." if needed else "."),
                f"假设各批都一样，n 批之后移动均值走完的路程为 1 − (1 − {number(momentum)})ⁿ"
                + (f"；走到 99 % 需要 {needed} 批。" if needed else "。"),
            ),
        ),
        table=Table(columns, (row,), right=tuple(range(len(counts)))),
        numbers={"reached": reached, "for_99_percent": needed},
    )
