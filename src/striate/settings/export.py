"""Settings of `export`: every field is a flag; `as_json` is `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from striate.settings.base import Settings

SUFFIXES = {"onnx": ".onnx", "striate": ".safetensors"}


class ExportSettings(Settings):
    """Settings of `export`."""

    to: Literal["onnx", "striate"] = Field("onnx", description="an ONNX graph, or weights and model.json in one file")
    int8: bool = Field(False, description="compute in 8 bits; says what that costs and gains")
    most_loss: float = Field(
        0.02, ge=0, le=1, description="refuse an int8 file whose accuracy is lower by more than this"
    )
    pictures: int = Field(1000, ge=1, description="real pictures that the file is proved on, at most")
    calibration: int = Field(256, ge=1, description="train pictures that measure the ranges of int8, at most")
    data: str | None = Field(None, description="prove it on these data; default: the run's own")
    data_root: Path | None = Field(None, description="folder that holds the data sets")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    out: Path | None = Field(None, description="the file; default: model.onnx, or model.safetensors, in the run folder")
    force: bool = Field(False, description="replace a file that is there")
    as_json: bool = Field(False, description="print the proof as one JSON document")

    @model_validator(mode="after")
    def _together(self) -> ExportSettings:
        suffix = SUFFIXES[self.to]
        if self.out is not None and self.out.suffix.lower() != suffix:
            raise ValueError(f"--out {self.out} has to end in {suffix}: what reads the file goes by that")
        if self.int8 and self.to != "onnx":
            raise ValueError("int8 is for --to onnx: leave out --int8")
        return self
