"""The page of `striate explain`: one HTML file with all that was looked at, which needs nothing else; two languages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from striate.data.opening import printable
from striate.explain.cam import METHODS as CAM_METHODS
from striate.explain.edits import Curve
from striate.explain.explanation import Explanation
from striate.report import explain_tiles as shared
from striate.report.canvas import SERIES, Pixels, percent
from striate.report.embed import data_address
from striate.report.explain_sheet import Excitement

TEMPLATE = Path(__file__).with_name("explain.html")

BARS = 10
MOST_KERNELS = 128
MOST_MAPS, MOST_MAPS_OF_SEVERAL = 64, 8  # of a layer
MOST_THUMBNAILS = 7
_HEAT_SIDE, _MAP_SIDE, _THUMBNAIL_SIDE = 256, 64, 48  # pixels; what is smaller is enlarged by the browser
_CHART = (300, 120)  # of the drawing inside the axes

_TITLES = {
    "grad-cam": ("Grad-CAM", "Grad-CAM"),
    "layer-cam": ("LayerCAM", "LayerCAM"),
    "occlusion": ("Occlusion", "遮挡"),
    "integrated-gradients": ("Integrated gradients", "积分梯度"),
}
_EDITS = {
    "shift right": ("Shift right", "向右平移"),
    "shift down": ("Shift down", "向下平移"),
    "rotate": ("Rotate", "旋转"),
    "flip": ("Flip", "翻转"),
    "scale": ("Scale", "缩放"),
    "erase": ("Erase the middle", "擦除中部"),
}
_UNITS = {
    "pixels": "像素",
    "degrees, counter-clockwise": "度，逆时针",
    "times its size": "倍",
    "of each side, in the middle": "占边长的比例，居中",
}
_FLIPS = {"as it is": "原样", "left to right": "左右", "upside down": "上下"}


class ExplainPage:
    """Collects the sections of a page, so that of several pictures only one's maps are held at a time."""

    def __init__(self, model: str, pictures: int = 1) -> None:
        self._model = model
        self._most_maps = MOST_MAPS if pictures <= 1 else MOST_MAPS_OF_SEVERAL
        self._sections: list[dict[str, Any]] = []

    def add(self, one: Explanation) -> None:
        """Add a picture; one that could not be read gets a line with its cause."""
        if one.error is not None:
            told = (one.error["cause"], one.error.get("fix", ""))
            self._sections.append(
                {"name": printable(one.answer.source), "error": printable("; ".join(filter(None, told)))}
            )
            return
        self._sections.append(_section(one, self._most_maps))

    def render(self, excitement: Excitement | None = None) -> str:
        """Return the page as HTML."""
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        exciting = _exciting(excitement) if excitement is not None else None
        return template.render(model=printable(self._model), sections=self._sections, exciting=exciting)


def _section(one: Explanation, most_maps: int) -> dict[str, Any]:
    answer = one.answer
    likely = sorted(answer.probabilities.items(), key=lambda entry: -entry[1])[:BARS]
    return {
        "name": printable(answer.source),
        "error": "",
        "answer": printable(answer.label),
        "probability": percent(answer.probability),
        "truth": printable(one.truth) if one.truth is not None else "",
        "right": one.truth == answer.label,
        "target": printable(one.target),
        "picture": _address(shared.as_tile(one.seen, _HEAT_SIDE)),
        "bars": [(printable(name), percent(p), f"{100 * p:.1f}", name == answer.label) for name, p in likely],
        "heats": [_heat(one, method) for method in one.maps],
        "notes": one.notes,
        "kernels": _kernels(one) if one.kernels is not None else None,
        "layers": _layers(one, most_maps),
        "classes": [
            (printable(one.classes[number]), SERIES[place]) for place, number in enumerate(shared.leading_classes(one))
        ]
        if one.edits
        else [],
        "curves": [_curve(one, curve) for curve in one.edits],
    }


def _heat(one: Explanation, method: str) -> dict[str, Any]:
    values = one.maps[method]
    if method in CAM_METHODS:
        about = (f"of layer {one.layer}", f"{one.layer} 层")
    elif method == "occlusion":
        fall = f"{values.max():.3g}"
        about = (f"covered, the logit falls by {fall} at most", f"遮住后 logit 最多下降 {fall}")
    else:
        total, wanted = f"{one.wanted - one.missing:.3g}", f"{one.wanted:.3g}"
        about = (f"add up to {total}; complete would be {wanted}", f"合计 {total}；完备值为 {wanted}")
    picture = _address(shared.overlay(one.seen, values, _HEAT_SIDE))
    return {"title": _TITLES[method], "about": about, "picture": picture}


def _kernels(one: Explanation) -> dict[str, Any]:
    assert one.kernels is not None
    outputs, inputs, height, width = one.kernels.shape
    return {
        "layer": one.kernel_layer,
        "shape": f"{outputs} × {inputs} × {height}×{width}",
        "count": outputs * (1 if inputs == 3 else inputs),
        "tiles": [_address(tile) for tile in shared.kernel_tiles(one.kernels, MOST_KERNELS, max(height, width))],
    }


def _layers(one: Explanation, most: int) -> list[dict[str, Any]]:
    maps = {layer.name: layer.maps for layer in one.features}
    rows = []
    for layer in one.layers:
        tiles: list[Pixels] = []
        if layer.name in maps:
            side = min(_MAP_SIDE, max(layer.shape[1:]))
            tiles = shared.map_tiles(maps[layer.name], most, side)
        rows.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape": "×".join(str(length) for length in layer.shape),
                "tiles": [_address(tile) for tile in tiles],
                "more": layer.shape[0] - len(tiles) if tiles else 0,
            }
        )
    return rows


def _curve(one: Explanation, curve: Curve) -> dict[str, Any]:
    """Return what the template draws: lines and points in the chart's own pixels, ticks, and some of the pictures."""
    width, height = _CHART
    # What is a factor stands at its logarithm: half and twice are equally far from one.
    places = np.log(curve.strengths) if curve.edit == "scale" else np.asarray(curve.strengths, dtype=float)
    across = width * (places - places[0]) / ((places[-1] - places[0]) or 1)
    if curve.names:
        across = width * (places + 0.5) / len(curve.names)
    names = curve.names or tuple(f"{strength:.3g}" for strength in curve.strengths)
    lines = []
    for place, number in enumerate(shared.leading_classes(one)):
        shares = curve.probabilities[:, number]
        up = height * (1 - shares)
        told = [f"{printable(one.classes[number])} {percent(share)} ({name})" for share, name in zip(shares, names)]
        lines.append(
            {
                "colour": SERIES[place],
                "line": "" if curve.names else " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up)),
                "points": [(f"{x:.1f}", f"{y:.1f}", words) for x, y, words in zip(across, up, told)],
            }
        )
    chosen = range(len(names)) if curve.names else sorted({0, curve.none, len(names) - 1})
    shown = shared.spread(len(names), MOST_THUMBNAILS)
    return {
        "title": _EDITS[curve.edit],
        "unit": (curve.unit, _UNITS.get(curve.unit, "")),
        "none": f"{across[curve.none]:.1f}",
        "ticks": [
            (f"{across[number]:.1f}", (names[number], _FLIPS.get(names[number], names[number]))) for number in chosen
        ],
        "lines": lines,
        "pictures": [(names[n], _address(shared.as_tile(curve.images[n], _THUMBNAIL_SIDE))) for n in shown],
    }


def _exciting(excitement: Excitement) -> dict[str, Any]:
    rows = [
        (
            channel,
            [
                (
                    one.picture,
                    f"{one.value:.3g}",
                    _address(shared.framed(excitement.images[one.picture], one, _MAP_SIDE)),
                )
                for one in excited
            ],
        )
        for channel, excited in excitement.channels.items()
    ]
    return {"layer": printable(excitement.layer), "rows": rows}


def _address(tile: Pixels) -> str:
    """Return RGB pixels as a data address: PNG, in one channel where there is no colour."""
    gray = bool((tile[..., 0] == tile[..., 1]).all() and (tile[..., 1] == tile[..., 2]).all())
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tile[..., 0]) if gray else tile).save(stream, "PNG", optimize=True)
    return data_address(stream.getvalue(), "png")
