"""Writes ONNX files for tests of the predictor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def make_onnx(tmp_path: Path) -> Callable[..., Path]:
    """Write a linear net as an ONNX file; `edit` changes the ModelProto, the rest goes to `linear_model`."""

    pytest.importorskip("onnx")
    from tests.predictor.linear_onnx import linear_model

    def make(name: str = "model.onnx", *, edit: Callable[[Any], None] | None = None, **options: Any) -> Path:
        model = linear_model(**options)
        if edit is not None:
            edit(model)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return make
