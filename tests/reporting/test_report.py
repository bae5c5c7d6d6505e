"""`striate report`: what stands on the page and in the model card, whatever is missing, and how large it may become."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from torch import nn

import striate
from striate.cli.main import run as command
from striate.data.dataset import Dataset
from striate.evaluation import baselines
from striate.evaluation.calibration import reliability
from striate.evaluation.metrics import confusion, expected_calibration_error
from striate.report import run_page, words_zh
from striate.report.run_page import Asked
from striate.report.svg import Series, line_chart
from striate.report.text import hyper_parameters, hyper_parameters_zh
from striate.reporting.run import write_report
from striate.settings.train import TrainSettings

SECTIONS = (
    *("diagnosis", "data", "net", "settings", "curves", "test", "confusion", "mistakes", "calibration", "machine"),
)


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / "run"))


def test_the_command_writes_one_file_that_holds_everything(
    digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = copied(digits, tmp_path)
    assert command(["report", str(run), "--device", "cpu"]) == 0
    assert capfd.readouterr().out == f"{run / 'report.html'}\n"
    text = (run / "report.html").read_text(encoding="utf-8")
    evaluation = json.loads((run / "evaluation.json").read_text())
    for section in SECTIONS:
        assert f'<section id="{section}">' in text
    for told in (
        f"{100 * evaluation['top1']['value']:.2f} %",
        (run / "command.txt").read_text().strip().replace("'", "&#39;"),
        "logistic regression",
        "逻辑回归",
        "7,178",
        "adamw, lr 0.01",
        "conv1",
        "Grad-CAM",
        "torch",
    ):
        assert told in text, told
    assert "http" not in text.replace("http-equiv", "")
    card = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"accuracy {100 * evaluation['top1']['value']:.2f} %" in card and "logistic regression on 1,374" in card


def test_train_writes_a_card_and_the_report_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "digits", "--epochs", "1", "--threads", "1", "--device", "cpu", "--quiet"]
    assert command([*arguments, "--out", "plain"]) == 0
    assert Path("plain/MODEL_CARD.md").is_file() and not Path("plain/report.html").exists()
    assert command([*arguments, "--out", "asked", "--report"]) == 0
    assert Path("asked/report.html").is_file()


def test_every_setting_has_chinese_words() -> None:
    chinese = words_zh.SETTINGS
    assert set(TrainSettings.model_fields) - {"out"} <= set(chinese)
    assert all(has_chinese(short) or short == "" for short, _ in chinese.values())
    assert [name for name, (_, told) in chinese.items() if not has_chinese(told) and name != "device"] == []
    for name, words in (("schedule", words_zh.SCHEDULES), ("loss", words_zh.LOSSES)):
        assert set(words) == set(get_args(TrainSettings.model_fields[name].annotation))
    every = {"momentum": 0.8, "weight_decay": 0.1, "decoupled": True, "label_smoothing": 0.2, "clip": 2.0, "ema": 0.99}
    settings = TrainSettings().model_dump() | {"optimizer": "sgd", "augment": "flip", "balance": "loss"} | every
    line = hyper_parameters_zh(settings)
    assert line.count("，") == hyper_parameters(settings).count(", ")
    for told in (
        "动量 0.8",
        "学习率 0.002",
        "权重衰减 0.1（单独施加）",
        "标签平滑 0.2",
        "数据增强 flip",
        "类别平衡 loss",
    ):
        assert told in line


def has_chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def test_arrays_and_a_net_of_ones_own(tmp_path: Path) -> None:
    digits = striate.load_named("digits").train
    data = (digits.images, digits.labels)
    run = striate.train(data, model=Own, epochs=1, quiet=True, report=True, out=tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "data-cell" in text and "could not" not in text
    again = write_report(tmp_path / "run", out=tmp_path / "again.html").read_text(encoding="utf-8")
    assert "The net could not be asked" in again and '<table class="matrix' in again
    asked = write_report(tmp_path / "run", out=tmp_path / "asked.html", model=Own, data=data)
    assert "could not" not in asked.read_text(encoding="utf-8")
    assert run.report(tmp_path / "third.html").is_file()


def test_data_that_are_gone_are_told(digits: Path, tmp_path: Path) -> None:
    run = copied(digits, tmp_path)
    record = json.loads((run / "data.json").read_text())
    record["fingerprints"]["train"] = "0" * 64
    (run / "data.json").write_text(json.dumps(record))
    text = write_report(run).read_text(encoding="utf-8")
    assert "The pictures could not be shown:" in text and "无法显示图片：" in text
    assert "digits changed since the run began" in text
    assert '<table class="matrix' in text and "Its pictures are not on this page." in text


def test_a_run_that_is_not_finished_and_one_that_was_imported(digits: Path, tmp_path: Path) -> None:
    run = copied(digits, tmp_path)
    (run / "evaluation.json").unlink()
    (run / "status.json").write_text('{"format": 1, "state": "interrupted", "step": 30, "reason": "SIGINT"}')
    text = write_report(run).read_text(encoding="utf-8")
    assert "not finished: interrupted" in text and "This run was not tested." in text
    arguments = ["import", str(digits / "weights" / "best.safetensors"), "--model", "three-conv", "--channels", "1"]
    out = ["--classes", ",".join("0123456789"), "--input-size", "8", "--out", str(tmp_path / "imported")]
    assert command([*arguments, *out]) == 0
    text = write_report(tmp_path / "imported").read_text(encoding="utf-8")
    assert "was imported" in text and "conv1" in text
    assert "Weights imported from" in (tmp_path / "imported" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_baselines_are_right_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = striate.load_named("digits").train
    train, test = digits.take(slice(0, 1500)), digits.take(slice(1500, None))
    given = ((train.images, train.labels), (test.images, test.labels))
    first = baselines.baselines(*given, key="a", folder=tmp_path)
    commonest = np.bincount(train.labels).argmax()
    assert first["commonest"]["value"] == pytest.approx((test.labels == commonest).mean())
    assert 0.85 < first["logistic"]["value"] < 1 and first["trained"] == 1500 and not first["cached"]
    monkeypatch.setattr(baselines, "_compute", lambda *_: pytest.fail("it was computed again"))
    again = baselines.baselines(*given, key="a", folder=tmp_path)
    assert again["cached"] and again["logistic"] == first["logistic"]
    monkeypatch.setattr(baselines, "_compute", lambda *_: {**first, "trained": 7})
    assert baselines.baselines(*given, key="b", folder=tmp_path)["trained"] == 7
    [path] = [path for path in tmp_path.iterdir() if '"trained": 1500' in path.read_text()]
    path.write_text("{")
    assert baselines.baselines(*given, key="a", folder=tmp_path)["trained"] == 7


def test_baselines_of_many_large_pictures_are_bounded(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(2), [5500, 500])
    assert np.bincount(labels[baselines._spread(labels, 4_000)]).tolist() == pytest.approx([3667, 333], abs=2)
    images = np.zeros((60, 200, 300, 3), np.uint8)
    assert baselines._flat(images, np.arange(60), 32).shape == (60, 32 * 32 * 3)
    one = Dataset("one", np.zeros((20, 8, 8, 1), np.uint8), np.zeros(20, np.int64), ("a", "b"))
    told = baselines.baselines((one.images, one.labels), (one.images, one.labels), key="one", folder=tmp_path)
    assert told["logistic"]["value"] == 1.0


def test_the_bins_of_calibration_add_up_to_the_error() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 2, (500, 4)), random.integers(0, 4, 500)
    found = reliability(logits, labels, "softmax", 1.5)
    assert sum(one["count"] for one in found["bins"]) == 500
    gap = sum(one["count"] * abs(one["confidence"] - one["accuracy"]) for one in found["bins"]) / 500
    assert found["ece"] == pytest.approx(gap)
    assert found["ece"] != expected_calibration_error(np.full(500, 0.5), labels == 0)


@pytest.mark.parametrize(("classes", "side", "channels"), [(10, 32, 3), (100, 96, 3), (1000, 64, 1)])
def test_pictures_behind_the_matrix_leave_the_page_under_5_mb(classes: int, side: int, channels: int) -> None:
    random, count = np.random.default_rng(0), 6_000
    labels, answers = random.integers(0, classes, (2, count))
    pictures = random.integers(0, 255, (40, side, side, channels)).astype(np.uint8)
    bins = {"ece": 0.1, "bins": []}
    asked = Asked(
        labels=labels, answers=answers, sure=random.random(count), confusion=confusion(labels, answers, classes),
        picture=lambda row: pictures[row % 40], source=lambda row: f"picture-{row}.png", worst=list(range(12)),
        maps=(pictures[:12], np.ones((12, side, side), np.float32)), before=bins, after=bins,
        temperature=1.0, seconds=1.0,
    )  # fmt: skip
    page = run_page._of_answers(asked, [str(number) for number in range(classes)])
    album = page["album"]
    assert len(json.dumps(album)) < 3_200_000
    assert len(album["pictures"]) > 100 and len(page["mistakes"]) == 12
    assert (page["matrix"] is None) == (classes > 50)
    for key, numbers in list(album["cells"].items())[:50]:
        true, answer = map(int, key.split("-"))
        for number in numbers:
            row = int(album["pictures"][number][1].removeprefix("picture-").removesuffix(".png"))
            assert (labels[row], answers[row]) == (true, answer)


def test_charts() -> None:
    loss = line_chart([Series([(1, 2.0), (2, 0.01), (3, float("nan"))], ("a<b", "甲"), "s0")], ("x", "x"), ("y", "y"))
    assert "a&lt;b" in loss and loss.count("<polyline") == 1 and ">0.1<" in loss  # a logarithmic axis
    assert line_chart([], ("x", "x"), ("y", "y")) == ""
    many = [Series([(i, i % 7) for i in range(10_000)], ("a", "a"), "s0")]
    assert len(line_chart(many, ("x", "x"), ("y", "y"))) < 20_000
    assert "<circle" in line_chart([Series([(1, 0.5)], ("a", "a"), "s1")], ("x", "x"), ("y", "y"), percent=True)
