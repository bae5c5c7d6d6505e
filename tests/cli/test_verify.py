"""`striate verify` and `striate resume` with more epochs: what is printed, the exit code, that nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from striate.files import sha256_file


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of the run on the digits that may be changed."""
    shutil.copytree(digits_run, tmp_path / "run")
    return tmp_path / "run"


def test_a_good_run(striate: Any, digits_run: Path) -> None:
    before = {path: sha256_file(path) for path in digits_run.rglob("*") if path.is_file()}
    outcome = striate("verify", str(digits_run))
    assert (outcome.code, outcome.err) == (0, "")
    rows = dict(line.split("  ", 1) for line in outcome.out.splitlines())
    assert rows["weights/best.safetensors"].strip() == "as recorded"
    assert "20 of " in rows["losses"] and "the same to the last digit" in rows["losses"]
    document = json.loads(striate("verify", str(digits_run), "--json", "--steps", "3").out)
    assert document["ok"] and document["steps"]["compared"] == 3
    assert {path: sha256_file(path) for path in digits_run.rglob("*") if path.is_file()} == before


def test_a_changed_run_ends_with_5(striate: Any, run: Path) -> None:
    lines = (run / "steps.csv").read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ",1.0"
    (run / "steps.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    outcome = striate("verify", str(run))
    told = outcome.error_lines()
    assert outcome.code == 5 and "step 3 is " in told["error"] and "steps.csv has 1.0" in told["error"]
    assert "step 3: 1.0 → " in outcome.out and "steps.csv was changed" in " ".join(outcome.out.split())
    document = striate("verify", str(run), "--json")
    assert document.code == 5 and json.loads(document.out)["steps"]["first_difference"]["step"] == 3


def test_verify_of_a_run_that_is_not_there(striate: Any) -> None:
    assert striate("verify", "nothing").code == 2
    assert striate("verify", "nothing", "--steps", "-1").code == 2


def test_resume_with_more_epochs_and_with_other_settings(striate: Any, run: Path) -> None:
    refused = striate("resume", str(run), "--epochs", "+1", "--lr", "0.5")
    assert refused.code == 2 and "lr 0.01 → 0.5" in refused.error_lines()["error"]
    assert "--allow-changes" in refused.error_lines()["fix"]
    outcome = striate("resume", str(run), "--epochs", "+1", "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    changes = json.loads((run / "changes.json").read_text(encoding="utf-8"))["changes"]
    assert changes[0]["settings"] == {"epochs": [2, 3]} and changes[0]["command"].startswith("striate resume ")
    assert json.loads((run / "status.json").read_text(encoding="utf-8"))["epoch"] == 3
    assert striate("verify", str(run)).code == 0
    assert striate("resume", str(run), "--out", "elsewhere").code == 2


def test_a_config_trains_the_run_again_in_a_folder_of_its_own(striate: Any, run: Path) -> None:
    outcome = striate("train", "--config", str(run / "config.yaml"), "--quiet")
    assert outcome.code == 0 and Path("runs/digits-three-conv-1/evaluation.json").is_file()
    for name in ("steps.csv", "weights/best.safetensors", "evaluation.json"):
        assert (Path("runs/digits-three-conv-1") / name).read_bytes() == (run / name).read_bytes(), name
