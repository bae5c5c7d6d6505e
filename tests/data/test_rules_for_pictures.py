"""The table "What is done to a picture" of docs/predict.md: each row is converted, and says so, or is refused."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.data.decode import decode_fitted
from striate.data.preprocess import Preprocess
from striate.errors import DataError

DOCUMENT = (Path(__file__).parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")
GRAY, COLOUR = Preprocess((12, 10), "stretch", 1), Preprocess((12, 10), "stretch", 3)
RANDOM = np.random.default_rng(0)
ONE = RANDOM.integers(0, 256, (12, 10), dtype=np.uint8)
THREE = RANDOM.integers(0, 256, (12, 10, 3), dtype=np.uint8)
LUMA = np.asarray(Image.fromarray(THREE).convert("L"))
ALPHA = np.dstack([THREE, np.full((12, 10), 51, np.uint8)])
OVER_WHITE = np.rint(THREE * 0.2 + 255 * 0.8)
DEEP = RANDOM.integers(0, 65536, (12, 10), dtype=np.uint16)
LIT, SMALLER = Image.new("L", (80, 96), 99), "stretched from 20×24 to 10×12"
LARGE = np.kron(ONE, np.ones((2, 2), np.uint8))


def png(image: Image.Image, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


# row of the table, what is given, for which net, what the net sees, the steps that are told
CONVERTED: list[tuple[str, Any, Preprocess, Any, list[str]]] = [
    ("uint8 `(H, W)`", ONE, GRAY, ONE, []),
    ("uint8 `(H, W, C)`", THREE, COLOUR, THREE, []),
    ("bool", ONE > 99, GRAY, np.where(ONE > 99, 255, 0), ["bool to 0 and 255"]),
    ("floats from 0 to 1", THREE / 255, COLOUR, THREE, ["floats 0–1 to 0–255"]),
    ("floats from 0 to 1", (THREE / 255).astype(np.float16), COLOUR, THREE, ["floats 0–1 to 0–255"]),
    ("`(C, H, W)`", THREE.transpose(2, 0, 1), COLOUR, THREE, ["(C, H, W) to (H, W, C)"]),
    ("`(C, H, W)`", ONE[None], GRAY, ONE, ["(C, H, W) to (H, W, C)"]),
    ("colour for a gray net", THREE, GRAY, LUMA, ["colour to gray"]),
    ("colour for a gray net", Image.fromarray(THREE), GRAY, LUMA, ["colour to gray"]),
    ("gray for a colour net", ONE, COLOUR, np.dstack([ONE] * 3), ["gray to colour"]),
    ("alpha", ALPHA, COLOUR, OVER_WHITE, ["alpha over white"]),
    ("alpha", png(Image.fromarray(ALPHA)), COLOUR, OVER_WHITE, ["alpha over white"]),
    ("a palette", png(Image.fromarray(ONE).convert("P")), GRAY, ONE, []),
    ("CMYK, YCbCr, LAB", png(Image.new("CMYK", (10, 12)), "JPEG"), COLOUR, None, ["CMYK to RGB"]),
    ("a JPEG of more than twice the net's sides", png(LIT, "JPEG"), GRAY, None, ["decoded at 1/4 of 80×96", SMALLER]),
    ("16 bits", png(Image.fromarray(DEEP)), GRAY, np.rint(DEEP / 257), ["16 bits scaled to 8"]),
    ("another size", LARGE, GRAY, None, ["stretched from 20×24 to 10×12"]),
    ("another size", LARGE, Preprocess((12, 10), "pad", 1), None, ["scaled and padded from 20×24 to 10×12"]),
    ("another size", LARGE, Preprocess((10, 10), "crop", 1), None, ["cropped and scaled from 20×24 to 10×10"]),
]
REFUSED: list[tuple[str, Any, Preprocess, str]] = [
    ("floats beyond 0 to 1", THREE.astype(float), COLOUR, "divide by 255"),
    ("floats beyond 0 to 1", ONE / 255 - 0.5, GRAY, "undo the normalisation"),
    ("floats beyond 0 to 1", np.where(ONE > 9, np.nan, 0.5), GRAY, "expected 0–1"),
    ("floats beyond 0 to 1", np.where(ONE > 9, np.inf, 0.5), GRAY, "expected 0–1"),
    ("uint16, int64 and other integers", DEEP, GRAY, ">> 8"),
    ("uint16, int64 and other integers", ONE.astype(np.int64), GRAY, "astype('uint8')"),
    ("uint16, int64 and other integers", ONE.astype(np.int8), GRAY, "astype('uint8')"),
    ("`(N, H, W, C)`", np.stack([THREE] * 5), COLOUR, "list(array)"),
    ("`(N, H, W)`", np.stack([ONE] * 5), GRAY, "order of the axes"),
    ("axes that cannot be told", np.zeros((3, 9, 3), np.uint8), COLOUR, "PIL image"),
    ("two channels, or five", np.zeros((5, 12, 10), np.uint8), COLOUR, "order of the axes"),
    ("two channels, or five", np.zeros((2, 12, 10), np.uint8), GRAY, "order of the axes"),
]


def rows() -> set[str]:
    """Return the first column of the table in the document."""
    table = DOCUMENT.partition("### What is done to a picture")[2].partition("\n### ")[0]
    return {match[1].strip() for match in re.finditer(r"^\| ([^|]+) \|", table, re.MULTILINE)} - {"given"}


@pytest.mark.parametrize(("row", "given", "preprocess", "seen", "steps"), CONVERTED)
def test_what_is_converted(row: str, given: Any, preprocess: Preprocess, seen: Any, steps: list[str]) -> None:
    notes: list[str] = []
    got = decode_fitted(given, preprocess, notes=notes, tell_fit=True)
    assert got.dtype == np.uint8 and got.shape == (*preprocess.size, preprocess.channels)
    assert notes == steps
    if seen is not None:
        assert np.abs(got - np.asarray(seen, float).reshape(got.shape)).max() <= (1 if "alpha" in row else 0)
    for step in steps:
        assert re.split(r" from | of \d", step)[0] in DOCUMENT, f"docs/predict.md does not say {step!r}"


@pytest.mark.parametrize(("row", "given", "preprocess", "fix"), REFUSED)
def test_what_is_refused(row: str, given: Any, preprocess: Preprocess, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        decode_fitted(given, preprocess, tell_fit=True)
    assert fix in f"{caught.value.cause} {caught.value.fix}"


def test_the_table_has_these_rows_and_no_others() -> None:
    tested = {case[0] for case in (*CONVERTED, *REFUSED)}
    assert rows() - {"BGR"} == tested, "no one can tell BGR from RGB: that row says so"
