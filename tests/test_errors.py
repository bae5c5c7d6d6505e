"""Errors: three lines, exit codes, near names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate import errors
from striate.errors import Interrupted, StriateError, UsageError, near_names, unknown_name


def test_three_lines_and_only_those_that_say_something() -> None:
    assert str(StriateError("the file is gone", "someone deleted it", "restore it")) == (
        "the file is gone\ncause: someone deleted it\nfix: restore it"
    )
    assert str(StriateError("the file is gone")) == "the file is gone"
    assert str(StriateError("the file is gone", fix="restore it")) == "the file is gone\nfix: restore it"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("StriateError", 1),
        ("NonFiniteLoss", 1),
        ("LockHeld", 1),
        ("UsageError", 2),
        ("DataError", 3),
        ("MissingExtra", 4),
        ("VerificationError", 5),
        ("Interrupted", 130),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    error = getattr(errors, name)("it failed")
    assert isinstance(error, StriateError) and error.exit_code == code


def test_interrupted_keeps_its_own_exit_code() -> None:
    assert Interrupted("stopped", exit_code=143).exit_code == 143
    assert Interrupted("stopped").exit_code == 130


def test_near_names_of_typing_errors() -> None:
    models = ["lenet5", "mlp", "simple-cnn", "strided-cnn", "alexnet"]
    assert near_names("lenet", models)[0] == "lenet5"
    assert near_names("Simple_CNN", models)[0] == "simple-cnn"
    assert near_names("str", models) == ["strided-cnn"]
    assert near_names("zzzz", models) == []
    assert near_names("", models) == []


@given(st.lists(st.text("abcdefgh-_", min_size=1, max_size=8), max_size=8), st.text("abcdefgh-_", max_size=8))
def test_near_names_are_known_names(known: list[str], name: str) -> None:
    near = near_names(name, known)
    assert set(near) <= set(known) and len(near) <= 3 and len(set(near)) == len(near)
    if name in known:
        assert near[0].lower().replace("_", "-") == name.replace("_", "-")


def test_unknown_name_tells_the_near_ones_or_all() -> None:
    near = unknown_name("model", "lenet", ["lenet5", "mlp"], "see `striate models`")
    assert isinstance(near, UsageError)
    assert near.what == "unknown model 'lenet'" and "lenet5" in near.cause and "mlp" not in near.cause
    assert near.fix == "see `striate models`"
    assert unknown_name("model", "zzzz", ["mlp", "lenet5"]).cause == "known: lenet5, mlp"
    assert unknown_name("run", "zzzz", iter([])).cause == "none is known"
