"""The pages in headless Chromium: no error, no request, both widths, keyboard, contrast, languages, the pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate.data.dataset import Dataset, Parts
from striate.evaluation.comparison import read_predictions
from striate.reporting.comparison import write_comparison
from striate.reporting.run import write_report

HOSTILE = (
    "<script>told()</script>",
    '"><img src=x onerror=told()>',
    "{{ 7 * 7 }}",
    "</script><svg onload=told()>",
    "猫|`a`",
)


@contextmanager
def opened(browser: Any, path: Path, width: int = 1400, scheme: str = "light", locale: str = "en-US") -> Iterator[Any]:
    """Open a page; whatever it logs, asks for or pops up fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, locale=locale)
    context.add_init_script("window.told = () => { console.error('a name ran'); };")  # what hostile names would call
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else told.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert told == []


@pytest.fixture(scope="module")
def report(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(digits, out=tmp_path_factory.mktemp("page") / "report.html", device="cpu")


@pytest.fixture(scope="module")
def comparison(digits: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison([digits, plain], tmp_path_factory.mktemp("page") / "compare.html")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_page_fits_and_its_links_work(browser: Any, request: pytest.FixtureRequest, which: str, width: int) -> None:
    with opened(browser, request.getfixturevalue(which), width) as page:
        for language in ("en", "zh"):
            page.check(f"#{language}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        targets = page.eval_on_selector_all("nav a", "links => links.map(link => link.getAttribute('href'))")
        assert len(targets) >= 5
        for target in targets:
            page.click(f"nav a[href='{target}']")
            assert page.evaluate("location.hash") == target
            assert page.locator(f"{target} h2").is_visible()
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.querySelectorAll('img:not([alt]), svg[role=img]:not([aria-label])').length") == 0


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_the_language_is_chosen_by_keyboard_and_by_the_browser(
    browser: Any, request: pytest.FixtureRequest, which: str
) -> None:
    path = request.getfixturevalue(which)
    with opened(browser, path) as page:
        heading = page.locator("section h2").nth(0)
        english = heading.inner_text()
        page.focus("#en")
        page.keyboard.press("ArrowRight")
        assert page.is_checked("#zh") and page.evaluate("document.documentElement.lang") == "zh"
        assert heading.inner_text() != english and re.search("[\u4e00-\u9fff]", page.inner_text("main, body"))
        assert not page.locator(".en:visible").count()
    with opened(browser, path, locale="zh-CN") as page:
        assert page.is_checked("#zh")


def test_a_cell_shows_the_very_pictures(browser: Any, report: Path, digits: Path) -> None:
    answers = read_predictions(digits / "predictions.csv")
    wrong: dict[str, set[str]] = {}
    for one in answers:
        wrong.setdefault(f"{one.label}-{one.prediction}", set()).add(one.source)
    with opened(browser, report) as page:
        for key in wrong:
            true, answer = key.split("-")
            cell = page.locator(f"[data-cell='{key}']")
            assert cell.inner_text() == str(len(wrong[key]))
            cell.hover()
            assert page.inner_text("#hover").startswith(f"{true} → {answer}: {len(wrong[key])} · ")
            cell.click()
            shown = page.eval_on_selector_all("#cell img", "images => images.map(image => image.alt)")
            assert set(shown) <= wrong[key] and len(shown) == len(set(shown))
            assert len(shown) == (min(6, len(wrong[key])) if true == answer else len(wrong[key]))
        assert page.locator("[aria-pressed=true]").count() == 1


def test_the_matrix_is_reached_by_keyboard(browser: Any, report: Path) -> None:
    with opened(browser, report) as page:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.cell !== undefined"):
                break
        first = page.evaluate("document.activeElement.dataset.cell")
        assert first == "0-0"
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        second = page.evaluate("document.activeElement.dataset.cell")
        assert second != first and page.evaluate("document.activeElement.tabIndex") == 0
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        assert page.locator("#cell img").count() > 0
        page.keyboard.press("Tab")  # one key leaves the whole matrix
        assert page.evaluate("document.activeElement.dataset.cell === undefined")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, report: Path, scheme: str) -> None:
    with opened(browser, report, scheme=scheme) as page:
        names = ("ink", "faint", "paper", "panel", "blue", "orange", "red")
        colours = {
            name: page.evaluate(
                """name => {
                    const probe = document.createElement("i");
                    probe.style.color = `var(--${name})`;
                    document.body.append(probe);
                    const found = getComputedStyle(probe).color;
                    probe.remove();
                    return found;
                }""",
                name,
            )
            for name in names
        }
        for ground in ("paper", "panel"):
            for name in ("ink", "faint", "blue", "orange", "red"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (scheme, name, ground)
        grounds = page.eval_on_selector_all(
            "[data-cell]", "cells => cells.map(cell => getComputedStyle(cell).backgroundColor)"
        )
        assert min(contrast(colours["ink"], ground) for ground in grounds) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two CSS colours: WCAG 2.2, relative luminance."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    numbers = [float(number) for number in re.findall(r"[\d.]+", colour.replace("color(srgb", ""))[:3]]
    shares = [number if colour.startswith("color(") else number / 255 for number in numbers]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_measure_of_contrast() -> None:
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", "color(srgb 1 1 1)") == pytest.approx(4.54, abs=0.01)


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(300) % len(HOSTILE)
    images = random.integers(0, 255, (300, 8, 8, 1)).astype(np.uint8)
    names = tuple(f"{HOSTILE[i % len(HOSTILE)]}{i}.png" for i in range(300))
    parts = Parts("<b>data</b>", Dataset("<b>data</b>", images, labels, HOSTILE, names))
    runs = [
        striate.train(parts, model="mlp", epochs=1, batch_size=64, quiet=True, report=True, out=tmp_path / name)
        for name in ("first", "second")
    ]
    both = write_comparison([run.folder for run in runs], tmp_path / "compare.html", data=parts)
    for path in (runs[0].folder / "report.html", both):
        text = path.read_text(encoding="utf-8")
        assert "told()" in text and "49" not in re.findall(r"<bdi>(.*?)</bdi>", text)
        with opened(browser, path) as page:
            for cell in page.locator("[data-cell]").all():
                cell.click()
            assert page.locator("img[src=x], svg[onload], bdi script, bdi img").count() == 0
    card = (runs[0].folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "<script>" not in card and "<img" not in card and "猫\\|\\`a\\`" in card
