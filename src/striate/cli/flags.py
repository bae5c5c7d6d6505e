"""Flags made from settings: every field of a settings model is a flag with the field's description."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import typer.core
import typer.main

from striate.cli.group import CONTEXT
from striate.settings.base import Settings

# typer carries its own copy of click, or uses the installed one, depending on its version: found through BadParameter,
# which is public in both.
TYPER_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


class VerbCommand(typer.core.TyperCommand):
    """A command whose help lists its flags in sections."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the flags; an error knows the verb it is about, which typer leaves out of some."""
        try:
            return super().parse_args(ctx, args)
        except TYPER_USAGE_ERROR as error:
            if getattr(error, "ctx", None) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name: `[OPTIONS] RUN [PICTURE]...`."""
        pieces = ["[OPTIONS]"]
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                piece = str(parameter.metavar) if parameter.required else f"[{parameter.metavar}]"
                pieces.append(piece + ("..." if parameter.nargs != 1 else ""))
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then flags section by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if parameter.param_type_name == "argument":
                # typer would put a type behind the name: "RUN <str>".
                sections.setdefault("Arguments", []).append(
                    (str(parameter.metavar), getattr(parameter, "help", "") or "")
                )
            elif record is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        for name in sorted(sections, key=lambda name: (name != "Arguments", name == "Options")):
            with formatter.section(name):
                formatter.write_dl(sections[name])


def make_command(
    name: str, work: Callable[..., Any], parameters: Sequence[inspect.Parameter], description: str, epilog: str = ""
) -> Any:
    """Build a command that calls `work` with the values given on the command line; a flag not given is None."""

    def call(**values: Any) -> Any:
        return work(**values)

    # typer reads the signature; it is made of the settings' fields here instead of being typed again.
    call.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    call.__annotations__ = {}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=VerbCommand, help=description, epilog=epilog or None, context_settings=CONTEXT)(call)
    return typer.main.get_command(app)


def argument(name: str, metavar: str, description: str, *, required: bool = True, many: bool = False) -> Any:
    """Build a positional argument."""
    kind = list[str] if many else str
    if required:
        return _parameter(name, Annotated[kind, typer.Argument(metavar=metavar, help=description)], required=True)
    told = typer.Argument(metavar=metavar, help=description, show_default=False)
    return _parameter(name, Annotated[kind | None, told])


def switch(name: str, description: str, panel: str | None = None) -> Any:
    """Build a flag that takes no value."""
    told = typer.Option(flag_name(name), help=description, rich_help_panel=panel, show_default=False)
    return _parameter(name, Annotated[bool | None, told])


def option(name: str, metavar: str, description: str, *, many: bool = False, panel: str | None = None) -> Any:
    """Build a flag that takes a value, as text; the settings turn it into what they want."""
    told = typer.Option(flag_name(name), metavar=metavar, help=description, rich_help_panel=panel, show_default=False)
    return _parameter(name, Annotated[(list[str] if many else str) | None, told])


def settings_flags(
    model: type[Settings], *, leave_out: Sequence[str] = (), sections: Mapping[str, str] | None = None
) -> list[Any]:
    """Build one flag for each field of a settings model.

    `sections` maps the first field of each help section to the section's name.
    """
    flags = []
    section: str | None = None
    for name, field in model.model_fields.items():
        section = (sections or {}).get(name, section)
        if name in leave_out:
            continue
        description = _with_default(field.description or "", field.default)
        if name.startswith("as_"):
            flags.append(switch(name, field.description or "", section))
        elif field.annotation is bool:
            both = f"{flag_name(name)}/--no-{name.replace('_', '-')}"
            told = typer.Option(both, help=description, rich_help_panel=section, show_default=False)
            flags.append(_parameter(name, Annotated[bool | None, told]))
        else:
            is_dict = get_origin(field.annotation) is dict
            text = (field.description or "") + "; may be repeated" if is_dict else description
            flags.append(option(name, metavar_of(field.annotation), text, many=is_dict, panel=section))
    return flags


def flag_name(field: str) -> str:
    """Return the flag of a field: `batch_size` is `--batch-size`, `as_json` is `--json`."""
    return "--" + field.removeprefix("as_").replace("_", "-")


def metavar_of(annotation: Any) -> str:
    """Return what stands for a flag's value in the help: `INT`, `sgd|adam|adamw`, `PATH` …"""
    members = [member for member in _members(annotation) if member is not type(None)]
    kind = members[0]
    if get_origin(kind) is Literal:
        return "|".join(str(word) for word in get_args(kind))
    if get_origin(kind) is dict:
        return "NAME=VALUE"
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return {(int, int): "H[xW]", (int, int, int): "CxHxW"}.get(inner, "X[,X]")
    return {int: "INT", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def given_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that were given: what typer leaves as None, or as an empty list, was not."""
    return {name: value for name, value in values.items() if value is not None and value != [] and value != ()}


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _with_default(description: str, default: Any) -> str:
    if default is None or (isinstance(default, bool) and not default) or "default" in description:
        return description
    if isinstance(default, bool):
        default = "yes"
    elif isinstance(default, tuple):
        default = ",".join(str(part) for part in default)
    elif not isinstance(default, (str, int, float, Path)) or default == "":
        return description
    return f"{description} [{default}]"


def _parameter(name: str, annotation: Any, *, required: bool = False) -> inspect.Parameter:
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
