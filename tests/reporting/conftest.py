"""What the tests of the pages share: a cache of their own, and two small runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import striate


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    import platformdirs

    folder = tmp_path_factory.getbasetemp() / "user cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(folder / name))
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits with mistakes in it."""
    folder = tmp_path_factory.mktemp("reported") / "digits"
    striate.train("digits", epochs=3, quiet=True, threads=1, device="cpu", out=folder)
    return folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another net on the same pictures."""
    folder = tmp_path_factory.mktemp("reported") / "plain"
    striate.train("digits", model="mlp", epochs=1, quiet=True, threads=1, device="cpu", out=folder)
    return folder
