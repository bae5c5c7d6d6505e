"""Settings of `explain`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from striate.settings.verbs import Digest, PictureSettings


class ExplainSettings(PictureSettings):
    """Settings of `explain`."""

    target: str | None = Field(None, description="the class that is explained; default: each picture's own answer")
    method: str = Field(
        "all", description="some of grad-cam,layer-cam,occlusion,integrated-gradients, or none of them: none"
    )
    layer: str | None = Field(
        None, description="layer of the class activation maps; default: the last with a map larger than 1x1"
    )
    kernels: str | None = Field(None, description="layer whose kernels are shown; default: the first that has them")
    edits: str = Field("all", description="answers against some of shift,rotate,flip,scale,erase, or against none")
    exciting: str | None = Field(
        None, description="also the test pictures that excite a channel most: LAYER:CHANNEL, or LAYER for all channels"
    )
    count: int = Field(9, ge=1, le=100, description="pictures for each of these channels")
    out: Path | None = Field(None, description="folder for explain.png and explain.html; default: this one")
    sheet: Path | None = Field(None, description="or write the sheet to this file: out.png")
    html: Path | None = Field(None, description="or write the page to this file: out.html")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    expect_sha256: Digest | None = Field(None, description="refuse weights whose SHA-256 is not this one")
    as_layers: bool = Field(False, description="list the layers that can be named, and look at no picture")
    as_json: bool = Field(False, description="one JSON document; the sheet and the page only where they are named")

    @model_validator(mode="after")
    def _one_place(self) -> ExplainSettings:
        if self.out is not None and (self.sheet is not None or self.html is not None):
            raise ValueError("--out names the folder of both files: leave out --sheet and --html")
        return self
