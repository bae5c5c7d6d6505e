"""Files deleted, replaced or truncated while training: the data's, and the run's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import Count
from tests.faults.trainings import (
    Host,
    assert_same_run,
    assert_same_weights,
    train_arguments,
    wait_for_step,
    write_pictures,
)

from striate.runs.checkpoint import list_checkpoints

COMMON = ["--epochs", "3", "--batch-size", "16", "--save-every", "2", "--no-download"]


@dataclass
class Source:
    """Data on disk that a training reads: its arguments, its environment, and one of its files."""

    arguments: list[str]
    environment: dict[str, str]
    file: Path


def idx_source(place: Path) -> Source:
    """Write what looks like MNIST: 60,000 and 10,000 pictures of noise, of which few are used."""
    folder = place / "data" / "mnist"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:300] = random.integers(0, 256, (300, 28, 28))
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    ranges = ["--train-range", ":160", "--validation-range", "160:200", "--test-range", ":40"]
    arguments = ["mnist", "--model", "strided-cnn", "--data-root", "data", *ranges]
    return Source(arguments, {}, folder / "train-images-idx3-ubyte")


def folder_source(place: Path) -> Source:
    """Write a folder of pictures."""
    write_pictures(place / "pictures")
    return Source(
        ["pictures", "--model", "three-conv", "--size", "8"],
        {"XDG_CACHE_HOME": str(place / "cache")},
        place / "pictures" / "bee" / "07.png",
    )


def truncate(path: Path) -> None:
    """Cut a file in its middle, in place."""
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    """Put other pictures of the same form in a file's place."""
    other = sorted(path.parent.glob("*.png"))[0] if path.suffix == ".png" else path
    content = bytearray(other.read_bytes())
    if other == path:
        content[1_000] ^= 255
    path.unlink()
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], None]] = {"truncated": truncate, "replaced": replace, "deleted": Path.unlink}


@pytest.mark.parametrize("make", [idx_source, folder_source], ids=["named", "pictures"])
def test_data_files_change_while_training(
    host: Host, place: Path, make: Callable[[Path], Source], count: Count
) -> None:
    """What was read stays read. The resumed run wants the same data again, and goes on once it has them."""
    source = make(place)
    arguments = ["train", *source.arguments, *COMMON]
    host.run(place, *arguments, "--out", "whole", environment=source.environment)
    good = source.file.read_bytes()
    run = place / "run"
    process = host.start(
        place, *arguments, "--out", "run", disturb={"seconds_a_sync": 0.005}, environment=source.environment
    )
    wait_for_step(process, run, 2)
    for number, change in enumerate(CHANGES.values()):
        source.file.write_bytes(good)
        change(source.file)
        wait_for_step(process, run, 4 * number + 4)
    process.signal(signal.SIGTERM)
    assert process.wait() == 143, process.stderr
    for name, change in CHANGES.items():
        source.file.write_bytes(good)
        change(source.file)
        process = host.start(place, "resume", "run", environment=source.environment)
        assert process.wait() in (2, 3), f"data {name}: {process.stdout}"
        told = process.stderr
        assert source.file.name in told or "is not what the run was trained on" in told or "is not here" in told, told
        assert "fix:" in told
        count("changed data refused", 1, 1)
    source.file.write_bytes(good)
    host.run(place, "resume", "run", environment=source.environment)
    assert_same_run(place / "whole", run)


def logs(run: Path) -> list[Path]:
    return [run / "steps.csv", run / "results.csv"]


def documents(run: Path) -> list[Path]:
    return [run / name for name in ("config.yaml", "command.txt", "env.json", "data.json", "split.json", "status.json")]


def weights(run: Path) -> list[Path]:
    return [run / "weights" / "best.safetensors", run / "model.json"]


def newest_checkpoint(run: Path) -> list[Path]:
    return [list_checkpoints(run / "checkpoints")[-1]]


@pytest.mark.parametrize("files", [logs, documents, weights, newest_checkpoint], ids=lambda files: files.__name__)
@pytest.mark.parametrize("truncated", [False, True], ids=["deleted", "emptied"])
def test_the_runs_own_files_change_while_training(
    host: Host, place: Path, whole: Path, files: Callable[[Path], list[Path]], truncated: bool, count: Count
) -> None:
    """It goes on to the same end; only what was logged before is gone."""
    run = place / "run"
    process = host.start(place, *train_arguments("run"))
    wait_for_step(process, run, 30)
    for path in files(run):
        for file in (path,) if path.is_file() else tuple(path.iterdir()):
            file.write_bytes(b"") if truncated else file.unlink()
        if path.is_dir() and not truncated:
            path.rmdir()
    assert process.is_running(), "too late to disturb it"
    assert process.wait() == 0, process.stderr
    assert_same_weights(whole, run)
    count("changed run folders survived", 1, 1)


def test_the_run_folder_is_gone(host: Host, place: Path) -> None:
    run = place / "run"
    process = host.start(place, *train_arguments("run"))
    wait_for_step(process, run, 30)
    run.rename(place / "elsewhere")
    assert process.wait() in (1, 3), process.stderr
    assert "error: " in process.stderr and "run/" in process.stderr and "fix: " in process.stderr
