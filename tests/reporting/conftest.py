"""What the tests of the pages share: a cache of their own, two small runs, and headless Chromium if it is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import striate

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WITHOUT_NETWORK = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; the tests that need it are skipped, saying so, without it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: the pages cannot be opened")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=WITHOUT_NETWORK)
        yield opened
        opened.close()
