"""What is drawn inside axes: loss and accuracy lines, bars of probabilities, the cells of a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from striate.report import canvas
from striate.report.canvas import BLUE, FAINT_INK, INK, ORANGE, PALE_BLUE

Floats = NDArray[np.float64]

MOST_POINTS = 2000  # more than the pixels of the axis
SMOOTHED_OVER = 40  # the smoothed line is a running mean over a 40th of the series
LOG_FROM_FACTOR = 10.0


def reduce_series(steps: Floats, values: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats, int]:
    """Reduce a series to at most `most` means of neighbouring values; also return how many went into each."""
    block = max(1, -(-len(values) // most))
    if block == 1:
        return steps, values, 1
    starts = np.arange(0, len(values), block)
    sizes = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(values, starts) / sizes, block


def smooth(values: Floats, window: int) -> Floats:
    """Return the centred running mean, from the first step to the last.

    At the start, where the loss falls steeply, the window shrinks on both sides; at the end it keeps its earlier half,
    so that the last value is not the noise of a single step.
    """
    half = max(0, window // 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    before = np.minimum(half, place)
    after = np.minimum(before, len(values) - 1 - place)
    return (sums[place + after + 1] - sums[place - before]) / (before + after + 1)


def draw_losses(
    axes: Axes, steps: tuple[Sequence[float], Sequence[float]], results: Sequence[Mapping[str, Any]]
) -> None:
    """Draw the loss per step, faint, its running mean, and the validation loss at each epoch's last step."""
    where, losses = (np.asarray(series, dtype=np.float64) for series in steps)
    drawn = np.isfinite(losses)
    where, losses, block = reduce_series(where[drawn], losses[drawn])
    validation_at, validation = canvas.numbers(results, "step"), canvas.numbers(results, "val_loss")
    measured = np.isfinite(validation) & np.isfinite(validation_at)
    seen = validation[measured]
    if len(losses):
        smoothed = smooth(losses, len(losses) // SMOOTHED_OVER)
        few = "o" if len(losses) == 1 else ""
        each = "each step" if block == 1 else f"means of {block:,} steps"
        axes.plot(where, losses, color=PALE_BLUE, linewidth=0.8, marker=few, label=f"train, {each}")
        axes.plot(where, smoothed, color=BLUE, linewidth=1.8, marker=few, label="train, running mean")
        seen = np.concatenate([seen, smoothed, np.percentile(losses, [1, 99])])
    if measured.any():
        marker = "o" if measured.sum() <= 40 else ""
        look: dict[str, Any] = {"color": ORANGE, "linewidth": 1.8, "marker": marker, "markersize": 4.5}
        axes.plot(validation_at[measured], validation[measured], label="validation", **look)
    if not len(seen):
        _say_empty(axes, "no loss recorded yet")
        return
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    loss_scale(axes, seen)
    canvas.legend(axes, loc="upper right")


def loss_scale(axes: Axes, seen: Floats) -> None:
    """Choose the span of the loss axis from what is to be seen, and make it logarithmic from a factor of ten on."""
    low, high = float(seen.min()), float(seen.max())
    if low > 0 and high / low >= LOG_FROM_FACTOR:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        decades = np.log10(high / low)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        axes.set_ylabel("loss (logarithmic axis)")
        return
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    axes.set_ylim(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin)


def draw_line(axes: Axes, across: Floats, up: Floats, **look: Any) -> Line2D:
    """Draw a line through the points that exist, with a mark on each while they are few."""
    there = np.isfinite(across) & np.isfinite(up)
    marker = "o" if there.sum() <= 40 else ""
    whole: dict[str, Any] = {"linewidth": 1.8, "marker": marker, "markersize": 4.5} | look
    return axes.plot(across[there], up[there], **whole)[0]


def finish_accuracy(axes: Axes) -> None:
    """Keep the accuracy axis, in percent, within what can be, and at least two points high."""
    if any(len(line.get_xdata()) for line in axes.lines):  # type: ignore[arg-type]
        low, high = axes.get_ylim()
        wider = max(0.0, 2.0 - (high - low)) / 2
        axes.set_ylim(max(low - wider, -1.0), min(high + wider, 100.5))


def epoch_axis(axes: Axes, epochs: Floats) -> None:
    """Let the epoch axis show whole numbers and stand still for a single epoch."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    known = epochs[np.isfinite(epochs)]
    if len(known) == 0:
        _say_empty(axes, "no epoch finished yet")
    elif known.min() == known.max():
        axes.set_xlim(known[0] - 1, known[0] + 1)


def _say_empty(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=FAINT_INK, fontsize=10.5)
    axes.set_xticks([])
    axes.set_yticks([])


def bars(axes: Axes, names: Sequence[str], values: Mapping[str, float], title: str, named: bool = True) -> None:
    """Draw a horizontal bar for each class, in the given order from the top, the highest one stronger."""
    heights = np.array([100 * float(values.get(name, 0.0)) for name in names])
    best = max(values, key=lambda name: float(values[name]))
    colours = [BLUE if name == best else PALE_BLUE for name in names]
    places = np.arange(len(names))
    canvas.plain(axes, "probability, %", "", title)
    axes.barh(places, heights, height=0.72, color=colours)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(places, [canvas.shorten(name, 190, 10) if named else "" for name in names], fontsize=10)
    axes.spines["left"].set_visible(False)
    for place, (name, height) in enumerate(zip(names, heights)):
        words = canvas.percent(float(values[name])) if name in values else "unknown here"
        axes.text(height + 1.5, place, words, va="center", fontsize=9, color=INK if name == best else FAINT_INK)


def label_width(names: Sequence[str]) -> int:
    """Return the pixels that the names beside bars need."""
    return round(max(canvas.text_width(canvas.shorten(name, 190, 10), 10) for name in names)) + 10


def cells(figure: Figure, axes: Axes, counts: NDArray[np.int64], scale_at: tuple[int, int, int]) -> None:
    """Colour a confusion matrix by the share of each row and draw the scale (left, top, height in pixels) beside it."""
    shades = [(0.0, "#ffffff"), (0.1, "#d9e7f3"), (0.3, "#adcbe4"), (0.7, "#5590c3"), (1.0, "#1f5288")]
    colours = LinearSegmentedColormap.from_list("striate", shades).with_extremes(bad="#f1f2f4")
    norm = PowerNorm(0.5, vmin=0, vmax=100)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan))
    axes.imshow(shares, cmap=colours, norm=norm, interpolation="nearest", aspect="auto")
    for spine in axes.spines.values():
        spine.set_visible(True)
    left, top, height = scale_at
    scale = canvas.axes_at(figure, left, top, 12, height)
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=scale, ticks=[0, 1, 5, 25, 50, 100])
    scale.minorticks_off()
    scale.tick_params(labelsize=9, labelcolor=INK, length=0)
    bar.set_label("share of the true class, %", fontsize=9.5, color=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def write_counts(axes: Axes, counts: NDArray[np.int64], cell: int) -> None:
    """Write the counts that are not zero into their cells of so many pixels, white on dark ones."""
    longest = max(len(f"{count:,}") for count in counts.ravel())
    size = min(10.0, (cell - 6) / (longest * 0.64) * 72 / canvas.DPI)
    totals = np.maximum(counts.sum(axis=1), 1)
    for row, column in zip(*np.nonzero(counts)):
        dark = counts[row, column] / totals[row] > 0.35
        words = f"{counts[row, column]:,}"
        colour = "white" if dark else INK
        axes.text(column, row, words, ha="center", va="center", fontsize=size, color=colour)
