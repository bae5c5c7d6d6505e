"""The sheet and the page of explain: drawn whatever the names; in Chromium no error, and no name runs as a script."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate.data.preprocess import Preprocess
from striate.explain.exciting import exciting_pictures
from striate.explain.explanation import Explanation, explain
from striate.models import create_model
from striate.predictor.predictor import Answer, Predictor
from striate.predictor.torch_backend import predictor_of
from striate.report import explain_tiles
from striate.report.explain_page import ExplainPage
from striate.report.explain_sheet import Excitement, explain_sheet

HOSTILE = '<script>window.hit=1</script><img src=x onerror="window.hit=1">\'"&{{ 7*7 }}'
RANDOM = np.random.default_rng(0)


def predictor(classes: tuple[str, ...], channels: int = 1, name: str = "made", model: str = "three-conv") -> Predictor:
    torch.manual_seed(0)
    net = create_model(model, len(classes), channels, 28)
    return predictor_of(net, Preprocess((28, 28), "stretch", channels), classes, name=name)


def picture(channels: int = 1) -> np.ndarray:
    return RANDOM.integers(0, 256, (28, 28, channels)).astype(np.uint8)


def looked_at(
    classes: tuple[str, ...], source: str, channels: int = 1, **options: Any
) -> tuple[Predictor, Explanation]:
    made = predictor(classes, channels, **options)
    one = explain(made, picture(channels))
    return made, replace(one, truth=classes[0], answer=replace(one.answer, source=source))


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        return image.size


@pytest.mark.parametrize("classes", [("飞机", "$\\frac{1}{2}$", "a" * 300, "\u202egnp.\n\0"), ("one",)])
def test_a_sheet_is_drawn_whatever_the_names_and_is_the_same_again(classes: tuple[str, ...]) -> None:
    _, one = looked_at(classes, "图\u202e片\n.png" + "x" * 300, channels=3)
    sheet = explain_sheet([one])
    assert size(sheet)[0] == 1400 and size(sheet)[1] < 2200
    assert explain_sheet([one]) == sheet
    assert size(explain_sheet([one, one, Explanation(Answer("bad", error={"cause": "x"}))]))[1] < size(sheet)[1]


def test_a_sheet_of_an_mlp_and_of_what_excites() -> None:
    made, one = looked_at(("a", "b"), "x.png", model="mlp")
    assert set(one.maps) == {"occlusion", "integrated-gradients"} and not one.features
    images = RANDOM.integers(0, 256, (20, 28, 28, 1)).astype(np.uint8)
    found = exciting_pictures(made, images, "layers.1", list(range(20)), 4)
    both = size(explain_sheet([one], Excitement("layers.1", found, images)))
    assert both[1] > size(explain_sheet([one]))[1]
    page = ExplainPage("m")
    page.add(one)
    text = page.render(Excitement("layers.1", found, images))
    assert text.count('class="excited"') == 80 and "MLP has no layer with a map" in text


def test_heat_is_orange_for_and_blue_against_and_none_leaves_the_picture() -> None:
    seen, values = np.full((2, 2, 1), 100, np.uint8), np.array([[2.0, -2.0], [0.0, 1.0]], np.float32)
    heat = explain_tiles.overlay(seen, values, 2)
    assert heat[0, 0].tolist() == explain_tiles.FOR.tolist() and heat[0, 1].tolist() == explain_tiles.AGAINST.tolist()
    assert heat[1, 0].tolist() == [100, 100, 100]
    assert (explain_tiles.overlay(seen, values * 0, 2) == 100).all()


def test_spread_takes_the_ends() -> None:
    assert list(explain_tiles.spread(5, 10)) == [0, 1, 2, 3, 4]
    assert list(explain_tiles.spread(50, 3)) == [0, 24, 49]


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize(("locale", "scheme"), [("en-US", "light"), ("zh-CN", "dark")])
def test_the_page_in_chromium(browser: Any, tmp_path: Path, width: int, locale: str, scheme: str) -> None:
    made, one = looked_at((HOSTILE, "飞机"), HOSTILE, name=HOSTILE)
    images = RANDOM.integers(0, 256, (6, 28, 28, 1)).astype(np.uint8)
    layer = next(name for name, module in made.net.named_modules() if isinstance(module, nn.Conv2d))
    page_of = ExplainPage(made.name)
    page_of.add(one)
    page_of.add(Explanation(Answer(HOSTILE, error={"code": "unreadable", "cause": HOSTILE, "fix": HOSTILE})))
    path = tmp_path / "explain.html"
    path.write_text(page_of.render(Excitement(layer, exciting_pictures(made, images, layer, [0], 2), images)), "utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale, color_scheme=scheme)
    page, told, asked = context.new_page(), [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert told == [] and [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
    assert page.evaluate("window.hit") is None and page.locator("body script").count() == 1
    assert page.locator("h2").first.inner_text() == HOSTILE
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    chinese = locale.startswith("zh")
    assert page.get_by_text("特征图", exact=True).is_visible() is chinese
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft" if chinese else "ArrowRight")
    assert page.get_by_text("特征图", exact=True).is_visible() is not chinese
    assert page.get_by_text("Feature maps", exact=True).is_visible() is chinese
    context.close()
