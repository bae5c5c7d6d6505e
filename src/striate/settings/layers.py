"""From layers of given values to settings: defaults < recipe < config file < environment < flags."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from striate.errors import UsageError
from striate.settings.base import Layer, Settings, build, check_names
from striate.settings.recipes import choose_recipe, is_place, load_recipe, read_config
from striate.settings.train import EFFECTS, TrainSettings

# STRIATE_DATA is the folder of the data sets: the look-up reads it itself, so that no run records a machine's path.
_NO_VARIABLE = ("data", "data_root")


def resolve_train(
    given: Mapping[str, Any],
    *,
    origin: str = "flag",
    config: Path | None = None,
    environ: Mapping[str, str],
) -> tuple[TrainSettings, dict[str, str], str]:
    """Return the settings of `train`, the origin of each value and the recipe's name.

    `given` are the strongest values (flags, or keyword arguments when `origin` is `argument`). A setting that comes
    from the recipe and does nothing beside a stronger layer's choice goes back to its default. Raises UsageError
    for an unknown name, a value out of its range, and a setting given by anyone else that does nothing.
    """
    check_names(TrainSettings, given)
    layers: list[Layer] = []
    if config is not None:
        layers.append((f"config {config}", read_config(config)))
    layers.extend(environment_layers(TrainSettings, environ))
    layers.append((origin, from_text(TrainSettings, given)))
    layers = [(where, _without_absent_names(layer)) for where, layer in layers]

    data, model, recipe = (_strongest(layers, name) for name in ("data", "model", "recipe"))
    name = choose_recipe(data if data is not None else _default("data"), model, recipe)
    weakest: list[Layer] = [("chosen", {"recipe": name}), (f"recipe {name}", load_recipe(name))]
    if data is not None and is_place(data):  # 70 % train, whatever the net
        weakest.insert(0, ("own pictures", {"validation": 0.15, "test": 0.15}))
    layers = _join_options([*weakest, *[layer for layer in layers if layer[1]]])

    settings, origins = build(TrainSettings, layers)
    idle = _idle(settings)
    from_recipe = {setting for setting in idle if origins[setting] == f"recipe {name}"}
    for setting, needs in idle.items():
        if setting not in from_recipe and _must_have_effect(settings, setting, origins[setting]):
            flag = "--" + setting.replace("_", "-")
            raise UsageError(
                f"{flag} has no effect here ({origins[setting]})",
                f"it needs {needs}",
                f"leave out {flag}, or change what it needs",
            )
    if from_recipe:
        kept = [
            (where, {key: value for key, value in layer.items() if key not in from_recipe or where != origins[key]})
            for where, layer in layers
        ]
        settings, origins = build(TrainSettings, kept)
    return settings, origins, name


def environment_layers(
    model: type[Settings], environ: Mapping[str, str], only: Collection[str] | None = None
) -> list[Layer]:
    """Return one layer for each STRIATE_ variable that names a setting; an empty variable counts as not set.

    `only` limits the settings that the environment may set.
    """
    layers: list[Layer] = []
    for field in model.model_fields if only is None else (name for name in model.model_fields if name in only):
        variable = f"STRIATE_{field.upper()}"
        if field not in _NO_VARIABLE and environ.get(variable):
            layers.append((f"environment {variable}", from_text(model, {field: environ[variable]})))
    return layers


def from_text(model: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what only text can say into values: `none` for a setting that may be absent, and `name=value` options.

    Values that are no text pass unchanged. Raises UsageError for an option that is not `name=value`.
    """
    read: dict[str, Any] = {}
    for name, value in values.items():
        annotation = model.model_fields[name].annotation
        if isinstance(value, str) and value.lower() == "none" and _may_be_none(annotation):
            value = None
        elif get_origin(annotation) is dict and isinstance(value, (str, list, tuple)):
            value = parse_options(value.split(";") if isinstance(value, str) else value)
        elif isinstance(value, str) and Path in (annotation, *get_args(annotation)):
            value = Path(value)  # here, because pydantic refuses a file name that is not UTF-8
        read[name] = value
    return read


def parse_options(texts: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Read `name=value` texts as a dict; values become numbers, booleans, None, lists (`4096,4096`) or stay text."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{text!r} is not an option of a net", "an option is name=value", "write activation=relu")
        options[name.strip().replace("-", "_")] = _plain_value(value.strip())
    return options


def _plain_value(text: str) -> Any:
    if "," in text:
        return [_plain_value(part.strip()) for part in text.split(",") if part.strip()]
    named = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() in named:
        return named[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _may_be_none(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _default(name: str) -> Any:
    return TrainSettings.model_fields[name].default


def _without_absent_names(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out names that are None: no data, model or recipe named means that a weaker layer names it."""
    return {key: value for key, value in layer.items() if value is not None or key not in ("data", "model", "recipe")}


def _strongest(layers: list[Layer], name: str) -> Any:
    given = [layer[name] for _, layer in layers if name in layer]
    return given[-1] if given else None


def _join_options(layers: list[Layer]) -> list[Layer]:
    """Join the nets' options of all layers into the strongest one.

    A layer that names a net, but not the one chosen in the end, loses its options: they are of that other net.
    """
    chosen = _strongest(layers, "model")
    joined: dict[str, Any] = {}
    where: list[str] = []
    rest: list[Layer] = []
    for origin, layer in layers:
        options = layer.get("model_option")
        if isinstance(options, Mapping):  # anything else is refused by the settings, with its origin
            if _is_net(layer.get("model"), chosen):
                joined = {**joined, **options}
                where = [*where, origin] if options or not where else where
            layer = {key: value for key, value in layer.items() if key != "model_option"}
        rest.append((origin, layer))
    if where:
        rest.append((" + ".join(where), {"model_option": joined}))
    return rest


def _is_net(named: str | None, chosen: str | None) -> bool:
    """Say whether a layer's net is the chosen one; a run's config.yaml names a user's class `own:MyNet`."""
    if named is not None and named.startswith("own:"):
        return str(chosen).rpartition(":")[2] == named.removeprefix("own:")
    return named in (None, chosen)


def _idle(settings: TrainSettings) -> dict[str, str]:
    """Return the settings that do nothing beside the others, with what they would need."""
    return {name: needs for name, needs, has_effect in EFFECTS if not has_effect(settings)}


def _must_have_effect(settings: TrainSettings, name: str, origin: str) -> bool:
    """Say whether an idle setting is an error: it was typed, or stands in a config file with another value.

    The config.yaml of a run holds every setting, so there a default that does nothing is no one's mistake.
    """
    if origin == "default":
        return False
    return not origin.startswith("config ") or getattr(settings, name) != _default(name)
