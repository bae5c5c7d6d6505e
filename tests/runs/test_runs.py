"""Run folders, checkpoints, logs and model files: claims, damage, formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from striate.data.preprocess import Preprocess
from striate.errors import DataError, LockHeld, UsageError
from striate.runs.checkpoint import KEPT, clean_checkpoints, load_checkpoint, save_checkpoint
from striate.runs.folder import RunFolder, claim_run, open_run
from striate.runs.journal import EpochResult, Journal, read_results, read_steps
from striate.runs.model_file import ModelCard, read_card, read_weights, write_card
from striate.runs.tensors import read_tensors, write_tensors


def test_claims_by_many_processes_are_all_different(tmp_path: Path) -> None:
    code = "from pathlib import Path; from striate.runs.folder import claim_run; print(claim_run('d', 'm', None).path)"
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    names = [process.communicate(timeout=60)[0].strip() for process in started]
    assert sorted(Path(name).name for name in names) == [f"d-m-{n}" for n in range(1, 7)]
    assert (tmp_path / "runs" / "latest").read_text().strip() in {Path(name).name for name in names}


def test_out_is_exactly_the_folder_and_must_be_empty(tmp_path: Path) -> None:
    folder = claim_run("d", "m", tmp_path / "mine")
    assert folder.path == tmp_path / "mine" and folder.weights.is_dir()
    with pytest.raises(UsageError, match="not empty"):
        claim_run("d", "m", tmp_path / "mine")


def test_names_become_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert claim_run("../étrange/名", "net.py:My Net", None).path.parent == Path("runs")


def test_open_run_by_folder_name_and_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = claim_run("digits", "mlp", None)
    made.file("config.yaml").write_text("data: digits\n")
    for name in ("runs/latest", "latest", "digits-mlp-1", str(made.path), str(made.path.resolve())):
        assert open_run(name).path.resolve() == made.path.resolve(), name
    with pytest.raises(UsageError, match="digits-mlp-1"):
        open_run("digits-mlp-2")
    with pytest.raises(DataError, match="no run folder"):
        open_run(tmp_path)


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    with RunFolder(tmp_path).lock(), pytest.raises(LockHeld, match="process") as caught, RunFolder(tmp_path).lock():
        pass
    assert str(tmp_path) in str(caught.value)


TENSORS = {
    "net.a": torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "step": torch.tensor(3),
}


def test_tensors_keep_values_through_any_layout(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t.safetensors", {**TENSORS, "shared": TENSORS["net.a"]})
    read = read_tensors(tmp_path / "t.safetensors")
    assert torch.equal(read["net.a"], TENSORS["net.a"]) and torch.equal(read["shared"], TENSORS["net.a"])
    assert read["step"].item() == 3


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_damaged_tensors_are_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.safetensors"):
        read_tensors(tmp_path / "t.safetensors")


def test_two_checkpoints_are_kept_and_the_newest_good_one_is_read(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, TENSORS, {"format": 1, "step": step})
    assert len(list(tmp_path.iterdir())) == KEPT
    assert load_checkpoint(tmp_path, print)[1]["step"] == 10
    manifest = tmp_path / "step-000000010" / "manifest.json"
    manifest.unlink()  # a save that was cut off: no manifest, no checkpoint
    assert load_checkpoint(tmp_path, print)[1]["step"] == 2
    clean_checkpoints(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000002"]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, {"format": 1, "step": 1})
    save_checkpoint(tmp_path, 2, TENSORS, {"format": 1, "step": 2})
    path = tmp_path / "step-000000002" / name
    good = path.read_bytes()
    # A flip in the manifest's own white space or step changes no digest: only those are harmless.
    for place in range(0, len(good), max(1, len(good) // 25)):
        damaged = bytearray(good)
        damaged[place] ^= 4
        path.write_bytes(bytes(damaged))
        tensors, state, used = load_checkpoint(tmp_path, lambda line: None)
        if used.name == "step-000000002":
            assert name == "manifest.json" and state["step"] == 2
        assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)


def result(epoch: int, step: int) -> EpochResult:
    return EpochResult(epoch, step, 1.0, 0.1, 2.0, 0.5, None, None, 10.0, 100.0)


def test_logs_read_back_and_rewind(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.start()
    loss = 1 / 3
    journal.add_steps([(1, 1, 0.1, loss), (2, 1, 0.1, 1e-30)])
    journal.add_result(result(1, 2))
    journal.add_steps([(3, 2, 0.1, 0.5)])
    assert read_steps(tmp_path) == ([1, 2, 3], [loss, 1e-30, 0.5])
    assert read_results(tmp_path) == [result(1, 2)]
    journal.rewind(2, 1)
    assert read_steps(tmp_path)[0] == [1, 2] and len(read_results(tmp_path)) == 1


def card() -> ModelCard:
    return ModelCard(
        name="mlp", class_name="MLP", options={"hidden": [3]}, num_classes=2, in_channels=1, input_size=(4, 5),
        classes=["a", "猫"], output="softmax", temperature=1.5,
        preprocess=Preprocess((4, 5), "crop", 1, (0.0,), (255.0,)).to_json(),
        weights={"file": "weights/best.safetensors", "sha256": "ab" * 32, "epoch": 3},
    )  # fmt: skip


def test_a_card_reads_back(tmp_path: Path) -> None:
    write_card(tmp_path, card())
    assert read_card(tmp_path) == card()
    stored = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert stored["format"] == 1 and stored["model"]["class"] == "MLP" and stored["model"]["input_size"] == [4, 5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "newer striate"),
        ({"classes": ["a"]}, "1 classes|names 1"),
        ({"model": {}}, "not a model card"),
        ({"temperature": 0}, "temperature"),
        ({"output": "none"}, "output"),
    ],
)
def test_a_card_that_is_wrong_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    (tmp_path / "model.json").write_text(json.dumps({**card().to_json(), **change}), encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_card(tmp_path)


def test_weights_are_checked_against_their_card(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "best.safetensors"
    digest = write_tensors(path, TENSORS)
    good = card()
    good.weights["sha256"] = digest
    assert set(read_weights(tmp_path, good)) == set(TENSORS)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        read_weights(tmp_path, good)
    good.weights["file"] = "../../etc/passwd"
    with pytest.raises(DataError, match="outside"):
        read_weights(tmp_path, good)
    good.weights["file"] = "weights/nan.safetensors"
    good.weights["sha256"] = write_tensors(
        tmp_path / "weights" / "nan.safetensors", {"w": torch.tensor([float("nan")])}
    )
    with pytest.raises(DataError, match="not finite"):
        read_weights(tmp_path, good)
