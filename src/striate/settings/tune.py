"""Settings of `tune`: every field is a flag; those of `train` stand beside them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from striate.settings.base import Settings
from striate.settings.values import parse_time


class TuneSettings(Settings):
    """Settings of `tune`."""

    trials: int = Field(20, ge=1, description="trials of the study in all, those of earlier calls counted")
    time: str | None = Field(
        None, description="begin no trial after so long, and stop the one that runs: 90s, 10m, 1.5h"
    )
    param: tuple[str, ...] = Field(
        (), description="what is tried: lr=1e-4..1e-1:log, model.activation=relu,tanh; default: the usual ones"
    )
    out: Path | None = Field(None, description="folder of the study; default: runs/tune-<data>-<model>, which goes on")
    retrain: bool = Field(True, description="train the best once more in a run of its own, and test it")

    @field_validator("time")
    @classmethod
    def _time(cls, value: str | None) -> str | None:
        if value is not None:
            parse_time(value)
        return value
