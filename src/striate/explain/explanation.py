"""One picture looked at in every way: what `striate.explain` returns, and what the sheet and the page are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from striate.data.dataset import Images
from striate.errors import unknown_name
from striate.explain import cam
from striate.explain.attribution import STEPS, integrated_gradients, occlusion
from striate.explain.edits import EDITS, Curve, edit_curves
from striate.explain.features import (
    Layer,
    LayerMaps,
    check_layer,
    feature_maps,
    kernels,
    layers_with_kernels,
    list_layers,
)
from striate.explain.looking import Floats, net_batches
from striate.predictor.predictor import Answer, Predictor, load_predictor, source_name

METHODS = (*cam.METHODS, "occlusion", "integrated-gradients")
MOST_STEPS = 200  # of integrated gradients
SMALL_GAP = 0.02  # of what they have to add up to


class Note(NamedTuple):
    """A sentence that has to be told with an explanation."""

    text: str
    chinese: str


@dataclass(frozen=True)
class Explanation:
    """What a net answers for one picture, and what it looks at.

    `seen` uint8 (H, W, C) is the picture as the net gets it; `truth` its true class where that is known; `target` the
    class that is explained, and `score` its logit. `maps` holds a float32 (H, W) for each method: the class activation
    maps from 0 to 1, of `layer`; occlusion and integrated gradients in units of the logit, above 0 where a place speaks
    for the class. `wanted` and `missing` are the check of integrated gradients. `features` are the maps (C, H, W) of
    each layer that has them, `kernels` those (O, I, kh, kw) of `kernel_layer`, `layers` all layers in their order.
    `error` {code, cause, fix} where the picture could not be read; all else is then empty.
    """

    answer: Answer
    truth: str | None = None
    classes: tuple[str, ...] = ()
    target: str = ""
    score: float = 0.0
    maps: dict[str, Floats] = field(default_factory=dict, repr=False)
    layer: str | None = None
    wanted: float = 0.0
    missing: float = 0.0
    layers: tuple[Layer, ...] = field(default=(), repr=False)
    features: tuple[LayerMaps, ...] = field(default=(), repr=False)
    kernel_layer: str | None = None
    kernels: Floats | None = field(default=None, repr=False)
    edits: tuple[Curve, ...] = field(default=(), repr=False)
    notes: tuple[Note, ...] = ()

    @property
    def error(self) -> dict[str, str] | None:
        """Why the picture could not be read, or None."""
        return self.answer.error

    @property
    def seen(self) -> Images:
        """The picture uint8 (H, W, C) as the net gets it."""
        assert self.answer.seen is not None
        return self.answer.seen

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the `results` of explain --json; feature maps and kernels only by their shapes."""
        if self.error is not None:
            return self.answer.to_json()
        return {
            **self.answer.to_json(),
            **({"truth": self.truth} if self.truth is not None else {}),
            "target": self.target,
            "score": self.score,
            "layer": self.layer,
            "maps": {method: _rounded(values) for method, values in self.maps.items()},
            "integrated_gradients": {"wanted": self.wanted, "missing": self.missing}
            if "integrated-gradients" in self.maps
            else None,
            "layers": [{"name": one.name, "kind": one.kind, "shape": list(one.shape)} for one in self.layers],
            "edits": [
                {
                    "edit": curve.edit,
                    "unit": curve.unit,
                    "strengths": list(curve.names or curve.strengths),
                    "probabilities": {
                        name: _rounded(curve.probabilities[:, number]) for number, name in enumerate(self.classes)
                    },
                }
                for curve in self.edits
            ],
            "notes": [note.text for note in self.notes],
        }


def explain(
    run: Any,
    pictures: Any,
    *,
    target: str | None = None,
    layer: str | None = None,
    methods: Sequence[str] = METHODS,
    edits: Sequence[str] = EDITS,
    kernel_layer: str | None = None,
    device: str = "auto",
    model: Any = None,
) -> Any:
    """Look at what a run's net sees in one picture, or in a list of them.

    `run`: a run folder or its name, a Run, or a Predictor; `pictures` as `Predictor.predict` takes them, and a list
    gives a list. `target`: the class to explain; None is each picture's own answer. `layer`: of the class activation
    maps; None the last with a map. `methods` among grad-cam, layer-cam, occlusion, integrated-gradients; `edits` among
    shift, rotate, flip, scale, erase. `kernel_layer`: None is the first that has kernels. `model`: a net of your own.
    Raises UsageError for unknown names; a picture that cannot be read gets an Explanation with its `error`.
    """
    if isinstance(run, Predictor):
        predictor = run
    elif isinstance(run, (str, Path)):
        predictor = load_predictor(run, device=device, model=model)
    else:
        predictor = run.predictor()
    many = isinstance(pictures, (list, tuple))
    options: dict[str, Any] = {"layer": layer, "methods": methods, "edits": edits, "kernel_layer": kernel_layer}
    found = list(explanations(predictor, pictures if many else [pictures], target=target, **options))
    return found if many else found[0]


def explanations(
    predictor: Predictor,
    sources: Sequence[Any],
    *,
    target: str | None = None,
    layer: str | None = None,
    methods: Sequence[str] = METHODS,
    edits: Sequence[str] = EDITS,
    kernel_layer: str | None = None,
) -> Iterator[Explanation]:
    """Yield one Explanation after the other, so that the maps of one picture are held at a time; see `explain`."""
    for name, kind, known in [
        *((method, "method", METHODS) for method in methods),
        *((edit, "edit", EDITS) for edit in edits),
        *([(target, "class", predictor.classes)] if target is not None else []),
    ]:
        if name not in known:
            raise unknown_name(kind, name, known)
    for number, source in enumerate(sources):
        answer = predictor.predict_many([source])[0]
        if answer.error is not None:
            yield Explanation(Answer(source_name(source, number), error=answer.error))
            continue
        yield look(predictor, answer, target or answer.label, layer, methods, edits, kernel_layer)


def look(
    predictor: Predictor,
    answer: Answer,
    target: str,
    layer: str | None = None,
    methods: Sequence[str] = METHODS,
    edits: Sequence[str] = EDITS,
    kernel_layer: str | None = None,
) -> Explanation:
    """Return the Explanation of an Answer whose picture could be read; see `explain`."""
    net = predictor.net
    assert answer.seen is not None
    seen = np.stack([answer.seen])  # (1, H, W, C): a copy, for what Pillow decoded cannot be written to
    batch = next(net_batches(predictor, seen))  # (1, C, H, W)
    shape = (batch.shape[1], batch.shape[2], batch.shape[3])
    number = predictor.classes.index(target)
    layers = list_layers(net, batch)
    if layer is not None:
        check_layer(net, layers, layer)
    chosen = layer if layer is not None else cam.last_layer_with_maps(layers)
    maps, wanted, missing, notes = _attributions(predictor, batch, number, methods, chosen)
    with_kernels = layers_with_kernels(net, shape)
    shown = kernel_layer or (with_kernels[0] if with_kernels else None)
    logits = predictor.logits(seen)[0]
    mean = predictor.preprocess.mean
    return Explanation(
        answer=answer,
        classes=predictor.classes,
        target=target,
        score=float(logits[number]),
        maps=maps,
        layer=chosen,
        wanted=wanted,
        missing=missing,
        layers=tuple(layers),
        features=tuple(LayerMaps(one.name, one.kind, one.maps[0]) for one in feature_maps(net, batch)),
        kernel_layer=shown,
        kernels=kernels(net, shown, shape) if shown is not None else None,
        edits=tuple(
            edit_curves(lambda images: predictor.probabilities(predictor.logits(images)), seen[0], edits, mean)
        ),
        notes=tuple(notes),
    )


def _attributions(
    predictor: Predictor, batch: Tensor, target: int, methods: Sequence[str], layer: str | None
) -> tuple[dict[str, Floats], float, float, list[Note]]:
    """Return the maps (H, W) of each method, the check of integrated gradients, and what has to be told."""
    net, maps, notes = predictor.net, {}, []
    wanted = missing = 0.0
    for method in methods:
        if method in cam.METHODS:
            if layer is None:
                note = Note(
                    f"{type(net).__name__} has no layer with a map, so there is no class activation map",
                    f"{type(net).__name__} 没有带特征图的层，因此没有类激活图",
                )
                notes += [note] if note not in notes else []
                continue
            maps[method] = cam.class_maps(net, batch, target, layer, method)[0]
            if not maps[method].any():
                notes.append(
                    Note(
                        f"{method} is zero everywhere: in layer {layer} nothing speaks for the class",
                        f"{method} 处处为零：{layer} 层中没有支持该类别的部分",
                    )
                )
        elif method == "occlusion":
            maps[method] = occlusion(net, batch, target)[0]
        else:
            steps = STEPS
            found = integrated_gradients(net, batch, target, steps=steps)
            while abs(found.missing[0]) > SMALL_GAP * abs(found.wanted[0]) and steps < MOST_STEPS:
                steps *= 2
                found = integrated_gradients(net, batch, target, steps=steps)
            maps[method] = found.values[0].sum(0)
            wanted, missing = float(found.wanted[0]), float(found.missing[0])
            if abs(missing) > SMALL_GAP * abs(wanted):
                total = f"{wanted - missing:.3g}"
                notes.append(
                    Note(
                        f"integrated gradients over {steps} steps add up to {total} instead of {wanted:.3g}",
                        f"积分梯度用 {steps} 步求和得 {total}，应为 {wanted:.3g}",
                    )
                )
    return maps, wanted, missing, notes


def _rounded(values: Any) -> Any:
    """Return numbers as lists, with the six digits that they are good for."""
    return [_rounded(row) for row in values] if np.ndim(values) else float(f"{float(values):.6g}")
