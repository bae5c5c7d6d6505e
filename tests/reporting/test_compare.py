"""`striate compare` tells McNemar's test in its table, its JSON and its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from striate.cli.main import run as command
from striate.evaluation.comparison import compare_answers, read_predictions
from striate.report.words_zh import reason
from striate.reporting.comparison import compare_pairs, write_comparison


def test_table_json_and_page(
    digits: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["compare", str(digits), str(plain)]) == 0
    told = capfd.readouterr().out
    assert "McNemar's test on the test pictures" in told and "digits is better, beyond chance" in told
    assert command(["compare", str(digits), str(plain), "--json", "--html", "both.html"]) == 0
    [pair] = json.loads(capfd.readouterr().out)["pairs"]
    expected = compare_answers(*(read_predictions(run / "predictions.csv") for run in (digits, plain)))
    assert pair == {"first": "digits", "second": "plain", **expected}
    text = Path("both.html").read_text(encoding="utf-8")
    assert (
        f"p = {expected['p']:.3g} (" in text
        and "exact" in text
        and text.count("<figure>") == min(24, expected["only_first"] + expected["only_second"])
    )


def test_the_page_says_what_the_table_says(digits: Path, plain: Path, tmp_path: Path) -> None:
    same = Path(shutil.copytree(digits, tmp_path / "same"))
    for other, beyond in ((plain, True), (same, False)):
        page = write_comparison([digits, other], tmp_path / "both.html").read_text(encoding="utf-8")
        assert ("digits is better, beyond chance." in page) == ("digits 更好，超出偶然。" in page) == beyond
        assert ("The difference may well be chance." in page) == ("差异可能出于偶然。" in page) == (not beyond)


def test_runs_that_cannot_be_compared_say_why(
    digits: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    other = Path(shutil.copytree(plain, tmp_path / "other"))
    record = json.loads((other / "data.json").read_text())
    record["fingerprints"] = {"train": "0" * 64}
    (other / "data.json").write_text(json.dumps(record))
    untested = Path(shutil.copytree(plain, tmp_path / "untested"))
    (untested / "predictions.csv").unlink()
    problems = [pair.get("problem", "") for pair in compare_pairs([digits, plain, other, untested])]
    assert problems[:2] == ["", "they were trained on different data"]
    assert reason(problems[1]) == "训练数据不同" and reason(problems[2]).endswith("predictions.csv：运行没有测试")
    assert "predictions.csv is missing: the run was not tested" in problems[2]
    assert command(["compare", str(digits), str(other), "--html", "both.html"]) == 0
    assert "not comparable: they were trained on different data" in capfd.readouterr().out
    page = Path("both.html").read_text(encoding="utf-8")
    assert "Not comparable: they were trained on different data" in page and "不可比较：训练数据不同" in page
