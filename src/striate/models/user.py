"""Nets that the user wrote: how they are found, made, and brought to the rules that striate's own nets keep."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from striate.errors import UsageError, unknown_name
from striate.models.diagnose import run_explained
from striate.models.dry_run import example_pictures, last_place, set_mode
from striate.models.layers import as_size
from striate.models.registry import COMMON, convert_arguments

__all__ = ["instantiate", "load_class", "set_mode", "take_logits"]


def load_class(target: str) -> type[nn.Module]:
    """Import the class that `net.py:MyNet` names, from the file as it stands, under a module name of its own.

    The file's folder is importable while it loads, so that it may import its neighbours; code under
    `if __name__ == "__main__"` does not run. UsageError when the file or the class is missing, when the file cannot be
    imported (with its line), and when the name is not that of a torch.nn.Module.
    """
    file_name, separator, class_name = target.rpartition(":")
    if not separator or not file_name.endswith(".py") or not class_name.isidentifier():
        raise UsageError(f"{target!r} names no net", "a net of your own is written as file.py:ClassName")
    path = Path(file_name).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {file_name}", f"looked for {path.absolute()}")
    module = _import_file(path)
    if not hasattr(module, class_name):
        known = [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.__name__
        ]
        raise unknown_name(f"class of {file_name}", class_name, known)
    found = getattr(module, class_name)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise UsageError(
            f"{class_name} in {file_name} is not a torch.nn.Module",
            f"it is {found!r}",
            f"write it as `class {class_name}(torch.nn.Module):`",
        )
    return found


def instantiate(
    net_class: type[nn.Module],
    num_classes: int,
    in_channels: int,
    input_size: int | tuple[int, int],
    **options: Any,
) -> nn.Module:
    """Make a net of the user's class: with `num_classes`, `in_channels` and `input_size` as far as it takes them.

    A constructor without arguments is called without; `input_size` arrives as (height, width). Other arguments come
    from `options`, whose text values are converted as for striate's own nets. UsageError for an option that the
    constructor does not take, one that it needs and does not get, and whatever it raises.
    """
    parameters = inspect.signature(net_class).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    known = [name for name in named if name not in COMMON] + (list(options) if takes_all else [])
    arguments = convert_arguments(net_class.__name__, net_class, options, known=known)
    common = {"num_classes": num_classes, "in_channels": in_channels, "input_size": as_size(input_size)}
    arguments.update({name: common[name] for name in named if name in common})
    missing = [name for name in named if parameters[name].default is inspect.Parameter.empty and name not in arguments]
    if missing:
        raise UsageError(
            f"{net_class.__name__} cannot be made without " + ", ".join(missing),
            "striate gives num_classes, in_channels and input_size where the constructor names them",
            "give the rest a default, or write " + " ".join(f"--model-option {name}=…" for name in missing),
        )
    try:
        return net_class(**arguments)
    except UsageError:
        raise
    except Exception as error:
        place = last_place(error)
        too_early = isinstance(error, AttributeError) and "before Module.__init__() call" in str(error)
        raise UsageError(
            f"{net_class.__name__} could not be made: {type(error).__name__}: {error}",
            f"at {place}" if place else "",
            f"write super().__init__() as the first line of {net_class.__name__}.__init__" if too_early else "",
        ) from error


def take_logits(net: nn.Module, input_shape: tuple[int, int, int]) -> str | None:
    """Put nn.Identity in the place of an nn.Sigmoid or nn.Softmax at the net's end; return a sentence if that was done.

    striate's losses and probabilities start from logits (B, classes). A dry run tells: the last layer that ran is one
    of the two, and what it returned is the net's output itself. UsageError if the same layer also runs earlier in the
    net, where it has to stay.
    """
    trace = run_explained(net, example_pictures(net, 2, input_shape), training=False)
    layers = trace.layers
    if (
        not layers
        or not isinstance(layers[-1].module, nn.Sigmoid | nn.Softmax)
        or layers[-1].output is not trace.output
    ):
        return None
    last = layers[-1]
    kind = type(last.module).__name__
    if last.module is net:
        raise UsageError(f"the net is nothing but nn.{kind}", "it has no weights to train")
    if sum(call.module is last.module for call in layers) > 1:
        raise UsageError(
            f"{type(net).__name__} ends in {last.name} nn.{kind}, which also runs earlier in the net",
            "striate trains on logits, the numbers before it, and cannot take it away at one place only",
            f"give the end a layer of its own, or return the numbers before the last {last.name}",
        )
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if child is last.module:
                setattr(parent, name, nn.Identity())
    return (
        f"the net's last layer, {last.name} nn.{kind}, was taken away: the net now returns logits, "
        f"and striate applies the {kind.lower()} itself"
    )


def _import_file(path: Path) -> ModuleType:
    """Run a Python file as a module whose private name no other file has."""
    absolute = path.resolve()
    name = f"_striate_user_{absolute.stem}_{hashlib.sha256(str(absolute).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, absolute)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported", "it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses and type hints look their own module up there.
    sys.modules[name] = module
    sys.path.insert(0, str(absolute.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        place = last_place(error, str(absolute))
        raise UsageError(
            f"{path} could not be imported: {type(error).__name__}: {error}",
            f"at {place}" if place else "",
            "code that trains or reads arguments belongs under `if __name__ == '__main__':`"
            if isinstance(error, SystemExit)
            else "",
        ) from error
    finally:
        if str(absolute.parent) in sys.path:
            sys.path.remove(str(absolute.parent))
    return module
