"""The page of a lesson: one file, its policy, and its buttons, keys and languages in Chromium."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from striate.lessons.catalogue import MAKERS, lesson
from striate.lessons.lesson import Lesson, Part, Text
from striate.report.lesson_page import lesson_page
from striate.report.lesson_text import lesson_lines
from striate.report.text import cell_width


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lessons")
    paths = {name: folder / f"{name}.html" for name in MAKERS}
    for name, path in paths.items():
        path.write_text(lesson_page(lesson(name)), encoding="utf-8")
    paths["zh"] = folder / "zh.html"
    paths["zh"].write_text(lesson_page(lesson("step"), "zh"), encoding="utf-8")
    return paths


class Opened:
    """A page in the browser, with all that its console said."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.page = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **context}).new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.said.append(request.url) if "http" in request.url[:5] else None)
        self.page.goto(path.as_uri())
        self.stage = self.page.locator(".stage").first

    def known(self) -> list[str]:
        """Return the output cells that are filled by now."""
        return self.stage.locator(".output td:not(.unknown)").all_inner_texts()

    def sums(self) -> str:
        return self.stage.locator(".sums").inner_text()


@pytest.mark.parametrize("name", MAKERS)
def test_a_page_is_one_file_with_a_policy_for_its_own_script(pages: dict[str, Path], name: str) -> None:
    text = pages[name].read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:image/|#)', text) and "@import" not in text and "url(" not in text
    assert not re.search(r'\son\w+="|\sstyle="', text)  # neither is allowed by the policy
    for tag in ("style", "script"):
        content = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert len(content) == 1 and f"{tag}-src 'sha256-{digest}'" in text
    scenes = json.loads(re.findall(r'id="scenes">(.*?)</script>', text, re.S)[0])
    assert len(scenes) == text.count('class="stage"')


def test_nothing_in_a_lesson_can_close_the_script(pages: dict[str, Path]) -> None:
    wild = Text("</script><script>alert(1)</script>", "<b>粗</b>")
    made = lesson("step")
    scene = made.parts[0].scene
    text = lesson_page(Lesson("step", wild, wild, (Part("one", wild, (wild,), scene),)))
    assert text.count("<script") == 2 and "<b>粗" not in text


@pytest.mark.parametrize("name", MAKERS)
def test_every_page_opens_without_a_word_and_fits(browser: Any, pages: dict[str, Path], name: str) -> None:
    opened = Opened(browser, pages[name], color_scheme="dark")
    for width in (1400, 400):
        opened.page.set_viewport_size({"width": width, "height": 900})
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        opened.page.evaluate("document.querySelectorAll('button.forward').forEach((button) => button.click())")
        boxes = opened.page.evaluate(
            """() => [...document.querySelectorAll("button, input[type=range]")].map((one) =>
                [one.innerText.trim() || one.getAttribute("aria-label"), one.getBoundingClientRect().height])"""
        )
        assert all(label and height >= 44 for label, height in boxes), boxes  # a finger's breadth
    assert opened.said == []


def test_forward_back_and_the_slider(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["conv"])
    forward, back = opened.stage.locator("button.forward"), opened.stage.locator("button.back")
    assert opened.known() == [] and back.is_disabled()
    for _ in range(4):
        forward.click()
    assert opened.known() == ["19"] and opened.sums() == "0·0 + 1·1 + 3·2 + 4·3 = 19"
    assert opened.stage.locator(".input td.window").all_inner_texts() == ["0", "1", "3", "4"]
    assert opened.stage.locator(".output td.at").all_inner_texts() == ["19"]
    back.click()
    assert opened.known() == [] and opened.sums() == "0·0 + 1·1 + 3·2 = 7 …"
    opened.stage.locator("input").fill("16")
    assert opened.known() == ["19", "25", "37", "43"] and forward.is_disabled()
    assert opened.stage.locator(".count").inner_text() == "17 / 17"


def test_only_the_kernel_at_work_is_shown(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["conv"])
    stage = opened.page.locator("#channels .stage")
    assert stage.locator(".weight:visible figcaption .en").all_inner_texts() == ["kernel 1"]
    stage.locator("input").fill("180")
    assert stage.locator(".weight:visible figcaption .en").all_inner_texts() == ["kernel 5"]
    assert stage.locator(".output td.unknown").count() == 0


def test_play_runs_to_the_end_pauses_and_begins_again(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["pool"])
    opened.page.clock.install()
    opened.page.reload()
    play = opened.stage.locator("button.play")
    play.click()
    assert play.inner_text() == "Pause"
    opened.page.clock.run_for(3000)
    assert 0 < len(opened.known()) < 12
    play.click()
    halted = opened.known()
    opened.page.clock.run_for(5000)
    assert opened.known() == halted and play.inner_text() == "Play"
    play.click()
    opened.page.clock.run_for(10_000)
    assert opened.known() == ["4", "5", "7", "8", "2", "3", "5", "6", "8", "12", "20", "24"]
    assert play.inner_text() == "Play"
    play.click()
    assert opened.known() == []


def test_keys(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["pool"])
    keyboard = opened.page.keyboard
    for _ in range(2):
        keyboard.press("ArrowRight")
    assert len(opened.known()) == 2 * 3
    keyboard.press("ArrowLeft")
    assert len(opened.known()) == 3
    opened.stage.focus()
    keyboard.press("End")
    assert len(opened.known()) == 12
    keyboard.press("Home")
    assert opened.known() == []
    keyboard.press(" ")
    assert opened.stage.locator("button.play").inner_text() == "Pause"
    keyboard.press(" ")
    assert opened.stage.locator("button.play").inner_text() == "Play"
    reached = set()
    for _ in range(12):
        keyboard.press("Tab")
        reached.add(opened.page.evaluate("document.activeElement.className || document.activeElement.type"))
    assert {"play", "forward", "range"} <= reached


def test_the_language_switch(browser: Any, pages: dict[str, Path]) -> None:
    opened = Opened(browser, pages["step"], locale="en-US")
    heading = opened.page.locator("h1")
    assert heading.inner_text() == "One step of learning"
    opened.page.get_by_label("中文").check()
    assert heading.inner_text() == "学习的一步" and opened.stage.locator("button.play").inner_text() == "播放"
    assert opened.page.evaluate("document.documentElement.lang") == "zh"
    opened.page.keyboard.press("ArrowLeft")  # on the switch itself the arrows switch
    assert heading.inner_text() == "One step of learning"
    assert Opened(browser, pages["step"], locale="zh-CN").page.locator("h1").inner_text() == "学习的一步"
    assert Opened(browser, pages["zh"], locale="en-US").page.locator("h1").inner_text() == "学习的一步"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_told_from_their_ground(browser: Any, pages: dict[str, Path], scheme: str) -> None:
    """At least 4.5 : 1 (WCAG AA), measured on the colours that the browser computed."""
    opened = Opened(browser, pages["conv"], color_scheme=scheme)
    for _ in range(4):
        opened.stage.locator("button.forward").click()
    opened.page.wait_for_timeout(400)  # colours take 0.18 s to change
    pairs = opened.page.evaluate(
        """() => [...document.querySelectorAll("p, h1, a, .says, .sums, td:not(.unknown, .around), button:enabled")]
            .filter((one) => one.offsetParent && one.textContent.trim()).map((one) => {
                let ground = one;
                while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
                return [getComputedStyle(one).color, getComputedStyle(ground).backgroundColor];
            })"""
    )
    assert len(pairs) > 100
    for pair in set(map(tuple, pairs)):
        lighter, darker = sorted((luminance(colour) for colour in pair), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, pair


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [60, 100])
def test_lines_of_text_keep_to_the_width(language: str, width: int) -> None:
    for name in ("conv", "batchnorm", "step"):
        made = lesson(name)
        tables = [
            cell
            for part in made.parts
            if part.table
            for row in part.table.rows
            for cell in row
            if isinstance(cell, str)
        ]
        for line in lesson_lines(made, language, width):
            in_table = any(cell in line for cell in tables if len(cell) > 3)  # a table is as wide as its cells
            assert cell_width(line) <= width or in_table or line.startswith("  "), line
            assert not line.lstrip().startswith(("，", "。", "、")), line
