"""`striate models`."""

from __future__ import annotations

from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import heading, say, say_json, say_table
from striate.settings.base import build
from striate.settings.values import from_text
from striate.settings.verbs import ModelsSettings, refuse_idle


def _models(name: str | None, **flags: Any) -> None:
    given = from_text(ModelsSettings, given_values(flags))
    settings, origins = build(ModelsSettings, [("flag", given)])
    named = ("the name of a net", name is not None)
    refuse_idle(origins, {"model_option": named})
    if name is not None:
        _one(name, settings)
    else:
        _all(settings)


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
    if settings.as_json:
        layers = [
            {
                "name": row.name,
                "kind": row.kind,
                "output_shape": list(row.output_shape),
                "parameters": row.parameters,
                "macs": row.macs,
            }
            for row in summary.rows
        ]
        say_json(
            {
                "format": 1,
                "name": name,
                "description": describe_model(name),
                "input": list(shape),
                "classes": classes,
                "options": options,
                "parameters": summary.parameters,
                "macs": summary.macs,
                "layers": layers,
            }
        )
        return
    heading(describe_model(name))
    say(f"{name} for pictures of {_shape(shape)} (channels x height x width) and {classes} classes")
    say()
    rows = [
        (row.name, row.kind, _shape(row.output_shape), f"{row.parameters:,}", f"{row.macs:,}") for row in summary.rows
    ]
    rows.append(("in all", "", "", f"{summary.parameters:,}", f"{summary.macs:,}"))
    say_table(("layer", "kind", "output", "parameters", "MACs"), rows, right=(3, 4))
    if options:
        say()
        told = [(f"{key}={_text(default)}", ", ".join(choices.get(key, ()))) for key, default in options.items()]
        say_table(("option and default", "choices"), told)


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
        argument("name", "NAME", "A net: prints its layers and options.", required=False),
        *settings_flags(ModelsSettings),
    ],
    "List the nets, or the layers and options of one.",
)
