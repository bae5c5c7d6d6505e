"""predict with drawings of one's own: steps, several digits, what the net saw, and answers that are not sure."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.strokes import draw, write

import striate
from striate.cli.main import run
from striate.data.builtin import load_named
from striate.data.drawing import STEPS
from striate.errors import DataError, UsageError
from striate.runs.model_file import read_card

DIGITS = load_named("digits").train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, and drawings beside it."""
    folder = tmp_path_factory.mktemp("drawn")
    made = striate.train("digits", epochs=8, quiet=True, out=folder / "run")
    draw(0).save(folder / "zero.png")
    sheet = Image.new("L", (500, 200), 240)
    for place, digit in enumerate((0, 1, 4)):
        write(sheet, digit, (40 + 150 * place, 40, 130 + 150 * place, 160), 14, 20)
    sheet.save(folder / "sheet.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "noise.png")
    return made.folder


def asked(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["predict", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def results(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[dict[str, Any]]:
    code, out, err = asked(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)["results"]


def test_a_drawing_is_read_and_its_steps_are_listed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zero = trained.parent / "zero.png"
    (found,) = results(capsys, trained, zero)
    assert found["label"] == "0" and found["steps"][0] == "inverted: the ink is dark"
    assert any(step.startswith("cropped to") for step in found["steps"]) and "scaled into 8×8" in found["steps"]
    (without,) = results(capsys, trained, zero, "--no-step", "polarity,crop")
    assert not any(step.startswith(("inverted", "cropped")) for step in without["steps"])
    (plain,) = results(capsys, trained, zero, "--no-step", "all")
    assert plain["steps"] == ["colour to gray", "stretched from 280×280 to 8×8"]


def test_a_step_that_is_not_known_or_does_nothing_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = asked(capsys, trained, trained.parent / "zero.png", "--no-step", "polarty")
    assert code == 2 and "did you mean polarity" in err
    code, _, err = asked(capsys, trained, "--data", "digits", "--index", "1", "--no-step", "polarity")
    assert code == 2 and "--no-step has no effect here" in err


def test_pictures_of_the_data_set_are_answered_as_they_are(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for found in results(capsys, trained, "--data", "digits", "--split", "test", "--index", "0:30"):
        assert found["steps"] == []


def test_several_digits_are_answered_with_their_boxes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = trained.parent / "sheet.png"
    found = results(capsys, trained, sheet, "--separate")
    assert [entry["source"] for entry in found] == [str(sheet)] * 3
    for place, entry in enumerate(found):
        left, top, right, bottom = entry["box"]
        assert 25 + 150 * place <= left < right <= 145 + 150 * place and 25 <= top < bottom <= 175
    _, out, _ = asked(capsys, trained, sheet, "--separate", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["box"] for row in rows] == [" ".join(map(str, entry["box"])) for entry in found]
    assert [row["label"] for row in rows] == [entry["label"] for entry in found] and rows[0]["label"] == "0"
    code, out, _ = asked(capsys, trained, sheet, "--separate")
    assert code == 0 and out.splitlines()[0].split()[:3] == ["picture", "box", "answer"] and len(out.splitlines()) == 4


def test_an_empty_page_has_no_digits(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (90, 60), 250).save(tmp_path / "empty.png")
    code, out, _ = asked(capsys, trained, tmp_path / "empty.png", "--separate", "--json")
    assert code == 3 and "stands out" in json.loads(out)["results"][0]["error"]["cause"]


@pytest.mark.parametrize("flags", [[], ["--separate"]])
def test_what_the_net_saw_is_drawn(
    flags: list[str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, zero = trained.parent / "sheet.png", trained.parent / "zero.png"
    code, _, err = asked(capsys, trained, sheet, zero, "--show", tmp_path / "seen.png", *flags)
    assert code == 0 and "drawn:" in err
    picture = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
    assert picture.shape[0] > 400 and ((picture == (217, 122, 43)).all(axis=2).any() == bool(flags))


def test_answers_that_are_not_sure_are_rejected(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doubt = striate.load(trained, device="cpu").doubt
    assert doubt is not None
    wanted = (doubt.rows[0][1] + doubt.rows[-1][1]) / 2
    least = doubt.least_probability(wanted)
    found = results(capsys, trained, "--data", "digits", "--split", "test", "--index", "0:200", "--reject", f"{wanted}")
    assert any(entry["rejected"] for entry in found) and not all(entry["rejected"] for entry in found)
    for entry in found:
        assert entry["rejected"] == (entry["probability"] < least or entry["unlike"])
        assert entry["unlike"] == (entry["distance"] > 1)
    assert not any(entry["rejected"] for entry in results(capsys, trained, trained.parent / "zero.png"))
    _, out, _ = asked(capsys, trained, trained.parent / "noise.png", "--reject", f"{wanted}", "--csv")
    assert out.splitlines()[0] == "source,label,probability,rejected,error"
    code, _, err = asked(capsys, trained, trained.parent / "zero.png", "--reject", "99")
    assert code == 2 and "reject" in err


def test_noise_is_unlike_digits_more_often_than_digits_are(trained: Path) -> None:
    predictor = striate.load(trained, device="cpu").plain()
    noise = list(np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
    rows = (trained / "predictions.csv").read_text().splitlines()[1:]
    own = [DIGITS.images[int(row.split(",")[0])] for row in rows]
    shares = [np.mean([answer.unlike for answer in predictor.predict_many(some)]) for some in (own, noise)]
    assert shares[0] < 0.08 and shares[1] > 0.3, shares


def test_the_features_are_checked_and_may_be_left_behind(trained: Path, tmp_path: Path) -> None:
    card = read_card(trained)
    assert card.doubt is not None
    copied = tmp_path / "copied"
    shutil.copytree(trained, copied)
    features = copied / card.doubt["unlike"]["features"]["file"]
    whole = features.read_bytes()
    features.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="damaged"):
        striate.load(copied, device="cpu")
    features.unlink()
    answer = striate.load(copied, device="cpu").predict(DIGITS.images[0])
    assert answer.distance is None and "unlike" not in answer.to_json() and answer.label


def test_a_net_for_photographs_leaves_them_alone(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 12, 12, 3), dtype=np.uint8)
    made = striate.train((images, np.arange(200) % 2), model="mlp", epochs=1, quiet=True, out=tmp_path / "run")
    assert read_card(made.folder).preprocess["drawing"] is None
    predictor = striate.load(made.folder, device="cpu")
    assert np.array_equal(predictor.predict(images[3]).seen, images[3])
    for refused in (lambda: predictor.configured(no_step=["crop"]), lambda: predictor.separate(images[0])):
        with pytest.raises(UsageError, match=r"no drawings|find digits"):
            refused()


def test_a_run_without_validation_cannot_reject(tmp_path: Path) -> None:
    made = striate.train("digits", epochs=1, validation=0, quiet=True, out=tmp_path / "run")
    card = read_card(made.folder)
    assert card.doubt is None and not (made.folder / "weights" / "features.safetensors").exists()
    assert '"doubt"' not in (made.folder / "model.json").read_text()
    predictor = striate.load(made.folder, device="cpu")
    with pytest.raises(UsageError, match="how sure"):
        predictor.configured(reject=0.9)
    assert predictor.configured(no_step=STEPS).predict(DIGITS.images[1]).distance is None


def test_doubt_is_the_same_in_every_training(trained: Path, tmp_path: Path) -> None:
    again = striate.train("digits", epochs=8, quiet=True, out=tmp_path / "again").folder
    for name in ("weights/best.safetensors", "weights/features.safetensors", "model.json"):
        assert (again / name).read_bytes() == (trained / name).read_bytes(), name
