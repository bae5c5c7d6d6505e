"""Training from pictures on disk: chosen by itself, told in a line, recorded, and replayed with any other memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.training.conftest import Small, make_parts

from striate.data import disk
from striate.data.dataset import Parts
from striate.data.disk import is_on_disk
from striate.data.order import Blocks
from striate.errors import Interrupted, UsageError
from striate.runs.folder import RunFolder
from striate.runs.tensors import read_tensors
from striate.settings.layers import resolve_train
from striate.settings.values import parse_bytes, told_bytes
from striate.training.begin import resume_job, start_job
from striate.training.job import Job
from striate.training.material import within
from striate.training.verify import verify

Start = Callable[..., Job]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, elsewhere."""
    folder = tmp_path / "user" / "pictures"
    monkeypatch.setattr(disk, "default_folder", lambda: folder)
    monkeypatch.setattr("striate.data.cache.default_folder", lambda: folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three classes of 40 gray pictures of 16 × 16, in train and test."""
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 12)):
        for label in range(3):
            folder = tmp_path / "own" / split / "abc"[label]
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (16, 16)) + 60 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "own"


def finish(job: Job) -> Job:
    for _ in job.run():
        pass
    return job


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return read_tensors(folder.weights / "last.safetensors")


def same_weights(first: RunFolder, second: RunFolder) -> bool:
    one, other = weights(first), weights(second)
    return all(torch.equal(one[name], other[name]) for name in one)


def own(pictures: Path, out: Path, said: list[str], **more: Any) -> Job:
    given = {"data": str(pictures), "model": "lenet5", "recipe": "generic", "size": 16, "batch_size": 8, "epochs": 2,
             "device": "cpu", "out": out, "threads": 1, **more}  # fmt: skip
    settings, _, _ = resolve_train(given, origin="argument", environ={})
    return start_job(settings, report=said.append)


def test_pictures_that_fit_are_in_memory_and_shuffled_whole(pictures: Path, tmp_path: Path) -> None:
    said: list[str] = []
    job = own(pictures, tmp_path / "run", said)
    assert job.material.blocks is None and not is_on_disk(job.material.train_images)
    record = json.loads(job.folder.file("data.json").read_text())["order"]
    assert record == {"kind": "whole", "on_disk": False}
    assert yaml.safe_load(job.folder.file("config.yaml").read_text())["order"] == "whole"
    assert not any("disk" in line or "shuffled" in line for line in said)


def test_pictures_that_do_not_fit_lie_on_disk_and_come_in_blocks(pictures: Path, tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    job = own(pictures, tmp_path / "run", said, memory="20kb")  # they take 30 KB, with the test pictures 39
    train, test = job.material.parts.train.images, job.material.parts.part("test").images
    assert is_on_disk(train) and is_on_disk(test) and is_on_disk(job.material.train_images)
    blocks = Blocks.within(20 << 10, 256)
    assert job.material.blocks == blocks and job.learner.batches.blocks == blocks
    told = [line for line in said if "shuffled in blocks" in line]
    assert told == [
        f"train pictures take 30 KB, and 20 KB of memory are allowed: shuffled in blocks of {blocks.pictures},"
        f" {blocks.held} held at once (--order whole: all of them)"
    ]
    order = json.loads(job.folder.file("data.json").read_text())["order"]
    assert order == {
        "kind": "blocks", "pictures": blocks.pictures, "held": blocks.held, "on_disk": True, "memory": 20 << 10,
    }  # fmt: skip
    assert yaml.safe_load(job.folder.file("config.yaml").read_text())["order"] == str(blocks)
    finish(job)
    assert job.evaluation is not None and job.evaluation.record["samples"] == 36
    kept = [path.name for path in cache.rglob("*") if path.is_file()]
    assert all(name.endswith((".pack", ".lock")) for name in kept)  # what training reads from has no name


def test_the_same_order_gives_the_same_bits_in_memory_and_on_disk(pictures: Path, tmp_path: Path) -> None:
    jobs = [
        finish(own(pictures, tmp_path / name, [], memory=memory, order="blocks:3,8", epochs=1))
        for name, memory in (("disk", "20kb"), ("memory", "1gb"))
    ]
    assert [is_on_disk(job.material.train_images) for job in jobs] == [True, False]
    assert same_weights(*(job.folder for job in jobs))
    assert jobs[0].evaluation is not None and jobs[1].evaluation is not None
    assert jobs[0].evaluation.record == jobs[1].evaluation.record
    whole = finish(own(pictures, tmp_path / "whole", [], memory="20kb", order="whole", epochs=1))
    plain = finish(own(pictures, tmp_path / "plain", [], epochs=1))
    assert is_on_disk(whole.material.train_images) and same_weights(whole.folder, plain.folder)
    assert not same_weights(whole.folder, jobs[0].folder)


@pytest.mark.parametrize(("balance", "order"), [("none", "auto"), ("sampler", "blocks:5,6")])
def test_resume_replays_the_order_whatever_memory_there_is(
    balance: str, order: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("striate.training.loop.RECORD_STEPS", 4)
    whole, cut = (
        own(pictures, tmp_path / name, [], memory="20kb", augment="shift:1", balance=balance, order=order)
        for name in ("whole", "cut")
    )
    finish(whole)
    with pytest.raises(Interrupted):
        for number, _ in enumerate(cut.run(), 1):
            if number == 2:
                cut.stopping.signal = signal.SIGTERM
    assert 0 < cut.progress.step_in_epoch < len(cut.learner.batches)  # in the middle of an epoch
    recorded = cut.material.blocks
    resumed = resume_job(cut.folder, given={"memory": "2gb"}, report=lambda line: None)
    assert resumed.material.blocks == recorded and not is_on_disk(resumed.material.train_images)
    finish(resumed)
    assert same_weights(whole.folder, resumed.folder)
    assert not resumed.folder.file("changes.json").is_file()  # where pictures lie changes no number
    assert verify(resumed.folder.path, steps=5)["ok"]


def test_a_resume_may_not_take_another_order_but_with_leave(start: Start) -> None:
    job = start("run", order="blocks:4,8", epochs=1)
    finish(job)
    for order in ("whole", "blocks:8,8"):
        with pytest.raises(UsageError, match="order"):
            resume_job(job.folder, data=make_parts(), model=Small, given={"order": order, "epochs": 2}, report=print)
    given = {"order": "blocks", "epochs": 2, "memory": "8kb"}
    resumed = resume_job(
        job.folder, data=make_parts(), model=Small, given=given, allow_changes=True, report=lambda line: None
    )
    changes = json.loads(resumed.folder.file("changes.json").read_text())["changes"]
    assert changes[0]["settings"]["order"] == ["blocks:4,8", str(Blocks.within(8 << 10, 64))]
    assert resumed.settings.order == str(Blocks.within(8 << 10, 64))


def test_a_run_that_was_shuffled_whole_stays_so_on_a_smaller_machine(pictures: Path, tmp_path: Path) -> None:
    job = finish(own(pictures, tmp_path / "run", [], epochs=1))
    given = {"memory": "20kb", "epochs": 2}
    resumed = resume_job(job.folder, given=given, report=lambda line: None)
    assert is_on_disk(resumed.material.train_images) and resumed.material.blocks is None


def test_a_named_set_above_the_allowance_moves_to_disk(tmp_path: Path) -> None:
    said: list[str] = []
    job = own(Path("digits"), tmp_path / "run", said, memory="64kb", model="three-conv", size=None, epochs=1)
    assert is_on_disk(job.material.train_images) and job.material.blocks is not None
    assert any("digits takes 112.3 KB: it lies on disk" in line for line in said)
    assert within(job.material.parts, 1 << 30, said.append) is job.material.parts


def test_pictures_brought_to_a_larger_size_lie_on_disk(start: Start) -> None:
    """Small arrays of the caller's stay where they are; what is made of them obeys the allowance."""
    job = start("run", memory="64kb", size=32, model="lenet5", augment="crop:0.5", epochs=1)
    assert not is_on_disk(job.material.parts.train.images) and is_on_disk(job.material.train_images)
    assert job.material.blocks is not None
    other = start("other", memory="1gb", size=32, model="lenet5", augment="crop:0.5", epochs=1)
    assert job.material.preprocess == other.material.preprocess
    assert np.array_equal(job.material.train_images, other.material.train_images)


def test_a_map_of_the_users_is_trained_from_where_it_lies(start: Start, tmp_path: Path) -> None:
    parts = make_parts()
    np.save(tmp_path / "images.npy", parts.train.images)
    mapped = np.lib.format.open_memmap(tmp_path / "images.npy", mode="r")
    data = Parts("made", replace(parts.train, images=np.asarray(mapped)))
    jobs = [
        finish(start(name, data=data, memory="4kb", order="blocks:8,4", epochs=1, model=Small)) for name in ("a", "b")
    ]
    assert np.shares_memory(jobs[0].material.train_images, mapped)
    inside = finish(start("c", order="blocks:8,4", epochs=1))
    assert same_weights(jobs[0].folder, jobs[1].folder) and same_weights(jobs[0].folder, inside.folder)


def test_an_npz_file_above_the_allowance_is_read_to_disk(tmp_path: Path) -> None:
    part = make_parts().train
    for name, images in (("a", part.images), ("b", (part.images / 255).transpose(0, 3, 1, 2))):
        np.savez_compressed(tmp_path / f"{name}.npz", images=images, labels=part.labels)
        job = own(tmp_path / f"{name}.npz", tmp_path / name, [], memory="8kb", size=8, model="three-conv", epochs=1)
        record = job.material.parts.train
        assert is_on_disk(record.images) and np.array_equal(np.sort(record.labels), np.sort(part.labels))
        assert sorted(map(bytes, record.images)) == sorted(map(bytes, part.images))


def test_amounts_of_memory() -> None:
    assert [parse_bytes(text) for text in ("1kb", "1.5MB", "2 gb")] == [1 << 10, 3 << 19, 2 << 30]
    assert [told_bytes(size) for size in (100, 1 << 10, 3 << 19, 5 << 30)] == ["0.1 KB", "1 KB", "1.5 MB", "5 GB"]
    for text in ("", "gb", "5", "-1gb", "0gb", "1e3mb", "5 pb"):
        with pytest.raises(ValueError, match="512mb"):
            parse_bytes(text)
    with pytest.raises(UsageError, match="memory"):
        resolve_train({"memory": "lots"}, origin="argument", environ={})


# --- larger than memory, in earnest ----------------------------------------------------------------------------------


def write_photographs(folder: Path, count: int, side: int) -> None:
    """Write JPEGs of soft shapes, each its own, in five classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        label = number % 5
        low = random.integers(0, 120, (6, 6, 3)) + 25 * label
        image = Image.fromarray(low.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        path = folder / f"class{label}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=60)


def peak_of(command: list[str], environment: dict[str, str], patience: float) -> int:
    """Run a command; return the most megabytes of anonymous memory that it held."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end, peak = time.monotonic() + patience, 0
    while process.poll() is None:
        assert time.monotonic() < end
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        if "RssAnon:" in status:
            peak = max(peak, int(status.split("RssAnon:")[1].split()[0]) >> 10)
        time.sleep(0.01)
    out = process.stdout.read() if process.stdout else ""
    assert process.returncode in (0, 3), out  # 3: check has something to be decided
    return peak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_training_on_many_times_the_allowance_in_bounded_memory(tmp_path: Path) -> None:
    """574 MB of decoded pictures, 64 MB allowed: train, report (evaluate, too) and check hold a fraction of them."""
    write_photographs(tmp_path / "many", 4_000, 224)
    write_photographs(tmp_path / "few", 400, 224)  # as many as a batch of answers, and no more than is allowed
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OPENBLAS_NUM_THREADS": "1"}
    striate = [sys.executable, "-m", "striate"]
    peaks: dict[str, dict[str, int]] = {"few": {}, "many": {}}
    for data, found in peaks.items():
        run = tmp_path / f"run-{data}"
        options = ["--model", "strided-cnn", "--size", "224", "--memory", "64mb", "--batch-size", "16", "--epochs", "1"]
        verbs = {
            "train": ["train", str(tmp_path / data), *options, "--out", str(run), "--augment", "flip"],
            "report": ["report", str(run)],  # from the cache
            "check": ["check", str(tmp_path / data), "--size", "224", "--memory", "64mb"],
        }
        for verb, command in verbs.items():
            found[verb] = peak_of([*striate, *command], environment, 400)
    assert json.loads((tmp_path / "run-many" / "data.json").read_text())["order"]["on_disk"]
    for verb, peak in peaks["many"].items():
        # The allowance and 2.5 KB a picture are stated (docs/large.md): 74 MB; a bomb is three times that.
        assert peak - peaks["few"][verb] < 3 * 74, peaks
