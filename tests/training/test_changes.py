"""A run that is extended or changed when it goes on: what is refused, what is recorded, what the learning rate does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.training.conftest import Small, make_parts

from striate.data.dataset import Dataset, Parts
from striate.errors import DataError, Interrupted, UsageError
from striate.runs.journal import read_results, read_steps
from striate.settings.train import TrainSettings
from striate.training.begin import resume_job
from striate.training.changes import (
    CHANGEABLE,
    FREE,
    Change,
    change_settings,
    data_differences,
    environment_before,
    environment_differences,
    rate_in_cycles,
    settings_after,
    settings_before,
)
from striate.training.job import Job
from striate.training.schedule import rate

Start = Callable[..., Job]


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


def go_on(job: Job, *, data: Parts | None = None, allow: bool = False, **given: Any) -> Job:
    """Resume the run of a job, and keep what was said in `job.said`."""
    said: list[str] = []
    resumed = resume_job(
        job.folder, data=data or make_parts(), model=Small, given=given, allow_changes=allow, report=said.append,
        command="striate resume run",
    )  # fmt: skip
    resumed.said = said  # type: ignore[attr-defined]
    return resumed


def stop_in_epoch(job: Job, epoch: int) -> Job:
    happenings = job.run()
    while job.progress.epoch < epoch - 1 or job.progress.step_in_epoch == 0:
        next(happenings)
    job.stopping.signal = 2
    with pytest.raises(Interrupted):
        for _ in happenings:
            pass
    return job


def rates(job: Job) -> list[float]:
    lines = job.folder.file("steps.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [float(line.split(",")[2]) for line in lines]


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 4)


@pytest.mark.parametrize("schedule", ["constant", "step"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_constant_rate_goes_on_and_ends_as_if_the_run_had_been_longer(
    start: Start, schedule: str, finished: bool
) -> None:
    more = {"step_epochs": 2} if schedule == "step" else {}
    whole = finish(start("whole", epochs=4, schedule=schedule, **more))
    job = start("run", epochs=2, schedule=schedule, **more)
    finish(job) if finished else stop_in_epoch(job, 2)
    extended = finish(go_on(job, epochs="+2"))
    assert any("goes on" in line for line in extended.said)  # type: ignore[attr-defined]
    assert read_steps(whole.folder.path) == read_steps(extended.folder.path) and rates(whole) == rates(extended)
    for name in ("weights/last.safetensors", "weights/best.safetensors", "evaluation.json", "predictions.csv"):
        assert whole.folder.file(name).read_bytes() == extended.folder.file(name).read_bytes(), name


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "triangular", "linear"])
def test_another_schedule_runs_once_more_over_the_added_epochs(start: Start, schedule: str) -> None:
    job = finish(start("run", epochs=2, schedule=schedule))
    first = rates(job)
    extended = finish(go_on(job, epochs="+2"))
    assert any("once more" in line and "0.01" in line for line in extended.said)  # type: ignore[attr-defined]
    assert rates(extended) == first + first
    again = finish(go_on(extended, epochs=5))
    assert rates(again)[: len(first) * 2] == first + first
    assert max(rates(again)[len(first) * 2 :]) <= 0.01
    assert [row.epoch for row in read_results(again.folder.path)] == [1, 2, 3, 4, 5]


def test_an_interrupted_run_that_is_extended_first_ends_as_it_was_planned(start: Start) -> None:
    whole = finish(start("whole", epochs=3, schedule="cosine"))
    job = stop_in_epoch(start("run", epochs=3, schedule="cosine"), 2)
    extended = go_on(job, epochs="+1")
    stop_in_epoch(extended, 3)  # and a resume in between knows of it
    extended = finish(go_on(extended))
    planned = rates(whole)
    assert rates(extended)[: len(planned)] == planned
    per_epoch = len(planned) // 3
    assert rates(extended)[len(planned) :] == [
        rate(s, per_epoch, schedule="cosine", peak=0.01) for s in range(per_epoch)
    ]


def test_what_an_extension_records(start: Start) -> None:
    job = finish(start("run", epochs=2))
    extended = finish(go_on(job, epochs="+1"))
    folder = extended.folder
    changes = json.loads(folder.file("changes.json").read_text(encoding="utf-8"))
    assert changes["format"] == 1 and changes["changes"] == [
        {
            "step": 24,
            "epoch": 2,
            "command": "striate resume run",
            "settings": {"epochs": [2, 3]},
            "cycle": 2,
            "tested": True,
        }
    ]
    assert yaml.safe_load(folder.file("config.yaml").read_text(encoding="utf-8"))["epochs"] == 3
    assert folder.file("command.txt").read_text(encoding="utf-8").endswith("\nstriate resume run\n")
    assert any("test set will be looked at once more" in line for line in extended.said)  # type: ignore[attr-defined]
    assert folder.status()["epoch"] == 3


def test_best_is_kept_unless_beaten(start: Start) -> None:
    job = finish(start("run", epochs=3))
    best = dataclasses.replace(job.best)
    weights = (job.folder.weights / "best.safetensors").read_bytes()
    # At this rate the weights are thrown about, so nothing beats it.
    extended = finish(go_on(job, allow=True, epochs="+2", lr=50.0))
    assert extended.best.epoch == best.epoch and extended.best.sha256 == best.sha256
    assert (extended.folder.weights / "best.safetensors").read_bytes() == weights
    assert (extended.folder.weights / "last.safetensors").read_bytes() != weights or best.epoch == 3


def test_an_early_stopped_run_is_extended_from_where_it_ended(start: Start) -> None:
    job = finish(start("run", epochs=20, lr=1e-12, early_stop=2))
    ended = len(read_results(job.folder.path))
    assert ended < 10
    extended = finish(go_on(job, epochs="+3"))
    results = read_results(extended.folder.path)
    assert ended + 2 <= len(results) <= ended + 3


def test_a_finished_run_needs_more_epochs(start: Start) -> None:
    job = finish(start("run", epochs=2))
    for asked in ({}, {"epochs": 2}):
        with pytest.raises(UsageError, match="is finished") as caught:
            go_on(job, **asked)
        assert "--epochs +10" in caught.value.fix
    with pytest.raises(UsageError, match="less than"):
        go_on(job, epochs=1)
    with pytest.raises(UsageError, match="no number of epochs"):
        go_on(job, epochs="+x")
    assert not job.folder.file("changes.json").exists()


def test_a_changed_setting_is_refused_with_the_difference_or_recorded(start: Start) -> None:
    job = stop_in_epoch(start("run", epochs=3), 2)
    config = job.folder.file("config.yaml").read_bytes()
    with pytest.raises(UsageError) as caught:
        go_on(job, lr=0.5, label_smoothing=0.1)
    assert "label_smoothing 0.0 → 0.1, lr 0.01 → 0.5" in caught.value.what
    assert "--allow-changes" in caught.value.fix and caught.value.exit_code == 2
    with pytest.raises(UsageError) as caught:
        go_on(job, allow=True, batch_size=8)
    assert "--batch-size cannot change" in caught.value.what and "16 → 8" in caught.value.what
    with pytest.raises(UsageError, match="no effect"):
        go_on(job, allow=True, step_epochs=3)
    with pytest.raises(UsageError, match="unknown setting"):
        go_on(job, allow=True, rate=3)
    assert job.folder.file("config.yaml").read_bytes() == config and not job.folder.file("changes.json").exists()
    step = job.progress.step
    changed = finish(go_on(job, allow=True, lr=0.5, clip=1.0))
    assert rates(changed)[:step] == [0.01] * step and set(rates(changed)[step:]) == {0.5}
    entry = changed.folder.read_json("changes.json")["changes"][0]
    assert entry["settings"] == {"lr": [0.01, 0.5], "clip": [None, 1.0]} and entry["step"] == step
    assert any("lr 0.01 → 0.5" in line for line in changed.said)  # type: ignore[attr-defined]
    assert "changes.json" in changed.folder.file("config.yaml").read_text(encoding="utf-8").splitlines()[1]


def test_a_setting_given_as_it_was_changes_nothing(start: Start) -> None:
    whole = finish(start("whole", epochs=3))
    job = stop_in_epoch(start("run", epochs=3), 2)
    resumed = finish(go_on(job, lr="0.01", epochs="3", save_every="5"))
    assert not resumed.folder.file("changes.json").exists() and resumed.settings.save_every == "5"
    assert read_steps(resumed.folder.path) == read_steps(whole.folder.path)


def test_a_run_can_be_made_shorter_with_leave(start: Start) -> None:
    job = stop_in_epoch(start("run", epochs=5), 2)
    with pytest.raises(UsageError, match="epochs 5 → 3"):
        go_on(job, epochs=3)
    assert len(read_results(finish(go_on(job, allow=True, epochs=3)).folder.path)) == 3


def changed_parts(part: Parts, number: int) -> Parts:
    images = part.train.images.copy()
    images[number] ^= 1
    return Parts("made", Dataset("made", images, part.train.labels, part.train.classes))


def test_changed_data_are_refused_with_the_difference_or_recorded(start: Start) -> None:
    job = stop_in_epoch(start("run", epochs=3), 2)
    known = job.folder.read_json("data.json")["fingerprints"]["train"]
    other = changed_parts(make_parts(), 5)
    with pytest.raises(UsageError) as caught:
        go_on(job, data=other)
    assert known[:12] in caught.value.what and other.train.fingerprint[:12] in caught.value.what
    assert "--allow-changes" in caught.value.fix
    resumed = go_on(job, data=other, allow=True)
    assert any("fingerprint" in line and "allowed" in line for line in resumed.said)  # type: ignore[attr-defined]
    assert resumed.material.preprocess == job.material.preprocess, "mean and std are not measured anew"
    finish(resumed)
    assert len(resumed.folder.read_json("changes.json")["changes"][0]["data"]) == 1
    assert resumed.folder.read_json("data.json")["fingerprints"]["train"] == other.train.fingerprint


def test_data_that_the_split_does_not_fit_are_never_allowed(start: Start) -> None:
    job = stop_in_epoch(start("run", epochs=3), 2)
    train = make_parts().train
    fewer = Parts("made", train.take(np.arange(200)))
    renamed = Parts("made", Dataset("made", train.images, train.labels, ("a", "b", "x")))
    tested = Parts("made", train, test=train)
    for data, told in ((fewer, "240 → 200 pictures"), (renamed, "a, b, x"), (tested, "the test part is new")):
        with pytest.raises(UsageError) as caught:
            go_on(job, data=data, allow=data is not tested)
        assert told in caught.value.what


def files_of(names: dict[str, bytes]) -> Parts:
    """Pictures that came from files, in the order of their names, as a folder gives them."""
    train = make_parts().train
    sources = tuple(sorted(names))
    images = train.images.copy()[: len(sources)]
    for number, name in enumerate(sources):
        images[number, 0, 0, 0] = names[name][0]
    digests = tuple(hashlib.sha256(names[name]).hexdigest() for name in sources)
    groups = np.arange(len(sources))
    return Parts("made", Dataset("made", images, train.labels[: len(sources)], train.classes, sources, digests, groups))


def test_files_that_changed_are_named(start: Start) -> None:
    names = {f"cat/{number:03}.png": bytes([number]) for number in range(200)}
    job = stop_in_epoch(start("run", epochs=3, data=files_of(names), batch_size=8), 2)
    edited = {**names, "cat/007.png": b"x", "cat/008.png": b"y"}
    with pytest.raises(UsageError) as caught:
        go_on(job, data=files_of(edited))
    assert "other contents: cat/007.png, cat/008.png" in caught.value.what and "--allow-changes" in caught.value.fix
    swapped = {name: content for name, content in names.items() if name != "cat/001.png"} | {"cat/900.png": b"z"}
    with pytest.raises(UsageError) as caught:  # as many, but each with another number: the split does not fit
        go_on(job, data=files_of(swapped), allow=True)
    assert "gone: cat/001.png; new: cat/900.png" in caught.value.what
    finish(go_on(job, data=files_of(edited), allow=True))
    assert not data_differences(job.folder.read_json("data.json"), files_of(edited))
    assert job.folder.read_json("pictures.json")["parts"]["train"]["sha256"][7] == hashlib.sha256(b"x").hexdigest()


def test_another_environment_is_told_recorded_and_no_hindrance(start: Start) -> None:
    job = stop_in_epoch(start("run", epochs=2), 2)
    env = job.folder.read_json("env.json")
    job.folder.write_json("env.json", {**env, "torch": "2.10.0", "capability": ["avx512"]})
    resumed = go_on(job)
    line = next(line for line in resumed.said if "environment" in line)  # type: ignore[attr-defined]
    assert "torch 2.10.0 → " in line and "capability avx512 → " in line and "last digits" in line
    finish(resumed)
    entry = resumed.folder.read_json("changes.json")["changes"][0]
    assert entry["environment"]["torch"] == ["2.10.0", env["torch"]]
    assert resumed.folder.read_json("env.json")["torch"] == env["torch"], "told once, not at every resume"


def test_a_plan_that_cannot_be_replayed_is_made_anew(start: Start) -> None:
    job = stop_in_epoch(start("run", epochs=2), 2)
    env = job.folder.read_json("env.json")
    assert env["plan"]["precision"] == "fp32"
    threads = env["plan"]["threads"] + 1
    resumed = go_on(job, allow=True, threads=threads)
    assert resumed.learner.plan.threads == threads
    assert resumed.folder.read_json("env.json")["plan"]["threads"] == threads
    del resumed
    job.folder.write_json("env.json", {**env, "device": "cuda:0", "plan": {**env["plan"], "precision": "bf16"}})
    resumed = resume_job(job.folder, data=make_parts(), model=Small, report=print)
    assert resumed.learner.plan.precision == "fp32"


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.sampled_from(["constant", "step", "linear", "cosine", "one-cycle", "triangular"]),
)
def test_the_rate_in_cycles_is_that_of_runs_of_their_own(lengths: list[int], schedule: str) -> None:
    ends = np.cumsum(lengths).tolist()
    restarts = schedule not in ("constant", "step")
    named: dict[str, Any] = {"schedule": schedule, "peak": 0.5, "warmup": 0.1, "steps_per_epoch": 3, "step_epochs": 2}

    def rate_of(step: int, total: int, **more: Any) -> float:
        return rate(step, total, **named, **more)

    for step in range(ends[-1]):
        found = rate_in_cycles(step, ends[-1], rate=rate_of, firsts=tuple(ends[:-1]), restarts=restarts)
        number = next(n for n, end in enumerate(ends) if step < end)
        first = ends[number - 1] if number and restarts else 0
        assert found == rate_of(step - first, lengths[number] if restarts else ends[0]) and math.isfinite(found)


def test_settings_before_and_after_changes() -> None:
    now = TrainSettings(lr=0.5, epochs=30, clip=1.0)
    changes = [
        Change(5, 1, settings={"lr": [0.1, 0.2], "clip": [None, 1.0]}),
        Change(9, 2, settings={"lr": [0.2, 0.5], "epochs": [20, 30]}),
    ]
    begun = settings_before(now, changes)
    assert (begun.lr, begun.epochs, begun.clip) == (0.1, 20, None)
    assert settings_after(begun, changes) == now == settings_after(now, changes)


def test_every_setting_is_changeable_free_or_fixed_on_purpose() -> None:
    """A setting that is added is fixed until someone thinks about it."""
    assert set(TrainSettings.model_fields) >= CHANGEABLE | FREE
    recorded = TrainSettings()
    for name in ("model", "seed", "optimizer", "loss", "validation", "size"):
        value = {"model": "mlp", "seed": 3, "optimizer": "sgd", "validation": 0.3, "size": 9}.get(
            name, "mean-squared-error"
        )
        with pytest.raises(UsageError, match="cannot change within a run"):
            change_settings(recorded, {name: value}, begun=1, end=10, allowed=True, config="config.yaml")


def test_the_environment_that_matters() -> None:
    then = {"torch": "2.10", "processor": "A", "device": "cpu", "device_name": "A", "plan": {"threads": 2}, "cores": 4}
    now = {"torch": "2.10", "processor": "B", "device": "cpu", "device_name": "B", "plan": {"threads": 1}, "cores": 8}
    assert environment_differences(then, now) == {"threads": [2, 1], "processor": ["A", "B"]}
    assert environment_differences(then, then) == {}
    changes = [Change(1, 1, environment={"torch": ["2.9", "2.10"]}), Change(2, 1, environment={"threads": [3, 2]})]
    before = environment_before(then, changes)
    assert (before["torch"], before["plan"]["threads"], then["plan"]["threads"]) == ("2.9", 3, 2)


def test_a_damaged_changes_file_is_named(start: Start, tmp_path: Path) -> None:
    job = stop_in_epoch(start("run", epochs=2), 2)
    job.folder.file("changes.json").write_text("{")
    with pytest.raises(DataError, match=r"changes\.json cannot be read"):
        go_on(job)
