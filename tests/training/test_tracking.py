"""TensorBoard and MLflow hold what the run's own files hold; a tracker that fails ends nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.training.conftest import make_parts

import striate
from striate import api
from striate.errors import Interrupted, MissingExtra, UsageError
from striate.runs.folder import RunFolder
from striate.runs.journal import read_results, read_steps
from striate.training import tracking
from striate.training.begin import resume_job

GIVEN: dict[str, Any] = {
    "model": "mlp", "epochs": 2, "batch_size": 16, "device": "cpu", "quiet": True, "recipe": "generic",
}  # fmt: skip


def train(out: Path, **settings: Any) -> RunFolder:
    return RunFolder(striate.train(make_parts(), out=out, **{**GIVEN, **settings}).folder)


def stopped(out: Path, monkeypatch: pytest.MonkeyPatch, at: int, **settings: Any) -> None:
    """Train until so many steps are over, as a signal would stop it."""
    from striate.training.job import Job

    measure = Job._measure

    def stop(self: Job) -> None:
        measure(self)
        if self.progress.step >= at:
            self.stopping.signal = signal.SIGINT

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Job, "_measure", stop)
        train(out, **settings)


def events(folder: RunFolder) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder.file("tensorboard")), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    return read


def assert_tensorboard_is_the_run(folder: RunFolder) -> None:
    read = events(folder)
    numbers, losses = read_steps(folder.path)
    found = read.Scalars("step/loss")
    assert [event.step for event in found] == numbers
    assert [event.value for event in found] == pytest.approx(losses, rel=1e-6)
    results = read_results(folder.path)
    assert [event.step for event in read.Scalars("epoch/val_accuracy")] == [row.step for row in results]
    assert [event.value for event in read.Scalars("epoch/train_loss")] == pytest.approx([r.train_loss for r in results])


def test_tensorboard_holds_steps_epochs_settings_numbers_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = train(tmp_path / "run", track="tensorboard")
    assert_tensorboard_is_the_run(folder)
    read = events(folder)
    test = folder.read_json("evaluation.json")
    assert read.Scalars("test/accuracy")[0].value == pytest.approx(test["top1"]["value"])
    assert {"curves", "confusion_matrix", "mistakes", "samples"} <= set(read.Tags()["images"])
    assert "batch_size" in read.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_resumed_run_goes_on_in_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    stopped(tmp_path / "run", monkeypatch, 1, track="tensorboard", epochs=3)
    api.resume(tmp_path / "run", data=make_parts(), quiet=True)
    assert_tensorboard_is_the_run(RunFolder(tmp_path / "run"))
    assert len(events(RunFolder(tmp_path / "run")).Scalars("test/accuracy")) == 1


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("mlflow")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    return address


@pytest.mark.slow
def test_mlflow_holds_the_run_and_goes_on_with_it(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    stopped(tmp_path / "run", monkeypatch, 1, track="mlflow", epochs=3)
    client, folder = MlflowClient(store), RunFolder(tmp_path / "run")
    kept = folder.read_json("tracking.json")["mlflow"]
    assert client.get_run(kept["run"]).info.status == "KILLED"
    api.resume(tmp_path / "run", data=make_parts(), quiet=True)
    found = client.get_run(kept["run"])
    assert found.info.status == "FINISHED" and found.data.params["model"] == "mlp"
    history = sorted(client.get_metric_history(kept["run"], "step/loss"), key=lambda metric: metric.step)
    numbers, losses = read_steps(folder.path)
    assert [metric.step for metric in history] == numbers
    assert [metric.value for metric in history] == pytest.approx(losses)
    assert found.data.metrics["test/accuracy"] == folder.read_json("evaluation.json")["top1"]["value"]
    assert {"curves.png", "samples.png"} <= {file.path for file in client.list_artifacts(kept["run"])}
    assert len(client.search_runs([found.info.experiment_id])) == 1


def test_an_unreachable_tracker_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = train(tmp_path / "run", track="mlflow", quiet=False)
    assert folder.status()["state"] == "finished"
    assert capsys.readouterr().err.count("no tracking with mlflow from here on") == 1


def test_a_tracker_that_breaks_on_the_way_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")

    def broken(self: Any, rows: Any) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(tracking.TensorBoard, "scalars", broken)
    folder = train(tmp_path / "run", track="tensorboard", quiet=False)
    assert folder.status()["state"] == "finished"
    told = capsys.readouterr().err
    assert told.count("no tracking with tensorboard from here on: the disk is away; the run goes on") == 1


def test_a_missing_tracker_is_told_before_anything_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        train(tmp_path / "run", track="mlflow")
    assert caught.value.exit_code == 4 and caught.value.fix == "pip install 'striate[track]'"
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="track"):
        train(tmp_path / "run", track="wandb")


def test_tracking_is_off_by_default_and_may_be_turned_on_at_a_resume(tmp_path: Path) -> None:
    folder = train(tmp_path / "run")
    assert not folder.file("tracking.json").exists() and not folder.file("tensorboard").exists()
    job = resume_job(folder, data=make_parts(), given={"epochs": "+1", "track": "tensorboard"}, report=print)
    assert job.settings.track == ("tensorboard",)
    job.held.close()


@pytest.mark.slow
def test_nothing_of_a_tracker_is_imported_when_it_is_off(tmp_path: Path) -> None:
    code = (
        "import sys, striate; striate.train('digits', epochs=1, quiet=True, device='cpu');"
        "print([name for name in ('tensorboard', 'mlflow', 'timm', 'torch.utils.tensorboard') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
