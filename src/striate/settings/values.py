"""What people type → values of settings: sizes, ranges, times, options, and the environment's variables."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from striate.errors import UsageError
from striate.settings.base import Layer, Settings

_UNITS = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
# STRIATE_DATA is the folder of the data sets: the look-up reads it itself, so that no run records a machine's path.
_NO_VARIABLE = ("data", "data_root")


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


def read_size(value: Any) -> Any:
    """Read a picture's size: 96 or 96x128 as (height, width). Raises ValueError."""
    if isinstance(value, int):
        value = (value, value)
    elif isinstance(value, str):
        parts = value.lower().split("x")
        value = (parts[0], parts[-1])
        if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
            raise ValueError("a size is written 96 or 96x128")
    if value is not None and not all(1 <= int(side) <= 4096 for side in value):
        raise ValueError("a side must be 1 to 4096 pixels")
    return value


def read_numbers(value: Any) -> Any:
    """Read one number, or several as `0.5,0.5,0.5`, as a tuple."""
    if isinstance(value, str):
        return tuple(part for part in value.replace(" ", "").split(",") if part)
    if isinstance(value, (int, float)):
        return (value,)
    return value


def parse_time(text: str) -> float:
    """Read `90s`, `10m` or `1.5h` as seconds. Raises ValueError."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in ("s", "m", "h") or not number.replace(".", "", 1).isdigit() or not float(number) > 0:
        raise ValueError("a time is written 90s, 10m or 1.5h")
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def parse_bytes(text: str) -> int:
    """Read `512mb` or `1.5gb` (of 1024 each) as bytes. Raises ValueError."""
    number, unit = text.strip()[:-2].strip(), text.strip()[-2:].lower()
    if unit not in _UNITS or not number.replace(".", "", 1).isdigit() or not float(number) > 0:
        raise ValueError("an amount of memory is written 512mb or 1.5gb")
    return int(float(number) * _UNITS[unit])


def check_bytes(text: str | None) -> str | None:
    """Return an amount of memory as it is. Raises ValueError for what is none."""
    if text is not None:
        parse_bytes(text)
    return text


def told_bytes(size: int) -> str:
    """Write bytes as people read them: 8 KB, 512 MB, 1.5 GB."""
    unit = next((unit for unit in ("gb", "mb") if size >= _UNITS[unit]), "kb")
    return f"{size / _UNITS[unit]:,.1f}".removesuffix(".0") + f" {unit.upper()}"


def check_order(text: str) -> str:
    """Return an order of train pictures as it is. Raises ValueError for what is none."""
    numbers = text.removeprefix("blocks:").split(",") if text.startswith("blocks:") else []
    if text not in ("auto", "whole", "blocks") and [n.isdigit() and int(n) > 0 for n in numbers] != [True, True]:
        raise ValueError("an order is auto, whole, blocks, or blocks:PICTURES,HELD such as blocks:64,512")
    return text


def parse_range(text: str) -> slice:
    """Read `first:end`, `:end` or `first:` as a slice of whole numbers from 0. Raises ValueError."""
    first, colon, end = text.partition(":")
    if not colon or any(part and not part.strip().isdigit() for part in (first, end)):
        raise ValueError("a range is written first:end, such as 0:20000 or :5000")
    chosen = slice(int(first) if first else 0, int(end) if end else None)
    if chosen.stop is not None and chosen.stop <= chosen.start:
        raise ValueError(f"the range {text} is empty")
    return chosen
