"""Settings of the verbs beside train: picture numbers, formats that exclude each other, flags that do nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.errors import UsageError
from striate.settings.base import build
from striate.settings.verbs import (
    CompareSettings,
    ModelsSettings,
    PredictSettings,
    choose_indices,
    parse_index,
    refuse_idle,
)

RANGES = st.tuples(st.integers(0, 49), st.integers(1, 50)).filter(lambda pair: pair[0] < pair[1])


@given(st.lists(st.integers(0, 49) | RANGES, min_size=1, max_size=5))
def test_indices_are_what_python_slices(parts: list[Any]) -> None:
    text = ",".join(str(part) if isinstance(part, int) else f"{part[0]}:{part[1]}" for part in parts)
    numbers = list(range(50))
    expected = [n for part in parts for n in ([part] if isinstance(part, int) else numbers[part[0] : part[1]])]
    assert choose_indices(text, 50, "mnist/test") == expected


@pytest.mark.parametrize("text", ["", "x", "-1", "1:2:3", "5:5", "5:2", "1,", "²", "1.5"])
def test_wrong_index_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_index(text)


@pytest.mark.parametrize(("text", "missing"), [("50", "50"), ("40:51", "50"), ("99:", "99"), ("3,77", "77")])
def test_picture_that_is_not_there(text: str, missing: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_indices(text, 50, "mnist/test")
    assert f"mnist/test has no picture {missing}" in caught.value.what and "0 to 49" in caught.value.cause


def test_open_ranges() -> None:
    assert choose_indices("48:", 50, "x") == [48, 49]
    assert choose_indices(":2", 50, "x") == [0, 1]


@pytest.mark.parametrize(
    ("model", "values", "words"),
    [
        (PredictSettings, {"as_json": True, "as_csv": True}, "exclude each other"),
        (PredictSettings, {"data": "mnist"}, "--index"),
        (PredictSettings, {"index": "7"}, "--data"),
        (PredictSettings, {"data": "mnist", "index": "seven"}, "counted from 0"),
        (PredictSettings, {"top": "0"}, "greater than or equal to 1"),
        (CompareSettings, {"data": "mnist", "index": "0:4"}, "one picture"),
        (CompareSettings, {"data": "mnist", "index": "1", "picture": "x.png"}, "leave one"),
        (ModelsSettings, {"input": "28x28"}, "1x28x28"),
        (ModelsSettings, {"input": "1x0x28"}, "1x28x28"),
    ],
)
def test_wrong_values_are_refused(model: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(model, [("flag", values)])
    assert words in str(caught.value)


def test_input_of_models() -> None:
    settings, _ = build(ModelsSettings, [("flag", {"input": "3x32x48"})])
    assert settings.input == (3, 32, 48)


def test_flag_that_does_nothing_is_refused_only_where_it_was_typed() -> None:
    needs = {"as_json": ("a table", False)}
    with pytest.raises(UsageError, match="--json has no effect"):
        refuse_idle({"as_json": "flag"}, needs)
    refuse_idle({"as_json": "default"}, needs)
    refuse_idle({"as_json": "environment STRIATE_X"}, needs)
    refuse_idle({"as_json": "flag"}, {"as_json": ("a table", True)})
