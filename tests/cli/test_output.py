"""What is written: printable text, aligned tables, documents in UTF-8."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from striate.cli import output

ESCAPED = st.binary(max_size=30).map(lambda b: b.decode("utf-8", "surrogateescape"))


@given(ESCAPED | st.text())
def test_printable_is_one_line_that_utf8_can_hold(text: str) -> None:
    clean = output.printable(text)
    clean.encode("utf-8")
    assert len(clean.splitlines()) <= 1
    assert not any(unicodedata.category(character) == "Cc" for character in clean)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("seven.png", "seven.png"),
        ("七.png", "七.png"),
        ("a\nb.png", "a\\nb.png"),
        ("\udcff.png", "\\xff.png"),
        ("\ud800", "\\ud800"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("gpj\u202e.exe", "gpj\\u202e.exe"),
    ],
)
def test_printable_names(name: str, shown: str) -> None:
    assert output.printable(name) == shown


@pytest.mark.parametrize("text", ["plain", "数字七", "naïve", "ｆｕｌｌ", "mixed 中文 text", "e\u0301", ""])
def test_cell_width_is_what_rich_says(text: str) -> None:
    assert output.cell_width(text) == cell_len(text)


def test_plain_table_is_aligned_with_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_table(("class", "count"), [("猫", "1"), ("frog", "22")], right=(1,))
    assert capsys.readouterr().out == "class  count\n猫         1\nfrog      22\n"


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Put a terminal in the place of stdout."""
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", stream)
    for variable in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    return stream


def test_terminal_has_bold_heads_and_no_markup_from_names(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    output.say_table(("class", "count"), [("[red]猫[/red]", "1")], right=(1,))
    output.heading("[b]head")
    text = stream.getvalue()
    assert "\x1b[1m" in text and "[red]猫[/red]" in text and "[b]head" in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    output.say_table(("class", "count"), [("frog", "1")])
    assert "\x1b[3" not in stream.getvalue() and "frog" in stream.getvalue()


def test_long_cells_are_folded_on_a_terminal_and_whole_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * 90
    output.say_table(("name", "n"), [(long, "1")])
    assert long in capsys.readouterr().out
    stream = terminal(monkeypatch)
    output.say_table(("name", "n"), [(long, "1")])
    assert stream.getvalue().count("x") == 90
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert all(cell_len(line) <= 60 for line in plain.splitlines())


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ESCAPED | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ESCAPED | st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_ready_is_strict_json_in_utf8(value: Any) -> None:
    text = json.dumps(output.json_ready(value), ensure_ascii=False, allow_nan=False)
    json.loads(text.encode("utf-8"))


def test_json_is_utf8_whatever_the_stream_says(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.say_json({"class": "猫", "name": "a\udcff", "loss": float("nan")}, one_line=True)
    assert json.loads(raw.getvalue().decode("utf-8")) == {"class": "猫", "name": "a\\xff", "loss": None}
    assert raw.getvalue().count(b"\n") == 1


def test_csv_quotes_what_needs_it(capsys: pytest.CaptureFixture[str]) -> None:
    row = ["a,b", 'say "7"', "two\nlines", "猫", "-dash"]
    output.say_csv(row)
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [row]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (output.percent(0.98765), "98.77 %"),
        (output.percent(None), "-"),
        (output.percent(float("nan")), "-"),
        (output.interval({"value": 0.5, "low": 0.25, "high": 1.0}), "50.00 % (25.00–100.00)"),
        (output.interval(None), "-"),
    ],
)
def test_numbers(text: str, shown: str) -> None:
    assert text == shown
