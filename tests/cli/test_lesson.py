"""`striate lesson`: the list, text in two languages, JSON, files, and flags that a lesson does not have."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.settings.lesson import OF_LESSON

Striate = Callable[..., Any]


def test_alone_it_lists_the_lessons(striate: Striate) -> None:
    english, chinese = striate("lesson"), striate("lesson", "--lang", "zh")
    for outcome in (english, chinese):
        assert outcome.code == 0 and outcome.err == ""
        assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == list(OF_LESSON)
    assert "added up" in english.out and "卷积核" in chinese.out
    listed = json.loads(striate("lesson", "--json").out)["lessons"]
    assert {row["name"]: tuple(row["flags"]) for row in listed} == OF_LESSON


@pytest.mark.parametrize("name", OF_LESSON)
def test_every_lesson_in_both_languages(striate: Striate, name: str) -> None:
    for language in ("en", "zh"):
        outcome = striate("lesson", name, "--lang", language)
        assert outcome.code == 0 and outcome.err == ""
        assert max(map(len, outcome.out.splitlines())) <= 112
        assert ("─" in outcome.out) and ("nan" not in outcome.out)
        assert any("\u4e00" <= character <= "\u9fff" for character in outcome.out) is (language == "zh")


def test_the_convolution_as_text(striate: Striate) -> None:
    lines = striate("lesson", "conv").out.splitlines()
    at = lines.index("  input   kernel   output")
    assert lines[at + 1 : at + 4] == ["  0 1 2   0 1      19 25", "  3 4 5   2 3      37 43", "  6 7 8"]
    assert "  Row 1, column 1  0·0 + 1·1 + 3·2 + 4·3 = 19" in lines


def test_flags_of_a_convolution(striate: Striate) -> None:
    outcome = striate(
        *("lesson", "conv", "--input", "5x5x2", "--kernel", "3x3", "--kernels", "4", "--stride", "2"),
        *("--padding", "1", "--dilation", "1", "--json"),
    )
    document = json.loads(outcome.out)
    worked = document["parts"][0]
    assert worked["numbers"]["output_size"] == [3, 3] and len(worked["numbers"]["output"]) == 4
    assert len(worked["steps"]) == 36 and worked["grids"][0]["padding"] == [1, 1, 1, 1]
    same = striate("lesson", "conv", "--padding", "same", "--kernel", "3x3")
    assert "⌊(3 + 2·1 − 3)/1⌋ + 1 = 3" in same.out


def test_a_long_lesson_says_what_it_leaves_out(striate: Striate) -> None:
    out = striate("lesson", "conv", "--input", "30x30", "--kernel", "3x3").out
    assert "… and 768 more; --html and --json show them" in out and "too large to print" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["conv", "--size", "3"], "it needs the lesson pool"),
        (["pool", "--kernel", "3x3"], "it needs the lesson conv"),
        (["step", "--input", "3x3"], "it needs the lesson conv or pool or linear-as-conv or head or batchnorm"),
        (["--stride", "2"], "it needs the lesson conv or pool"),
        (["--html", "page.html"], "it needs the name of a lesson"),
        (["conv", "--json", "--lang", "zh"], "it needs the text or --html"),
        (["pool", "--plot", "kernels.png"], "it needs the lesson conv"),
    ],
)
def test_a_flag_without_effect_is_an_error(striate: Striate, words: list[str], said: str) -> None:
    outcome = striate("lesson", *words)
    assert outcome.code == 2 and outcome.out == "" and outcome.error_lines()["cause"] == said


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["convolution"], "unknown lesson 'convolution'"),
        (["conv", "--padding", "-1"], "setting padding"),
        (["conv", "--padding", "half"], "setting padding"),
        (["conv", "--stride", "0"], "setting stride"),
        (["conv", "--kernel", "0,1,2,3"], "a kernel of 1×4 does not fit into 3×3"),
        (["step", "--lr", "0"], "setting lr"),
        (["batchnorm", "--momentum", "2"], "setting momentum"),
        (["head", "--input", "6,6"], "--input is '6,6'"),
        (["step", "--x", "a"], "--x is 'a'"),
    ],
)
def test_what_cannot_be_is_said(striate: Striate, words: list[str], what: str) -> None:
    outcome = striate("lesson", *words)
    assert outcome.code == 2 and outcome.error_lines()["error"].startswith(what)


def test_every_flag_of_every_lesson_changes_it(striate: Striate, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)).save("own.png")
    values = {
        **{"kernel": "1,1;1,1", "channels": "2", "kernels": "2", "stride": "2", "padding": "1", "dilation": "2"},
        **{"picture": "own.png", "size": "3", "outputs": "7", "classes": "3", "depth": "4", "width": "8", "seed": "1"},
        **{"x": "1,2", "y": "1,2", "w": "2", "b": "1", "lr": "0.01", "steps": "2", "momentum": "0.5"},
    }
    for name, fields in OF_LESSON.items():
        plain = json.loads(striate("lesson", name, "--json").out)["parts"]
        for field in (field for field in fields if field != "plot"):
            value = values.get(field) or {"batchnorm": "1,2;3,5"}.get(
                name, "4x4" if name in ("conv", "pool") else "4x4x4"
            )
            extra = {"dilation": ["--input", "4x4"], "channels": ["--input", "4x4"]}.get(field, [])
            outcome = striate("lesson", name, f"--{field}", value, *extra, "--json")
            assert outcome.code == 0, (name, field, outcome.err)
            assert json.loads(outcome.out)["parts"] != plain, (name, field)


def test_pictures_are_written(striate: Striate, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 600, 3)).astype(np.uint8)).save("photo.png")
    outcome = striate("lesson", "conv", "--picture", "photo.png", "--plot", "kernels.png", "--html", "page.html")
    assert outcome.code == 0 and outcome.err.splitlines() == ["drawn: kernels.png", "written: page.html"]
    assert "The picture of 128×256×3 is laid under eight kernels" in outcome.out.replace("\n", " ")
    with Image.open(io.BytesIO((tmp_path / "kernels.png").read_bytes())) as sheet:
        assert min(sheet.size) > 300
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("data:image/") == 9
    own = striate("lesson", "conv", "--kernel", "0,1;2,3", "--plot", "again.png")
    assert own.code == 0 and (tmp_path / "again.png").is_file()


def test_a_picture_that_cannot_be_read(striate: Striate, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("broken.png", "missing.png"):
        outcome = striate("lesson", "conv", "--picture", name)
        assert outcome.code == 3 and name in outcome.error_lines()["error"]
