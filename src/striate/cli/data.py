"""`striate data ls`, `data show` and `data add`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.group import LazyGroup, Verbs, make_group
from striate.cli.output import hint, printable, say, say_json, say_table
from striate.settings.base import build
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import (
    FROM_ENVIRONMENT,
    DataAddSettings,
    DataListSettings,
    DataShowSettings,
    choose_indices,
)

LABELS_PRINTED = 100
SHEET_PICTURES, SHEET_EPOCHS = 3, 8


class DataGroup(LazyGroup):
    """The verbs of `striate data`."""

    verbs: ClassVar[Verbs] = {
        "ls": ("striate.cli.data:data_ls", "List the named data sets and where each is found"),
        "show": ("striate.cli.data:data_show", "Draw pictures of a data set with their labels, without training"),
        "add": ("striate.cli.data:data_add", "Take in a data file that you got by hand"),
    }


def _list(**flags: Any) -> None:
    given = from_text(DataListSettings, given_values(flags))
    environment = environment_layers(DataListSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(DataListSettings, [*environment, ("flag", given)])
    from striate.data.builtin import describe_named

    sets = describe_named(settings.data_root)
    if settings.as_json:
        say_json({"format": 1, "data": sets})
        return
    rows = [
        (
            row["name"],
            f"{row['pictures']:,}",
            str(row["classes"]),
            "x".join(str(side) for side in row["size"]),
            row["licence"],
            row["where"],
        )
        for row in sets
    ]
    say_table(("name", "pictures", "classes", "size", "licence", "where"), rows, right=(1, 2))


def _show(name: str, **flags: Any) -> None:
    given = from_text(DataShowSettings, given_values(flags))
    environment = environment_layers(DataShowSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(DataShowSettings, [*environment, ("flag", given)])
    from striate.data import augment
    from striate.data.builtin import find_named, load_named
    from striate.report import plots

    operations = augment.parse(settings.augment)
    name = find_named(name).name
    part = load_named(name, settings.data_root, settings.download, hint).part(settings.split)
    chosen = choose_indices(settings.index, len(part), f"{name}/{settings.split}")
    labels = [part.classes[part.labels[number]] for number in chosen]
    numbers = re.sub(r"[^0-9]+", "-", settings.index).strip("-")
    path = settings.out or Path(f"{name}-{settings.split}-{numbers}.png")
    title = f"{name}/{settings.split} {settings.index}"
    if operations:
        _sheet(path, part.images[chosen], operations, f"{title}: {augment.describe(operations)}")
    else:
        plots.sample_grid(path, part.images[chosen], labels, title=title)
    shown = list(zip(chosen, labels, strict=True))
    say_table(("index", "label"), [(str(number), label) for number, label in shown[:LABELS_PRINTED]], right=(0,))
    if len(shown) > LABELS_PRINTED:
        say(f"… and {len(shown) - LABELS_PRINTED:,} more")
    hint(f"drawn: {printable(str(path))}")


def _sheet(path: Path, images: Any, operations: Any, title: str) -> None:
    """Draw what each operation, and at last all of them, make of the first pictures; all of them are one batch."""
    from striate.data.batches import versions
    from striate.report import plots

    chains = [(operation,) for operation in operations] + [operations] * (len(operations) > 1)
    rows = [
        (str(chain[0]) if len(chain) == 1 else "together", versions(images, chain, SHEET_EPOCHS)[:, :SHEET_PICTURES])
        for chain in chains
    ]
    plots.augmentation_sheet(path, images[:SHEET_PICTURES], rows, title=title)


def _add(files: list[str], **flags: Any) -> None:
    settings, _ = build(DataAddSettings, [("flag", given_values(flags))])
    from striate.data.adding import add_file

    for file in files:
        say(printable(add_file(Path(file), settings.data)))


data_ls = make_command(
    "ls", _list, settings_flags(DataListSettings), "List the named data sets and where each is found."
)

data_show = make_command(
    "show",
    _show,
    [argument("name", "NAME", "Name of a data set."), *settings_flags(DataShowSettings)],
    "Draw pictures of a data set with their labels, without training.",
)

data_add = make_command(
    "add",
    _add,
    [
        argument("files", "FILE", "Files as the data set's maker serves them.", many=True),
        *settings_flags(DataAddSettings),
    ],
    "Take in data files that you got by hand: recognise them, check them, copy them into the cache.",
)

data = make_group(DataGroup, "List, show and add data sets.")
