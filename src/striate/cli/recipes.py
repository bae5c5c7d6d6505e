"""`striate recipes`."""

from __future__ import annotations

from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import say_json, say_table, write_text
from striate.settings.base import build
from striate.settings.recipes import Recipe, get_recipe, list_recipes
from striate.settings.verbs import RecipesSettings


def _recipes(name: str | None, **flags: Any) -> None:
    settings, _ = build(RecipesSettings, [("flag", given_values(flags))])
    chosen = [get_recipe(name)] if name is not None else list(list_recipes().values())
    if settings.as_json:
        say_json({"format": 1, "recipes": [as_document(recipe) for recipe in chosen]})
    elif name is not None:
        write_text(chosen[0].text)
    else:
        rows = [
            (recipe.name, recipe.values.get("data", "any"), recipe.values.get("model", "any"), recipe.measured)
            for recipe in chosen
        ]
        say_table(("recipe", "data", "net", "measured"), rows)


def as_document(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "measured": recipe.measured,
        "settings": recipe.values,
    }


recipes = make_command(
    "recipes",
    _recipes,
    [
        argument("name", "NAME", "A recipe: prints its YAML.", required=False),
        *settings_flags(RecipesSettings),
    ],
    "List the recipes with what they were measured to reach, or print one.",
)
