"""`striate explain` on real runs: what it writes, what it prints, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import striate as package
from striate.data.builtin import load_named

DIGITS = load_named("digits").train


def draw(name: str, number: int = 3) -> str:
    Image.fromarray(DIGITS.images[number][..., 0]).save(name, format="PNG")
    return name


def test_one_picture_gives_a_sheet_a_page_and_a_line(striate: Any, digits_run: Path) -> None:
    outcome = striate("explain", str(digits_run), draw("three.png"))
    assert outcome.code == 0, outcome.err
    assert re.match(r"picture +answer +probability +then +explained\nthree\.png +\d ", outcome.out)
    assert outcome.err.splitlines()[:2] == ["drawn: explain.png", "written: explain.html"]
    with Image.open("explain.png") as sheet:
        assert sheet.width == 1400 and sheet.height > 1000
    page = Path("explain.html").read_text(encoding="utf-8")
    for words in ("three.png", "Grad-CAM", "LayerCAM", "Occlusion", "Integrated gradients", "Rotate", "conv1", "fc"):
        assert words in page, words
    assert "http://" not in page and "https://" not in page


def test_json_holds_what_predict_says_and_every_map(striate: Any, digits_run: Path) -> None:
    draw("three.png")
    predicted = json.loads(striate("predict", str(digits_run), "three.png", "--json").out)["results"][0]
    outcome = striate("explain", str(digits_run), "three.png", "--json", "--target", "8")
    document = json.loads(outcome.out)
    (found,) = document["results"]
    assert {key: found[key] for key in predicted} == predicted
    assert found["target"] == "8" and found["layer"] in [layer["name"] for layer in found["layers"]]
    assert list(found["maps"]) == ["grad-cam", "layer-cam", "occlusion", "integrated-gradients"]
    assert all(np.shape(values) == (8, 8) for values in found["maps"].values())
    complete = found["integrated_gradients"]
    total = np.sum(found["maps"]["integrated-gradients"])
    assert total + complete["missing"] == pytest.approx(complete["wanted"], abs=1e-3)
    for curve in found["edits"]:
        assert set(curve["probabilities"]) == set(document["classes"])
        assert {len(shares) for shares in curve["probabilities"].values()} == {len(curve["strengths"])}
        np.testing.assert_allclose(np.sum(list(curve["probabilities"].values()), axis=0), 1, atol=1e-5)
    assert not Path("explain.png").exists() and not Path("explain.html").exists()
    rotate = next(curve for curve in found["edits"] if curve["edit"] == "rotate")
    at_zero = {name: shares[rotate["strengths"].index(0)] for name, shares in rotate["probabilities"].items()}
    assert at_zero == pytest.approx(found["probabilities"], abs=1e-5)


def test_python_gives_the_same(striate: Any, digits_run: Path) -> None:
    draw("three.png")
    printed = json.loads(striate("explain", str(digits_run), "three.png", "--json", "--edits", "none").out)["results"][
        0
    ]
    one = package.explain(str(digits_run), "three.png", edits=())
    assert json.loads(json.dumps(one.to_json())) == printed
    assert one.features[0].maps.shape == (8, 8, 8) and one.seen.shape == (8, 8, 1)
    several = package.explain(package.load(str(digits_run)), ["three.png", "no.png"], methods=["occlusion"], edits=[])
    assert list(several[0].maps) == ["occlusion"] and several[1].error is not None
    from striate.explain.cam import class_maps

    assert callable(package.explain) and callable(class_maps)


def test_the_room_is_the_verb_in_either_order() -> None:
    for lines in (
        "import striate.explain.cam; import striate",
        "import striate; striate.explain; import striate.explain.cam as c",
    ):
        done = subprocess.run([sys.executable, "-c", f"{lines}; assert callable(striate.explain)"], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
    assert "explain" in dir(package)


def test_several_pictures_share_a_sheet_and_bad_ones_are_named(striate: Any, digits_run: Path) -> None:
    draw("a.png"), draw("b.png", 5)
    Path("bad.png").write_bytes(b"no picture")
    outcome = striate("explain", str(digits_run), "a.png", "bad.png", "b.png", "--out", "deep/er")
    assert outcome.code == 3
    assert "error: bad.png: " in outcome.err and "1 of 3 pictures could not be read" in outcome.err
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["picture", "a.png", "b.png"]
    page = Path("deep/er/explain.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 3 and "could not be read" in page
    with Image.open("deep/er/explain.png") as sheet:
        assert 600 < sheet.height < 800
    alone = striate("explain", str(digits_run), "bad.png")
    assert alone.code == 3 and alone.out == "" and not Path("explain.png").exists()
    told = json.loads(striate("explain", str(digits_run), "bad.png", "a.png", "--json").out)["results"]
    assert set(told[0]) == {"source", "error"} and told[1]["source"] == "a.png"


def test_edits_that_are_named_are_printed(striate: Any, digits_run: Path) -> None:
    draw("a.png"), draw("b.png", 5)
    plain = striate("explain", str(digits_run), "a.png", "--method", "none")
    assert len(plain.out.splitlines()) == 2
    named = striate("explain", str(digits_run), "a.png", "--method", "none", "--edits", "erase,flip", "--target", "8")
    curves = json.loads(
        striate("explain", str(digits_run), "a.png", "--edits", "erase,flip", "--target", "8", "--json").out
    )["results"][0]["edits"]
    rows = [re.split(r"  +", line) for line in named.out.splitlines()[4:]]
    assert [row[:2] for row in rows[-3:]] == [["flip", "as it is"], ["flip", "left to right"], ["flip", "upside down"]]
    assert [row[1] for row in rows[:11]] == [f"{tenth / 10} of a side" for tenth in range(11)]
    for row, place, curve in zip(rows, [*range(11), *range(3)], [curves[0]] * 11 + [curves[1]] * 3, strict=True):
        shares = {name: found[place] for name, found in curve["probabilities"].items()}
        assert row[2] == max(shares, key=shares.__getitem__)
        assert row[3] == f"{100 * shares[row[2]]:.2f} %" and row[4] == f"8 {100 * shares['8']:.2f} %"
    several = striate("explain", str(digits_run), "a.png", "b.png", "--method", "none", "--edits", "flip").out
    assert [line.split()[0] for line in several.splitlines()[5:]] == ["a.png"] * 3 + ["b.png"] * 3


def test_pictures_of_a_data_set_know_their_truth(striate: Any, digits_run: Path) -> None:
    outcome = striate("explain", str(digits_run), "--data", "digits", "--index", "0:2", "--sheet", "only.png")
    assert outcome.code == 0 and outcome.out.splitlines()[0].split()[:3] == ["picture", "truth", "answer"]
    assert Path("only.png").is_file() and not Path("explain.html").exists()


def test_an_mlp_is_explained_without_maps_and_says_so(striate: Any, mlp_run: Path) -> None:
    outcome = striate("explain", str(mlp_run), draw("three.png"))
    assert outcome.code == 0
    assert "note: MLP has no layer with a map, so there is no class activation map" in outcome.err
    page = Path("explain.html").read_text(encoding="utf-8")
    assert "没有带特征图的层" in page and "single numbers, no maps" in page and "Occlusion" in page
    assert "Grad-CAM" not in page


def test_a_net_of_ones_own(striate: Any) -> None:
    Path("net.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from torch.nn import functional as F\n"
        "class MyNet(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first = nn.Conv2d(1, 4, 3, padding=1)\n"
        "        self.second = nn.Conv2d(4, 6, 3)\n"
        "        self.last = nn.Linear(6 * 9, 10)\n"
        "    def forward(self, x):\n"
        "        x = F.relu_(self.first(x))\n"
        "        x = F.max_pool2d(F.relu_(self.second(x)), 2)\n"
        "        return self.last(x.view(x.size(0), -1))\n",
        encoding="utf-8",
    )
    short = ["--epochs", "1", "--threads", "1", "--device", "cpu", "--quiet"]
    assert striate("train", "digits", "--model", "net.py:MyNet", *short, "--out", "own").code == 0
    outcome = striate("explain", "own", draw("three.png"), "--model", "net.py:MyNet", "--exciting", "second:5")
    assert outcome.code == 0, outcome.err
    assert "channel</span>" in Path("explain.html").read_text(encoding="utf-8")
    listed = striate("explain", "own", "--model", "net.py:MyNet", "--layers")
    assert listed.code == 0 and re.search(r"first +Conv2d +4×8×8 +maps, kernels", listed.out), listed.out


def test_exciting_pictures_need_no_picture(striate: Any, digits_run: Path) -> None:
    outcome = striate("explain", str(digits_run), "--exciting", "conv2", "--count", "3", "--json")
    document = json.loads(outcome.out)
    assert outcome.code == 0 and document["results"] == []
    channels = document["exciting"]["channels"]
    assert list(channels) == [str(number) for number in range(16)]
    assert all(len(excited) == 3 and excited[0]["value"] >= excited[2]["value"] for excited in channels.values())
    assert striate("explain", str(digits_run), "--exciting", "conv2:3").code == 0
    assert Path("explain.png").is_file() and Path("explain.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no picture is named"),
        (["three.png", "--target", "ten"], 2, "unknown class 'ten'"),
        (["three.png", "--layer", "conv9"], 2, "unknown layer 'conv9'"),
        (["three.png", "--layer", "fc"], 2, "layer fc has no maps"),
        (["three.png", "--kernels", "relu1"], 2, "layer relu1 has no kernels"),
        (["three.png", "--method", "gradcam"], 2, "unknown method 'gradcam'"),
        (["three.png", "--edits", "rotat"], 2, "unknown edit 'rotat'"),
        (["three.png", "--exciting", "conv9:1"], 2, "unknown layer 'conv9'"),
        (["three.png", "--exciting", "conv1:99"], 2, "layer conv1 has no channel 99"),
        (["three.png", "--exciting", "conv1:x"], 2, "names no channel"),
        (["three.png", "--count", "3"], 2, "--count has no effect here"),
        (["three.png", "--split", "train"], 2, "--split has no effect here"),
        (["three.png", "--method", "occlusion", "--layer", "conv1"], 2, "--layer has no effect here"),
        (["three.png", "--out", "a", "--html", "b.html"], 2, "--out names the folder of both files"),
        (["--data", "digits", "--split", "train", "--index", "0:41"], 2, "41 pictures are too many"),
    ],
)
def test_what_is_refused(striate: Any, digits_run: Path, arguments: list[str], code: int, words: str) -> None:
    draw("three.png")
    outcome = striate("explain", str(digits_run), *arguments)
    assert outcome.code == code and words in outcome.err, outcome.err
    assert not Path("explain.png").exists() and not Path("explain.html").exists()


def test_a_layer_without_maps_is_refused_with_what_is_possible(striate: Any, digits_run: Path, mlp_run: Path) -> None:
    draw("three.png")
    refused = striate("explain", str(digits_run), "three.png", "--layer", "fc")
    assert refused.code == 2 and "fix: name one of conv1, " in refused.err
    from_plain = striate("explain", str(mlp_run), "three.png", "--layer", "layers.0")
    told = from_plain.error_lines()
    assert from_plain.code == 2 and told["error"] == "layer layers.0 has no maps"
    possible = re.findall(r"--method [a-z,-]+", told["fix"])[0].split()
    assert striate("explain", str(mlp_run), "three.png", *possible).code == 0


def test_mnist(striate: Any, data_root: Path) -> None:
    short = ["--epochs", "1", "--threads", "1", "--device", "cpu", "--quiet", "--data-root", str(data_root)]
    trained = striate("train", "mnist", "--model", "lenet5", "--train-range", "0:2000", *short, "--out", "run")
    assert trained.code == 0, trained.err
    outcome = striate(
        "explain", "run", "--data", "mnist", "--index", "7", "--data-root", str(data_root), "--exciting", "conv1:2"
    )
    assert outcome.code == 0, outcome.err
    assert "mnist/test#7" in outcome.out
    assert Path("explain.html").stat().st_size < 1_000_000
