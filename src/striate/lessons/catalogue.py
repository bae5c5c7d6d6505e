"""The lessons by name: `lesson("conv")` is what `striate lesson conv` shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from striate.errors import unknown_name
from striate.lessons.activation import activation_lesson
from striate.lessons.batchnorm import batchnorm_lesson
from striate.lessons.conv import conv_lesson
from striate.lessons.head import head_lesson
from striate.lessons.lesson import Lesson
from striate.lessons.linear import linear_lesson
from striate.lessons.pool import pool_lesson
from striate.lessons.step import step_lesson

MAKERS: dict[str, Callable[..., Lesson]] = {
    "conv": conv_lesson,
    "pool": pool_lesson,
    "linear-as-conv": linear_lesson,
    "head": head_lesson,
    "activation": activation_lesson,
    "step": step_lesson,
    "batchnorm": batchnorm_lesson,
}


def lesson(name: str, **given: Any) -> Lesson:
    """Work out a lesson; `given` are its settings, named as its flags. The caller's random numbers stay as they were.

    Raises UsageError for an unknown name and for settings that do not fit together.
    """
    if name not in MAKERS:
        raise unknown_name("lesson", name, MAKERS, "see `striate lesson`")
    with torch.random.fork_rng(devices=[]):
        return MAKERS[name](**given)
