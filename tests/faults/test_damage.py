"""Flipped bits, truncated and empty files, wrong manifests: found when read, and no altered value is loaded."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.conftest import Count
from tests.faults.trainings import Host, assert_same_run, resume_arguments

from striate.errors import DataError
from striate.models.user import load_class
from striate.predictor.predictor import load_predictor
from striate.runs.checkpoint import BEST, MANIFEST, STATE, TENSORS, list_checkpoints, load_checkpoint
from striate.runs.tensors import read_tensors

FLIPS, TRUNCATIONS = 50, 25
CHECKPOINT = (TENSORS, STATE, BEST, MANIFEST)
MODEL = ("weights/best.safetensors", "model.json")
FILES = [("checkpoint", name) for name in CHECKPOINT] + [("model", name) for name in MODEL]


class Damaged:
    """A run of which one file at a time is damaged, and what is read of it then."""

    def __init__(self, run: Path, net: Path) -> None:
        self.run = run
        self.newest = list_checkpoints(run / "checkpoints")[-1]
        self.net = load_class(f"{net}:Net")
        self.whole = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        self.saved = {path: contents(path) for path in list_checkpoints(run / "checkpoints")}
        self.weights = read_tensors(run / "weights" / BEST)

    def path(self, kind: str, name: str) -> Path:
        """Return the file that is to be damaged."""
        return self.newest / name if kind == "checkpoint" else self.run / name

    def restore(self) -> None:
        """Undo all damage."""
        for path, content in self.whole.items():
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)

    def is_found(self, kind: str) -> bool:
        """Read the checkpoint or the model; say whether the damage was told. Asserts that nothing altered is loaded."""
        told: list[str] = []
        try:
            if kind == "model":
                predictor = load_predictor(self.run, model=self.net, device="cpu")
                assert same(predictor.net.state_dict(), self.weights), "altered weights were loaded"
                return False
            tensors, state, used = load_checkpoint(self.run / "checkpoints", told.append)
        except DataError as error:
            assert str(self.run) in error.what, "the error does not name the file"
            return True
        assert (tensors.keys(), state) == (self.saved[used][0].keys(), self.saved[used][1]), (
            "an altered state was loaded"
        )
        assert same(tensors, self.saved[used][0]), "altered tensors were loaded"
        assert used == self.newest or any(str(self.newest) in line for line in told), (
            "it does not say what it passed over"
        )
        return used != self.newest


def contents(checkpoint: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """Read a checkpoint that is whole."""
    return read_tensors(checkpoint / TENSORS), json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Say whether all tensors have the same bits."""
    return all(torch.equal(one[name], tensor) for name, tensor in other.items())


@pytest.fixture(scope="module")
def damaged(whole_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A copy of a run that ended well."""
    whole = whole_of("adamw")
    run = shutil.copytree(whole, tmp_path_factory.mktemp("damaged") / "run")
    return Damaged(run, whole.parent / "net.py")


@pytest.fixture(autouse=True)
def whole_before_and_after(damaged: Damaged) -> None:
    """Nothing is damaged when a test begins, and then nothing is told."""
    damaged.restore()
    assert not damaged.is_found("checkpoint") and not damaged.is_found("model")


def test_bit_flips(damaged: Damaged, count: Count) -> None:
    dice = random.Random(0)
    missed = []
    for number in range(FLIPS):
        kind, name = FILES[number % len(FILES)]
        path = damaged.path(kind, name)
        bit = dice.randrange(8 * len(damaged.whole[path]))
        path.write_bytes(flipped(damaged.whole[path], bit))
        if not damaged.is_found(kind):
            missed.append(f"bit {bit % 8} of byte {bit // 8} of {name}")
        damaged.restore()
    count("bit flips found", FLIPS - len(missed), FLIPS)
    assert not missed


@pytest.mark.parametrize("name", [MANIFEST, "model.json"])
def test_bit_flips_all_over_what_no_other_file_vouches_for(damaged: Damaged, name: str, count: Count) -> None:
    kind = dict((name, kind) for kind, name in FILES)[name]
    path = damaged.path(kind, name)
    whole = damaged.whole[path]
    # A flip of bit 5 changes the case of a letter; one of bit 0 makes another letter or figure.
    bits = [bit for bit in range(8 * len(whole)) if bit % 8 in (0, 5) or bit < 800]
    missed = []
    for bit in bits:
        path.write_bytes(flipped(whole, bit))
        if not damaged.is_found(kind):
            missed.append(f"bit {bit % 8} of byte {bit // 8}")
    count(f"bit flips found all over {name}", len(bits) - len(missed), len(bits))
    assert not missed


def test_truncations(damaged: Damaged, count: Count) -> None:
    dice = random.Random(1)
    missed = []
    for number in range(TRUNCATIONS):
        kind, name = FILES[number % len(FILES)]
        path = damaged.path(kind, name)
        content = damaged.whole[path]
        # The first of each file lacks its last byte alone; of a JSON file that would be the line's end.
        length = dice.randrange(1, len(content)) if number >= len(FILES) else len(content.rstrip()) - 1
        path.write_bytes(content[:length])
        if not damaged.is_found(kind):
            missed.append(f"{name} at {length} of {len(content)} bytes")
        damaged.restore()
    count("truncations found", TRUNCATIONS - len(missed), TRUNCATIONS)
    assert not missed


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_files_that_are_empty_or_gone(damaged: Damaged, kind: str, name: str, count: Count) -> None:
    path = damaged.path(kind, name)
    path.write_bytes(b"")
    assert damaged.is_found(kind)
    path.unlink()
    # Without its manifest a checkpoint is one that was never finished, which is nothing to tell of.
    assert damaged.is_found(kind) if name != MANIFEST else reads_the_one_before(damaged)
    count("empty and missing files found", 2, 2)


def reads_the_one_before(damaged: Damaged) -> bool:
    """Say whether the checkpoint before the newest is loaded."""
    tensors, state, used = load_checkpoint(damaged.run / "checkpoints", print)
    assert state == damaged.saved[used][1] and same(tensors, damaged.saved[used][0])
    return used == list_checkpoints(damaged.run / "checkpoints")[-1] != damaged.newest


def wrong_manifests(damaged: Damaged) -> dict[str, Any]:
    """Return manifests that belong to something else, or lie."""
    before = list_checkpoints(damaged.run / "checkpoints")[-2]
    right, other = (json.loads(damaged.whole[folder / MANIFEST]) for folder in (damaged.newest, before))
    digests = right["sha256"]
    return {
        "of another checkpoint": other,
        "of another checkpoint, with this step": {**other, "step": right["step"]},
        "with the digests of this one and the step of another": {**right, "step": other["step"]},
        "digests exchanged": {**right, "sha256": {**digests, TENSORS: digests[STATE], STATE: digests[TENSORS]}},
        "a file not listed": {**right, "sha256": {STATE: digests[STATE]}},
        "a file beside the folder": {**right, "sha256": {**digests, "../../config.yaml": digests[STATE]}},
        "a digest that is none": {**right, "sha256": {**digests, STATE: None}},
        "a format that is not written yet": {**right, "format": right["format"] + 1},
        "a format that never was": {**right, "format": 0},
        "empty": {},
        "a list": [],
    }


def test_wrong_manifests(damaged: Damaged, count: Count) -> None:
    manifests = wrong_manifests(damaged)
    missed = []
    for what, manifest in manifests.items():
        (damaged.newest / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        if not damaged.is_found("checkpoint"):
            missed.append(what)
        damaged.restore()
    count("wrong manifests found", len(manifests) - len(missed), len(manifests))
    assert not missed


def test_both_checkpoints_damaged(damaged: Damaged) -> None:
    for folder in list_checkpoints(damaged.run / "checkpoints"):
        path = folder / TENSORS
        path.write_bytes(flipped(damaged.whole[path], 4_000))
    with pytest.raises(DataError, match="holds no checkpoint that can be used") as caught:
        load_checkpoint(damaged.run / "checkpoints", print)
    assert caught.value.cause.count("is damaged") == 2 and "striate train --config" in caught.value.fix


def test_a_resumed_run_passes_over_the_damaged_checkpoint(host: Host, stopped: Path, whole: Path) -> None:
    newest = list_checkpoints(stopped / "checkpoints")[-1]
    path = newest / TENSORS
    path.write_bytes(flipped(path.read_bytes(), 40_000))
    process = host.run(stopped.parent, *resume_arguments("run"))
    assert f"checkpoint passed over: run/checkpoints/{newest.name}/{TENSORS} is damaged" in process.stderr
    assert_same_run(whole, stopped)


def flipped(content: bytes, bit: int) -> bytes:
    """Return the content with one bit the other way."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
