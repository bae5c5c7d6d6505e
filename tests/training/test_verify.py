"""Verifying a run: what is right is told so, what was changed is found, and nothing in the run is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.conftest import Small, make_parts

from striate.data.dataset import Dataset, Parts
from striate.errors import DataError, UsageError, VerificationError
from striate.files import sha256_file
from striate.runs.folder import RunFolder
from striate.training.begin import resume_job
from striate.training.job import Job
from striate.training.verify import verify

Start = Callable[..., Job]


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of two epochs of 12 steps, with all that may make a step differ."""
    from striate.settings.layers import resolve_train
    from striate.training.begin import start_job

    given = {"data": "made", "recipe": "generic", "batch_size": 16, "epochs": 2, "augment": "shift:1,flip", "ema": 0.9}
    given |= {"out": tmp_path_factory.mktemp("run") / "run", "schedule": "cosine", "lr": 0.01, "device": "cpu"}
    settings, _, _ = resolve_train(given, origin="argument", environ={})
    return finish(start_job(settings, data=make_parts(), model=Small, report=print)).folder


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it that may be damaged."""
    import shutil

    shutil.copytree(trained.path, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


def check(run: RunFolder, **more: Any) -> dict[str, Any]:
    return verify(run.path, **{"data": make_parts(), "model": Small, **more})


def refused(run: RunFolder, **more: Any) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        check(run, **more)
    assert caught.value.exit_code == 5 and not caught.value.record["ok"]
    return caught.value


def state_of(run: RunFolder) -> dict[str, tuple[str, int]]:
    return {str(path): (sha256_file(path), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()}


def test_a_run_is_what_it_says_and_nothing_in_it_is_written(trained: RunFolder) -> None:
    before = state_of(trained)
    record = check(trained, steps=20)
    assert state_of(trained) == before and record["ok"] and record["format"] == 1
    assert record["steps"] == {"asked": 20, "compared": 20, "of": 24, "first_difference": None}
    assert record["environment"] == {} and record["data"] == []
    names = {file["file"] for file in record["files"]}
    assert {"weights/best.safetensors", "weights/last.safetensors", "evaluation.json", "steps.csv"} <= names
    assert any(name.startswith("checkpoints/step-") for name in names) and all(file["ok"] for file in record["files"])
    assert check(trained, steps=1000)["steps"]["compared"] == 24 and check(trained, steps=0)["steps"]["compared"] == 0
    json.dumps(record)


@pytest.mark.parametrize("step", [1, 7, 20])
def test_a_loss_that_is_another_in_its_last_digit_is_found(run: RunFolder, step: int) -> None:
    lines = run.file("steps.csv").read_text().splitlines()
    head, _, loss = lines[step].rpartition(",")
    other = float(torch.nextafter(torch.tensor(float(loss)), torch.tensor(10.0)))
    lines[step] = f"{head},{other!r}"
    run.file("steps.csv").write_text("\n".join(lines) + "\n")
    error = refused(run)
    assert error.record["steps"]["first_difference"] == {"step": step, "recorded": other, "now": float(loss)}
    assert f"step {step} " in error.what and repr(other) in error.what and loss in error.what
    assert "environment is the same" in error.cause


@pytest.mark.parametrize(
    "name", ["weights/best.safetensors", "weights/last.safetensors", "predictions.csv", "split.json"]
)
@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_a_file_that_was_changed_is_named(run: RunFolder, name: str, damage: str) -> None:
    content = bytearray(run.file(name).read_bytes())
    content[-2] ^= 1 if name.startswith("weights") else 0
    content = content if name.startswith("weights") else content + b"\n"
    run.file(name).write_bytes(bytes(content))
    if damage == "gone" and name != "split.json":
        run.file(name).unlink()
    error = refused(run)
    assert name in error.what and [file["file"] for file in error.record["files"] if not file["ok"]] == [name]
    assert error.record["steps"]["first_difference"] is None


def test_a_damaged_checkpoint_and_model_card_are_named(run: RunFolder) -> None:
    newest = sorted(run.checkpoints.iterdir())[-1]
    (newest / "state.json").write_text("{}")
    run.file("model.json").write_text("{}")
    wrong = {file["file"]: file["problem"] for file in refused(run).record["files"] if not file["ok"]}
    assert (
        set(wrong) == {f"checkpoints/{newest.name}", "model.json"}
        and "state.json" in wrong[f"checkpoints/{newest.name}"]
    )


def test_changed_data_are_found_and_no_step_is_trained_on_them(run: RunFolder) -> None:
    part = make_parts().train
    images = part.images.copy()
    images[3, 2, 2, 0] ^= 1
    error = refused(run, data=Parts("made", Dataset("made", images, part.labels, part.classes)))
    assert "the train part changed" in error.what and error.record["steps"]["compared"] == 0
    with pytest.raises(UsageError, match="trained on arrays"):
        verify(run.path, model=Small)


def test_the_environment_is_told_where_the_losses_differ(run: RunFolder) -> None:
    env = run.read_json("env.json")
    run.write_json("env.json", {**env, "torch": "2.10.0"})
    assert check(run)["environment"] == {"torch": ["2.10.0", env["torch"]]}, "told, and no difference by itself"
    settings = run.file("config.yaml").read_text(encoding="utf-8")
    run.file("config.yaml").write_text(settings.replace("lr: 0.01", "lr: 0.02"), encoding="utf-8")
    error = refused(run)
    assert error.record["steps"]["first_difference"]["step"] == 2, "the first loss is that of the first weights"
    assert "torch 2.10.0 → " in error.cause


def test_the_first_steps_are_those_of_the_settings_that_the_run_began_with(start: Start) -> None:
    job = finish(start("run", epochs=1, schedule="cosine"))
    extended = finish(
        resume_job(
            job.folder, data=make_parts(), model=Small, given={"epochs": 2, "lr": 0.5}, allow_changes=True, report=print
        )
    )
    record = check(extended.folder, steps=1000)
    assert record["ok"] and record["steps"]["compared"] == 12 and record["steps"]["of"] == 24


def test_a_module_that_is_given_stays_as_it_is(trained: RunFolder) -> None:
    torch.manual_seed(3)
    net = Small()
    first = {name: value.clone() for name, value in net.state_dict().items()}
    refused(trained, model=net)  # its first weights are others
    assert all(torch.equal(value, first[name]) for name, value in net.state_dict().items())


def test_an_interrupted_run_is_verified_as_far_as_it_came(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 4)
    job = start("run", save_every="4")
    happenings = job.run()
    while job.progress.step < 8:
        next(happenings)
    happenings.close()  # type: ignore[attr-defined]
    record = check(job.folder)
    assert record["ok"] and record["steps"]["compared"] == record["steps"]["of"] == 8


def test_a_run_without_its_log_is_an_error_that_names_it(run: RunFolder) -> None:
    run.file("steps.csv").unlink()
    with pytest.raises(DataError, match=r"steps\.csv is missing"):
        check(run)
