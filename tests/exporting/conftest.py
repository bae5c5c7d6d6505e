"""What the tests of exporting share: a run on the digits."""

from __future__ import annotations

from pathlib import Path

import pytest

import striate


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: three-conv on the digits, two epochs."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    striate.train("digits", epochs=2, threads=1, device="cpu", quiet=True, out=folder)
    return folder
