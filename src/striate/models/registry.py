"""The nets by name: a dict, a decorator, and how options given as text become values."""

from __future__ import annotations

import inspect
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from striate.errors import UsageError, unknown_name
from striate.models.layers import Size, as_size
from striate.models.timm_nets import builder, is_timm, weights_card

NetClass = TypeVar("NetClass", bound=type[nn.Module])

#: What every net's constructor takes first; all that follows are the net's own options.
COMMON = ("num_classes", "in_channels", "input_size")


@dataclass(frozen=True)
class _Entry:
    """A net's class, the line about it where that is not its docstring's first, and what its name decides."""

    net_class: Any  # of timm's nets a function with a constructor's arguments
    line: str
    fixed: Mapping[str, Any]


_NETS: dict[str, _Entry] = {}


def register(name: str, line: str = "", **fixed: Any) -> Callable[[NetClass], NetClass]:
    """Enter a net under `name`; a name that is taken raises ValueError.

    A class that stands for several nets is entered several times: each with a line about it, and with the arguments
    of the constructor that its name decides, which are then no options of it.
    """

    def enter(net_class: NetClass) -> NetClass:
        if name in _NETS:
            taken = _NETS[name].net_class.__qualname__
            raise ValueError(f"two nets are called {name!r}: {taken} and {net_class.__qualname__}")
        _NETS[name] = _Entry(net_class, line, fixed)
        return net_class

    return enter


def list_models() -> list[str]:
    """Return the names of all nets, sorted."""
    return sorted(_NETS)


def list_families() -> list[list[str]]:
    """Return the names of the nets by their class, the shortest, and so the smallest net, first."""
    families: dict[type[nn.Module], list[str]] = {}
    for name in sorted(_NETS, key=lambda name: (len(name), name)):
        families.setdefault(_NETS[name].net_class, []).append(name)
    return sorted(families.values())


def _entry(name: str) -> _Entry:
    if is_timm(name):
        card = weights_card(name)
        return _Entry(builder(name), f"A net of timm; its published weights: {card.name} ({card.licence})", {})
    if name not in _NETS:
        raise unknown_name("model", name, _NETS, fix="`striate models` lists them all")
    return _NETS[name]


def model_class(name: str) -> type[nn.Module]:
    """Return the class behind a name; an unknown one raises UsageError with the near names."""
    return _entry(name).net_class


def describe_model(name: str) -> str:
    """Return the line about a net: the one it was registered with, else the first of its docstring."""
    entry = _entry(name)
    return entry.line or (inspect.getdoc(entry.net_class) or "").partition("\n")[0]


def native_shape(name: str) -> tuple[int, int, Size]:
    """Return the (num_classes, in_channels, input_size) that the net's article or paper has."""
    parameters = inspect.signature(model_class(name)).parameters
    num_classes, in_channels, input_size = (parameters[common].default for common in COMMON)
    return num_classes, in_channels, as_size(input_size)


def model_options(name: str) -> dict[str, Any]:
    """Return each option of a net with its default, read from the constructor's signature."""
    entry = _entry(name)
    parameters = inspect.signature(entry.net_class).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in (*COMMON, *entry.fixed)}


def option_choices(name: str) -> dict[str, tuple[str, ...]]:
    """Return, for each option that takes one of several words, those words."""
    hints = typing.get_type_hints(model_class(name).__init__)
    return {
        key: typing.get_args(hints[key])
        for key in model_options(name)
        if typing.get_origin(hints.get(key)) is typing.Literal
    }


def convert_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with every value in the type that the net's constructor wants.

    Values may be text from a command line or YAML: `"4096,4096"` becomes `(4096, 4096)`. UsageError for an option that
    the net does not have and for a value that cannot be converted.
    """
    return convert_arguments(name, model_class(name), options, known=model_options(name))


def convert_arguments(
    name: str, net_class: type[nn.Module], options: Mapping[str, Any], known: typing.Iterable[str]
) -> dict[str, Any]:
    """Convert constructor arguments of any net's class by their annotations or, without one, by their defaults."""
    known = list(known)
    parameters = inspect.signature(net_class).parameters
    try:
        hints = typing.get_type_hints(net_class.__init__)
    except NameError:  # the user's own class may import its annotations under TYPE_CHECKING only
        hints = {}
    converted = {}
    for key, value in options.items():
        if key not in known:
            raise unknown_name(f"option of {name}", key, known)
        default = parameters[key].default if key in parameters else inspect.Parameter.empty
        converted[key] = convert_value(f"{name}'s option {key}", value, _kind(hints.get(key), default))
    return converted


def create_model(
    name: str, num_classes: int, in_channels: int, input_size: int | tuple[int, int], **options: Any
) -> nn.Module:
    """Build a net by name; its weights are drawn from torch's global generator.

    The net takes pictures (B, in_channels, H, W) and returns logits (B, num_classes). `input_size` is in pixels, one
    number for a square or (H, W). UsageError for an unknown name or option, a value of the wrong type, and a size
    that the net's layers cannot take.
    """
    entry = _entry(name)
    arguments = convert_options(name, options)
    return entry.net_class(
        num_classes=positive("num_classes", num_classes),
        in_channels=positive("in_channels", in_channels),
        input_size=as_size(input_size),
        **entry.fixed,
        **arguments,
    )


def positive(what: str, value: Any) -> int:
    """Return `value` as an int of at least 1, or raise UsageError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise UsageError(f"{what} is {value!r}", "it has to be a whole number of at least 1")
    return number


def convert_value(what: str, value: Any, kind: Any) -> Any:
    """Convert `value` to `kind`: bool, int, float, str, tuple[X, ...] or Literal; any other kind is left alone."""
    if typing.get_origin(kind) is typing.Literal:
        words = typing.get_args(kind)
        word = value.lower().replace("_", "-") if isinstance(value, str) else value
        if word not in words:
            raise UsageError(f"{what} is {value!r}", "it has to be one of " + ", ".join(str(word) for word in words))
        return word
    if typing.get_origin(kind) is tuple:
        return _convert_tuple(what, value, typing.get_args(kind)[0])
    if kind is bool:
        return _convert_bool(what, value)
    if kind is int:
        return _convert_int(what, value)
    if kind is float:
        return _convert_float(what, value)
    if kind is str and not isinstance(value, str):
        raise UsageError(f"{what} is {value!r}", "it has to be text")
    return value


def _kind(hint: Any, default: Any) -> Any:
    """Tell the type to convert to from the annotation, else from the default's own type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # `int | None` and the like: convert to the first member that is not None.
        hint = next((member for member in typing.get_args(hint) if member is not type(None)), None)
    if hint is not None and hint is not Any:
        return hint
    if isinstance(default, tuple) and default:
        return tuple[type(default[0]), ...]  # type: ignore[misc]
    return None if default in (None, inspect.Parameter.empty) else type(default)


def _convert_tuple(what: str, value: Any, member: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    elif not isinstance(value, list | tuple):
        value = [value]
    return tuple(convert_value(what, part, member) for part in value)


def _convert_bool(what: str, value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise UsageError(f"{what} is {value!r}", "it has to be true or false")


def _convert_int(what: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return int(value, 10) if isinstance(value, str) else operator.index(value)
    except (ValueError, TypeError):
        raise UsageError(f"{what} is {value!r}", "it has to be a whole number") from None


def _convert_float(what: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (ValueError, TypeError):
        raise UsageError(f"{what} is {value!r}", "it has to be a number") from None
