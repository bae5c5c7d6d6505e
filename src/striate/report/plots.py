"""The pictures of a run: plain data in, one PNG file out.

Every function writes its file whole or not at all, gives the same bytes for the same input, and may be called from any
thread. Pictures are uint8 `(H, W, C)` or `(H, W)`; probabilities and accuracies are fractions. Errors: DataError for
nothing to draw or lists of unequal length, StriateError for a path that cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.errors import DataError
from striate.files import write_bytes
from striate.report import canvas, charts
from striate.report.canvas import BLUE, FAINT_INK, ORANGE

Rows = Sequence[Mapping[str, Any]]
Steps = tuple[Sequence[float], Sequence[float]]

MOST_PICTURES = 400
NUMBERS_UP_TO = 25  # classes; beyond that the counts in the cells cannot be read
NAMES_UP_TO = 100  # classes
BARS_UP_TO = 12  # classes
TOP_BARS = 10


def sample_grid(path: Path | str, images: Sequence[Any] | NDArray[Any], labels: Sequence[str], title: str = "") -> None:
    """Draw pictures `(N, H, W, C)` in a grid, each with its label below; the first 400 of more."""
    _same_length(images=images, labels=labels)
    if len(images) > MOST_PICTURES:
        title = f"{title}: the first {MOST_PICTURES} of {len(images):,}".removeprefix(": ")
    _grid(path, images, [[str(label)] for label in labels[:MOST_PICTURES]], title)


def augmentation_sheet(
    path: Path | str, images: NDArray[Any], rows: Sequence[tuple[str, NDArray[Any]]], title: str = ""
) -> None:
    """Draw pictures `(N, H, W, C)`, and beside each what each operation makes of it in one epoch after the other.

    `rows` holds the operation's text and its versions `(epochs, N, H, W, C)`.
    """
    _same_length(images=images, rows=rows[0][1][0] if rows else [])
    tile_rows = [
        [canvas.as_tile(picture, 80) for picture in (images[number], *made[:, number])]
        for _, made in rows
        for number in range(len(images))
    ]
    columns = len(tile_rows[0])
    side = max(max(tile.shape[:2]) for tile in tile_rows[0])
    cell, left = side + 8, 36 + int(max(canvas.text_width(text, 9.5) for text, _ in rows))
    figure = canvas.new_figure(left + columns * cell + 16, len(tile_rows) * cell + (86 if title else 52))
    top = (canvas.heading(figure, title) or 16) + 20
    for column in range(columns):
        name = f"epoch {column}" if column else "picture"
        canvas.write_at(figure, left + column * cell + side / 2 + 4, top - 16, name, 8.5, ha="center", color=FAINT_INK)
    for number, (text, _) in enumerate(rows):
        canvas.write_at(figure, 20, top + (number * len(images) + 0.5) * cell - 6, text)
    canvas.tiles(figure, [tile for row in tile_rows for tile in row], left, top, (cell, cell), columns)
    canvas.save(figure, path)


def mistakes(
    path: Path | str,
    images: Sequence[Any] | NDArray[Any],
    true: Sequence[str],
    predicted: Sequence[str],
    probability: Sequence[float] | NDArray[Any],
    title: str = "",
    indices: Sequence[int] | None = None,
    most: int = 24,
) -> None:
    """Draw the most confident wrong answers, surest first: true → predicted and the probability given to it.

    Takes all samples or only the wrong ones: a sample with `true == predicted` is passed over. `indices` are the
    samples' numbers in their data set, shown so that one can be asked for. With no mistake the picture says so.
    """
    _same_length(images=images, true=true, predicted=predicted, probability=probability)
    wrong = [index for index in range(len(images)) if true[index] != predicted[index]]
    if not wrong:
        figure = canvas.new_figure(520, 120)
        top = canvas.heading(figure, title or "Most confident mistakes")
        canvas.write_at(figure, 20, top + 8, f"None: all {len(images):,} answers are right.", 11)
        return canvas.save(figure, path)
    wrong = sorted(wrong, key=lambda index: (-float(probability[index]), index))[:most]
    side, size = 112, 9.5
    pairs = [f"{true[index]} → {predicted[index]}" for index in wrong]
    on_one_line = all(canvas.text_width(pair, size) <= side + 16 for pair in pairs)
    captions = []
    for index, pair in zip(wrong, pairs):
        sure = canvas.percent(float(probability[index]))
        lines = [pair, sure] if on_one_line else [str(true[index]), f"→ {predicted[index]}", sure]
        if indices is not None:
            lines[-1] += f" · #{indices[index]}"
        captions.append(lines)
    _grid(path, [images[index] for index in wrong], captions, title or "Most confident mistakes: true → predicted")


def curves_png(steps: Steps, results: Rows, title: str = "") -> bytes:
    """Draw what `curves` writes and return it as PNG bytes."""
    figure = canvas.new_figure(1160, 460)
    top = canvas.heading(figure, title)
    left = canvas.chart_at(figure, 76, top + 44, 480, 460 - top - 104)
    right = canvas.chart_at(figure, 650, top + 44, 480, 460 - top - 104)
    canvas.plain(left, "step", "loss", "Loss")
    canvas.plain(right, "epoch", "accuracy, %", "Accuracy")
    charts.draw_losses(left, steps, results)
    epochs = canvas.numbers(results, "epoch")
    train, validation = (100 * canvas.numbers(results, key) for key in ("train_accuracy", "val_accuracy"))
    if np.isfinite(train).any():
        charts.draw_line(right, epochs, train, color=BLUE, label="train, running mean of the epoch")
    if np.isfinite(validation).any():
        # The run keeps the epoch of the highest accuracy and, among equals, of the lowest loss.
        order = np.lexsort(
            (np.nan_to_num(canvas.numbers(results, "val_loss"), nan=np.inf), -np.nan_to_num(validation, nan=-np.inf))
        )
        best = int(order[0])
        label = f"validation, best {validation[best]:.2f} % at epoch {epochs[best]:g}"
        charts.draw_line(right, epochs, validation, color=ORANGE, label=label)
    charts.epoch_axis(right, epochs)
    charts.finish_accuracy(right)
    canvas.legend(right, loc="lower right")
    return canvas.png(figure)


def curves(path: Path | str, steps: Steps, results: Rows, title: str = "") -> None:
    """Draw the loss of each step and of validation at the left, train and validation accuracy per epoch at the right.

    `steps` is (step numbers, losses), `results` the rows of results.csv, as text or numbers; an empty cell is not
    drawn. A long series is reduced to at most 2,000 means of neighbouring steps. The loss axis is logarithmic when what
    it shows spans a factor of ten or more; lone outliers may leave it.
    """
    write_bytes(Path(path), curves_png(steps, results, title))


def compare_curves(path: Path | str, runs: Mapping[str, Rows], title: str = "") -> None:
    """Draw the train loss and the validation accuracy of several runs against the epoch, all on the same axes.

    A run without validation shows its train accuracy, and its name says so.
    """
    if not runs:
        raise DataError("there is no run to compare")
    columns = 2 if len(runs) > 1 else 1
    legend_height = 24 * -(-len(runs) // columns)
    figure = canvas.new_figure(1160, 480 + legend_height)
    top = canvas.heading(figure, title)
    left = canvas.chart_at(figure, 76, top + 44, 480, 480 - top - 124)
    right = canvas.chart_at(figure, 650, top + 44, 480, 480 - top - 124)
    canvas.plain(left, "epoch", "loss", "Train loss")
    longest, seen, handles, labels = np.zeros(0), np.zeros(0), [], []
    for number, (name, rows) in enumerate(runs.items()):
        look = {
            "color": canvas.SERIES[number % len(canvas.SERIES)],
            "linestyle": canvas.STROKES[number // len(canvas.SERIES) % len(canvas.STROKES)],
        }
        epochs = canvas.numbers(rows, "epoch")
        longest = epochs if len(epochs) > len(longest) else longest
        loss = canvas.numbers(rows, "train_loss")
        charts.draw_line(left, epochs, loss, **look)
        seen = np.append(seen, loss[np.isfinite(loss)])
        accuracy = 100 * canvas.numbers(rows, "val_accuracy")
        note = ""
        if not np.isfinite(accuracy).any():
            accuracy, note = 100 * canvas.numbers(rows, "train_accuracy"), " (no validation: train accuracy)"
        if np.isfinite(accuracy).any():
            note = f": best {np.nanmax(accuracy):.2f} %{note}"
        handles.append(charts.draw_line(right, epochs, accuracy, **look))
        labels.append(canvas.shorten(name, 1000 / columns - 250, 9.5) + note)
    all_validated = not any("no validation" in label for label in labels)
    canvas.plain(right, "epoch", "accuracy, %", "Validation accuracy" if all_validated else "Accuracy")
    if len(seen):
        charts.loss_scale(left, seen)
    for axes in (left, right):
        charts.epoch_axis(axes, longest)
    charts.finish_accuracy(right)
    place = (66 / 1160, 12 / (480 + legend_height))
    below: dict[str, Any] = {"fontsize": 9.5, "frameon": False, "labelcolor": canvas.INK}
    figure.legend(handles, labels, loc="lower left", bbox_to_anchor=place, ncols=columns, **below)
    canvas.save(figure, path)


def confusion_matrix(
    path: Path | str, confusion: Sequence[Sequence[int]] | NDArray[Any], classes: Sequence[str], title: str = ""
) -> None:
    """Draw a confusion matrix `(K, K)`: rows are the truth, columns the answers, colour the share of the row.

    Counts stand in the cells up to 25 classes, names at the axes up to 100. The colour grows with the square root of
    the share, so that rare mistakes can be seen.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    number = len(classes)
    if number == 0 or counts.shape != (number, number):
        raise DataError(f"a confusion matrix of shape {counts.shape} does not fit {number} class names")
    cell = _cell_side(number)
    name_size = max(5.0, min(10.0, cell * 0.62))
    names = [canvas.shorten(name, 150, name_size) for name in classes] if number <= NAMES_UP_TO else []
    margin = int(max([canvas.text_width(name, name_size) for name in names] or [30]))
    turn = 0 if not names or margin < cell - 4 else 45 if number <= NUMBERS_UP_TO else 90
    below = {0: 22, 45: int(margin * 0.7) + 20, 90: margin + 8}[turn]
    left, side = margin + 62, cell * number
    figure = canvas.new_figure(max(left + side + 128, 440), 78 + side + below + 44)
    canvas.heading(figure, title or "Confusion matrix")
    total, right = int(counts.sum()), int(counts.diagonal().sum())
    if total:
        summary = f"{right:,} of {total:,} right, {100 * right / total:.2f} %"
        canvas.write_at(figure, 20, 47, summary, 10, color=FAINT_INK)
    axes = canvas.axes_at(figure, left, 78, side, side)
    canvas.plain(axes, "predicted class", "true class")
    axes.grid(False)
    charts.cells(figure, axes, counts, (left + side + 22, 78, min(side, 320)))
    if names:
        turned: dict[str, Any] = {"rotation": turn}
        if turn == 45:
            turned |= {"ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(number), names, fontsize=name_size, **turned)
        axes.set_yticks(range(number), names, fontsize=name_size)
    axes.tick_params(length=0)
    if number <= NUMBERS_UP_TO:
        charts.write_counts(axes, counts, cell)
    canvas.save(figure, path)


def prediction(path: Path | str, image: NDArray[Any], probabilities: Mapping[str, float], title: str = "") -> None:
    """Draw a picture beside bars of its class probabilities: all in class order up to 12, else the ten highest."""
    if not probabilities:
        raise DataError("there are no probabilities to draw")
    names = list(probabilities)
    if len(names) > BARS_UP_TO:
        names = sorted(names, key=lambda name: -float(probabilities[name]))[:TOP_BARS]
    label_width = charts.label_width(names)
    tile = canvas.as_tile(image, 300)
    bars_height = max(26 * len(names), 90)
    content = max(bars_height + 92, tile.shape[0] + 48)
    bars_left = 20 + tile.shape[1] + 36 + label_width
    figure = canvas.new_figure(bars_left + 400 + 96, content + (50 if title else 12))
    top = canvas.heading(figure, title) or 12
    canvas.paste(figure, tile, 20, top + 28)
    axes = canvas.axes_at(figure, bars_left, top + 28, 400, bars_height)
    best = max(probabilities, key=lambda name: float(probabilities[name]))
    answer = canvas.shorten(best, 260, 11.5)
    shown = "" if len(names) == len(probabilities) else f", {len(names)} likeliest of {len(probabilities)} classes"
    charts.bars(axes, names, probabilities, f"{answer}: {canvas.percent(float(probabilities[best]))}{shown}")
    canvas.save(figure, path)


def compare_answers(
    path: Path | str, image: NDArray[Any], answers: Mapping[str, Mapping[str, float]], title: str = ""
) -> None:
    """Draw a picture and, side by side, each run's class probabilities in the same order of classes.

    More than 12 classes: the five likeliest of each run, at most 15 in all. A class that a run does not know has no
    bar. Four runs stand in a row.
    """
    if not answers or not all(answers.values()):
        raise DataError("there are no answers to compare")
    names = list(dict.fromkeys(name for row in answers.values() for name in row))
    if len(names) > BARS_UP_TO:
        favourites = {name for row in answers.values() for name in sorted(row, key=lambda key: -float(row[key]))[:5]}
        highest = {name: max(float(row.get(name, 0.0)) for row in answers.values()) for name in favourites}
        names = sorted(favourites, key=lambda name: (-highest[name], name))[:15]
    tile = canvas.as_tile(image, 240)
    label_width, across = charts.label_width(names), min(4, len(answers))
    down = -(-len(answers) // across)
    panel_width, panel_height = 190, max(24 * len(names), 90)
    slot_width, slot_height = panel_width + 92, panel_height + 104
    first_left = 20 + tile.shape[1] + 32 + label_width
    height = max(down * slot_height, tile.shape[0] + 48)
    figure = canvas.new_figure(first_left + across * slot_width, height + (50 if title else 12))
    top = canvas.heading(figure, title) or 12
    canvas.paste(figure, tile, 20, top + 44)
    for number, (run, row) in enumerate(answers.items()):
        column, line = number % across, number // across
        axes = canvas.axes_at(
            figure, first_left + column * slot_width, top + 44 + line * slot_height, panel_width, panel_height
        )
        best = max(row, key=lambda name: float(row[name]))
        answer = f"{canvas.shorten(best, 150, 10.5)}: {canvas.percent(float(row[best]))}"
        charts.bars(axes, names, row, f"{canvas.shorten(run, slot_width - 16, 10.5)}\n{answer}", named=column == 0)
    canvas.save(figure, path)


def _cell_side(classes: int) -> int:
    """Return the pixels of a confusion matrix's cell: room for four digits while there are numbers, then less."""
    if classes <= 10:
        return max(46, -(-184 // classes))
    return 36 if classes <= NUMBERS_UP_TO else max(1, min(24, 1150 // classes))


def _grid(path: Path | str, images: Sequence[Any] | NDArray[Any], captions: list[list[str]], title: str) -> None:
    """Draw pictures in a grid with one or more lines below each: the first in ink, the others fainter."""
    columns = canvas.grid_columns(len(captions))
    pictures = [canvas.as_tile(image, 112) for image in images[: len(captions)]]
    lines = max(len(caption) for caption in captions)
    width = max(112, *(tile.shape[1] for tile in pictures)) + 20
    tallest = max(tile.shape[0] for tile in pictures)
    height = tallest + 14 + 17 * lines + 10
    rows = -(-len(pictures) // columns)
    for_title = min(canvas.text_width(title, 13) + 44, 760)
    figure = canvas.new_figure(round(max(columns * width + 24, for_title)), rows * height + (56 if title else 24))
    top = canvas.heading(figure, title) or 16
    canvas.tiles(figure, pictures, 12, top, (width, height), columns)
    for index, caption in enumerate(captions):
        middle = 12 + index % columns * width + width / 2
        below = top + index // columns * height + tallest + 8
        for line, words in enumerate(caption):
            look: dict[str, Any] = {} if line == 0 else {"color": FAINT_INK}
            words = canvas.shorten(words, width - 6, 9.5)
            canvas.write_at(figure, middle, below + 17 * line, words, 9.5, ha="center", **look)
    canvas.save(figure, path)


def _same_length(**columns: Any) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            "there must be one of each per picture", ", ".join(f"{n} {name}" for name, n in lengths.items())
        )
    if not next(iter(lengths.values())):
        raise DataError("there is no picture to draw", "the selection is empty", "choose another split or range")
