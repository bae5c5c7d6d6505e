"""`striate tune`: what may be searched, that test pictures are never seen, that a study goes on and is shared."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from PIL import Image

from striate.cli.main import run
from striate.training import job as training_job

MLP = ["tune", "digits", "--model", "mlp", "--epochs", "2", "--device", "cpu"]
SPACE = ["--param", "lr=1e-4..1e-1:log", "--param", "model.activation=relu,sigmoid"]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("lrr=1..2", "unknown setting"),
        ("learning_rate=0.1..0.2", "striate calls it lr"),
        ("model.activatio=relu,tanh", "did you mean activation"),
        ("model.activation=relu,tan", "cannot be tried"),
        ("lr=0.1..0.1", "empty range"),
        ("lr=0.2..0.1:log", "empty range"),
        ("lr=0..0.1:log", "cannot be logarithmic"),
        ("lr=-1..0.1", "cannot be tried"),
        ("lr=a..b", "is no range"),
        ("lr=0.1..0.2:logg", "unknown scale"),
        ("batch_size=1.5..8", "whole number"),
        ("batch_size=16,many", "cannot be tried"),
        ("batch_size=16", "nothing to choose"),
        ("lr=", "names no values"),
        ("lr", "names no values"),
        ("momentum=0.5..0.9", "no effect"),
        ("seed=1,2", "could not be compared"),
        ("model_option=a,b", "model.NAME"),
    ],
)
def test_a_bad_parameter_is_told_in_three_lines(
    param: str, told: str, capsys: pytest.CaptureFixture[str], scratch: Path
) -> None:
    assert run([*MLP, "--param", param]) == 2
    out, err = capsys.readouterr()
    assert told in err and out == "" and 2 <= len(err.splitlines()) <= 3 and err.startswith("error: ")
    assert not list(scratch.iterdir())


def test_a_parameter_twice_and_other_faults(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, told in (
        (["--param", "lr=0.1,0.2", "--param", "lr=0.1,0.3"], "given twice"),
        (["--trials", "0"], "trials"),
        (["--time", "soon"], "10m"),
        (["--validation", "0", *SPACE], "validation pictures"),
    ):
        assert run([*MLP, *flags]) == 2
        assert told in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run([*MLP, *SPACE]) == 4
    assert "striate[tune]" in capsys.readouterr().err


def test_a_study_is_searched_goes_on_and_its_best_is_tested_once(
    scratch: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[int] = []
    evaluate = training_job.evaluate_pictures

    def counted(*values: Any, **named: Any) -> Any:
        tested.append(len(values[2]))
        return evaluate(*values, **named)

    monkeypatch.setattr(training_job, "evaluate_pictures", counted)
    assert run([*MLP, *SPACE, "--trials", "2", "--no-retrain"]) == 0
    assert not tested
    folder = scratch / "runs" / "tune-digits-mlp"
    first = capsys.readouterr().out
    assert run([*MLP, *SPACE, "--trials", "3"]) == 0
    out = capsys.readouterr().out
    assert tested == [270]
    rows = [line.split() for line in out.splitlines() if re.match(r" +\d+ +\d", line)]
    assert sorted(int(row[0]) for row in rows[:3]) == [0, 1, 2] and len(first.splitlines()) < len(out.splitlines())
    best = rows[0]
    command = next(line for line in out.splitlines() if line.startswith("command  ")).removeprefix("command  ")
    run_folder = folder / f"best-{best[0]}"
    assert json.loads((run_folder / "model.json").read_text())["metrics"]["val_accuracy"] == pytest.approx(
        float(best[1]) / 100, abs=6e-5
    )
    for name in ("importance.png", "parallel.png"):
        if name in out:
            assert Image.open(folder / name).size[0] > 300
    assert (folder / "parallel.png").is_file()
    # The very command gives the very run; it is here given another folder.
    words = shlex.split(command)
    words[words.index("--out") + 1] = str(scratch / "again")
    assert run([*words[1:], "--quiet"]) == 0
    assert (scratch / "again" / "weights" / "best.safetensors").read_bytes() == (
        run_folder / "weights" / "best.safetensors"
    ).read_bytes()
    # The same study with another space is refused.
    capsys.readouterr()
    assert run([*MLP, "--param", "lr=1e-4..1e-2:log", "--trials", "4"]) == 2
    assert "other parameters" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_that_cannot_be_trained_is_told_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "digits", "--model", "simple-cnn", "--epochs", "1", "--device", "cpu", "--train-range", "0:300"]
    space = ["--param", "model.kernel=3,11", "--param", "model.padding=0,1"]  # 11 does not fit 8 pixels
    assert run([*words, *space, "--trials", "4", "--no-retrain"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ +\d+ +- +0 +11 ", out, re.M) and "kernel=3" in out


def test_the_first_trial_is_the_setting_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--param", "lr=1e-4..1e-1:log", "--param", "model.activation=leaky-relu,relu", "--lr", "0.02"]
    assert run([*MLP, *flags, "--trials", "1", "--no-retrain"]) == 0
    assert "trial 0" in (found := capsys.readouterr()).err and "lr=0.02 model.activation=leaky-relu" in found.err


@pytest.mark.slow
def test_a_hopeless_trial_is_stopped_early(capsys: pytest.CaptureFixture[str], scratch: Path) -> None:
    """Five good trials are put into the study by hand; the next is under their median from the start."""
    flags = [*MLP, "--epochs", "4", "--param", "lr=1e-6..2e-6:log", "--no-retrain", "--out", "study"]
    assert run([*flags, "--trials", "1"]) == 0
    study = optuna.load_study(study_name="striate", storage=f"sqlite:///{scratch / 'study' / 'study.db'}")
    for _ in range(5):
        trial = optuna.trial.create_trial(
            params={"lr": 1.5e-6},
            distributions={"lr": optuna.distributions.FloatDistribution(1e-6, 2e-6, log=True)},
            intermediate_values={epoch: 0.9 for epoch in range(1, 5)},
            value=0.9,
            user_attrs={"epochs": 4},
        )
        study.add_trial(trial)
    assert run([*flags, "--trials", "7"]) == 0
    assert re.search(r"^ +6 .* 2 .*behind the median$", capsys.readouterr().out, re.M)


@pytest.mark.slow
def test_two_processes_share_a_study(scratch: Path) -> None:
    words = [sys.executable, "-m", "striate", *MLP, *SPACE, "--trials", "6", "--no-retrain"]
    together = [subprocess.Popen(words, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.wait(300) for process in together] == [0, 0], [process.stderr.read() for process in together]
    storage = f"sqlite:///{scratch / 'runs' / 'tune-digits-mlp' / 'study.db'}"
    trials = optuna.load_study(study_name="striate", storage=storage).trials
    assert 6 <= len(trials) <= 7
    drawn = [trial.params["lr"] for trial in trials]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.slow
def test_the_default_space_and_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "digits", "--epochs", "2", "--device", "cpu", "--trials", "1000", "--time", "5s"]) == 0
    out, err = capsys.readouterr()
    assert all(name in err for name in ("lr=", "batch_size=", "weight_decay=", "label_smoothing="))
    assert "test      accuracy" in out
