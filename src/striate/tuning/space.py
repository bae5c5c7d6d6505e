"""What a search may try: parameters as people write them, checked before anything is trained."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from striate.errors import UsageError, unknown_name
from striate.models import model_options
from striate.models.registry import convert_options, list_models, option_choices
from striate.settings.base import check_names
from striate.settings.train import TrainSettings

OPTION = "model."
FORM = "write lr=1e-4..1e-1:log, batch_size=16,32,64 or model.activation=relu,tanh"
SPREAD = 10  # the default range of lr is so many times under and over the recipe's
BATCHES = (32, 64, 128, 256)
# What decides on which pictures a trial is judged, or where it is computed: with these, trials could not be compared.
FIXED = {
    *("data", "data_root", "download", "class_names", "recipe", "model", "fixes", "group", "follow_links", "strict"),
    *("cache", "max_pixels", "validation", "test", "train_range", "validation_range", "test_range", "time", "tta"),
    *("seed", "device", "threads", "out", "save_every", "model_option", "validate_every"),
}
Resolve = Callable[[Mapping[str, Any]], TrainSettings]


@dataclass(frozen=True)
class Parameter:
    """One parameter: `choices`, or every number from `low` to `high`; `name` is a setting or `model.OPTION`."""

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def told(self) -> str:
        """Return the parameter as one would type it."""
        if self.choices:
            return f"{self.name}={','.join(self.choices)}"
        return f"{self.name}={self.low:g}..{self.high:g}{':log' if self.log else ''}"

    def ends(self) -> tuple[Any, ...]:
        """Return the values to be checked: all choices, or both ends."""
        if self.choices:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def holds(self, value: str) -> bool:
        """Say whether the search could come upon this value."""
        if self.choices:
            return value in self.choices
        try:
            return self.low <= float(value) <= self.high
        except ValueError:
            return False


def parse(texts: Sequence[str], base: TrainSettings, resolve: Resolve) -> list[Parameter]:
    """Read `--param` texts. Raises UsageError for a name or value that training would refuse, and an empty range."""
    found: dict[str, Parameter] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip() if name.startswith(OPTION) else name.strip().replace("-", "_")
        if not equals or not values.strip():
            raise UsageError(f"--param {text!r} names no values", "a parameter is NAME=VALUES", FORM)
        if name in found:
            raise UsageError(f"--param {name} is given twice", "a parameter has one range", "leave one out")
        _check_name(name, base)
        parameter = _read(name, values.strip(), text)
        for value in parameter.ends():
            try:
                resolve(as_given({name: value}))
                if name.startswith(OPTION):
                    convert_options(str(base.model), {name.removeprefix(OPTION): value})
            except UsageError as error:
                cause = f"{error.what}{': ' if error.cause else ''}{error.cause}"
                raise UsageError(f"--param {text!r} cannot be tried", cause, error.fix or FORM) from None
        found[name] = parameter
    return list(found.values())


def default_space(base: TrainSettings, train_pictures: int) -> list[Parameter]:
    """Return what is tried where nobody says: rate, batch, decay, smoothing, and the words that the net can choose."""
    batches = tuple(str(size) for size in BATCHES if size * 4 <= train_pictures) or (str(base.batch_size),)
    space = [
        Parameter("lr", low=base.lr / SPREAD, high=base.lr * SPREAD, log=True),
        Parameter("batch_size", batches),
        Parameter("weight_decay", low=1e-5, high=0.3 if base.decay_is_decoupled else 0.01, log=True),
    ]
    if base.loss == "cross-entropy":
        space.append(Parameter("label_smoothing", low=0.0, high=0.2))
    if base.model in list_models():
        space += (Parameter(OPTION + name, words) for name, words in option_choices(base.model).items())
    return space


def as_given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of parameters as settings that were typed."""
    given = {name: value for name, value in values.items() if not name.startswith(OPTION)}
    options = [f"{name.removeprefix(OPTION)}={value}" for name, value in values.items() if name.startswith(OPTION)]
    return {**given, "model_option": options} if options else given


def _check_name(name: str, base: TrainSettings) -> None:
    if name.startswith(OPTION):
        option = name.removeprefix(OPTION)
        if base.model not in list_models():
            raise UsageError(f"--param {name}: {base.model} is no net of striate", "its options are not known", "")
        known = model_options(str(base.model))
        if option not in known:
            raise unknown_name(f"option of {base.model}", option, known, f"see: striate models {base.model}")
        return
    check_names(TrainSettings, [name])
    if name in FIXED:
        raise UsageError(
            f"--param {name} cannot be tried",
            "trials that differ in it could not be compared",
            "write model.NAME for an option of the net" if name == "model_option" else "give it as a flag",
        )


def _read(name: str, values: str, text: str) -> Parameter:
    if ".." not in values:
        choices = tuple(dict.fromkeys(part.strip() for part in values.split(",") if part.strip()))
        if len(choices) < 2:
            raise UsageError(f"--param {text!r} leaves nothing to choose", "it names one value", FORM)
        return Parameter(name, choices)
    numbers, _, scale = values.partition(":")
    first, _, last = numbers.partition("..")
    try:
        low, high = float(first), float(last)
    except ValueError:
        raise UsageError(f"--param {text!r} is no range", "a range is LOW..HIGH or LOW..HIGH:log", FORM) from None
    if scale not in ("", "log"):
        raise UsageError(f"--param {text!r} has the unknown scale {scale!r}", "known: log", FORM)
    if not low < high:
        raise UsageError(f"--param {text!r} is an empty range", f"{low:g} is not under {high:g}", FORM)
    if scale and low <= 0:
        raise UsageError(f"--param {text!r} cannot be logarithmic", f"it begins at {low:g}", "begin above 0")
    whole = _is_whole(name) or (name.startswith(OPTION) and low.is_integer() and high.is_integer())
    if whole and not (low.is_integer() and high.is_integer()):
        raise UsageError(f"--param {text!r} is no range of whole numbers", f"{name} is a whole number", FORM)
    return Parameter(name, low=low, high=high, log=bool(scale), whole=whole)


def _is_whole(name: str) -> bool:
    field = TrainSettings.model_fields.get(name)
    if field is None:
        return False
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, types.UnionType) else ()
    return int in (kinds or (field.annotation,))
