"""Training runs: the loop against a plain torch loop, faults, early stopping, nets as the articles write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import striate
from striate.data.builtin import load_named
from striate.device import key, seed_step
from striate.errors import DataError, NonFiniteLoss, UsageError
from striate.models.registry import create_model
from striate.runs.journal import read_results, read_steps
from striate.runs.tensors import read_tensors
from striate.settings.layers import resolve_train
from striate.training.begin import start_job
from striate.training.job import Job


def job_of(out: Path, model: Any = None, data: Any = None, **settings: Any) -> Job:
    given = {"data": "digits", "out": out, "epochs": 2, "recipe": "generic", **settings}
    if model is None:
        given.setdefault("model", "three-conv")
    resolved, _, _ = resolve_train(given, origin="argument", environ={})
    return start_job(resolved, model=model, data=data, report=lambda line: None)


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


def test_the_losses_are_those_of_a_plain_torch_loop(tmp_path: Path) -> None:
    """Same net, order and numbers, written as a tutorial writes it: the same losses to the last digit."""
    job = finish(job_of(tmp_path / "run", optimizer="sgd", lr=0.05, schedule="constant", seed=3, weight_decay=0.0))
    torch.manual_seed(key(3, "init"))
    net = create_model("three-conv", 10, 1, 8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), 0.05, 0.9, fused=True)
    losses = []
    with job.learner.plan.active():
        for epoch in range(2):
            for step, (images, labels) in enumerate(job.learner.batches.epoch(epoch)):
                seed_step(job.learner.device, 3, epoch, step)
                loss = functional.cross_entropy(net(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    steps, logged = read_steps(job.folder.path)
    assert steps == list(range(1, len(losses) + 1))
    assert logged == losses


def test_train_accuracy_and_loss_are_means_over_pictures(tmp_path: Path) -> None:
    job = finish(job_of(tmp_path / "run", batch_size=100))
    _, losses = read_steps(job.folder.path)
    per_epoch = len(job.learner.batches)
    sizes = [100] * (per_epoch - 1) + [len(job.material.split.train) % 100]
    wanted = np.average(losses[:per_epoch], weights=sizes)
    results = read_results(job.folder.path)
    assert results[0].train_loss == pytest.approx(wanted, rel=1e-6)
    assert 0 <= results[0].train_accuracy <= 1 and results[1].step == 2 * per_epoch


class Exploding(nn.Module):
    """Gives infinite logits after some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(64, 10)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return self.line(x.flatten(1)) * (float("inf") if self.calls > 30 else 1.0)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing_of_it(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run", model=Exploding, epochs=5, schedule="constant", lr=0.004)
    with pytest.raises(NonFiniteLoss) as caught:
        finish(job)
    text = str(caught.value)
    assert "at step " in text and "0.004" in text and "--lr" in text
    assert job.folder.status()["state"] == "failed"
    _, losses = read_steps(job.folder.path)
    assert losses and all(np.isfinite(losses))
    for path in job.folder.path.rglob("*.safetensors"):
        assert all(torch.isfinite(t).all() for t in read_tensors(path).values() if t.is_floating_point()), path


def test_without_validation_the_last_weights_are_the_best(tmp_path: Path) -> None:
    job = finish(job_of(tmp_path / "run", validation=0))
    best, last = (read_tensors(job.folder.weights / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best)
    assert job.temperature == 1.0 and read_results(job.folder.path)[0].val_accuracy is None


def test_early_stopping(tmp_path: Path) -> None:
    job = finish(job_of(tmp_path / "run", epochs=60, lr=0.02, early_stop=2, schedule="constant"))
    results = read_results(job.folder.path)
    assert len(results) < 60 and len(results) == job.best.epoch + 2


def test_the_best_epoch_is_the_one_of_the_highest_validation_accuracy(tmp_path: Path) -> None:
    job = finish(job_of(tmp_path / "run", epochs=6, lr=0.01))
    results = read_results(job.folder.path)
    wanted = max(results, key=lambda row: (row.val_accuracy, -(row.val_loss or 0)))
    assert job.best.epoch == wanted.epoch
    part, images, indices = job.material.pictures("validation")
    accuracy = (job.predictor().logits(images).argmax(1) == part.labels[indices]).mean()
    assert accuracy == pytest.approx(wanted.val_accuracy)


def test_clipping_bounds_every_step(tmp_path: Path) -> None:
    free = job_of(
        tmp_path / "a", optimizer="sgd", momentum=0.0, lr=1.0, schedule="constant", weight_decay=0.0, epochs=1
    )
    bound = job_of(
        tmp_path / "b",
        optimizer="sgd",
        momentum=0.0,
        lr=1.0,
        schedule="constant",
        weight_decay=0.0,
        epochs=1,
        clip=0.01,
    )
    moved = []
    for job in (free, bound):
        before = torch.cat([p.detach().flatten().clone() for p in job.learner.parameters])
        job.learner.batches.indices = job.learner.batches.indices[: job.settings.batch_size]
        job.learner.total_steps = 1
        finish(job)
        after = torch.cat([p.detach().flatten() for p in job.learner.net.parameters()])
        moved.append((after - before).norm().item())
    assert moved[1] <= 0.01 * 1.001 < moved[0]


def test_batchnorm_is_measured_anew_after_one_picture_a_step(tmp_path: Path) -> None:
    one, off = (finish(_one_picture_a_step(tmp_path / wanted, wanted)) for wanted in ("auto", "off"))
    left, right = one.tested.net.state_dict(), off.tested.net.state_dict()
    changed = {name for name in left if not torch.equal(left[name], right[name])}
    assert changed and all("running" in name or "tracked" in name for name in changed), "no weight may change"
    assert one.evaluation is not None and off.evaluation is not None
    assert one.evaluation.record["loss"] < off.evaluation.record["loss"]


def _one_picture_a_step(out: Path, wanted: str) -> Job:
    resolved, _, _ = resolve_train(
        {"data": "digits", "recipe": "tutorial-strided-cnn", "size": 16, "epochs": 1, "out": out,
         "train_range": "0:400", "recompute_batchnorm": wanted},
        origin="argument", environ={},
    )  # fmt: skip
    return start_job(resolved, report=lambda line: None)


class ArticleOne(nn.Module):
    """As the first article writes it: a class whose `train` is its own method, and a sigmoid at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 10, 3, stride=2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10), nn.Flatten(), nn.Linear(90, 10),
            nn.Sigmoid(),
        )  # fmt: skip
        self.loss_function = nn.BCELoss()
        self.optimiser = torch.optim.Adam(self.parameters())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs)

    def train(self, inputs: Any, targets: Any) -> None:  # type: ignore[override]
        outputs = self.forward(inputs)
        loss = self.loss_function(outputs, targets)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


class ViewNet(nn.Module):
    """As the third article writes it: `view(-1, n)` before the linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 18, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(18 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(functional.relu(self.conv1(x)))
        x = x.view(-1, 18 * 4 * 4)
        return self.fc2(functional.relu(self.fc1(x)))


def test_the_first_articles_class_trains_from_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digits = load_named("digits").train
    run = striate.train(
        (digits.images[..., 0], digits.labels), model=ArticleOne(), epochs=4, lr=0.01, quiet=True,
        loss="binary-cross-entropy",
    )  # fmt: skip
    assert run.evaluation["top1"]["value"] > 0.8
    answers = run.predict([digits.images[0], digits.images[1]])
    assert [answer.label for answer in answers] == ["0", "1"]
    again = striate.load(run.folder, model=ArticleOne())
    both = again.predict([digits.images[0], digits.images[1]])
    assert [answer.probabilities for answer in both] == [answer.probabilities for answer in answers]
    with pytest.raises(UsageError, match="your own class ArticleOne"):
        striate.load(run.folder)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "float"])
def test_a_net_with_view_trains_on_colour_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    monkeypatch.chdir(tmp_path)
    digits = load_named("digits").train
    images: Any = np.repeat(digits.images, 3, axis=3)
    if layout == "NCHW":
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
    elif layout == "float":
        images = (images / 255.0).astype(np.float32)
    run = striate.train((images, digits.labels), model=ViewNet(), epochs=3, lr=0.005, quiet=True)
    assert run.evaluation["top1"]["value"] > 0.7
    assert run.evaluate()["top1"] == run.evaluation["top1"]


def test_bad_input_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UsageError, "epochs", {"epochs": 0}),
        (UsageError, "unknown device", {"device": "tpu"}),
        (UsageError, "unknown model", {"model": "lenet6"}),
        (UsageError, "leaves a split empty", {"test": 0.001}),
        (UsageError, "striate calls it lr", {"learning_rate": 0.1}),
    ]
    for kind, words, settings in cases:
        settings.setdefault("model", "mlp")
        settings.setdefault("batch_size", 4)
        with pytest.raises(kind, match=words):
            striate.train((images, labels), quiet=True, **settings)
    with pytest.raises(DataError, match="out of range"):
        striate.Dataset("x", images[..., None], labels.astype(np.int64) + 1, ("a", "b"))
    assert not list(tmp_path.rglob("config.yaml")), "nothing half-made may stay"
