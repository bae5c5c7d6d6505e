"""health.json: what is measured is right, and measuring changes no bit of the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from striate.runs.tensors import read_tensors
from striate.training.health import HealthLog, fixed_batch, measure, read_health
from striate.training.job import Job


class Functional(nn.Module):
    """Every activation is a function; half of the first layer's units can never answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8 * 36, 5)
        self.out = nn.Linear(5, 3)
        self.register_buffer("runs", torch.zeros(()))
        with torch.no_grad():
            self.conv.bias[:4] = -1e6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        x = nn.functional.relu(self.conv(x))
        return self.out(torch.sigmoid(50 * self.fc(x.flatten(1))))


def test_what_is_measured(start: Callable[..., Job]) -> None:
    job = start("run", model=Functional)
    pictures, labels = fixed_batch(job.learner, job.material)
    assert pictures.shape == (64, 1, 8, 8) and len(labels) == 64
    found = measure(job.learner, pictures, labels)
    relu, sigmoid = found["activations"]
    assert (relu["kind"], relu["units"], relu["dead"]) == ("relu", 8, 0.5)
    assert (sigmoid["kind"], sigmoid["units"], sigmoid["dead"]) == ("sigmoid", 5, 0.0)
    with torch.no_grad():
        maps = nn.functional.relu(job.learner.net.conv(pictures))
        answers = torch.sigmoid(50 * job.learner.net.fc(maps.flatten(1)))
    assert relu["slope"] == pytest.approx(float((maps > 0).float().mean()), abs=1e-5)
    saturated = ((answers < 0.05) | (answers > 0.95)).float().mean()
    assert sigmoid["saturated"] == pytest.approx(float(saturated), abs=1e-5)
    assert sigmoid["slope"] == pytest.approx(float((answers * (1 - answers)).mean()), abs=1e-5)
    assert [weight["layer"] for weight in found["weights"]] == ["conv", "fc", "out"]
    loss = nn.functional.cross_entropy(job.learner.net.eval()(pictures), labels)
    loss.backward()
    assert found["loss"] == pytest.approx(loss.item())
    gradient = job.learner.net.out.weight.grad.square().mean().sqrt()
    assert found["weights"][2]["gradient"] == pytest.approx(float(gradient), rel=1e-4)


def test_a_look_leaves_no_trace(start: Callable[..., Job]) -> None:
    job = start("run", model=Functional)
    net = job.learner.net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    measure(job.learner, *fixed_batch(job.learner, job.material))
    assert net.training and all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_training_has_the_same_bits_without_looks(start: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    list((looked := start("looked", epochs=3)).run())
    monkeypatch.setattr(HealthLog, "end_epoch", lambda *_, **__: None)
    list((blind := start("blind", epochs=3)).run())
    assert [one["epoch"] for one in read_health(looked.folder)] == [1, 2, 3]
    assert read_health(blind.folder) == []
    one, other = (read_tensors(job.folder.weights / "last.safetensors") for job in (looked, blind))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [job.folder.file("steps.csv").read_text() for job in (looked, blind)]
    assert steps[0] == steps[1]


def test_a_net_that_cannot_be_looked_at_is_trained_all_the_same(
    start: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    def refuse(*_: Any) -> Any:
        raise RuntimeError("not under this mode\nmore")

    monkeypatch.setattr("striate.training.health.measure", refuse)
    job = start("run", report=lines.append)
    list(job.run())
    assert job.folder.status()["state"] == "finished"
    assert "the net's activations cannot be measured: not under this mode" in lines
