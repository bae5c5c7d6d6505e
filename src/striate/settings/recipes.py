"""Named recipes: YAML files of settings with a sentence and a measured result in their first lines."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from striate.errors import DataError, UsageError, unknown_name
from striate.settings.base import check_names
from striate.settings.train import TrainSettings

GENERIC = "generic"
PICTURES = "pictures"
TRANSFER = "transfer"


@dataclass(frozen=True)
class Recipe:
    """One named recipe: its sentence, its measured result, its settings and its text."""

    name: str
    description: str
    measured: str
    values: dict[str, Any]
    text: str


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key written twice is an error; PyYAML would keep the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key!r} is written twice")
        return super().construct_mapping(node, deep=deep)


def parse_settings(text: str, source: str) -> dict[str, Any]:
    """Read a YAML mapping of settings; `source` is its name in errors.

    Raises UsageError for YAML that cannot be read, for a document that is no mapping, and, with near names, for
    a setting that does not exist.
    """
    try:
        values = yaml.load(text, Loader=_Loader)  # _Loader is a SafeLoader: it builds plain values only
    except (yaml.YAMLError, ValueError, TypeError) as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"{source} is not readable YAML", cause, "write one `setting: value` a line") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(
            f"{source} is not a mapping of settings",
            f"it holds a {type(values).__name__}",
            "write one `setting: value` a line, such as `epochs: 3`",
        )
    try:
        check_names(TrainSettings, [str(name) for name in values])
    except UsageError as error:
        raise UsageError(f"{error.what} in {source}", error.cause, "correct the name or take the line out") from None
    return values


def read_config(path: Path) -> dict[str, Any]:
    """Read the file of `--config`. Raises DataError if it cannot be read, UsageError as parse_settings."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        cause = error.strerror or str(error)
        raise DataError(f"cannot read the config file {path}", cause, "check the path after --config") from None
    except UnicodeDecodeError:
        raise DataError(f"the config file {path} is not text in UTF-8", "", "save it as UTF-8") from None
    return parse_settings(text, str(path))


def list_recipes() -> dict[str, Recipe]:
    """Return every recipe of the package by name, sorted."""
    return {name: _read(name) for name in _names()}


def get_recipe(name: str) -> Recipe:
    """Return one recipe. Raises UsageError with near names."""
    if name not in _names():
        raise unknown_name("recipe", name, _names(), "see `striate recipes`")
    return _read(name)


def load_recipe(name: str) -> dict[str, Any]:
    """Return the settings that a recipe names. Raises UsageError with near names."""
    return get_recipe(name).values


def choose_recipe(data: str | None, model: str | None, recipe: str | None) -> str:
    """Return the recipe's name: the one asked for, else the default of the data, else the generic one for the model.

    A model without a generic recipe of its own has that of its family: `generic-vgg` is for vgg11 to vgg19.
    Pictures of one's own, named by a path, have the default `pictures`.

    Raises UsageError with near names for a recipe that does not exist.
    """
    known = _names()
    if recipe is not None:
        return get_recipe(recipe).name
    if model is None:
        data = data.lower().replace("_", "-") if data is not None else None
        if data in known and _read(data).values.get("data") == data:
            return data
        return PICTURES if data is not None and is_place(data) else GENERIC
    family = model.rstrip("0123456789")  # vgg of vgg16
    return next((name for name in (f"{GENERIC}-{model}", f"{GENERIC}-{family}") if name in known), GENERIC)


def is_place(data: str) -> bool:
    """Say whether this is a path or an address and no plain name (data/sources.py decides what it is)."""
    return re.fullmatch(r"[\w-]+", data) is None or os.path.lexists(data)


def _names() -> list[str]:
    folder = resources.files("striate") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _read(name: str) -> Recipe:
    text = (resources.files("striate") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    sentence: list[str] = []
    measured: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment = line.removeprefix("#").strip()
        if comment.startswith("measured:"):
            measured.append(comment.removeprefix("measured:").strip())
        elif not measured:
            sentence.append(comment)
        else:
            measured.append(comment)
    values = parse_settings(text, f"recipe {name}")
    return Recipe(name, " ".join(sentence), " ".join(measured), values, text)
