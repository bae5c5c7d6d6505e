"""`striate explain`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import hint, percent, printable, say, say_json, say_table
from striate.cli.pictures import Source, from_data_set, from_paths, own_net
from striate.errors import UsageError
from striate.settings.base import build
from striate.settings.explain import ExplainSettings
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT, refuse_idle

if TYPE_CHECKING:
    from striate.explain.explanation import Explanation
    from striate.predictor.predictor import Predictor
    from striate.report.explain_page import ExplainPage
    from striate.report.explain_sheet import Excitement

FORMAT = 1
SOME_FAILED = 3
STRENGTHS = {
    "shift right": "{} pixels",
    "shift down": "{} pixels",
    "rotate": "{}°",
    "scale": "{:.2f} times",
    "erase": "{:.1f} of a side",
}
MOST_PICTURES = 40  # on one page, which holds every map of each


def _explain(run: str, pictures: list[str] | None, **flags: Any) -> None:
    given = from_text(ExplainSettings, given_values(flags))
    environment = environment_layers(ExplainSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, origins = build(ExplainSettings, [*environment, ("flag", given)])
    from striate.explain.edits import EDITS
    from striate.explain.explanation import METHODS, explanations
    from striate.predictor.predictor import load_predictor
    from striate.report.explain_page import ExplainPage

    methods, edits = _chosen(settings.method, METHODS), _chosen(settings.edits, EDITS)
    _refuse_idle(settings, origins, methods, edits)
    predictor = load_predictor(
        run, device=settings.device, model=own_net(settings.model), expect_sha256=settings.expect_sha256
    )
    _ = predictor.net  # an ONNX file has none, and is refused here
    if settings.as_layers:
        say_layers(predictor)
        return
    sources = _sources(run, pictures, settings)
    excitement = find_exciting(run, predictor, settings) if settings.exciting is not None else None
    found = explanations(
        predictor,
        [source.content for source in sources],
        target=settings.target,
        layer=settings.layer,
        methods=methods,
        edits=edits,
        kernel_layer=settings.kernels,
    )
    named = (
        replace(one, truth=source.truth, answer=replace(one.answer, source=printable(source.name)))
        for one, source in zip(found, sources, strict=True)
    )
    sheet, html = _places(settings)
    slim, results = _write(named, excitement, sheet, html, ExplainPage(predictor.name, len(sources)))
    if settings.as_json:
        told = _exciting_json(excitement) if excitement is not None else {}
        say_json(
            {"format": FORMAT, "model": predictor.name, "classes": list(predictor.classes), "results": results, **told}
        )
    else:
        say_explanations(slim)
        if origins["edits"] != "default":
            say_edits(results)
    _name_the_bad(slim, in_results=settings.as_json)
    if any(one.error is not None for one in slim):
        raise typer.Exit(SOME_FAILED)


def _refuse_idle(
    settings: ExplainSettings, origins: dict[str, str], methods: Sequence[str], edits: Sequence[str]
) -> None:
    from_set = ("--data and --index", settings.data is not None)
    cams = [method for method in methods if method.endswith("-cam")]
    refuse_idle(
        origins,
        {
            "split": from_set,
            "data_root": ("--data or --exciting", settings.data is not None or settings.exciting is not None),
            "count": ("--exciting", settings.exciting is not None),
            "layer": ("--method grad-cam or layer-cam", bool(cams)),
            "target": ("a --method, or --edits", bool(methods) or (bool(edits) and origins["edits"] != "default")),
        },
    )


def _sources(run: str, pictures: list[str] | None, settings: ExplainSettings) -> list[Source]:
    sources = from_paths(pictures or [])
    if settings.data is not None:
        sources += from_data_set(settings, [run])
    if not sources and settings.exciting is None:
        raise UsageError(
            "no picture is named", "explain looks at pictures", "name files, or add --data mnist --index 7"
        )
    if len(sources) > MOST_PICTURES:
        raise UsageError(
            f"{len(sources)} pictures are too many to explain at once",
            f"a page holds every map of {MOST_PICTURES} at most",
            "name fewer; `striate predict` answers any number",
        )
    return sources


def _chosen(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read `all`, `none` or names with commas between them; unknown names are refused where they are used."""
    if text in ("all", "none"):
        return tuple(known) if text == "all" else ()
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _places(settings: ExplainSettings) -> tuple[Path | None, Path | None]:
    """Return where the sheet and the page go; None for what is not wanted."""
    if settings.sheet is not None or settings.html is not None:
        return settings.sheet, settings.html
    if settings.out is None and settings.as_json:
        return None, None
    folder = settings.out or Path()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "explain.png", folder / "explain.html"


def _write(
    explained: Iterator[Explanation],
    excitement: Excitement | None,
    sheet: Path | None,
    html: Path | None,
    page: ExplainPage,
) -> tuple[list[Explanation], list[dict[str, Any]]]:
    """Write sheet and page; return the explanations, of several pictures without their maps, and their JSON.

    Of several pictures the maps of one are held at a time.
    """
    from striate.files import write_bytes, write_text
    from striate.report.explain_sheet import explain_sheet

    kept: list[Explanation] = []
    results = []
    for one in explained:
        if html is not None:
            page.add(one)
        results.append(one.to_json())
        kept.append(one)
        if len(kept) > 1:
            kept[-2:] = [replace(other, features=(), edits=()) for other in kept[-2:]]
    if excitement is None and all(one.error is not None for one in kept):
        return kept, results
    if sheet is not None:
        write_bytes(sheet, explain_sheet(kept, excitement))
        hint(f"drawn: {printable(str(sheet))}")
    if html is not None:
        write_text(html, page.render(excitement))
        hint(f"written: {printable(str(html))}")
    return kept, results


def find_exciting(run: str, predictor: Predictor, settings: ExplainSettings) -> Excitement:
    """Return the pictures of the run's test set that excite the channels which --exciting names."""
    from striate.explain.exciting import exciting_pictures
    from striate.report.explain_sheet import Excitement
    from striate.runs.folder import open_run
    from striate.training.pictures import pictures_of
    from striate.training.records import read_config

    assert settings.exciting is not None
    layer, _, number = settings.exciting.rpartition(":")
    if not layer:
        layer, number = number, ""
    if number and not (number.isascii() and number.isdigit()):
        raise UsageError(
            f"--exciting {settings.exciting!r} names no channel", "a channel is a number from 0", f"write {layer}:0"
        )
    folder = open_run(run)
    _, images, _ = pictures_of(folder, predictor, read_config(folder), hint, split="test", data_root=settings.data_root)
    channels = [int(number)] if number else None
    return Excitement(layer, exciting_pictures(predictor, images, layer, channels, settings.count), images)


def say_layers(predictor: Predictor) -> None:
    """Write the layers in the order in which they run, and what can be seen of each."""
    import numpy as np

    from striate.explain.features import layers_with_kernels, list_layers

    height, width = predictor.preprocess.size
    shape = (predictor.preprocess.channels, height, width)
    with_kernels = layers_with_kernels(predictor.net, shape)
    rows = []
    for layer in list_layers(predictor.net, np.zeros((1, *shape), np.float32)):
        seen = [word for word, there in (("maps", layer.has_maps), ("kernels", layer.name in with_kernels)) if there]
        rows.append([layer.name, layer.kind, "×".join(map(str, layer.shape)), ", ".join(seen)])
    say_table(["layer", "kind", "output", "to be seen"], rows, right=(2,))


def say_explanations(explained: Sequence[Explanation]) -> None:
    """Write a table: the picture, its true class where that is known, the answer, and the class that was explained."""
    readable = [one for one in explained if one.error is None]
    truth_is_known = any(one.truth is not None for one in readable)
    rows = []
    for one in readable:
        truth = [one.truth or ""] if truth_is_known else []
        likely = [f"{name} {percent(p)}" for name, p in sorted(one.answer.probabilities.items(), key=lambda e: -e[1])]
        others = ", ".join(likely[1:3])
        rows.append([one.answer.source, *truth, one.answer.label, percent(one.answer.probability), others, one.target])
    columns = ["picture", *(["truth"] if truth_is_known else []), "answer", "probability", "then", "explained"]
    if rows:
        say_table(columns, rows, right=(columns.index("probability"),))
    for note in dict.fromkeys(note.text for one in readable for note in one.notes):
        hint(f"note: {note}")


def say_edits(results: Sequence[dict[str, Any]]) -> None:
    """Write a table of the answers to each edit of each picture; the last column has the class that is explained."""
    several = len(results) > 1
    rows = []
    for result in results:
        for curve in result.get("edits", ()):
            for place, strength in enumerate(curve["strengths"]):
                shares = {name: probabilities[place] for name, probabilities in curve["probabilities"].items()}
                answer, target = max(shares, key=shares.__getitem__), result["target"]
                by = strength if isinstance(strength, str) else STRENGTHS[curve["edit"]].format(strength)
                told = [curve["edit"], by, answer, percent(shares[answer]), f"{target} {percent(shares[target])}"]
                rows.append([*([result["source"]] if several else []), *told])
    columns = [*(["picture"] if several else []), "edit", "by", "answer", "probability", "explained"]
    if rows:
        say("")
        say_table(columns, rows, right=(columns.index("by"), columns.index("probability")))


def _exciting_json(excitement: Excitement) -> dict[str, Any]:
    channels = {
        str(channel): [
            {"index": one.picture, "value": one.value, "place": list(one.place), "field": one.field} for one in excited
        ]
        for channel, excited in excitement.channels.items()
    }
    return {"exciting": {"layer": excitement.layer, "split": "test", "channels": channels}}


def _name_the_bad(explained: Sequence[Explanation], *, in_results: bool) -> None:
    bad = [one for one in explained if one.error is not None]
    for one in bad if not in_results else ():
        assert one.error is not None
        fix = f"; {one.error['fix']}" if one.error.get("fix") else ""
        hint(f"error: {printable(one.answer.source)}: {printable(one.error['cause'] + fix)}")
    if bad:
        hint(f"{len(bad)} of {len(explained)} pictures could not be read")


explain = make_command(
    "explain",
    _explain,
    [
        argument("run", "RUN", "Run folder, its name under runs/, or runs/latest."),
        argument("pictures", "PICTURE", "Files or folders; - reads one from stdin.", required=False, many=True),
        *settings_flags(
            ExplainSettings, sections={"data": "Pictures", "target": "What to look at", "out": "Where it goes"}
        ),
    ],
    "Show what a run's net looks at: class activation maps, occlusion, integrated gradients, kernels, feature maps, "
    "and its answers as the picture is edited. One picture fills a sheet, of several each gets a row.",
    "Bad pictures are named, the others explained, and the exit code is 3.",
)
