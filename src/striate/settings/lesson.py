"""Settings of `lesson`: all lessons share one set of flags, and a flag that a lesson does not have is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from striate.settings.base import Settings
from striate.settings.verbs import refuse_idle

# lesson → the settings that change it
OF_LESSON: dict[str, tuple[str, ...]] = {
    "conv": ("input", "kernel", "channels", "kernels", "stride", "padding", "dilation", "picture", "plot"),
    "pool": ("input", "channels", "size", "stride"),
    "linear-as-conv": ("input", "outputs"),
    "head": ("input", "classes"),
    "activation": ("depth", "width", "seed"),
    "step": ("x", "y", "w", "b", "lr", "steps"),
    "batchnorm": ("input", "momentum"),
}


class LessonSettings(Settings):
    """Settings of `lesson`. What is None is the lesson's own example."""

    input: str | None = Field(
        None,
        description="conv, pool: rows 0,1,2;3,4,5 with | between channels, or a shape 8x8x3 filled by counting;"
        " linear-as-conv, head: a shape; batchnorm: batches 1,3;2,4",
    )
    kernel: str | None = Field(
        None,
        description="conv: rows 0,1;2,3 with / between kernels, a shape 3x3, or a name: identity, blur, gauss, sharpen,"
        " edge, sobel-x, sobel-y, emboss",
    )
    channels: int | None = Field(None, ge=1, description="conv, pool: of an input given as a shape")
    kernels: int | None = Field(None, ge=1, description="conv: how many, of a kernel given as a shape")
    stride: int | None = Field(None, ge=1, description="conv, pool: how far the window moves")
    padding: int | Literal["same"] | None = Field(None, description="conv: zeros laid around the input, or same")
    dilation: int | None = Field(None, ge=1, description="conv: how far apart the window's cells lie")
    picture: Path | None = Field(None, description="conv: the picture under the named kernels; default: a digit")
    plot: Path | None = Field(None, description="conv: draw what the named kernels make of it: kernels.png")
    size: int | None = Field(None, ge=1, description="pool: side of the window")
    outputs: int | None = Field(None, ge=1, description="linear-as-conv: outputs of the layer")
    classes: int | None = Field(None, ge=1, description="head: number of classes")
    depth: int | None = Field(None, ge=1, le=200, description="activation: layers of the deepest net")
    width: int | None = Field(None, ge=1, le=1024, description="activation: units of a layer")
    seed: int | None = Field(None, ge=0, lt=2**63, description="activation: draws other weights and inputs")
    x: str | None = Field(None, description="step: inputs 1,3")
    y: str | None = Field(None, description="step: what they should give 3,7")
    w: float | None = Field(None, allow_inf_nan=False, description="step: weight before the step")
    b: float | None = Field(None, allow_inf_nan=False, description="step: bias before the step")
    lr: float | None = Field(None, gt=0, allow_inf_nan=False, description="step: learning rate")
    steps: int | None = Field(None, ge=1, le=1000, description="step: steps that are listed")
    momentum: float | None = Field(None, gt=0, le=1, description="batchnorm: share of the newest batch")
    lang: Literal["en", "zh"] = Field("en", description="language of the text, and in which the page opens")
    html: Path | None = Field(None, description="write the lesson as a page that moves: lesson.html")
    as_json: bool = Field(False, description="print all numbers and sentences as one JSON document")

    @field_validator("padding", mode="before")
    @classmethod
    def _padding(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "same":
            if not value.isdecimal():
                raise ValueError("padding is a whole number of cells from 0, or same")
            return int(value)
        if isinstance(value, int) and value < 0:
            raise ValueError("padding is a whole number of cells from 0, or same")
        return value


def lesson_arguments(name: str | None, settings: LessonSettings, origins: Mapping[str, str]) -> dict[str, Any]:
    """Return what the lesson called `name` is given; None is the list of lessons.

    Raises UsageError for a flag that does nothing there.
    """
    having = {field: [lesson for lesson, fields in OF_LESSON.items() if field in fields] for field in _fields()}
    needs = {
        field: (f"the lesson {' or '.join(lessons)}", name is not None and name in lessons)
        for field, lessons in having.items()
    }
    needs["html"] = ("the name of a lesson", name is not None)
    needs["lang"] = ("the text or --html", not settings.as_json or settings.html is not None)
    refuse_idle(origins, needs)
    taken = () if name is None else OF_LESSON[name]
    given = {field: getattr(settings, field) for field in taken if field != "plot"}
    return {field: value for field, value in given.items() if value is not None}


def _fields() -> list[str]:
    return list(dict.fromkeys(field for fields in OF_LESSON.values() for field in fields))
