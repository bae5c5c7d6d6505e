"""A run from claim to test: what stands on disk after faults, stops at bad moments, and the end."""

from __future__ import annotations

import csv
import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.data.dataset import Dataset, Parts
from striate.errors import Interrupted, LockHeld, NonFiniteLoss, StriateError, UsageError
from striate.runs.folder import RunFolder
from striate.runs.journal import EpochResult, Journal, read_results, read_steps
from striate.runs.model_file import read_card, read_weights
from striate.runs.tensors import read_tensors
from striate.training import job as job_module
from striate.training import saving
from striate.training.job import Best, Job
from striate.training.state import state_tensors

Start = Callable[..., Job]
TIMED = ("seconds", "images_per_second", "peak_memory_mb")


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


def table(job: Job, name: str) -> list[dict[str, str]]:
    with open(job.folder.file(name), encoding="utf-8", newline="") as stream:
        return [{key: value for key, value in row.items() if key not in TIMED} for row in csv.DictReader(stream)]


def assert_same_run(one: Job, other: Job) -> None:
    for name in ("steps.csv", "results.csv", "predictions.csv"):
        assert table(one, name) == table(other, name), name
    for name in ("best", "last"):
        first, second = (read_tensors(job.folder.weights / f"{name}.safetensors") for job in (one, other))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], name
    first, second = state_tensors(one.learner), state_tensors(other.learner)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert one.folder.read_json("evaluation.json") == other.folder.read_json("evaluation.json")
    assert one.best == other.best and one.temperature == other.temperature


def all_finite(folder: RunFolder) -> bool:
    files = list(folder.path.rglob("*.safetensors"))
    tensors = [tensor for path in files for tensor in read_tensors(path).values()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


def stop_at_the_end_of(job: Job, epoch: int) -> None:
    with pytest.raises(Interrupted):
        for happening in job.run():
            if isinstance(happening, EpochResult) and happening.epoch == epoch:
                job.stopping.signal = signal.SIGTERM


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}, {"ema": 0.9, "recompute_batchnorm": "on"}, {"validation": 0}])
@pytest.mark.parametrize("epoch", [1, 2])
def test_stopped_between_epochs_or_before_the_test(
    start: Start, resume: Callable[..., Job], settings: dict[str, Any], epoch: int
) -> None:
    whole = finish(start("whole", **settings))
    job = start("stopped", **settings)
    stop_at_the_end_of(job, epoch)
    assert job.folder.status()["state"] == "interrupted" and not job.folder.file("evaluation.json").exists()
    assert_same_run(whole, finish(resume(job.folder)))


@pytest.mark.parametrize("settings", [{}, {"recompute_batchnorm": "on", "batch_size": 30}])
def test_stopped_after_the_last_step_of_an_epoch(
    start: Start, resume: Callable[..., Job], settings: dict[str, Any]
) -> None:
    """Validation, best weights and statistics of that epoch are still to come, with dropout in the net."""
    whole = finish(start("whole", **settings))
    job = start("stopped", **settings)
    job.stopping.signal = signal.SIGINT  # seen at the first block, which holds the whole epoch
    with pytest.raises(Interrupted):
        finish(job)
    assert job.progress.step_in_epoch == len(job.learner.batches) and not read_results(job.folder.path)
    assert_same_run(whole, finish(resume(job.folder)))


def test_a_crash_between_an_epochs_row_and_its_save(
    start: Start, resume: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(start("whole"))
    job = start("crashed", save_every="1")  # so that there is a save after the last step, too
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add_result", crash_after(Journal.add_result))
        with pytest.raises(ZeroDivisionError):
            finish(job)
    assert len(read_results(job.folder.path)) == 1 and job.folder.status()["state"] == "failed"
    resumed = finish(resume(job.folder))
    assert [row.epoch for row in read_results(resumed.folder.path)] == [1, 2]
    assert_same_run(whole, resumed)


def crash_after(method: Callable[..., None]) -> Callable[..., None]:
    def crash(self: Journal, *arguments: Any) -> None:
        method(self, *arguments)
        raise ZeroDivisionError

    return crash


def test_resuming_a_run_that_is_at_work_changes_nothing(start: Start, resume: Callable[..., Job]) -> None:
    job = start("run", epochs=3, save_every="1")
    whole = finish(start("whole", epochs=3))
    for happening in job.run():
        if isinstance(happening, EpochResult) and happening.epoch == 2:
            logged = job.folder.file("steps.csv").read_bytes()
            with pytest.raises(LockHeld):
                resume(job.folder)
            assert job.folder.file("steps.csv").read_bytes() == logged
            assert job.folder.status()["state"] == "running"
    assert_same_run(whole, job)


def test_pictures_missing_at_resume_are_told_as_changed_data(start: Start, resume: Callable[..., Job]) -> None:
    job = start("run")
    stop_at_the_end_of(job, 1)
    whole = job.material.parts.train
    fewer = Parts("made", whole.take(np.arange(50)))
    with pytest.raises(UsageError, match="the train part changed: 240 → 50 pictures") as caught:
        resume(job.folder, data=fewer)
    assert caught.value.exit_code == 2


class RunsAway(nn.Module):
    """Its loss is 1.1 at every step, and after some of them its weight becomes what it is told."""

    def __init__(self, step: int = 3, value: float = float("inf")) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.step, self.value, self.calls = step, value, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.step:
                self.weight.register_hook(lambda gradient: torch.full_like(gradient, self.value))
            return x.flatten(1)[:, :3] * 0 + self.weight.nan_to_num(0.0, 0.0, 0.0)
        return x.flatten(1)[:, :3] * 0 + self.weight


@pytest.mark.parametrize("settings", [{}, {"validation": 0}, {"save_every": "1"}, {"ema": 0.5, "validation": 0}])
def test_weights_that_ran_away_behind_a_finite_loss_are_not_saved(start: Start, settings: dict[str, Any]) -> None:
    job = start("run", model=RunsAway(), optimizer="sgd", momentum=0.0, **settings)
    with pytest.raises(NonFiniteLoss) as caught:
        finish(job)
    assert "at step" in caught.value.what and "0.01" in caught.value.cause and "--lr 0.001" in caught.value.fix
    assert caught.value.exit_code == 1
    assert job.folder.status()["state"] == "failed" and all_finite(job.folder)
    assert not job.folder.file("evaluation.json").exists()


def test_a_rate_of_1e30_stops_with_step_rate_and_advice(start: Start) -> None:
    job = start("run", lr=1e30, optimizer="sgd", epochs=4)
    with pytest.raises(NonFiniteLoss) as caught:
        finish(job)
    assert "at step" in caught.value.what and "1e+30" in caught.value.cause and "--clip" in caught.value.fix
    status = job.folder.status()
    assert status["state"] == "failed" and status["reason"] == caught.value.what
    assert all_finite(job.folder) and all(np.isfinite(read_steps(job.folder.path)[1]))


def test_any_other_error_marks_the_run_failed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    job = start("run")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(job_module, "evaluate_pictures", fail)
    with pytest.raises(RuntimeError):
        finish(job)
    assert job.folder.status()["state"] == "failed" and job.folder.status()["reason"] == "out of luck"
    dropped = start("dropped")
    happenings = dropped.run()
    next(happenings)
    happenings.close()  # type: ignore[attr-defined]
    assert dropped.folder.status()["state"] == "interrupted"
    with dropped.folder.lock():
        pass


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    start: Start, resume: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(start("whole"))
    job = start("run")
    save = saving.save_checkpoint

    def full(folder: Path, step: int, *arguments: Any) -> Any:
        if step > len(job.learner.batches):
            raise StriateError("could not write checkpoint", "No space left on device", "make room")
        return save(folder, step, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(saving, "save_checkpoint", full)
        with pytest.raises(StriateError, match="could not write"):
            finish(job)
    assert job.folder.status()["state"] == "failed"
    assert_same_run(whole, finish(resume(job.folder)))


@pytest.mark.parametrize(
    ("save_every", "wanted"), [("4", [0, 4, 8, 12]), ("8", [0, 8, 12]), ("30s", [0, 3, 6, 9, 12]), (None, [0, 12])]
)
def test_saves_within_an_epoch(
    start: Start, monkeypatch: pytest.MonkeyPatch, save_every: str | None, wanted: list[int]
) -> None:
    """Twelve steps, one a block; by the clock of this test a look at it takes ten seconds."""
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 1)
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(saving.time, "monotonic", lambda: next(clock))
    saved: list[int] = []
    save = saving.save_checkpoint
    monkeypatch.setattr(
        saving, "save_checkpoint", lambda folder, step, *rest: (saved.append(step), save(folder, step, *rest))[1]
    )
    finish(start("run", epochs=1, save_every=save_every))
    assert sorted(set(saved)) == wanted


def test_the_handlers_of_signals_are_given_back(start: Start) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number, _ in enumerate(start("run").run()):
        if number == 0:
            assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_torch_computes_as_before_after_a_run(start: Start) -> None:
    before = (torch.get_num_threads(), torch.backends.mkldnn.enabled, torch.is_grad_enabled())
    finish(start("run", threads=before[0] + 1, epochs=1, batch_size=100))
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled, torch.is_grad_enabled()) == before


def test_the_shipped_weights_are_those_that_were_tested(start: Start, small: Any) -> None:
    for settings in ({}, {"ema": 0.8}, {"validation": 0, "ema": 0.8}):
        job = finish(start(f"run-{len(settings)}", epochs=3, **settings))
        card = read_card(job.folder.path)
        weights = read_weights(job.folder.path, card)
        assert all(torch.equal(weights[name], value) for name, value in job.tested.net.state_dict().items())
        assert card.weights["epoch"] == job.best.epoch and card.temperature == job.temperature
        net = small()
        net.load_state_dict(weights)
        net.eval()
        part, images, indices = job.material.pictures("test")
        with torch.inference_mode():
            answers = net(job.material.preprocess.normalise(torch.from_numpy(images[:]))).argmax(1).numpy()
        assert job.evaluation is not None
        assert job.evaluation.record["top1"]["value"] == (answers == part.labels[indices]).mean()
        if "ema" in settings:
            learned = job.learner.net.state_dict()
            assert any(not torch.equal(learned[name], value) for name, value in weights.items())


def test_the_average_is_the_one_worked_out_step_by_step(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    job = start("run", epochs=1, ema=0.5, validation=0)
    assert job.learner.average is not None
    first = {name: value.clone() for name, value in job.learner.net.state_dict().items()}
    update = job.learner.average.update

    def watch(net: nn.Module, step: int, total: int) -> None:
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
        update(net, step, total)

    monkeypatch.setattr(job.learner.average, "update", watch)
    finish(job)
    assert len(seen) == len(job.learner.batches)
    name = "layers.7.weight"
    wanted = first[name].double()
    for step, state in enumerate(seen):
        share = max(0.5, 9 / (10 + step))
        wanted = wanted * (1 - share) + state[name].double() * share
    shipped = read_tensors(job.folder.weights / "best.safetensors")[name]
    torch.testing.assert_close(shipped.double(), wanted, rtol=1e-5, atol=1e-6)


def test_early_stopping_counts_epochs_without_a_better_validation(start: Start) -> None:
    said: list[str] = []
    job = finish(start("run", epochs=30, lr=1e-12, early_stop=3, report=said.append))
    results = read_results(job.folder.path)
    accuracies = [row.val_accuracy for row in results]
    assert 4 <= len(results) < 30 and len(results) == job.best.epoch + 3
    assert accuracies[job.best.epoch - 1] == max(accuracies, key=lambda value: value or 0)
    assert any("stopped early" in line and "3 epochs" in line for line in said)
    assert job.folder.status()["state"] == "finished"


def test_balance_changes_what_is_learned(start: Start) -> None:
    random = np.random.default_rng(1)
    labels = (random.random(300) < 0.1).astype(np.int64) * 2
    labels[:5] = 1
    images = random.integers(0, 256, (300, 8, 8, 1)).astype(np.uint8)  # noise: only the shares can be learned
    data = Parts("made", Dataset("made", images, labels, ("a", "b", "c")))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        model[1].weight.zero_()
    biases = []
    for name, weights in (("plain", "none"), ("weighed", "loss"), ("drawn", "sampler"), ("chosen", "auto")):
        with torch.no_grad():
            model[1].bias.zero_()
            model[1].weight.zero_()
        job = finish(start(name, data=data, model=model, balance=weights, epochs=6, lr=0.01))
        _, pictures, _ = job.material.pictures("test")
        biases.append(job.predictor().logits(pictures).mean(0))
    plain, weighed, drawn, chosen = (bias[0] - bias[2] for bias in biases)
    assert plain > weighed + 0.2 and plain > drawn + 0.2
    assert chosen == weighed, "the classes are uneven: auto is the loss"


def test_what_beats_the_best() -> None:
    best = Best(1, 0.9, loss=0.5)
    assert best.is_beaten_by(0.91, 9.0) and best.is_beaten_by(0.9, 0.4)
    assert not best.is_beaten_by(0.9, 0.5) and not best.is_beaten_by(0.89, 0.1)
    assert not best.is_beaten_by(0.95, float("nan")) and Best().is_beaten_by(0.0, float("inf"))
