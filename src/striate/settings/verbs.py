"""Settings of the verbs beside `train`: every field is a flag; `as_json` is `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from striate.errors import UsageError
from striate.settings.base import Settings
from striate.settings.train import parse_range

Split = Literal["train", "validation", "test"]

# Of the environment, these settings are read by every verb that has them; the others belong to `train` alone.
FROM_ENVIRONMENT = ("data_root", "device")


class EvalSettings(Settings):
    """Settings of `eval`."""

    split: Split = Field("test", description="the part that is counted")
    data: str | None = Field(None, description="another data set with the same classes; default: the run's own")
    data_root: Path | None = Field(None, description="folder that holds the data sets")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    out: Path | None = Field(None, description="also write the numbers to this file, as evaluation.json")
    as_json: bool = Field(False, description="print evaluation.json instead of the table")


class ResumeSettings(Settings):
    """Settings of `resume`."""

    data_root: Path | None = Field(None, description="folder that holds the data sets")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")


class PictureSettings(Settings):
    """Pictures taken from a data set, wherever a picture is taken."""

    data: str | None = Field(None, description="take pictures from this data set")
    split: Split = Field("test", description="its part")
    index: str | None = Field(None, description="their numbers: 7, 59000:59009 (the end is left out) or 3,5,8")
    data_root: Path | None = Field(None, description="folder that holds the data sets")

    @field_validator("index")
    @classmethod
    def _index(cls, value: str | None) -> str | None:
        if value is not None:
            parse_index(value)
        return value

    @model_validator(mode="after")
    def _together(self) -> PictureSettings:
        if (self.data is None) != (self.index is None):
            raise ValueError(
                "--data and --index name a picture together: add " + ("--data", "--index")[self.index is None]
            )
        return self


class PredictSettings(PictureSettings):
    """Settings of `predict`."""

    top: int = Field(3, ge=1, description="classes shown for each picture")
    plot: Path | None = Field(None, description="draw the picture beside its probabilities: out.png")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    as_json: bool = Field(False, description="one JSON document")
    as_jsonl: bool = Field(False, description="one JSON object a line")
    as_csv: bool = Field(False, description="a table with one row a picture")

    @model_validator(mode="after")
    def _one_format(self) -> PredictSettings:
        if self.as_json + self.as_jsonl + self.as_csv > 1:
            raise ValueError("--json, --jsonl and --csv exclude each other: leave one")
        return self


class CompareSettings(PictureSettings):
    """Settings of `compare`."""

    picture: Path | None = Field(None, description="a picture whose answers are set side by side")
    out: Path = Field(Path("compare.png"), description="where the curves are drawn")
    model: str | None = Field(None, description="net.py:MyNet, for runs of your own net")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    as_json: bool = Field(False, description="one JSON document instead of the table")

    @model_validator(mode="after")
    def _one_picture(self) -> CompareSettings:
        if self.picture is not None and self.data is not None:
            raise ValueError("--picture and --data both name a picture: leave one")
        if self.index is not None and not self.index.isdigit():
            raise ValueError("compare takes one picture: write its number, such as --index 7")
        return self


class ModelsSettings(Settings):
    """Settings of `models`."""

    input: tuple[int, int, int] | None = Field(
        None, description="channels x height x width of a picture: 3x32x32; default: as in the net's paper"
    )
    classes: int | None = Field(None, ge=1, description="number of classes; default: as in the net's paper")
    model_option: dict[str, Any] = Field(default_factory=dict, description="options of the net, name=value")
    as_json: bool = Field(False, description="JSON instead of the table")

    @field_validator("input", mode="before")
    @classmethod
    def _input(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = tuple(value.lower().replace("×", "x").split("x"))
        if value is not None and (
            len(value) != 3 or not all(str(part).strip().isdigit() and int(part) > 0 for part in value)
        ):
            raise ValueError("an input is written 1x28x28 (channels, height, width)")
        return value


class RecipesSettings(Settings):
    """Settings of `recipes`."""

    as_json: bool = Field(False, description="JSON instead of the table")


class DataListSettings(Settings):
    """Settings of `data ls`."""

    data_root: Path | None = Field(None, description="folder that holds the data sets")
    as_json: bool = Field(False, description="JSON instead of the table")


class DataShowSettings(Settings):
    """Settings of `data show`."""

    split: Split = Field("train", description="the part that is shown")
    index: str = Field("0:25", description="picture numbers: 7, 59000:59009 (the end is left out) or 3,5,8")
    data_root: Path | None = Field(None, description="folder that holds the data sets")
    download: bool = Field(True, description="download a named data set that is not here")
    out: Path | None = Field(None, description="the drawing; default: <data>-<split>-<index>.png in this folder")

    @field_validator("index")
    @classmethod
    def _index(cls, value: str) -> str:
        parse_index(value)
        return value


class DataAddSettings(Settings):
    """Settings of `data add`."""

    data: str | None = Field(None, description="the data set it belongs to, where the file alone does not tell")


def parse_index(text: str) -> list[slice]:
    """Read `7`, `59000:59009`, `3,5,8` or a mixture as slices of whole numbers from 0. Raises ValueError."""
    slices = []
    for part in text.split(","):
        part = part.strip()
        if ":" in part:
            slices.append(parse_range(part))
        elif part.isdigit() and part.isascii():
            slices.append(slice(int(part), int(part) + 1))
        else:
            raise ValueError("picture numbers are written 7, 59000:59009 or 3,5,8, counted from 0")
    return slices


def choose_indices(text: str, count: int, what: str) -> list[int]:
    """Return the picture numbers that `text` names among `count`. Raises UsageError for one that is not there."""
    chosen: list[int] = []
    for part in parse_index(text):
        end = count if part.stop is None else part.stop
        if part.start >= count or end > count:
            raise UsageError(
                f"{what} has no picture {max(part.start, end - 1)}",
                f"it holds {count} pictures, numbered 0 to {count - 1}",
                f"choose --index within 0:{count}",
            )
        chosen.extend(range(part.start, end))
    return chosen


def refuse_idle(origins: Mapping[str, str], needs: Mapping[str, tuple[str, bool]]) -> None:
    """Raise UsageError for a flag that was given and does nothing; `needs` maps its field to (need, is it met?)."""
    for name, (need, met) in needs.items():
        if not met and origins.get(name) == "flag":
            flag = "--" + name.removeprefix("as_").replace("_", "-")
            raise UsageError(
                f"{flag} has no effect here", f"it needs {need}", f"leave out {flag}, or add what it needs"
            )
