"""A group of verbs from a static table: a verb's module is imported when that verb is invoked, not for --help."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
import typer.core
import typer.main

from striate.cli.output import say
from striate.errors import unknown_name

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

Verbs = Mapping[str, tuple[str, str]]  # verb → (module:attribute that holds its command, one line of help)


class LazyGroup(typer.core.TyperGroup):
    """A typer group whose verbs stand in `verbs`."""

    verbs: ClassVar[Verbs] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the table's order."""
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the verb's module and return its command, or None for an unknown verb."""
        if cmd_name not in self.verbs:
            return None
        module, _, attribute = self.verbs[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb. Raises UsageError with near names."""
        if args[0] not in self.verbs and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.verbs, f"see `{ctx.command_path} --help`")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table of verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in self.verbs.items()])


def make_group(kind: type[LazyGroup], described: str) -> Any:
    """Make the command of a group; without a verb it prints its help."""
    app = typer.Typer(
        cls=kind,
        add_completion=False,
        rich_markup_mode=None,
        invoke_without_command=True,
        help=described,
        context_settings=CONTEXT,
    )

    @app.callback()
    def group(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            say(context.get_help())

    return typer.main.get_command(app)
