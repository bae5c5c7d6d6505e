"""`striate models`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from striate.cli import net_table
from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import heading, hint, printable, say, say_json, say_table, write_utf8
from striate.errors import UsageError
from striate.settings.base import build
from striate.settings.values import from_text
from striate.settings.verbs import ModelsSettings, refuse_idle

if TYPE_CHECKING:
    from striate.models.summary import Summary

OWN_CLASSES = 10  # asked of a class that takes num_classes, where --classes is not given


def _models(name: str | None, **flags: Any) -> None:
    given = from_text(ModelsSettings, given_values(flags))
    settings, origins = build(ModelsSettings, [("flag", given)])
    named = ("the name of a net", name is not None)
    refuse_idle(origins, {"model_option": named, "svg": named, "as_markdown": named})
    if settings.as_json and settings.as_markdown:
        raise UsageError("--json and --markdown exclude each other", "", "leave one out")
    if name is None:
        _all(settings)
    elif ".py:" in name:
        _own(name, settings)
    else:
        _one(name, settings)


def _all(settings: ModelsSettings) -> None:
    from striate.errors import StriateError
    from striate.models.registry import describe_model

    rows: list[dict[str, Any]] = []
    for name in _names():
        try:
            parameters = count_parameters(name, settings)
        except StriateError as error:  # this net cannot take --input
            rows.append({"name": name, "parameters": None, "description": error.what})
        else:
            rows.append({"name": name, "parameters": parameters, "description": describe_model(name)})
    if settings.as_json:
        say_json({"format": 1, "models": rows})
        return
    cells = [(row["name"], _count(row["parameters"]), row["description"]) for row in rows]
    say_table(("net", "parameters", "what it is"), cells, right=(1,))


def _one(name: str, settings: ModelsSettings) -> None:
    import torch

    from striate.models.registry import create_model, describe_model, model_options, option_choices
    from striate.models.summary import summarise

    _names()
    classes, shape = input_of(name, settings)
    torch.manual_seed(0)
    net = create_model(name, classes, shape[0], shape[1:], **settings.model_option)
    summary = summarise(net, shape)
    options, choices = model_options(name), option_choices(name)
    document = {"name": name, "description": describe_model(name), "classes": classes, "options": options}
    _show(document, summary, settings)
    if options and not settings.as_json and not settings.as_markdown:
        say()
        told = [(f"{key}={_text(default)}", ", ".join(choices.get(key, ()))) for key, default in options.items()]
        say_table(("option and default", "choices"), told)


def _own(target: str, settings: ModelsSettings) -> None:
    """Show a net of the user's own, and what is wrong with it."""
    import torch

    from striate.models.advice import advise, check_registered
    from striate.models.summary import check_fits, summarise
    from striate.models.user import instantiate, load_class

    net_class = load_class(target)
    if settings.input is None:
        raise UsageError(
            f"the pictures for {target} are not known",
            "a net of your own does not say what it takes",
            f"say it: striate models {target} --input 1x28x28",
        )
    shape = settings.input
    torch.manual_seed(0)
    net = instantiate(net_class, settings.classes or OWN_CLASSES, shape[0], shape[1:], **settings.model_option)
    check_registered(net)
    summary = summarise(net, shape)
    last = summary.rows[-1].output_shape if summary.rows else ()
    classes = settings.classes or (last[0] if len(last) == 1 else OWN_CLASSES)
    document = {"name": net_class.__name__, "description": "", "classes": classes, "options": {}}
    _show(document, summary, settings)
    try:
        check_fits(net, shape, classes)
        notes = advise(net, shape, "cross-entropy") if summary.trainable else []
    except UsageError as error:
        error.detail = ()  # the table stands above
        raise
    for note in notes:
        hint(f"note: {note}")


def _show(document: dict[str, Any], summary: Summary, settings: ModelsSettings) -> None:
    name, shape = document["name"], _shape(summary.input_shape)
    if settings.svg is not None:
        from striate.files import write_text
        from striate.report.net_drawing import draw_svg

        write_text(settings.svg, draw_svg(summary, name))
        hint(f"drawn: {printable(str(settings.svg))}")
    if settings.as_json:
        say_json({"format": 1, **document, **net_table.as_document(summary)})
        return
    told = f"{name} for pictures of {shape} (channels x height x width) and {document['classes']} classes"
    if settings.as_markdown:
        write_utf8(sys.stdout, net_table.as_markdown(summary, told))
        return
    if document["description"]:
        heading(document["description"])
    say(told)
    for table in net_table.tables(summary):
        say()
        say_table(table.columns, table.rows, right=table.right)
    say()
    for line in net_table.legend(summary):
        say(line)


def input_of(name: str, settings: ModelsSettings) -> tuple[int, tuple[int, int, int]]:
    """Return the classes and the input (C, H, W) asked for; by default those of the net's paper."""
    from striate.models.registry import native_shape

    classes, channels, (height, width) = native_shape(name)
    return settings.classes or classes, settings.input or (channels, height, width)


def count_parameters(name: str, settings: ModelsSettings) -> int:
    """Return a net's number of parameters. Raises UsageError where it cannot take the input."""
    import torch

    from striate.models.registry import create_model

    classes, shape = input_of(name, settings)
    with torch.device("meta"):  # shapes without memory: AlexNet's 44 million weights need not be drawn
        net = create_model(name, classes, shape[0], shape[1:])
    return sum(parameter.numel() for parameter in net.parameters())


def _names() -> list[str]:
    import striate.models  # enters the nets into the registry
    from striate.models.registry import list_models

    assert striate.models is not None
    return list_models()


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


def _text(value: Any) -> str:
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


models = make_command(
    "models",
    _models,
    [
        argument(
            "name",
            "NAME",
            "A net, net.py:MyNet or timm:NAME: prints its layers and where their sizes come from.",
            required=False,
        ),
        *settings_flags(ModelsSettings),
    ],
    "List the nets, or explain the layers of one: sizes, parameters, multiply-adds, receptive fields.",
)
