"""Settings of the verbs beside `train`: every field is a flag; `as_json` is `--json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from striate.errors import UsageError
from striate.settings.base import Settings
from striate.settings.values import check_bytes, parse_range, read_numbers, read_size


def _digest(value: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ValueError("a SHA-256 has 64 digits from 0 to f")
    return value.lower()


Digest = Annotated[str, AfterValidator(_digest)]
Split = Literal["train", "validation", "test"]
Precision = Literal["fp32", "bf16"]

# Of the environment, these settings are read by every verb that has them; the others belong to `train` alone.
FROM_ENVIRONMENT = ("data_root", "device")


class EvalSettings(Settings):
    """Settings of `eval`."""

    split: Split = Field("test", description="the part that is counted")
    data: str | None = Field(None, description="another data set with the same classes; default: the run's own")
    data_root: Path | None = Field(None, description="folder that holds the data sets")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Precision = Field("fp32", description="number format; bf16 says how it changes the answers")
    tta: Literal["none", "mirror", "shift", "mirror-shift"] = Field(
        "none", description="also the accuracy with test-time augmentation, as a row of its own"
    )
    expect_sha256: Digest | None = Field(None, description="refuse weights whose SHA-256 is not this one")
    out: Path | None = Field(None, description="also write the numbers to this file, as evaluation.json")
    as_json: bool = Field(False, description="print evaluation.json instead of the table")


class ResumeSettings(Settings):
    """Settings of `resume`; those of `train` may be given beside them."""

    data_root: Path | None = Field(None, description="folder that holds the data sets")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    epochs: str | None = Field(None, description="extend the run: +10, or 30 in all")
    allow_changes: bool = Field(False, description="go on with other settings or data, and record that")


class VerifySettings(Settings):
    """Settings of `verify`."""

    steps: int = Field(20, ge=0, description="steps that are trained again; 0: none")
    data_root: Path | None = Field(None, description="folder that holds the data sets")
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    as_json: bool = Field(False, description="print all that was compared as one JSON document")


class ImportSettings(Settings):
    """Settings of `import`."""

    model: str | None = Field(None, description="name of the net that the weights are for (see `striate models`)")
    model_option: dict[str, Any] = Field(default_factory=dict, description="options of the net, name=value")
    classes: tuple[str, ...] | None = Field(None, description="class names in the order of the net's answers")
    data: str | None = Field(None, description="or the named data set that has these classes; eval counts on it")
    channels: int | None = Field(None, ge=1, description="of a picture: 1 or 3; default: as in the net's paper")
    input_size: tuple[int, int] | None = Field(
        None, description="height and width the net was trained with: 96 or 96x128; default: as in its paper"
    )
    fit: Literal["crop", "pad", "stretch"] = Field("stretch", description="how a picture is brought to that size")
    mean: tuple[float, ...] | None = Field(None, description="that it was trained with, in units of 0-1; default: 0")
    std: tuple[float, ...] | None = Field(None, description="that it was trained with, in units of 0-1; default: 1")
    output: Literal["softmax", "sigmoid"] = Field("softmax", description="what makes probabilities of its answers")
    expect_sha256: Digest | None = Field(None, description="refuse weights whose SHA-256 is not this one")
    out: Path | None = Field(None, description="exactly this folder; default: runs/<data>-<model>-<n>")

    @field_validator("input_size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        return read_size(value)

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return read_numbers(value)

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        if names is not None and (not all(names) or len(set(names)) < len(names)):
            raise ValueError("class names are written ants,bees: none empty, none twice")
        return names

    @model_validator(mode="after")
    def _together(self) -> ImportSettings:
        if self.model is None:
            raise ValueError("a file of weights does not say what net it is for: add --model")
        if self.classes is not None and self.data is not None:
            raise ValueError("--classes and --data both name the classes: leave one")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together or not at all: add --mean or --std")
        return self


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
    show: Path | None = Field(None, description="draw each picture and what the net saw of it: out.png")
    no_step: str | None = Field(None, description="leave out what is done to drawings: polarity,frame; all of it: all")
    separate: bool = Field(False, description="find the digits in each picture, and answer for each of them")
    reject: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="reject answers below the probability that gave this precision on validation: 0.99",
    )
    model: str | None = Field(None, description="net.py:MyNet, for a run of your own net")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Precision = Field("fp32", description="number format; bf16 says how it changes the answers")
    expect_sha256: Digest | None = Field(None, description="refuse weights whose SHA-256 is not this one")
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
    html: Path | None = Field(None, description="also write the runs side by side as one page: compare.html")
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
    svg: Path | None = Field(None, description="also draw the net to scale into this SVG file")
    as_markdown: bool = Field(False, description="the tables in Markdown")
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
    augment: str = Field("none", description="draw what this augmentation makes of the first of them: shift:2,flip")
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


class CheckSettings(Settings):
    """Settings of `check`."""

    size: tuple[int, int] | None = Field(None, description="height and width to decode at: 96 or 96x128; default: auto")
    fit: Literal["auto", "crop", "pad", "stretch"] = Field(
        "auto", description="how a picture is brought to that size; auto chooses from the pictures' shapes"
    )
    fixes: Path | None = Field(None, description="apply this fixes file; default: striate.fixes.csv in the folder")
    write_fixes: Path | None = Field(None, description="write the fixes that would settle the findings to this file")
    html: Path | None = Field(None, description="write a page with the pictures: check.html")
    preview: Path | None = Field(None, description="draw what size and fit make of the pictures: preview.png")
    follow_links: bool = Field(False, description="also follow links that lead out of the folder")
    max_pixels: int = Field(50_000_000, ge=1, description="larger pictures are refused")
    threads: int | None = Field(None, ge=1, description="pictures decoded at a time; default: one per processor core")
    cache: bool = Field(True, description="keep the decoded pictures, so that training need not decode them again")
    memory: str | None = Field(
        None, description="what the pictures may take, such as 2gb; more lie on disk; default: a quarter of the memory"
    )
    as_json: bool = Field(False, description="print all findings as one JSON document")

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: str | None) -> str | None:
        return check_bytes(value)

    @field_validator("size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        return read_size(value)


class CacheListSettings(Settings):
    """Settings of `cache ls`."""

    as_json: bool = Field(False, description="JSON instead of the table")


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
