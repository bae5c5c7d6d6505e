"""`striate check`: a screenful, JSON, a page that needs nothing else, and exit code 3 where a person must decide."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.data.findings import KINDS
from striate.report.progress import Progress

Striate = Callable[..., Any]


def load_planted() -> ModuleType:
    path = Path(__file__).parents[1] / "data" / "planted.py"
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


planted = load_planted()
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "user cache" / name))
    return tmp_path / "user cache"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return planted.clean_folder(tmp_path / "clean", ("",))


class Page(HTMLParser):
    """The tags and texts of a page; fails on tags that do not close."""

    EMPTY = ("meta", "img", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_clean_folder(striate: Striate, clean: Path) -> None:
    outcome = striate("check", str(clean))
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.splitlines() == [
        "clean: 36 pictures, 3 classes: cat 12, dog 12, horse 12",
        "size 64×64: 36 pictures, shorter side 90 pixels (median)",
        "fit stretch: nearly all pictures are 1.33 times as wide as high, and are changed alike",
        "channels 3: 36 of 36 pictures are in colour",
        "nothing was found",
    ]


@needs_pipes
def test_planted_faults_fill_one_screen_and_end_with_3(striate: Striate, tmp_path: Path) -> None:
    expected = planted.planted_folder(tmp_path / "set")
    outcome = striate("check", "./set")
    lines = outcome.out.splitlines()
    assert outcome.code == 3
    assert len(lines) <= 25 and all(len(line) <= 100 for line in lines)
    errors = [code for code, kind in KINDS.items() if kind.rank == "error" and code in expected]
    for code in errors:
        (place,) = (number for number, line in enumerate(lines) if re.match(rf"error +\d+  {code}: ", line))
        assert code not in errors[:5] or lines[place + 1].startswith(" " * 16 + "e.g. ")
    named = " ".join(line for line in lines if line.startswith(("warnings: ", "notes: ")))
    assert "duplicates 2" in named and "sideways 1" in named
    assert lines[-1].startswith(f"{len(errors)} to decide, ")


@needs_pipes
def test_json_has_every_finding_with_all_its_sources(striate: Striate, tmp_path: Path) -> None:
    expected = planted.planted_folder(tmp_path / "set")
    outcome = striate("check", "./set", "--json", "--size", "32", "--fit", "pad")
    document = json.loads(outcome.out)
    assert outcome.code == 3 and document["format"] == 1
    assert document["geometry"]["size"] == [32, 32] and document["geometry"]["fit"] == "pad"
    got = {
        one["code"]: {" = ".join(group) for group in one["groups"]} or set(one["sources"])
        for one in document["findings"]
    }
    assert got == expected
    assert document["must_be_decided"] == sum(KINDS[code].rank == "error" for code in expected)
    assert document["classes"]["cat"] == {"test": 4, "train": 13, "validation": 4}
    assert document["readable"] == document["pictures"] - 2


@needs_pipes
def test_the_page_stands_alone_and_shows_the_pictures_in_two_languages(striate: Striate, tmp_path: Path) -> None:
    expected = planted.planted_folder(tmp_path / "set")
    assert striate("check", "./set", "--html", "check.html").code == 3
    text = (tmp_path / "check.html").read_text(encoding="utf-8")
    page = Page(text)
    words = " ".join(" ".join(page.texts).split())
    for code in expected:
        assert KINDS[code].what in words and KINDS[code].what_zh in words and KINDS[code].fix_zh in words, code
    assert "train/horse/was_a_dog.jpg" in words and "train/cat/truncated.jpg" in words
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "data")]
    assert len(addresses) > 20 and all(value.startswith("data:image/") for value in addresses)
    assert "http" not in re.sub(r'http-equiv="|data:[^"]*', "", text) and "url(" not in text
    shown = next(value for value in addresses if value.startswith("data:image/jpeg"))
    import base64

    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2])))).shape == (64, 64, 3)


def test_names_that_are_html_or_turn_the_text_are_harmless_on_the_page_and_on_the_screen(
    striate: Striate, clean: Path, tmp_path: Path
) -> None:
    evil = "<script>alert(1)</script>"
    (clean / "<b>bold").mkdir()
    for number in range(12):
        (clean / "<b>bold" / f"{number}.jpg").write_bytes(planted.jpeg(planted.picture(500 + number)))
    (clean / "cat" / evil.replace("/", "\\")).write_bytes(b"text")
    (clean / "cat" / "\u202egpj\n\x1b[2J.jpg").write_bytes(b"text")
    outcome = striate("check", str(clean), "--html", "check.html")
    assert outcome.code == 3 and "\x1b" not in outcome.out and "\u202e" not in outcome.out
    assert "\\u202egpj\\n\\x1b[2J.jpg" in outcome.out
    text = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<b>bold" not in text and "&lt;b&gt;bold" in text
    assert "\u202e" not in text


def test_the_preview_sheet_is_a_picture(striate: Striate, clean: Path, tmp_path: Path) -> None:
    outcome = striate("check", str(clean), "--preview", "sheet.png", "--fit", "crop")
    assert outcome.code == 0 and outcome.err == "drawn: sheet.png\n"
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.format == "PNG" and sheet.width > 600 and sheet.height > 400
    frame = (np.asarray(sheet.convert("RGB")) == (217, 122, 43)).all(axis=2)
    assert frame.sum() > 12 * 2 * 100, "a frame around what cropping keeps of each picture"


def test_fixes_are_proposed_edited_and_applied(striate: Striate, clean: Path, tmp_path: Path) -> None:
    copied = (clean / "cat" / "00.jpg").read_bytes()
    (clean / "dog" / "copy.jpg").write_bytes(copied)
    (clean / "dog" / "broken.jpg").write_bytes(copied[:900])
    outcome = striate("check", str(clean), "--write-fixes", "mine.csv")
    assert outcome.code == 3 and "3 fixes proposed: mine.csv" in outcome.err
    path = tmp_path / "mine.csv"
    assert path.read_text().splitlines()[1:] == [
        "drop,dog/broken.jpg,,unreadable",
        "decide,cat/00.jpg,,label-conflict: as dog/copy.jpg (dog)",
        "decide,dog/copy.jpg,,label-conflict: as cat/00.jpg (cat)",
    ]
    outcome = striate("check", str(clean), "--fixes", "mine.csv")
    assert outcome.code == 3 and "mine.csv: 2 rows of the fixes still say decide" in outcome.out
    path.write_text(path.read_text().replace("decide,dog", "drop,dog").replace("decide,cat", "relabel,cat"))
    refused = striate("check", str(clean), "--fixes", "mine.csv")
    assert refused.code == 3 and "row 3: relabel needs a class" in refused.error_lines()["cause"]
    path.write_text(path.read_text().replace("relabel,cat/00.jpg,,", "relabel,cat/00.jpg,horse,"))
    path.rename(clean / "striate.fixes.csv")
    outcome = striate("check", str(clean), "--json")
    document = json.loads(outcome.out)
    assert outcome.code == 0 and document["findings"] == []
    assert document["notes"] == ["striate.fixes.csv: fixes applied: 2 drop, 1 relabel"]
    assert document["classes"] == {"cat": {"all": 11}, "dog": {"all": 12}, "horse": {"all": 13}}
    assert (clean / "dog" / "copy.jpg").read_bytes() == copied


def test_the_cache_is_filled_unless_told_not_to(striate: Striate, clean: Path, own_cache: Path) -> None:
    assert striate("check", str(clean), "--no-cache").code == 0
    assert not own_cache.exists()
    first, second = (striate("check", str(clean)).out for _ in range(2))
    assert first == second and any(own_cache.rglob("*.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("mnist",), 2, "is no folder of pictures"),
        (("./not-here",), 3, "not-here"),
        ((".", "--fit", "squeeze"), 2, "fit"),
        ((".", "--size", "0"), 2, "size"),
        ((".",), 3, "holds no pictures"),
    ],
)
def test_what_cannot_be_checked(striate: Striate, arguments: tuple[str, ...], code: int, told: str) -> None:
    outcome = striate("check", *arguments)
    assert outcome.code == code and told in " ".join(outcome.error_lines().values())


def test_a_long_pass_tells_how_far_it_is_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("striate.report.progress.time.perf_counter", lambda: float(next(clock)))
    for quiet in (True, False):
        with Progress(quiet) as progress:
            advance = progress.stage("decoding")
            for done in range(1, 101):
                advance(done, 100)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and 5 <= len(lines) <= 10 and lines[-1] == "  decoding: 100 of 100"


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as progress:
        advance = progress.stage("decoding")
        advance(3, 7)
        progress._bar.refresh()
    assert "decoding" in terminal.getvalue() and "3/7" in terminal.getvalue()


def test_the_page_of_findings_lists_every_kind_with_its_rank() -> None:
    text = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", text, re.M))
    assert rows == {code: kind.rank for code, kind in KINDS.items()}
