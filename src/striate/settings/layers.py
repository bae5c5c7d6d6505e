"""From layers of given values to settings: defaults < recipe < config file < environment < flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from striate.errors import UsageError
from striate.settings.base import Layer, build, check_names
from striate.settings.recipes import TRANSFER, choose_recipe, is_place, load_recipe, read_config
from striate.settings.train import EFFECTS, TrainSettings
from striate.settings.values import environment_layers, from_text

# What does not change what a photograph shows.
PHOTOGRAPHS = "crop:0.35,flip"


def resolve_train(
    given: Mapping[str, Any],
    *,
    origin: str = "flag",
    config: Path | None = None,
    environ: Mapping[str, str],
    start_of: Callable[[str | None, str | None, Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> tuple[TrainSettings, dict[str, str], str]:
    """Return the settings of `train`, the origin of each value and the recipe's name.

    `given` are the strongest values (flags, or keyword arguments when `origin` is `argument`). A setting that comes
    from the recipe and does nothing beside a stronger layer's choice goes back to its default.
    `start_of(init_from, model, options)` returns the settings that the first weights were trained with, {} where they
    are drawn; they are stronger than the recipe alone. Raises UsageError for an unknown name, a value out of its range,
    and a setting given by anyone else that does nothing.
    """
    check_names(TrainSettings, given)
    layers: list[Layer] = []
    if config is not None:
        layers.append((f"config {config}", read_config(config)))
    layers.extend(environment_layers(TrainSettings, environ))
    layers.append((origin, from_text(TrainSettings, given)))
    layers = [(where, _without_absent_names(layer)) for where, layer in layers]

    data, model, recipe = (_strongest(layers, name) for name in ("data", "model", "recipe"))
    start = _start(layers, model, start_of)
    if start and recipe is None:
        recipe = TRANSFER
    name = choose_recipe(data if data is not None else _default("data"), model, recipe)
    weakest: list[Layer] = [("chosen", {"recipe": name}), (f"recipe {name}", load_recipe(name))]
    if data is not None and is_place(data):  # 70 % train, whatever the net
        weakest.insert(0, ("own pictures", {"validation": 0.15, "test": 0.15}))
    if start:
        if data is not None and is_place(data):  # a digit mirrored is none
            weakest.insert(0, ("own pictures", {"augment": PHOTOGRAPHS}))
        weakest.append(("start", start))
        layers = [(where, _without_open_numbers(where, layer)) for where, layer in layers]
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


def _default(name: str) -> Any:
    return TrainSettings.model_fields[name].default


def _without_absent_names(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out names that are None: no data, model or recipe named means that a weaker layer names it."""
    return {key: value for key, value in layer.items() if value is not None or key not in ("data", "model", "recipe")}


def _start(layers: list[Layer], model: str | None, start_of: Any) -> Mapping[str, Any]:
    if start_of is None:
        return {}
    options = [layer["model_option"] for _, layer in layers if isinstance(layer.get("model_option"), Mapping)]
    named = any("init_from" in layer for _, layer in layers)
    init_from = _strongest(layers, "init_from") if named else _default("init_from")
    init_from = getattr(init_from, "folder", init_from)  # a Run
    joined = {name: value for one in options for name, value in one.items()}
    return start_of(None if init_from is None else str(init_from), model, joined)


def _without_open_numbers(where: str, layer: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a config file says nothing of: there the start's own numbers are kept."""
    is_open = {"size": None, "mean": None, "std": None, "fit": "auto"} if where.startswith("config ") else {}
    return {key: value for key, value in layer.items() if key not in is_open or value != is_open[key]}


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
