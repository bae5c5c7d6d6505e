"""A run that begins with the weights of another: what is taken, what is new, whose numbers hold, and freezing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.conftest import Small as OfThree
from tests.training.conftest import make_parts
from torch import nn

from striate.data.dataset import Dataset, Parts
from striate.errors import DataError, Interrupted, UsageError
from striate.models import list_models
from striate.models.registry import create_model
from striate.runs.folder import RunFolder
from striate.runs.model_file import read_card
from striate.runs.packed import pack_model
from striate.runs.tensors import read_tensors, write_tensors
from striate.settings.layers import resolve_train
from striate.training.begin import resume_job, start_job
from striate.training.job import Job
from striate.training.loop import recompute_batchnorm, train_epoch
from striate.training.starting import settings_of_start
from striate.training.state import state_tensors
from striate.training.verify import verify

GIVEN: dict[str, Any] = {
    "data": "made", "batch_size": 16, "epochs": 2, "schedule": "constant", "lr": 0.01, "weight_decay": 0.0,
    "device": "cpu", "label_smoothing": 0.0,
}  # fmt: skip


class Small(OfThree):
    """The small net for any number of classes."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.layers[7] = nn.Linear(36, num_classes)


def others(count: int = 200, classes: tuple[str, ...] = ("x", "y"), channels: int = 1, side: int = 8) -> Parts:
    """Pictures of other classes than those of the first run."""
    random = np.random.default_rng(1)
    labels = random.integers(0, len(classes), count)
    images = random.integers(0, 90, (count, side, side, channels)) + 60 * labels[:, None, None, None]
    return Parts("made", Dataset("made", images.astype(np.uint8), labels, classes))


def begin(out: Path, data: Parts, model: Any = None, **settings: Any) -> Job:
    given = {**GIVEN, "out": out, **settings}
    if isinstance(model, str):
        given["model"], model = model, None
    elif model is not None:
        given["model"] = "own:Small"
    resolved, _, _ = resolve_train(given, origin="argument", environ={}, start_of=settings_of_start)
    return start_job(resolved, data=data, model=model, report=print)


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of resnet20 on three classes."""
    out = tmp_path_factory.mktemp("first") / "run"
    return finish(begin(out, make_parts(), "resnet20", recipe="generic", epochs=1, mean=0.4, std=0.2)).folder


@pytest.fixture(scope="module")
def first_small(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of a class of the user's on three classes."""
    out = tmp_path_factory.mktemp("first") / "run"
    return finish(begin(out, make_parts(), Small, recipe="generic", epochs=1)).folder


def best(folder: RunFolder) -> dict[str, torch.Tensor]:
    return read_tensors(folder.weights / "best.safetensors")


def test_all_but_the_head_is_taken_and_the_numbers_are_the_starts(first: RunFolder, tmp_path: Path) -> None:
    job = begin(tmp_path / "next", others(side=12), init_from=str(first))
    weights, net = best(first), job.learner.net.state_dict()
    assert [name for name in net if not torch.equal(net[name], weights[name])] == ["fc.weight", "fc.bias"]
    preprocess = job.material.preprocess
    assert (preprocess.size, preprocess.mean, preprocess.std) == ((8, 8), (102.0,), (51.0,))
    assert job.parts.name == "resnet20" and job.settings.recipe == "transfer" and job.settings.init_from == str(first)
    record = job.folder.read_json("start.json")
    assert (record["kind"], record["from"], record["new"]) == ("run", str(first), ["fc"])
    assert record["sha256"] == read_card(first.path).weights["sha256"] and record["classes"] == ["a", "b", "c"]
    assert any(
        note.startswith(f"first weights from {first}: ") and note.endswith("new: fc") for note in job.parts.notes
    )
    job.held.close()


def test_given_numbers_hold_and_colour_becomes_gray(first: RunFolder, tmp_path: Path) -> None:
    job = begin(tmp_path / "next", others(channels=3, side=12), init_from=str(first), size=12, mean=0.5, std=0.25)
    assert job.material.preprocess.size == (12, 12) and job.material.preprocess.mean == (127.5,)
    assert job.material.train_images.shape[1:] == (12, 12, 1)
    finish(job)
    resumed = resume_job(job.folder, data=others(channels=3, side=12), given={"epochs": "+1"}, report=print)
    assert resumed.material.preprocess == job.material.preprocess
    resumed.held.close()


def test_the_same_classes_keep_the_head(first: RunFolder, tmp_path: Path) -> None:
    job = begin(tmp_path / "next", make_parts(), init_from=str(first))
    weights, net = best(first), job.learner.net.state_dict()
    assert all(torch.equal(net[name], weights[name]) for name in net)
    job.held.close()
    job = begin(
        tmp_path / "renamed", others(classes=("c", "b", "a")), init_from=str(first)
    )  # the same in another order
    assert not torch.equal(job.learner.net.state_dict()["fc.weight"], weights["fc.weight"])
    job.held.close()


def test_a_packed_model_and_a_file_of_weights(first: RunFolder, tmp_path: Path) -> None:
    weights = best(first)
    (tmp_path / "packed.safetensors").write_bytes(pack_model(read_card(first.path), weights))
    write_tensors(tmp_path / "plain.safetensors", weights)
    torch.save({"state_dict": weights}, tmp_path / "plain.pth")
    for name, model in (("packed.safetensors", None), ("plain.safetensors", "resnet20"), ("plain.pth", "resnet20")):
        job = begin(tmp_path / f"of-{name}", others(), model, init_from=str(tmp_path / name))
        net = job.learner.net.state_dict()
        assert [key for key in net if not torch.equal(net[key], weights[key])] == ["fc.weight", "fc.bias"], name
        job.held.close()


def test_what_cannot_be_joined_is_refused(first: RunFolder, first_small: RunFolder, tmp_path: Path) -> None:
    out, weights = tmp_path / "next", tmp_path / "plain.safetensors"
    write_tensors(weights, best(first))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"init_from": str(first), "model": "lenet5"}, "is a resnet20"),
        ({"init_from": str(weights)}, "weights without their model"),
        ({"init_from": str(weights), "model": "resnet32"}, "do not fit the net"),
        ({"init_from": str(first_small)}, "your own class Small"),
        ({"init_from": str(tmp_path / "nowhere")}, "unknown run"),
        ({"init_from": "torchvision"}, "needs a net"),
        ({"init_from": "torchvision", "model": "lenet5"}, "unknown net with weights of torchvision"),
        ({"freeze": 1, "model": "resnet20"}, "--freeze has no effect here"),
        ({"init_from": str(first), "freeze": "some"}, "freeze"),
    ]
    for settings, told in cases:
        with pytest.raises(UsageError) as caught:
            begin(out, others(), settings.pop("model", None), **settings)
        assert told in caught.value.what and not out.exists(), settings
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError):
        begin(out, others(), "resnet20", init_from=str(tmp_path / "broken.safetensors"))
    torch.save(nn.Linear(2, 2), tmp_path / "code.pth")
    with pytest.raises(DataError, match="never run"):
        begin(out, others(), "resnet20", init_from=str(tmp_path / "code.pth"))


def test_a_run_goes_on_and_is_verified_without_its_start(tmp_path: Path) -> None:
    start = finish(begin(tmp_path / "start", make_parts(), Small, recipe="generic", epochs=1)).folder
    more: dict[str, Any] = {"init_from": str(start), "freeze": 1, "epochs": 3, "augment": "shift:1", "ema": 0.9}
    whole = finish(begin(tmp_path / "whole", others(), Small, **more))
    for blocks in (1, 3):  # in the frozen epoch, and after it
        part = begin(tmp_path / f"part{blocks}", others(), Small, save_every="3", **more)
        stop_after(part, blocks)
        if blocks == 3:
            start.path.rename(tmp_path / "gone")
        again = finish(resume_job(part.folder, data=others(), model=Small, report=print))
        left, right = state_tensors(whole.learner), state_tensors(again.learner)
        assert left.keys() == right.keys()
        assert not [name for name in left if not torch.equal(left[name], right[name])]
        assert part.folder.file("steps.csv").read_text() == whole.folder.file("steps.csv").read_text()
    assert verify(whole.folder.path, data=others(), model=Small)["ok"]
    path = whole.folder.file("weights/start.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"start\.safetensors"):
        verify(whole.folder.path, data=others(), model=Small)


def stop_after(job: Job, blocks: int) -> None:
    with pytest.raises(Interrupted):
        for number, _ in enumerate(job.run(), 1):
            if number == blocks:
                job.stopping.signal = signal.SIGINT


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_the_body_stands_still_until_it_thaws(first_small: RunFolder, tmp_path: Path, optimizer: str) -> None:
    job = begin(tmp_path / "next", others(), Small, init_from=str(first_small), freeze=1, optimizer=optimizer)
    learner, start = job.learner, {name: t.clone() for name, t in job.learner.net.state_dict().items()}
    head = {"layers.7.weight", "layers.7.bias"}

    def changed() -> set[str]:
        return {name for name, t in learner.net.state_dict().items() if not torch.equal(t, start[name])}

    for _ in train_epoch(learner, job.progress):
        pass
    assert changed() == head  # BatchNorm's statistics too are those of the start
    named = dict(learner.net.named_parameters())
    assert {name for name, parameter in named.items() if learner.optimizer.state.get(parameter)} <= head
    recompute_batchnorm(learner.net, learner.batches, 0, kept=learner.norms_kept(0))
    assert changed() == head
    job.progress.next_epoch()
    for _ in train_epoch(learner, job.progress):
        pass
    no_effect = {"layers.0.bias", "layers.4.bias"}  # of a bias before BatchNorm, but for rounding
    assert changed() | no_effect == start.keys()
    job.held.close()


def test_frozen_to_the_end_a_net_of_the_users_is_theirs_again(first_small: RunFolder, tmp_path: Path) -> None:
    net = Small()
    job = finish(
        begin(tmp_path / "next", others(classes=("x", "y", "z")), net, init_from=str(first_small), freeze="all")
    )
    start, last = best(first_small), read_tensors(job.folder.weights / "last.safetensors")
    assert {name for name in start if not torch.equal(start[name], last[name])} == {"layers.7.weight", "layers.7.bias"}
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert any(note.startswith("frozen to the end: ") for note in job.parts.notes)


def test_rates_of_head_and_body(first: RunFolder, tmp_path: Path) -> None:
    job = begin(tmp_path / "next", others(), init_from=str(first), lr=0.001, head_lr=0.1, freeze=1, weight_decay=0.1)
    steps = len(job.learner.batches)
    rates = [{group["peak"]: group["lr"] for group in job.learner.optimizer.param_groups} for _ in [0]]
    job.learner.set_rates(steps - 1)
    asked = {name for name, parameter in job.learner.net.named_parameters() if parameter.requires_grad}
    job.learner.set_rates(steps)
    assert asked == {"fc.weight", "fc.bias"} and set(rates[0]) == {0.001, 0.1}
    assert all(parameter.requires_grad for parameter in job.learner.net.parameters())
    job.held.close()


def test_a_nets_whitening_is_taken_and_not_measured_anew(tmp_path: Path) -> None:
    options = {"widths": [8, 8, 8]}
    data = others(classes=("a", "b", "c"), side=12)
    start = finish(begin(tmp_path / "start", data, "airnet", recipe="generic", epochs=1, model_option=options))
    job = begin(tmp_path / "next", others(side=12), init_from=str(start.folder), freeze=1)
    weights, net = best(start.folder), job.learner.net.state_dict()
    assert [name for name in net if not torch.equal(net[name], weights[name])] == ["fc.weight"]
    job.held.close()


@pytest.mark.slow
def test_python_takes_a_run(first: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import striate

    monkeypatch.chdir(tmp_path)
    run = striate.train(others(), init_from=striate.Run(first), epochs=1, batch_size=16, quiet=True, device="cpu")
    again = striate.train(others(), config=run.folder / "config.yaml", quiet=True)
    assert (run.folder / "start.json").is_file()
    assert (run.folder / "steps.csv").read_text() == (again.folder / "steps.csv").read_text()
    assert "first weights:" in (run.folder / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("name", list_models())
def test_every_net_says_which_tensors_answer_for_the_classes(name: str) -> None:
    from striate.models.joining import head_names
    from striate.models.registry import native_shape

    classes, channels, size = native_shape(name)
    with torch.device("meta"):
        net = create_model(name, classes, channels, size)
    head = head_names(net, name, (channels, *size), classes)
    tensors = net.state_dict()
    assert head and all(tensors[key].shape[0] == classes for key in head)
    assert len({key.rpartition(".")[0] for key in head}) == (3 if name == "googlenet" else 1)
