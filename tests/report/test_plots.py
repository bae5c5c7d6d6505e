"""The pictures: written whole, the same bytes each time, in threads, for any size and number of classes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from striate.errors import DataError, StriateError
from striate.report import canvas, plots

GENERATOR = np.random.default_rng(0)
GRAY = GENERATOR.integers(0, 256, (12, 28, 28, 1), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (12, 20, 33, 3), dtype=np.uint8)
NAMES = [f"class {index}" for index in range(12)]
STEPS = (list(range(1, 301)), (2.3 * np.exp(-np.arange(300) / 60) + 0.05).tolist())
RESULTS: list[dict[str, Any]] = [
    {
        "epoch": "1",
        "step": "150",
        "train_loss": "0.9",
        "train_accuracy": "0.6",
        "val_loss": "0.7",
        "val_accuracy": "0.7",
    },
    {
        "epoch": "2",
        "step": "300",
        "train_loss": "0.4",
        "train_accuracy": "0.8",
        "val_loss": "0.5",
        "val_accuracy": "0.9",
    },
]
UNVALIDATED = [row | {"val_loss": "", "val_accuracy": ""} for row in RESULTS]
ANSWER = {name: (index + 1) / 78 for index, name in enumerate(NAMES)}

SHEET = [("flip", np.stack([COLOUR[:2, :, ::-1], COLOUR[:2]])), ("shift:2:reflect", np.stack([COLOUR[2:4]] * 2))]

PICTURES: dict[str, Callable[[Path], None]] = {
    "samples": lambda path: plots.sample_grid(path, GRAY, NAMES, "a title"),
    "curves": lambda path: plots.curves(path, STEPS, RESULTS, "a title"),
    "confusion": lambda path: plots.confusion_matrix(path, np.eye(12, dtype=int) * 7, NAMES),
    "mistakes": lambda path: plots.mistakes(path, COLOUR, NAMES, NAMES[::-1], np.linspace(0, 1, 12)),
    "prediction": lambda path: plots.prediction(path, COLOUR[0], ANSWER, "a title"),
    "compare curves": lambda path: plots.compare_curves(path, {"one": RESULTS, "two": UNVALIDATED}),
    "augmentation": lambda path: plots.augmentation_sheet(path, COLOUR[:2], SHEET, "a title"),
    "compare answers": lambda path: plots.compare_answers(path, GRAY[0], {"one": ANSWER, "two": ANSWER}),
}


def size_of(path: Path) -> tuple[int, int]:
    """Width and height, after reading all of the pixels."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        return picture.size


def words_of(monkeypatch: pytest.MonkeyPatch, draw: Callable[[Path], None], path: Path) -> list[str]:
    """All texts of the picture that `draw` makes."""
    figures: list[Figure] = []
    png = canvas.png

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return png(figure)

    monkeypatch.setattr(canvas, "png", keep)
    draw(path)
    texts = figures[0].findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in texts if artist.get_text() and artist.get_visible()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_input_gives_the_same_bytes_in_a_thread_too(name: str, tmp_path: Path) -> None:
    PICTURES[name](tmp_path / "a.png")
    thread = threading.Thread(target=PICTURES[name], args=(tmp_path / "b.png",))
    thread.start()
    thread.join()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    width, height = size_of(tmp_path / "a.png")
    assert 200 < width < 1800 and 100 < height < 1800
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_pictures_drawn_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    for name, draw in PICTURES.items():
        draw(tmp_path / f"{name} alone.png")
    threads = [threading.Thread(target=PICTURES[name], args=(tmp_path / f"{name} beside.png",)) for name in PICTURES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in PICTURES:
        alone, beside = (tmp_path / f"{name} {how}.png" for how in ("alone", "beside"))
        assert alone.read_bytes() == beside.read_bytes(), name


def test_no_pyplot_and_no_torch_is_imported() -> None:
    code = "import sys, striate.report.plots; print(sorted({'matplotlib.pyplot', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StriateError, match="absent"):
        plots.sample_grid(tmp_path / "absent" / "grid.png", GRAY, NAMES)


# -- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (3, 28, 28), (40, 32, 32, 3), (2, 300, 500, 3), (7, 2, 90, 1)])
def test_a_grid_holds_pictures_of_any_size(shape: tuple[int, ...], tmp_path: Path) -> None:
    plots.sample_grid(tmp_path / "grid.png", np.full(shape, 9, np.uint8), ["x"] * shape[0])
    drawn = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    assert (drawn == 9).all(axis=2).sum() > 1000 * shape[0] * (0.1 if shape[1] == 2 else 1)


def test_labels_stand_below_and_a_long_selection_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plots, "MOST_PICTURES", 30)
    images, labels = np.zeros((31, 4, 4, 1), np.uint8), [f"n{index}" for index in range(31)]
    words = words_of(monkeypatch, lambda path: plots.sample_grid(path, images, labels, "t"), tmp_path / "g.png")
    assert "n29" in words and "n30" not in words
    assert "t: the first 30 of 31" in words


def test_a_dollar_sign_is_no_formula(tmp_path: Path) -> None:
    plots.sample_grid(tmp_path / "grid.png", GRAY[:2], ["$\\frac{", "a$b$"], "50 $ and 60 $")
    assert size_of(tmp_path / "grid.png")


def test_nothing_to_draw_and_unequal_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture"):
        plots.sample_grid(tmp_path / "grid.png", GRAY[:0], [])
    with pytest.raises(DataError, match="12 images, 2 labels"):
        plots.sample_grid(tmp_path / "grid.png", GRAY, ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_the_wrong_ones_surest_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    true, predicted = list("aabbcc"), list("abbacb")  # wrong: 1, 3, 5
    probability = [0.99, 0.5, 0.98, 0.9, 0.97, 0.7]

    def draw(path: Path) -> None:
        plots.mistakes(path, GRAY[:6], true, predicted, probability, "t", indices=range(100, 106), most=2)

    words = words_of(monkeypatch, draw, tmp_path / "m.png")
    assert words == ["t", "b → a", "90.0 % · #103", "c → b", "70.0 % · #105"]


def test_mistakes_with_long_names_take_two_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = words_of(
        monkeypatch, lambda path: plots.mistakes(path, GRAY[:1], ["Ankle boot"], ["T-shirt/top"], [1.0]), tmp_path / "m"
    )
    assert words[1:] == ["Ankle boot", "→ T-shirt/top", "100.0 %"]


def test_no_mistake_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = words_of(monkeypatch, lambda path: plots.mistakes(path, GRAY, NAMES, NAMES, [1.0] * 12), tmp_path / "m.png")
    assert "None: all 12 answers are right." in words


# -- curves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("results", [[], RESULTS[:1], RESULTS, UNVALIDATED, [{"epoch": 1}]])
@pytest.mark.parametrize("steps", [([], []), ([1], [2.0]), STEPS, (range(9000), [float("nan")] * 9000)])
def test_curves_of_any_length(steps: Any, results: Any, tmp_path: Path) -> None:
    plots.curves(tmp_path / "curves.png", steps, results)
    assert size_of(tmp_path / "curves.png") == (1160, 460)


def test_curves_name_the_best_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = words_of(monkeypatch, lambda path: plots.curves(path, STEPS, RESULTS, "digits-1"), tmp_path / "c.png")
    assert {"digits-1", "step", "epoch", "accuracy, %"} <= set(words)
    assert "validation, best 90.00 % at epoch 2" in words


def test_compared_runs_are_named_in_the_legend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = {"_one": RESULTS, "two": UNVALIDATED, "three": []}
    words = words_of(monkeypatch, lambda path: plots.compare_curves(path, runs), tmp_path / "c.png")
    assert "_one: best 90.00 %" in words
    assert "two: best 80.00 % (no validation: train accuracy)" in words
    with pytest.raises(DataError, match="no run"):
        plots.compare_curves(tmp_path / "none.png", {})


def test_thirty_runs_can_be_compared(tmp_path: Path) -> None:
    plots.compare_curves(tmp_path / "c.png", {f"run {index}": RESULTS for index in range(30)})
    assert size_of(tmp_path / "c.png")[1] > 700


# -- confusion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 10, 25, 26, 100, 101])
def test_counts_up_to_25_classes_and_names_up_to_100(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counts = np.eye(number, dtype=int) * 4321
    names = [f"k{index}" for index in range(number)]
    words = words_of(monkeypatch, lambda path: plots.confusion_matrix(path, counts, names), tmp_path / "m.png")
    assert words.count("4,321") == (number if number <= 25 else 0)
    assert words.count("k0") == (2 if number <= 100 else 0)
    assert max(size_of(tmp_path / "m.png")) <= 1500


def test_a_cell_takes_the_colour_of_its_share_of_the_row(tmp_path: Path) -> None:
    counts = np.zeros((30, 30), int)
    counts[0, 0], counts[1, 1] = 10, 90_000  # both rows are all right: equally dark whatever their counts
    counts[2, 2], counts[2, 3] = 9, 1
    plots.confusion_matrix(tmp_path / "m.png", counts, ["n"] * 30)
    drawn = np.asarray(Image.open(tmp_path / "m.png").convert("RGB")).astype(int)
    side = plots._cell_side(30)
    left = next(column for column in range(40, 400) if (drawn[78 + side // 2, column : column + 5, 0] < 60).all())
    middles = {
        row: [drawn[78 + row * side + side // 2, left + column * side + side // 2].tolist() for column in range(4)]
        for row in range(4)
    }
    assert middles[0][0] == middles[1][1]
    assert sum(middles[1][1]) < sum(middles[2][2]) < sum(middles[2][3]) < sum(middles[2][0]) == 3 * 255
    assert middles[3] == [middles[3][0]] * 4 and sum(middles[3][0]) < 3 * 255  # no sample: gray, not white


def test_a_matrix_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for counts, names in ((np.eye(3), ["a", "b"]), (np.zeros((0, 0)), [])):
        with pytest.raises(DataError, match="does not fit"):
            plots.confusion_matrix(tmp_path / "m.png", counts, names)


# -- answers ---------------------------------------------------------------------------------------------------------


def test_prediction_shows_the_picture_unchanged_and_all_classes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = words_of(monkeypatch, lambda path: plots.prediction(path, GRAY[0], ANSWER), tmp_path / "p.png")
    assert set(NAMES) <= set(words)
    assert f"class 11: {100 * 12 / 78:.1f} %" in words
    drawn = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    tile = canvas.as_tile(GRAY[0], 300)
    np.testing.assert_array_equal(drawn[40 : 40 + len(tile), 20 : 20 + tile.shape[1]], tile)


def test_prediction_of_many_classes_shows_the_ten_likeliest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = {f"n{index}": index / 4950 for index in range(100)}
    words = words_of(monkeypatch, lambda path: plots.prediction(path, COLOUR[0], answer), tmp_path / "p.png")
    assert list(dict.fromkeys(word for word in words if word.startswith("n"))) == [
        f"n{index}" for index in range(99, 89, -1)
    ] + ["n99: 2.0 %, 10 likeliest of 100 classes"]


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_answers_stand_side_by_side(runs: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {f"run {index}": {"cat": 0.9, "dog": 0.1} for index in range(runs)} | {"other": {"dog": 1.0}}
    words = words_of(monkeypatch, lambda path: plots.compare_answers(path, COLOUR[0], answers), tmp_path / "p.png")
    assert words.count("90.0 %") == runs and words.count("unknown here") == 1
    assert "other\ndog: 100.0 %" in words
    assert size_of(tmp_path / "p.png")[0] < 1700


def test_answers_of_many_classes_show_each_runs_favourites(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    up = {f"n{index}": index / 4950 for index in range(100)}
    down = {f"n{index}": (99 - index) / 4950 for index in range(100)}
    draw: Callable[[Path], None] = lambda path: plots.compare_answers(path, GRAY[0], {"up": up, "down": down})  # noqa: E731
    words = words_of(monkeypatch, draw, tmp_path / "p.png")
    assert {f"n{index}" for index in (0, 1, 2, 3, 4, 95, 96, 97, 98, 99)} <= set(words)
    assert "n50" not in words


def test_no_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        plots.prediction(tmp_path / "p.png", GRAY[0], {})
    with pytest.raises(DataError):
        plots.compare_answers(tmp_path / "p.png", GRAY[0], {"run": {}})


def test_an_augmentation_sheet_names_operations_and_epochs_and_shows_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sheet.png"
    words = words_of(monkeypatch, PICTURES["augmentation"], path)
    assert words.count("flip") == words.count("shift:2:reflect") == words.count("picture") == 1
    assert [word for word in words if word.startswith("epoch")] == ["epoch 1", "epoch 2"]
    sheet = np.asarray(Image.open(path).convert("RGB"))
    shown = [COLOUR[0], COLOUR[0, :, ::-1], COLOUR[1], COLOUR[3]]
    for picture in (canvas.as_tile(image, 80) for image in shown):
        corners = np.argwhere((sheet[: 1 - picture.shape[0], : 1 - picture.shape[1]] == picture[0, 0]).all(2))
        areas = (sheet[y : y + picture.shape[0], x : x + picture.shape[1]] for y, x in corners)
        assert any(np.array_equal(area, picture) for area in areas)
    with pytest.raises(DataError):
        plots.augmentation_sheet(path, COLOUR[:0], [("flip", np.stack([COLOUR[:0]]))])
    with pytest.raises(DataError):
        plots.augmentation_sheet(path, COLOUR[:2], [])
