"""The sheet of `striate explain`: one PNG with all that is known of one picture, or a row for each of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from striate.data.rows import Pictures
from striate.explain.edits import Curve
from striate.explain.exciting import Excited
from striate.explain.explanation import Explanation
from striate.report import canvas, charts
from striate.report import explain_tiles as shared
from striate.report.canvas import FAINT_INK, Pixels

WIDTH, MARGIN = 1400, 24
SIDE = 180  # of a picture
BARS = 10
MOST_MAPS, MOST_LAYERS, MOST_CHANNELS = 16, 10, 16
MAP_CELL, KERNEL_CELL, EXCITED_CELL = 70, 34, 84
LABELS = 200  # pixels of a row's name
CHART_WIDTH, CHART_HEIGHT, CHARTS_ACROSS = 380, 150, 3


@dataclass(frozen=True)
class Excitement:
    """What excites channels of a layer: for each channel the pictures, whose pixels are `images` uint8 (N, H, W, C)."""

    layer: str
    channels: Mapping[int, Sequence[Excited]]
    images: Pictures


def explain_sheet(explanations: Sequence[Explanation], excitement: Excitement | None = None) -> bytes:
    """Draw one picture in full, or several in a row each: PNG bytes. Pictures that could not be read are left out."""
    readable = [one for one in explanations if one.error is None]
    parts: list[_Part] = []
    for one in readable:
        parts.append(_Answers(one))
    if len(readable) == 1:
        (one,) = readable
        parts += [_Kernels(one)] if one.kernels is not None else []
        parts += [_Maps(one)] if one.features else []
        parts += [_Curves(one)] if one.edits else []
    if excitement is not None:
        parts.append(_Exciting(excitement))
    figure = canvas.new_figure(WIDTH, MARGIN + sum(part.height for part in parts))
    top = MARGIN
    for part in parts:
        part.draw(figure, top)
        top += part.height
    return canvas.png(figure)


class _Part:
    """One band of the sheet, `height` pixels high."""

    height = 0

    def draw(self, figure: Figure, top: int) -> None:
        """Draw it from `top` pixels downwards."""
        raise NotImplementedError


class _Answers(_Part):
    """The picture as the net saw it, its most likely classes, and a heat map for each method."""

    def __init__(self, one: Explanation) -> None:
        self.one = one
        self.height = SIDE + 130

    def draw(self, figure: Figure, top: int) -> None:
        one, answer = self.one, self.one.answer
        truth = f", truth {one.truth}" if one.truth is not None else ""
        title = f"{answer.source}: {answer.label} {canvas.percent(answer.probability)}{truth}"
        canvas.write_at(figure, MARGIN, top, canvas.shorten(title, WIDTH - 2 * MARGIN, 13), 13)
        told = "; ".join(
            [f"what speaks for {one.target} (orange) and against it (blue)", *(note.text for note in one.notes)]
        )
        canvas.write_at(figure, MARGIN, top + 24, canvas.shorten(told, WIDTH - 2 * MARGIN, 9.5), color=FAINT_INK)
        top += 68
        _tile(figure, canvas.as_tile(one.seen, SIDE), MARGIN, top, "as the net saw it", "")
        self._bars(figure, top)
        for number, (method, values) in enumerate(one.maps.items()):
            left = WIDTH - MARGIN - (len(one.maps) - number) * (SIDE + 20) + 20
            heat = shared.overlay(one.seen, values, SIDE)
            _tile(figure, heat, left, top, shared.TITLES[method], shared.caption(one, method))

    def _bars(self, figure: Figure, top: int) -> None:
        likely = sorted(self.one.answer.probabilities.items(), key=lambda entry: -entry[1])[:BARS]
        names = [name for name, _ in likely]
        width = min(charts.label_width(names), 110)
        axes = canvas.axes_at(figure, MARGIN + SIDE + 20 + width, top, 320 - width, SIDE)
        axes.set_axis_off()
        axes.set_xlim(0, 150)
        axes.set_ylim(max(len(names), 5) - 0.5, -0.5)
        for place, (name, probability) in enumerate(likely):
            strong = name == self.one.answer.label
            axes.barh(place, 100 * probability, height=0.7, color=canvas.BLUE if strong else canvas.PALE_BLUE)
            words = canvas.percent(probability)
            axes.text(100 * probability + 3, place, words, va="center", fontsize=8.5, color=canvas.INK)
            shown = canvas.shorten(name, width - 6, 9)
            axes.text(-4, place, shown, ha="right", va="center", fontsize=9, color=canvas.INK)


class _Kernels(_Part):
    """The kernels of one layer."""

    def __init__(self, one: Explanation) -> None:
        assert one.kernels is not None
        large = one.kernels.shape[-1] > 11  # an MLP's are as large as the picture
        count = one.kernels.shape[0] * (1 if one.kernels.shape[1] == 3 else one.kernels.shape[1])
        self.cell = MAP_CELL if large or count * MAP_CELL <= WIDTH - 2 * MARGIN else KERNEL_CELL
        self.tiles = shared.kernel_tiles(one.kernels, (WIDTH - 2 * MARGIN) // self.cell, self.cell - 4)
        few = f", the first {len(self.tiles)} of {count:,}" if len(self.tiles) < count else ""
        shape = "×".join(str(length) for length in one.kernels.shape[2:])
        self.title = f"Kernels of {one.kernel_layer}: {shape}{few}; middle gray is a weight of zero"
        self.height = 26 + max(tile.shape[0] for tile in self.tiles) + 24

    def draw(self, figure: Figure, top: int) -> None:
        canvas.write_at(figure, MARGIN, top, canvas.shorten(self.title, WIDTH - 2 * MARGIN, 11), 11)
        canvas.tiles(figure, self.tiles, MARGIN, top + 22, (self.cell, self.cell), len(self.tiles))


class _Maps(_Part):
    """Feature maps: a row for each layer, of a deep net some of its layers."""

    def __init__(self, one: Explanation) -> None:
        self.layers = [one.features[number] for number in shared.spread(len(one.features), MOST_LAYERS)]
        some = f": {len(self.layers)} of {len(one.features)} layers" if len(self.layers) < len(one.features) else ""
        self.title = f"Feature maps{some}; each layer from its least value (black) to its greatest (white)"
        self.height = 30 + len(self.layers) * MAP_CELL + 20

    def draw(self, figure: Figure, top: int) -> None:
        canvas.write_at(figure, MARGIN, top, self.title, 11)
        top += 28
        for layer in self.layers:
            channels, height, width = layer.maps.shape
            canvas.write_at(figure, MARGIN, top + 14, canvas.shorten(layer.name, LABELS - 10, 9.5))
            about = f"{layer.kind}, {channels} × {height}×{width}"
            canvas.write_at(figure, MARGIN, top + 32, canvas.shorten(about, LABELS - 10, 8.5), 8.5, color=FAINT_INK)
            tiles = shared.map_tiles(layer.maps, MOST_MAPS, MAP_CELL - 6)
            canvas.tiles(figure, tiles, MARGIN + LABELS, top, (MAP_CELL, MAP_CELL), len(tiles))
            top += MAP_CELL


class _Curves(_Part):
    """The probability of the likeliest classes against each edit."""

    def __init__(self, one: Explanation) -> None:
        self.one = one
        self.classes = shared.leading_classes(one)
        rows = -(-len(one.edits) // CHARTS_ACROSS)
        self.height = 56 + rows * (CHART_HEIGHT + 82)

    def draw(self, figure: Figure, top: int) -> None:
        canvas.write_at(figure, MARGIN, top, "Answers as the picture is edited: probability, %", 11)
        left = MARGIN
        for number, name in enumerate(self.classes):
            words = canvas.shorten(self.one.classes[name], 200, 9.5)
            canvas.write_at(figure, left, top + 24, f"■ {words}", 9.5, color=canvas.SERIES[number])
            left += round(canvas.text_width(f"■ {words}", 9.5)) + 18
        for number, curve in enumerate(self.one.edits):
            row, column = divmod(number, CHARTS_ACROSS)
            place = (MARGIN + 46 + column * (CHART_WIDTH + 72), top + 72 + row * (CHART_HEIGHT + 82))
            self._chart(figure, curve, *place)

    def _chart(self, figure: Figure, curve: Curve, left: int, top: int) -> None:
        axes = canvas.chart_at(figure, left, top, CHART_WIDTH, CHART_HEIGHT)
        canvas.plain(axes, curve.unit, "", curve.edit)
        for number, name in reversed(list(enumerate(self.classes))):  # the explained class is drawn last, on top
            heights = 100 * curve.probabilities[:, name]
            look: dict[str, Any] = {"color": canvas.SERIES[number], "marker": "o", "markersize": 3.5}
            axes.plot(curve.strengths, heights, linestyle="" if curve.names else "-", linewidth=1.6, **look)
        axes.axvline(curve.strengths[curve.none], color="#b8bec8", linewidth=0.8)
        axes.set_ylim(-3, 103)
        if curve.names:
            axes.set_xticks(range(len(curve.names)), curve.names)
            axes.set_xlim(-0.5, len(curve.names) - 0.5)
        elif curve.edit == "scale":
            axes.set_xscale("log")
            axes.set_xticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
            axes.minorticks_off()
        elif curve.edit == "rotate":
            axes.set_xticks(range(-180, 181, 60))
        elif curve.unit == "pixels":
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


class _Exciting(_Part):
    """The pictures that excite channels most: a row for each channel."""

    def __init__(self, excitement: Excitement) -> None:
        self.excitement = excitement
        self.shown = list(excitement.channels.items())[:MOST_CHANNELS]
        more = len(excitement.channels) - len(self.shown)
        few = f"; {more} more channels are on the page" if more > 0 else ""
        self.title = f"Pictures that excite {excitement.layer} most, and in a frame what the greatest value sees{few}"
        tallest = canvas.as_tile(excitement.images[0], EXCITED_CELL - 8).shape[0]
        self.row = tallest + 28
        self.height = 30 + len(self.shown) * self.row + 20

    def draw(self, figure: Figure, top: int) -> None:
        canvas.write_at(figure, MARGIN, top, canvas.shorten(self.title, WIDTH - 2 * MARGIN, 11), 11)
        top += 28
        for channel, excited in self.shown:
            canvas.write_at(figure, MARGIN, top + self.row // 2 - 18, f"channel {channel}")
            for number, one in enumerate(excited[: (WIDTH - LABELS) // EXCITED_CELL]):
                left = MARGIN + 100 + number * EXCITED_CELL
                tile = shared.framed(self.excitement.images[one.picture], one, EXCITED_CELL - 8)
                canvas.paste(figure, tile, left, top)
                words = f"#{one.picture}: {one.value:.3g}"
                canvas.write_at(figure, left, top + tile.shape[0] + 5, words, 7.5, color=FAINT_INK)
            top += self.row


def _tile(figure: Figure, tile: Pixels, left: int, top: int, name: str, about: str) -> None:
    """Put a picture in its place, with a name above and a line about it below."""
    canvas.write_at(figure, left, top - 18, name, 9.5)
    canvas.paste(figure, tile, left, top)
    if about:
        canvas.write_at(figure, left, top + SIDE + 6, canvas.shorten(about, SIDE + 14, 8.5), 8.5, color=FAINT_INK)
