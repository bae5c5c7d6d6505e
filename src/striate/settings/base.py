"""What all settings share: frozen, unknown keys refused with near names, layers with an origin for each value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from striate.errors import UsageError, unknown_name

Layer = tuple[str, Mapping[str, Any]]  # where the values come from, and the values
SettingsType = TypeVar("SettingsType", bound="Settings")

# What other tools call a setting; only for the hint in the error.
USUAL_NAMES = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "wd": "weight_decay",
    "imgsz": "size",
    "num_epochs": "epochs",
    "patience": "early_stop",
    "dataset": "data",
    "arch": "model",
    "opt": "optimizer",
}


class Settings(BaseModel):
    """Settings of one verb. Every field is a flag of that verb: `batch_size` is `--batch-size`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def check_names(model: type[Settings], names: Iterable[str]) -> None:
    """Raise UsageError with near names for a setting that does not exist."""
    for name in names:
        if name not in model.model_fields:
            meant = USUAL_NAMES.get(str(name).lower().replace("-", "_"))
            if meant in model.model_fields:
                raise UsageError(f"unknown setting {name!r}", f"striate calls it {meant}")
            raise unknown_name("setting", str(name), model.model_fields)


def build(model: type[SettingsType], layers: Sequence[Layer]) -> tuple[SettingsType, dict[str, str]]:
    """Merge layers, weakest first, into settings; return them and the origin of each value.

    Raises UsageError naming the setting, its origin and the rule that it breaks.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = dict.fromkeys(model.model_fields, "default")
    for origin, layer in layers:
        check_names(model, layer)
        for name, value in layer.items():
            values[name] = value
            origins[name] = origin
    try:
        return model(**values), origins
    except ValidationError as error:
        raise _usage_error(error, origins) from None


def _usage_error(error: ValidationError, origins: Mapping[str, str]) -> UsageError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    message = str(first["msg"]).removeprefix("Value error, ")
    if not name:
        return UsageError(message)
    flag = "--" + name.replace("_", "-")
    return UsageError(f"setting {name} = {first['input']!r} ({origins.get(name, 'given')})", message, f"change {flag}")
