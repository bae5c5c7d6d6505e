"""`striate data show --augment`: the sheet of an augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image


def test_a_sheet_of_each_operation_and_all_together(striate: Any, tmp_path: Path) -> None:
    plain = striate("data", "show", "digits", "--index", "0:6", "--out", "plain.png")
    one = striate("data", "show", "digits", "--index", "0:6", "--augment", "shift:1", "--out", "one.png")
    both = striate("data", "show", "digits", "--index", "0:6", "--augment", "shift:1,mixup:0.4", "--out", "both.png")
    assert plain.code == one.code == both.code == 0
    assert plain.out == one.out == both.out and "drawn: both.png" in both.err
    heights = {name: Image.open(tmp_path / f"{name}.png").height for name in ("one", "both")}
    row = (heights["both"] - heights["one"]) / 6  # mixup, and both together, for three pictures
    assert 40 < row < 120


def test_an_operation_that_cannot_be_done_draws_nothing(striate: Any, tmp_path: Path) -> None:
    for text, told in (("shfit:1", "shift"), ("saturation:0.5", "red, green and blue"), ("shift:9:reflect", "8×8")):
        outcome = striate("data", "show", "digits", "--augment", text, "--out", "out.png")
        assert outcome.code == 2 and told in outcome.err and len(outcome.error_lines()) in (2, 3)
    assert not (tmp_path / "out.png").exists()
