"""The drawing of a net: well-formed, to scale, nothing of a user's name becomes markup, no network."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from torch import nn

from striate.models import create_model
from striate.models.summary import summarise
from striate.report.net_drawing import draw_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(net: nn.Module, shape: tuple[int, int, int], title: str = "net") -> ElementTree.Element:
    return ElementTree.fromstring(draw_svg(summarise(net, shape), title))


def rectangles(root: ElementTree.Element, word: str) -> list[tuple[float, float]]:
    found = [r for r in root.iter(f"{SVG}rect") if word in (r.get("class") or "").split()]
    return [(float(r.get("width", 0)), float(r.get("height", 0))) for r in found]


def test_sides_rows_and_what_is_seen_are_to_scale() -> None:
    root = drawn(create_model("strided-cnn", 10, 1, 28), (1, 28, 28))
    faces = rectangles(root, "face")
    assert [round(width / faces[0][0] * 28, 1) for width, _ in faces] == [28, 12, 5]
    assert all(width == height for width, height in faces)
    rows = [width for width, height in rectangles(root, "side")]
    assert rows[0] / rows[1] == pytest.approx(250 / 10, rel=0.01)
    eyes = rectangles(root, "eye")
    seen = [width / eyes[0][0] * 28 for width, _ in rectangles(root, "seen")]
    assert seen == pytest.approx([5, 9, 9, 25], abs=0.05)


def test_sides_that_differ() -> None:
    width, height = rectangles(drawn(nn.Conv2d(3, 4, 3), (3, 20, 40)), "face")[0]
    assert width == pytest.approx(2 * height)


def test_texts_stand_in_it_and_small_layers_are_words() -> None:
    root = drawn(create_model("strided-cnn", 10, 1, 28), (1, 28, 28), "mein Netz 网络")
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert "mein Netz 网络" in texts and "⌊(28 − 5)/2⌋ + 1 = 12" in texts
    assert "260 parameters = (5·5·1 + 1)·10" in texts and "then LeakyReLU, BatchNorm2d" in texts


def test_both_languages_tell_the_same() -> None:
    summary = summarise(create_model("strided-cnn", 10, 1, 28), (1, 28, 28))
    drawings = [ElementTree.fromstring(draw_svg(summary, "net", language)) for language in ("en", "zh")]
    told = [[re.findall(r"[\d.,]*\d", element.text or "") for element in one.iter(f"{SVG}text")] for one in drawings]
    assert [sorted(numbers) for numbers in told[0]] == [sorted(numbers) for numbers in told[1]]
    chinese = " ".join(element.text or "" for element in drawings[1].iter(f"{SVG}text"))
    assert "260 个参数 = (5·5·1 + 1)·10" in chinese and "之后 LeakyReLU, BatchNorm2d" in chinese
    assert not re.search("parameters|multiply|picture|sees|then|scale", chinese)


def test_no_name_becomes_markup_and_nothing_is_fetched() -> None:
    net = nn.Sequential()
    net.add_module('</svg><script>alert("1")</script>&\x00', nn.Conv2d(1, 2, 3))
    text = draw_svg(summarise(net, (1, 8, 8)), '"><script>\x1b[0m')
    root = ElementTree.fromstring(text)
    assert not list(root.iter(f"{SVG}script")) and "<script" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in text and "@import" not in text and "href" not in text


def test_both_schemes_have_their_colours() -> None:
    text = draw_svg(summarise(nn.Conv2d(1, 2, 3), (1, 8, 8)), "net")
    assert "prefers-color-scheme:dark" in text and "max-width" in text
