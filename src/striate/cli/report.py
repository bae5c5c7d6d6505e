"""`striate report`."""

from __future__ import annotations

import os
from typing import Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import hint, printable, say
from striate.settings.base import build
from striate.settings.report import ReportSettings
from striate.settings.values import environment_layers, from_text
from striate.settings.verbs import FROM_ENVIRONMENT


def _report(run: str, **flags: Any) -> None:
    given = from_text(ReportSettings, given_values(flags))
    environment = environment_layers(ReportSettings, os.environ, only=FROM_ENVIRONMENT)
    settings, _ = build(ReportSettings, [*environment, ("flag", given)])
    from striate.cli.pictures import own_net
    from striate.reporting.run import write_report

    path = write_report(
        run,
        out=settings.out,
        data_root=settings.data_root,
        model=own_net(settings.model),
        device=settings.device,
        note=hint,
    )
    say(printable(str(path)))


report = make_command(
    "report",
    _report,
    [argument("run", "RUN", "Run folder, its name under runs/, or runs/latest."), *settings_flags(ReportSettings)],
    "Write what a run was and what it learned as one HTML file that needs nothing else, in English and Chinese.",
    "The run's MODEL_CARD.md is written anew, too. What can no longer be had (pictures, net) is told on the page.",
)
