"""The verbs on real runs: train, eval, predict, compare, resume, models, recipes, data."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.data.builtin import load_named
from striate.settings.recipes import list_recipes


@pytest.fixture(scope="module")
def digit_pictures() -> tuple[list[np.ndarray], list[str]]:
    """Five digits as (8, 8) arrays, and their labels."""
    part = load_named("digits").train
    return [image[..., 0] for image in part.images[:5]], [part.classes[label] for label in part.labels[:5]]


def save(picture: np.ndarray, path: Path | str) -> str:
    Image.fromarray(picture).save(path, format="PNG")
    return str(path)


def test_train_writes_a_run_and_says_where(striate: Any) -> None:
    outcome = striate("train", "digits", "--epochs", "1", "--threads", "1", "--device", "cpu", "--out", "my run")
    assert outcome.code == 0
    assert "my run" in outcome.out and "accuracy" in outcome.out
    assert Path("my run/config.yaml").is_file() and Path("my run/weights/best.safetensors").is_file()
    command = shlex.split(Path("my run/command.txt").read_text(encoding="utf-8"))
    assert command[:4] == ["striate", "train", "digits", "--epochs"] and command[-1] == "my run"
    again = striate("train", "digits", "--epochs", "1", "--out", "my run")
    assert again.code == 2 and "my run is not empty" in again.error_lines()["error"]


def test_train_quiet_prints_nothing(striate: Any) -> None:
    outcome = striate("train", "digits", "--epochs", "1", "--threads", "1", "--device", "cpu", "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert Path("runs/digits-three-conv-1").is_dir()
    shown = striate("eval", "runs/latest")
    assert shown.code == 0


def test_train_a_net_of_ones_own(striate: Any) -> None:
    Path("net.py").write_text(
        "import torch\n"
        "class MyNet(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n",
        encoding="utf-8",
    )
    arguments = ["train", "digits", "--model", "net.py:MyNet", "--epochs", "1", "--threads", "1", "--device", "cpu"]
    assert striate(*arguments, "--quiet", "--out", "own").code == 0
    assert striate("eval", "own", "--model", "net.py:MyNet").code == 0
    refused = striate("eval", "own")
    assert refused.code == 2 and "MyNet" in refused.error_lines()["error"]
    wrong = striate("eval", "own", "--model", "net.py:MyNett")
    assert wrong.code == 2 and "MyNet" in wrong.error_lines()["cause"]
    asked = striate("predict", "own", "--data", "digits", "--split", "train", "--index", "0", "--model", "net.py:MyNet")
    assert asked.code == 0


def test_eval_json_is_the_runs_evaluation(striate: Any, digits_run: Path) -> None:
    outcome = striate("eval", str(digits_run), "--json", "--out", "numbers.json", "--device", "cpu")
    assert outcome.code == 0
    document = json.loads(outcome.out)
    assert document == json.loads((digits_run / "evaluation.json").read_text(encoding="utf-8"))
    assert document == json.loads(Path("numbers.json").read_text(encoding="utf-8"))
    assert set(document) >= {"format", "data", "split", "weights", "samples", "top1", "top5", "loss", "macro_f1", "ece"}
    assert 0 <= document["top1"]["low"] <= document["top1"]["value"] <= document["top1"]["high"] <= 1


def test_eval_table_holds_the_same_numbers(striate: Any, digits_run: Path) -> None:
    outcome = striate("eval", str(digits_run), "--device", "cpu")
    record = json.loads((digits_run / "evaluation.json").read_text(encoding="utf-8"))
    assert outcome.code == 0
    for told in (
        f"{100 * record['top1']['value']:.2f} %",
        f"{record['loss']:.4f}",
        f"{100 * record['macro_f1']:.2f} %",
    ):
        assert told in outcome.out
    rows = [line.split() for line in outcome.out.splitlines()[-10:]]
    assert [row[0] for row in rows] == list("0123456789")
    assert [int(row[1]) for row in rows] == [row["samples"] for row in record["per_class"]]


def test_eval_of_another_split(striate: Any, digits_run: Path) -> None:
    record = json.loads(striate("eval", str(digits_run), "--split", "validation", "--json").out)
    split = json.loads((digits_run / "split.json").read_text(encoding="utf-8"))
    assert record["split"] == "validation" and record["samples"] == len(split["validation"]["indices"])


def test_eval_with_test_time_augmentation(striate: Any, digits_run: Path) -> None:
    plain = json.loads(striate("eval", str(digits_run), "--json").out)
    record = json.loads(striate("eval", str(digits_run), "--tta", "shift", "--json").out)
    row = record.pop("top1_tta")
    assert record == plain and row["kind"] == "shift"
    table = striate("eval", str(digits_run), "--tta", "shift").out
    assert f"top-1 with shift augmentation  {100 * row['value']:.2f} %" in table.replace("    ", "  ")
    assert "augmentation" not in striate("eval", str(digits_run)).out


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_bf16_says_how_it_changes_the_answers(
    striate: Any, digits_run: Path, digit_pictures: Any, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    more = [save(digit_pictures[0][0], "a.png"), "bad.png"] if verb == "predict" else []
    Path("bad.png").write_bytes(b"")
    flags = "striate.predictor.torch_backend.processor_flags"
    monkeypatch.setattr(flags, lambda: frozenset({"bf16"}))
    outcome = striate(verb, str(digits_run), *more, "--precision", "bf16", "--device", "cpu")
    told = [line for line in outcome.err.splitlines() if line.startswith("bf16 against fp32, first ")]
    assert len(told) == 1 and ("first 1 pictures" if more else "first 250 pictures") in told[0]
    monkeypatch.setattr(flags, lambda: frozenset({"avx2"}))
    refused = striate(verb, str(digits_run), *more, "--precision", "bf16", "--device", "cpu")
    assert refused.code == 2 and refused.error_lines()["fix"] == "use --precision fp32"


def test_train_for_a_time(striate: Any) -> None:
    outcome = striate("train", "digits", "--time", "1s", "--threads", "1", "--device", "cpu", "--out", "timed")
    assert outcome.code == 0 and "plan      1s of training, the steps counted after 3 % of it" in outcome.out
    counted = json.loads(Path("timed/time.json").read_text(encoding="utf-8"))
    assert f"1s of training: {counted['total_steps']:,} steps" in outcome.err
    last = list(csv.DictReader(io.StringIO(Path("timed/results.csv").read_text(encoding="utf-8"))))[-1]
    assert int(last["step"]) == counted["total_steps"]
    both = striate("train", "digits", "--time", "1s", "--epochs", "3")
    assert both.code == 2 and both.error_lines()["error"].startswith("--epochs has no effect here")


@pytest.mark.parametrize("verb", ["eval", "predict", "resume"])
def test_unknown_run(striate: Any, verb: str) -> None:
    more = ["x.png"] if verb == "predict" else []
    Path("runs/digits-lenet5-1").mkdir(parents=True)
    outcome = striate(verb, "digits-lenet-1", *more)
    assert outcome.code == 2
    assert "digits-lenet5-1" in outcome.error_lines()["cause"]


def test_predict_json_has_the_stated_form(striate: Any, digits_run: Path, digit_pictures: Any) -> None:
    pictures, _ = digit_pictures
    outcome = striate("predict", str(digits_run), save(pictures[0], "a.png"), save(pictures[1], "b.png"), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert set(document) == {"format", "model", "classes", "results"} and document["format"] == 1
    assert document["classes"] == list("0123456789")
    assert [result["source"] for result in document["results"]] == ["a.png", "b.png"]
    for result in document["results"]:
        assert set(result) == {
            "source",
            "label",
            "probability",
            "probabilities",
            "rejected",
            "steps",
            "unlike",
            "distance",
        }
        assert list(result["probabilities"]) == document["classes"]
        assert sum(result["probabilities"].values()) == pytest.approx(1)
        assert (
            result["probability"] == max(result["probabilities"].values()) == result["probabilities"][result["label"]]
        )


def test_predict_says_the_same_in_every_form(striate: Any, digits_run: Path, digit_pictures: Any) -> None:
    names = [save(picture, f"{number}.png") for number, picture in enumerate(digit_pictures[0])]
    run = str(digits_run)
    results = json.loads(striate("predict", run, *names, "--json").out)["results"]
    assert [json.loads(line) for line in striate("predict", run, *names, "--jsonl").out.splitlines()] == results
    rows = list(csv.DictReader(io.StringIO(striate("predict", run, *names, "--csv").out)))
    assert [(row["source"], row["label"], row["error"]) for row in rows] == [
        (r["source"], r["label"], "") for r in results
    ]
    table = striate("predict", run, *names, "--top", "2").out.splitlines()
    assert table[0].split() == ["picture", "answer", "probability", "then"]
    for line, result in zip(table[1:], results, strict=True):
        second = sorted(result["probabilities"].values())[-2]
        shown = [result["source"], result["label"], f"{100 * result['probability']:.2f}", "%"]
        assert line.split()[:4] == shown and f"{100 * second:.2f} %" in line


def test_predict_numbered_pictures_of_the_test_set(striate: Any, digits_run: Path) -> None:
    arguments = ["predict", str(digits_run), "--data", "digits", "--split", "test", "--index", "3,5:7"]
    outcome = striate(*arguments, "--json")
    expected = list(csv.DictReader((digits_run / "predictions.csv").open(encoding="utf-8", newline="")))
    for result, row in zip(json.loads(outcome.out)["results"], [expected[i] for i in (3, 5, 6)], strict=True):
        assert (result["source"], result["label"]) == (row["source"], row["prediction"])
        assert result["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
    table = striate(*arguments).out.splitlines()
    assert table[0].split()[:3] == ["picture", "truth", "answer"]
    assert [line.split()[1] for line in table[1:]] == [expected[i]["label"] for i in (3, 5, 6)]


def test_predict_names_bad_pictures_and_answers_the_others(striate: Any, digits_run: Path, digit_pictures: Any) -> None:
    good = save(digit_pictures[0][0], "good.png")
    Path("empty.png").write_bytes(b"")
    Path("text.png").write_text("no picture", encoding="utf-8")
    names = ["empty.png", good, "text.png", "gone.png"]
    outcome = striate("predict", str(digits_run), *names)
    assert outcome.code == 3
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["picture", good]
    told = outcome.err.splitlines()
    assert [line.split(": ")[:2] for line in told[:3]] == [
        ["error", name] for name in ("empty.png", "text.png", "gone.png")
    ]
    assert told[3:] == ["3 of 4 pictures could not be read"]
    as_json = striate("predict", str(digits_run), *names, "--json")
    results = json.loads(as_json.out)["results"]
    assert as_json.code == 3
    assert ["error" in result for result in results] == [True, False, True, True]
    assert set(results[0]) == {"source", "error"} and set(results[0]["error"]) == {"code", "cause", "fix"}
    as_csv = list(csv.DictReader(io.StringIO(striate("predict", str(digits_run), *names, "--csv").out)))
    assert [bool(row["error"]) for row in as_csv] == [True, False, True, True]


@pytest.mark.skipif(os.name == "nt", reason="names as on Unix")
@pytest.mark.parametrize("name", ["两\n行.png", "-dash.png", "数字七.png", "b\udcffd.png", "tab\t.png", 'a,b".png'])
def test_odd_names(striate: Any, digits_run: Path, digit_pictures: Any, name: str) -> None:
    try:
        save(digit_pictures[0][0], Path(name))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    run = str(digits_run)
    shown = name.replace("\udcff", "\\xff")
    document = json.loads(striate("predict", run, "--json", "--", name).out)
    assert document["results"][0]["source"] == shown
    lines = striate("predict", run, "--jsonl", "--", name).out.splitlines()
    assert len(lines) == 1 and json.loads(lines[0])["source"] == shown
    rows = list(csv.reader(io.StringIO(striate("predict", run, "--csv", "--", name).out)))
    assert len(rows) == 2 and rows[1][0] == shown
    table = striate("predict", run, "--", name)
    assert table.code == 0 and len(table.out.splitlines()) == 2
    Path(name).write_bytes(b"broken")
    broken = striate("predict", run, "--", name)
    assert broken.code == 3 and len(broken.err.splitlines()) == 2
    assert striate("predict", run, "--plot", "out.png", "--", name).code == 3


def test_folders_are_walked_in_order_without_hidden_files(striate: Any, digits_run: Path, digit_pictures: Any) -> None:
    picture = digit_pictures[0][0]
    for folder in ("photos/b", "photos/.hidden"):
        Path(folder).mkdir(parents=True)
    for name in ("photos/z.png", "photos/b/1.png", "photos/a.JPG", "photos/.secret.png", "photos/.hidden/x.png"):
        save(picture, name)
    Path("photos/notes.txt").write_text("notes", encoding="utf-8")
    outcome = striate("predict", str(digits_run), "photos", "--json")
    sources = [result["source"] for result in json.loads(outcome.out)["results"]]
    assert sources == [os.path.join("photos", name) for name in ("a.JPG", os.path.join("b", "1.png"), "z.png")]
    assert outcome.err == "photos: passed over 1 file that is no picture by its suffix\n"
    Path("nothing").mkdir()
    refused = striate("predict", str(digits_run), "nothing")
    assert refused.code == 3 and refused.error_lines()["error"] == "nothing holds no picture"


def test_a_picture_on_stdin_through_the_real_command(digits_run: Path, digit_pictures: Any) -> None:
    stream = io.BytesIO()
    Image.fromarray(digit_pictures[0][0]).save(stream, format="PNG")
    command = [sys.executable, "-m", "striate", "predict", str(digits_run), "-", "--jsonl"]
    done = subprocess.run(command, input=stream.getvalue(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == "-"


def test_plot_draws_one_picture_or_a_sheet(striate: Any, digits_run: Path) -> None:
    arguments = ["predict", str(digits_run), "--data", "digits", "--split", "train"]
    one = striate(*arguments, "--index", "7", "--plot", "one.png")
    assert one.code == 0 and "drawn: one.png" in one.err
    assert striate(*arguments, "--index", "0:4", "--plot", "sheet.png").code == 0
    for name in ("one.png", "sheet.png"):
        with Image.open(name) as drawing:
            colours = np.unique(np.asarray(drawing.convert("L")))
        assert len(colours) > 5, name


def test_compare_runs_and_their_answers(striate: Any, digits_run: Path, mlp_run: Path) -> None:
    arguments = ["compare", str(digits_run), str(mlp_run), "--data", "digits", "--split", "test", "--index", "7"]
    outcome = striate(*arguments, "--out", "both.png")
    assert outcome.code == 0
    assert "drawn: both.png" in outcome.err and "drawn: both-answers.png" in outcome.err
    table = outcome.out.split("\n\n")[0]
    rows = {line.split()[0]: line for line in table.splitlines()}
    record = json.loads((digits_run / "evaluation.json").read_text(encoding="utf-8"))
    assert "three-conv" in rows[digits_run.name] and "mlp" in rows[mlp_run.name]
    assert f"{100 * record['top1']['value']:.2f} %" in outcome.out
    tables = outcome.out.split("\n\n")
    assert digits_run.name in tables[0] and digits_run.name in tables[-1]  # of runs, and of answers
    for name in ("both.png", "both-answers.png"):
        Image.open(name).verify()
    document = json.loads(striate(*arguments, "--json").out)
    assert [row["name"] for row in document["runs"]] == [digits_run.name, mlp_run.name]
    assert document["runs"][0]["top1"] == record["top1"]
    answers = document["picture"]["answers"]
    assert set(answers) == {digits_run.name, mlp_run.name}
    assert set(answers[mlp_run.name]["probabilities"]) == set("0123456789")


def test_compare_with_a_file_and_a_run_twice(striate: Any, digits_run: Path, digit_pictures: Any) -> None:
    picture = save(digit_pictures[0][2], "digit.png")
    outcome = striate("compare", str(digits_run), str(digits_run), "--picture", picture, "--json")
    answers = json.loads(outcome.out)["picture"]["answers"]
    assert set(answers) == {f"{digits_run.name} (1)", f"{digits_run.name} (2)"}
    Path("bad.png").write_bytes(b"")
    refused = striate("compare", str(digits_run), str(digits_run), "--picture", "bad.png")
    assert refused.code == 3 and "bad.png" in refused.err


def test_resume_of_a_finished_run_is_refused(striate: Any, digits_run: Path) -> None:
    outcome = striate("resume", str(digits_run))
    assert outcome.code == 2 and "is finished" in outcome.error_lines()["error"]


def test_models_lists_every_net(striate: Any) -> None:
    outcome = striate("models")
    assert outcome.code == 0
    rows = {line.split()[0]: line.split()[1] for line in outcome.out.splitlines()[1:]}
    assert rows["lenet5"] == "61,706" and rows["alexnet"] == "44,428,106" and rows["strided-cnn"] == "3,720"
    listed = json.loads(striate("models", "--json").out)["models"]
    assert {row["name"] for row in listed} == set(rows) and all(row["description"] for row in listed)


def test_models_with_an_input_that_some_cannot_take(striate: Any) -> None:
    listed = {row["name"]: row for row in json.loads(striate("models", "--input", "1x28x28", "--json").out)["models"]}
    assert listed["alexnet"]["parameters"] is None
    assert listed["lenet5"]["parameters"] == 61706


def test_model_shows_layers_and_options(striate: Any) -> None:
    arguments = ["models", "lenet5", "--input", "3x32x32", "--classes", "7", "--model-option", "pool=max"]
    document = json.loads(striate(*arguments, "--json").out)
    assert document["input"] == [3, 32, 32] and document["classes"] == 7
    assert document["parameters"] == sum(layer["parameters"] for layer in document["layers"])
    assert any(layer["kind"] == "MaxPool2d" for layer in document["layers"])
    assert document["options"]["pool"] == "average"
    table = striate(*arguments).out
    assert "MaxPool2d" in table and f"{document['parameters']:,}" in table and "average, max" in table


def test_model_explains_its_sizes_in_at_most_110_columns(striate: Any) -> None:
    outcome = striate("models", "strided-cnn", "--svg", "net.svg")
    assert "⌊(28 − 5)/2⌋ + 1 = 12" in outcome.out and "(5·5·1 + 1)·10" in outcome.out
    assert "The net's answer rests on 25x25 of the 28x28 pixels" in outcome.out
    assert max(len(line) for line in outcome.out.splitlines()) <= 110
    assert Path("net.svg").read_text(encoding="utf-8").startswith("<svg ") and "net.svg" in outcome.err
    layers = json.loads(striate("models", "strided-cnn", "--json").out)["layers"]
    assert layers[0]["size_sums"] == ["⌊(28 − 5)/2⌋ + 1 = 12"]
    assert layers[3]["field"] == {
        "size": [9, 9],
        "stride": [4.0, 4.0],
        "padding": [0, 0],
        "seen": [9, 9],
        "whole": False,
    }


def test_model_in_markdown(striate: Any) -> None:
    lines = striate("models", "lenet5", "--markdown").out.splitlines()
    assert lines[0].startswith("### lenet5 for pictures of 1x28x28")
    tables = [line for line in lines if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (7, 9) for line in tables)
    assert striate("models", "lenet5", "--markdown", "--json").code == 2


FOURIER = """
import torch
from torch import nn

class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.rfft2(x).abs()

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(Fourier(), nn.Flatten(), nn.Linear(40, 10))
"""


def test_unknown_multiply_adds_are_called_unknown(striate: Any) -> None:
    Path("fourier.py").write_text(FOURIER)
    told = ("models", "fourier.py:Net", "--input", "1x8x8")
    text = striate(*told).out
    assert re.search(r"^0 +unknown +\d", text, re.M) and re.search(r"^in all +unknown", text, re.M)
    assert "MACs unknown: striate has no rule for what 0 multiplies; the others need 400." in text
    document = json.loads(striate(*told, "--json").out)
    assert document["macs"] is None and [layer["macs"] for layer in document["layers"]] == [None, 0, 400]
    assert [layer["share"] for layer in document["layers"]] == [None] * 3
    assert striate(*told, "--markdown").out.count("unknown") >= 3
    assert striate(*told, "--svg", "net.svg").code == 0
    assert "multiply-adds unknown" in Path("net.svg").read_text(encoding="utf-8")
    trained = striate(
        *("train", "digits", "--model", "fourier.py:Net", "--epochs", "1", "--threads", "1"),
        *("--report", "--out", "my run", "--device", "cpu"),
    )
    assert "striate predict 'my run' --model fourier.py:Net --data digits" in trained.out
    assert trained.code == 0 and "410 parameters, multiply-adds unknown" in trained.out
    card = Path("my run/MODEL_CARD.md").read_text(encoding="utf-8")
    assert "multiply-adds unknown" in card and "striate predict 'my run' --model fourier.py:Net picture.png" in card
    page = Path("my run/report.html").read_text(encoding="utf-8")
    assert "multiply-adds unknown" in page and "乘加次数未知" in page
    assert "macs" not in json.loads(Path("my run/model.json").read_text())["metrics"]
    assert striate("compare", "my run", "my run").code == 0


OWN = """
from torch import nn

class Wide(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 16, num_classes))

    def forward(self, x):
        return self.body(x)

class Idle(Wide):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(5, 5)
"""


def test_models_of_ones_own(striate: Any) -> None:
    Path("net.py").write_text(OWN, encoding="utf-8")
    outcome = striate("models", "net.py:Wide", "--input", "1x8x18", "--classes", "4")
    assert outcome.code == 0 and "⌊(18 − 3)/1⌋ + 1 = 16" in outcome.out and "note" not in outcome.err
    assert "4·6·16 = 384" in outcome.out and "(384 + 1)·4" in outcome.out
    refused = striate("models", "net.py:Wide", "--input", "1x8x8")
    assert refused.code == 2 and "fix: write nn.Linear(in_features=144, out_features=10)" in refused.err
    assert "body.0" in refused.err.splitlines()[1], "the table comes first"
    asked = striate("models", "net.py:Wide")
    assert asked.code == 2 and "--input 1x28x28" in asked.error_lines()["fix"]
    idle = striate("models", "net.py:Idle", "--input", "1x8x18")
    assert idle.code == 0 and "note: spare nn.Linear is never used" in idle.err
    wrong = striate("models", "net.py:Idle", "--input", "1x8x18", "--classes", "7")
    assert wrong.code == 2 and "the data has 7 classes" in wrong.error_lines()["cause"]


def test_recipes_lists_and_prints(striate: Any) -> None:
    recipes = list_recipes()
    rows = striate("recipes").out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(recipes)
    assert striate("recipes", "tutorial-lenet5").out == recipes["tutorial-lenet5"].text
    listed = json.loads(striate("recipes", "--json").out)["recipes"]
    assert {row["name"]: row["settings"] for row in listed} == {name: recipe.values for name, recipe in recipes.items()}


def test_data_ls_names_every_set(striate: Any) -> None:
    listed = json.loads(striate("data", "ls", "--json").out)["data"]
    assert {"digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100"} == {row["name"] for row in listed}
    table = striate("data", "ls").out
    assert "1,797" in table and "scikit-learn" in table


def test_data_show_draws_pictures_with_labels(striate: Any, digit_pictures: Any) -> None:
    outcome = striate("data", "show", "digits", "--index", "0:5")
    assert outcome.code == 0 and outcome.err == "drawn: digits-train-0-5.png\n"
    assert [line.split() for line in outcome.out.splitlines()[1:]] == [
        [str(i), d] for i, d in enumerate(digit_pictures[1])
    ]
    Image.open("digits-train-0-5.png").verify()
    assert striate("data", "show", "digits", "--index", "7", "--out", "seven.png").code == 0
    assert Path("seven.png").is_file()


def test_data_show_of_a_part_that_is_not_there(striate: Any) -> None:
    outcome = striate("data", "show", "digits", "--split", "test")
    assert outcome.code == 3 and "no part 'test'" in outcome.error_lines()["error"]


def test_data_add_refuses_what_it_does_not_know(striate: Any) -> None:
    Path("notes.txt").write_text("notes", encoding="utf-8")
    outcome = striate("data", "add", "notes.txt")
    assert outcome.code == 3 and "notes.txt" in outcome.error_lines()["error"]


def test_data_show_mnist(striate: Any, data_root: Path) -> None:
    outcome = striate("data", "show", "mnist", "--index", "59000:59009", "--data-root", str(data_root))
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == [str(i) for i in range(59000, 59009)]
    Image.open("mnist-train-59000-59009.png").verify()


def test_many_pictures_are_asked_in_blocks(
    striate: Any, digits_run: Path, digit_pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [save(picture, f"{number}.png") for number, picture in enumerate(digit_pictures[0])]
    Path("2.png").write_bytes(b"")
    whole = json.loads(striate("predict", str(digits_run), *names, "--json").out)["results"]
    monkeypatch.setattr("striate.predictor.predictor.BATCH_PICTURES", 2)
    blocks = json.loads(striate("predict", str(digits_run), *names, "--json").out)["results"]
    assert [result["source"] for result in whole] == names
    assert [(result["source"], result.get("label")) for result in blocks] == [
        (r["source"], r.get("label")) for r in whole
    ]
    for one, other in zip(blocks, whole, strict=True):
        if "error" not in one:  # a batch of another size may change the last digit
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


@pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")
def test_stopped_by_sigterm_and_resumed(striate: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "striate", "train", "digits", "--epochs", "8", "--threads", "1", "--out", "run"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith("1/8"):
                break
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    told = err.splitlines()[-2:]
    assert told[0].startswith("error: stopped by SIGTERM at step") and told[1] == "fix: go on with: striate resume run"
    done = len(Path("run/results.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert 1 <= done < 8
    assert striate("resume", "run", "--quiet").code == 0
    assert len(Path("run/results.csv").read_text(encoding="utf-8").splitlines()) - 1 == 8
    assert striate("eval", "run").code == 0
