"""The packaged font holds the characters that the named data sets' class names need, and the pictures use it."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from striate.report import canvas, font, plots

# the Chinese and Japanese class names of CIFAR-10, Fashion-MNIST and KMNIST
NAMES = [
    *("飞机", "汽车", "鸟", "猫", "鹿", "狗", "青蛙", "马", "船", "卡车"),
    *("T恤", "裤子", "套头衫", "连衣裙", "外套", "凉鞋", "衬衫", "运动鞋", "包", "短靴"),
    *("お", "き", "す", "つ", "な", "は", "ま", "や", "れ", "を"),
]


def test_every_character_of_the_class_names_is_in_one_of_the_two_fonts() -> None:
    packaged = font_manager.get_font(font.FONT_FILE).get_charmap()
    wanted = {character for name in NAMES for character in name if not character.isascii()}
    assert sorted(character for character in wanted if ord(character) not in packaged) == []


def test_all_of_gb2312s_hanzi_and_the_kana_are_there() -> None:
    packaged = font_manager.get_font(font.FONT_FILE).get_charmap()
    codes = (bytes((high, low)) for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF))
    hanzi = "".join(code.decode("gb2312", errors="ignore") for code in codes)
    assert len(hanzi) == 6763
    assert [character for character in hanzi if ord(character) not in packaged] == []
    kana = [*range(0x3041, 0x3094), *range(0x30A1, 0x30F7), 0x30FC]
    assert [code for code in kana if code not in packaged] == []


def test_the_licence_and_the_origin_lie_beside_the_font() -> None:
    assert font.FONT_FILE.stat().st_size < 1_500_000
    assert "Apache License" in font.FONT_FILE.with_name("FONT-LICENSE.txt").read_text(encoding="utf-8")
    assert "make_font.py" in font.FONT_FILE.with_name("FONT.txt").read_text(encoding="utf-8")


def test_drawing_the_names_warns_of_no_missing_glyph(tmp_path: Path) -> None:
    images = np.zeros((len(NAMES), 8, 8, 1), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.sample_grid(tmp_path / "grid.png", images, NAMES, "类别")
        plots.confusion_matrix(tmp_path / "matrix.png", np.eye(30, dtype=int), NAMES, "混淆矩阵")
        plots.prediction(tmp_path / "bars.png", images[0], {name: 1 / 10 for name in NAMES[:10]})
        plots.compare_curves(tmp_path / "curves.png", {"猫狗-1": [{"epoch": 1, "val_accuracy": 0.5}]})


def test_a_character_that_no_font_has_is_told() -> None:
    figure = canvas.new_figure(100, 50)
    canvas.write_at(figure, 5, 5, "\U0001f9ff")
    with pytest.warns(UserWarning, match="missing from font"):
        canvas.png(figure)


def test_the_settings_of_matplotlib_are_left_alone_and_the_font_is_registered_once() -> None:
    before = dict(matplotlib.rcParams)
    threads = [threading.Thread(target=font.families) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert font.families() == ["DejaVu Sans", font.FONT_NAME]
    assert sum(entry.name == font.FONT_NAME for entry in font_manager.fontManager.ttflist) == 1
    assert dict(matplotlib.rcParams) == before
