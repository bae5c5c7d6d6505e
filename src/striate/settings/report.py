"""Settings of `report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from striate.settings.base import Settings


class ReportSettings(Settings):
    """Settings of `report`."""

    out: Path | None = Field(None, description="the page; default: report.html in the run's folder")
    data_root: Path | None = Field(None, description="folder that holds the data sets")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
