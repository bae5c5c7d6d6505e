"""`striate cache ls` and `cache clear`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.data import cache as module
from striate.data.cache import Cache
from striate.data.loading import load_pictures
from striate.data.preprocess import Preprocess
from striate.data.records import Record
from striate.files import Lock


class Held:
    path = None

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def read(self) -> bytes:
        buffer = io.BytesIO()
        values = np.random.default_rng(self.seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(values).save(buffer, "PNG")
        return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, which is not made yet."""
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "user cache" / name))
    return tmp_path / "user cache" / "striate" / "pictures"


def fill(count: int, preprocess: Preprocess) -> None:
    records = [Record(f"{seed}.png", "cat", Held(seed)) for seed in range(count)]  # type: ignore[arg-type]
    assert len(load_pictures(records, preprocess, cache=Cache()).good) == count


def test_an_empty_cache(striate: Any, folder: Path) -> None:
    outcome = striate("cache", "ls")
    assert (outcome.code, outcome.out) == (0, "") and outcome.err == f"0 of at most 10,240 MB in {folder}\n"
    outcome = striate("cache", "clear")
    assert (outcome.code, outcome.out) == (0, "removed 0 files, 0 MB\n")
    assert not folder.exists()  # looking makes no folder


def test_ls_and_clear(striate: Any, folder: Path) -> None:
    fill(7, Preprocess((64, 96), "crop", 3))
    fill(5, Preprocess((8, 8), "pad", 1))
    packs = list(folder.rglob("*.pack"))
    outcome = striate("cache", "ls")
    assert outcome.code == 0 and f"in {folder}" in outcome.err
    head, *rows = [line.split() for line in outcome.out.splitlines()]
    assert head == ["size", "fit", "channels", "pictures", "MB", "last", "used"]
    assert [row[:4] for row in rows] == [["8x8", "pad", "1", "5"], ["64x96", "crop", "3", "7"]]
    document = json.loads(striate("cache", "ls", "--json").out)
    assert document["format"] == 1 and document["folder"] == str(folder)
    assert (
        document["bytes"] == sum(pack.stat().st_size for pack in packs) == sum(s["bytes"] for s in document["shelves"])
    )
    assert [shelf["geometry"]["size"] for shelf in document["shelves"]] == [[8, 8], [64, 96]]
    outcome = striate("cache", "clear")
    assert (outcome.code, outcome.out) == (0, "removed 2 files, 0.1 MB\n")
    assert list(folder.rglob("*.pack")) == [] and striate("cache", "ls").out == ""


def test_a_damaged_pack_is_listed_and_cleared(striate: Any, folder: Path) -> None:
    fill(3, Preprocess((8, 8)))
    pack = next(folder.rglob("*.pack"))
    pack.write_bytes(b"nonsense")
    assert striate("cache", "ls").out.splitlines()[1].split()[0] == "damaged"
    assert striate("cache", "clear").code == 0 and not pack.exists()


def test_clear_while_a_training_stores(striate: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(3, Preprocess((8, 8)))
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with Lock(folder):
        outcome = striate("cache", "clear")
    assert outcome.code == 1 and "is in use" in outcome.error_lines()["error"]
    assert len(list(folder.rglob("*.pack"))) == 1


def test_the_group_alone_tells_its_verbs(striate: Any, folder: Path) -> None:
    outcome = striate("cache")
    assert outcome.code == 0 and "  ls " in outcome.out and "  clear " in outcome.out
    assert striate("cache", "clean").code == 2
