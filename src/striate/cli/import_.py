"""`striate import`."""

from __future__ import annotations

import shlex
from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import COMMAND_LINE, hint, printable, say
from striate.settings.base import build
from striate.settings.values import from_text
from striate.settings.verbs import ImportSettings


def _import(file: str, **flags: Any) -> None:
    settings, _ = build(ImportSettings, [("flag", from_text(ImportSettings, given_values(flags)))])
    from pathlib import Path

    from striate.training.importing import import_weights as import_file

    command = shlex.join(["striate", *COMMAND_LINE.get()])
    folder = import_file(Path(file), settings, lambda line: hint(printable(line)), command)
    say(f"saved  {folder}")
    typed = shlex.quote(str(folder))
    again = f"striate eval {typed}" if settings.data else f"striate predict {typed} picture.png"
    say(f"next   {again}")


import_weights = make_command(
    "import",
    _import,
    [
        argument("file", "FILE", "Weights that torch.save or safetensors wrote: .pt, .pth, .model, .safetensors."),
        *settings_flags(ImportSettings),
    ],
    "Make a run folder of weights that another program saved, for eval and predict. No code in the file is ever run.",
    "Every name and shape has to be the net's own. A whole saved module is refused: save its state_dict().",
)
