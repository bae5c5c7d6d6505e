"""What the tests of training share: small pictures with classes that can be told apart, and jobs on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.data.dataset import Dataset, Parts
from striate.runs.folder import RunFolder
from striate.settings.layers import resolve_train
from striate.training.begin import resume_job, start_job
from striate.training.job import Job


class Small(nn.Module):
    """Convolution, BatchNorm, dropout before another BatchNorm, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
            nn.Conv2d(4, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def make_parts(count: int = 240) -> Parts:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 100, (count, 8, 8, 1)) + 60 * labels[:, None, None, None]
    return Parts("made", Dataset("made", images.astype(np.uint8), labels, ("a", "b", "c")))


@pytest.fixture
def parts() -> Parts:
    """240 pictures of three classes."""
    return make_parts()


@pytest.fixture
def small() -> type[nn.Module]:
    """The class of the net that jobs train unless they are given another."""
    return Small


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Job]:
    """Start a job in tmp_path/name: `data`, `model`, and settings by keyword."""

    def start(name: str, *, data: Any = None, model: Any = Small, report: Any = print, **settings: Any) -> Job:
        given: dict[str, Any] = {"data": "made", "recipe": "generic", "batch_size": 16, "epochs": 2}
        given |= {"out": tmp_path / name, "schedule": "constant", "lr": 0.01, "weight_decay": 0.0, "device": "cpu"}
        given |= settings
        if "time" in settings:
            del given["epochs"]
        if isinstance(model, str):
            given["model"], model = model, None
        resolved, _, _ = resolve_train(given, origin="argument", environ={})
        return start_job(resolved, data=data or make_parts(), model=model, report=report)

    return start


@pytest.fixture
def resume() -> Callable[..., Job]:
    """Resume the job of a folder, on the same pictures unless others are given."""

    def resume(folder: RunFolder, *, data: Any = None, model: Any = Small, report: Any = print) -> Job:
        return resume_job(folder, data=data or make_parts(), model=model, report=report)

    return resume
