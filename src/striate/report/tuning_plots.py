"""The pictures of a search: how much each parameter matters, and all trials as lines through their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from striate.errors import DataError
from striate.report import canvas


def importance(path: Path | str, shares: Mapping[str, float], title: str = "") -> None:
    """Draw a bar for each parameter's share, the greatest on top. Raises DataError without any."""
    if not shares:
        raise DataError("no parameter has an importance yet", "it needs several trials trained whole", "")
    names = sorted(shares, key=lambda name: shares[name])
    figure = canvas.new_figure(700, 110 + 34 * len(names))
    top = canvas.heading(figure, title)
    axes = canvas.axes_at(figure, 190, top + 10, 440, 34 * len(names))
    bars = axes.barh([canvas.shorten(name, 165, 9.5) for name in names], [100 * shares[n] for n in names], 0.6)
    for bar in bars:
        bar.set_color(canvas.BLUE)
    axes.bar_label(bars, [f"{100 * shares[name]:.0f} %" for name in names], padding=4, fontsize=9.5, color=canvas.INK)
    canvas.plain(axes, "share of the differences in accuracy, %")
    axes.set_xlim(0, 1.15 * max(1.0, *(100 * share for share in shares.values())))
    axes.grid(False, axis="y")
    canvas.save(figure, path)


def parallel(
    path: Path | str,
    trials: Sequence[tuple[float, Mapping[str, Any]]],
    parameters: Mapping[str, Sequence[str] | bool],
    title: str = "",
) -> None:
    """Draw each trial (accuracy, values) as a line from parameter to parameter and on to its accuracy.

    `parameters`: its choices from below, or whether its numbers are on a logarithmic scale. The best trial is bold.
    """
    if not trials:
        raise DataError("no trial to draw", "none has been validated", "")
    names = list(parameters)
    gap = 150
    figure = canvas.new_figure(170 + gap * len(names), 470)
    top = canvas.heading(figure, title)
    axes = canvas.axes_at(figure, 70, top + 40, gap * len(names), 430 - top - 70)
    accuracies = np.array([accuracy for accuracy, _ in trials])
    low, high = accuracies.min(), accuracies.max()
    columns = [_heights([values[name] for _, values in trials], parameters[name]) for name in names]
    heights = np.stack([*(column for column, _ in columns), (accuracies - low) / ((high - low) or 1.0)], axis=1)
    for row in np.argsort(accuracies, kind="stable"):
        best = row == accuracies.argmax()
        shade = canvas.ORANGE if best else colormaps["Blues"](0.25 + 0.65 * heights[row, -1])
        axes.plot(heights[row], color=shade, linewidth=2.6 if best else 1.2, zorder=3 if best else 2)
    ends = [*(marks for _, marks in columns), [(0.0, f"{100 * low:.1f} %"), (1.0, f"{100 * high:.1f} %")]]
    for place, (name, marks) in enumerate(zip([*names, "validation"], ends, strict=True)):
        axes.axvline(place, color="#b8bec8", linewidth=0.8, zorder=1)
        axes.text(place, 1.1, canvas.shorten(name, gap - 14, 9.5), fontsize=9.5, color=canvas.INK, ha="center")
        for height, words in marks:
            text = canvas.shorten(words, gap - 50, 8.5)
            box = {"facecolor": canvas.PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1}
            look: dict[str, Any] = {"fontsize": 8.5, "color": canvas.INK, "va": "center", "zorder": 4, "bbox": box}
            axes.text(place + 0.05, height, text, **look)
    axes.set_xlim(-0.1, len(names) + 0.45)
    axes.set_ylim(-0.08, 1.08)
    axes.axis("off")
    canvas.save(figure, path)


def _heights(values: Sequence[Any], scale: Sequence[str] | bool) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return the values' heights 0–1 and the marks (height, text) beside the axis."""
    if not isinstance(scale, bool):
        steps = max(1, len(scale) - 1)
        places = {choice: number / steps for number, choice in enumerate(scale)}
        return np.array([places[str(value)] for value in values]), [(place, name) for name, place in places.items()]
    numbers = np.array(values, dtype=float)
    low, high = numbers.min(), numbers.max()
    marks = [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]
    measured = np.log(numbers) if scale else numbers
    span = (measured.max() - measured.min()) or 1.0
    return (measured - measured.min()) / span, marks
