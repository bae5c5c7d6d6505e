"""Checkpoints: two kept, the manifest last, damage passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import files
from striate.errors import DataError, StriateError
from striate.runs import checkpoint
from striate.runs.checkpoint import (
    check_checkpoint,
    clean_checkpoints,
    load_checkpoint,
    restore_best,
    save_checkpoint,
)


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, {"net.weight": torch.full((3,), float(step))}, {"format": 1, "step": step})


def steps(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def loaded(folder: Path) -> tuple[float, int, list[str]]:
    said: list[str] = []
    tensors, state, used = load_checkpoint(folder, said.append)
    assert used.name == f"step-{state['step']:09d}"
    return float(tensors["net.weight"][0]), int(state["step"]), said


def test_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for step in (5, 9, 10, 1000):
        save(tmp_path, step)
    assert steps(tmp_path) == ["step-000000010", "step-000001000"]
    assert loaded(tmp_path) == (1000.0, 1000, [])


def test_the_manifest_is_written_last_and_holds_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = files.os.replace
    monkeypatch.setattr(files.os, "replace", lambda *paths: (written.append(Path(paths[1]).name), replace(*paths))[1])
    target = save(tmp_path, 1)
    assert written == ["state.safetensors", "state.json", "manifest.json"]
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["format"] == 1 and manifest["sha256"] == {
        name: files.sha256_file(target / name) for name in ("state.safetensors", "state.json")
    }


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_newest_one_is_passed_over(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 1)
    broken = save(tmp_path, 2) / name
    content = bytearray(broken.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x10
    broken.write_bytes({"flip": bytes(content), "cut": bytes(content[:-3]), "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        broken.unlink()
    value, step, said = loaded(tmp_path)
    assert (value, step) == (1.0, 1)
    if (name, damage) != ("manifest.json", "gone"):  # without a manifest it never was a checkpoint
        assert len(said) == 1 and "step-000000002" in said[0]


def test_none_is_left(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_checkpoint(tmp_path, print)
    assert "no checkpoint" in caught.value.what and "before its first save" in caught.value.cause
    (save(tmp_path, 3) / "state.json").write_text("{}")
    with pytest.raises(DataError) as caught:
        load_checkpoint(tmp_path, print)
    assert "step-000000003" in caught.value.cause


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_save_that_fails_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    count, fsync = 0, files.os.fsync

    def full(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > 2 * (failing - 1):  # a file is synced, then its folder
            raise OSError(28, "No space left on device")
        fsync(*arguments)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StriateError, match="could not write"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert loaded(tmp_path) == (2.0, 2, [])
    clean_checkpoints(tmp_path)
    assert steps(tmp_path) == ["step-000000001", "step-000000002"]


def test_saving_a_step_again_keeps_the_first_until_the_second_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 4)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_json", fail_as_full)
        with pytest.raises(StriateError):
            save_checkpoint(tmp_path, 4, {"net.weight": torch.full((3,), 7.0)}, {"step": 4})
    assert loaded(tmp_path)[0] == 4.0
    clean_checkpoints(tmp_path)
    for value in (7.0, 8.0):
        save_checkpoint(tmp_path, 4, {"net.weight": torch.full((3,), value)}, {"step": 4})
        assert load_checkpoint(tmp_path, print)[0]["net.weight"][0] == value
    assert len(steps(tmp_path)) == 2
    save(tmp_path, 5)
    assert loaded(tmp_path)[:2] == (5.0, 5)
    save(tmp_path, 1_000_000_000)
    assert loaded(tmp_path)[:2] == (1e9, 1_000_000_000)


def fail_as_full(path: Path, *_: Any) -> None:
    raise StriateError(f"could not write {path}", "No space left on device")


def test_the_order_of_a_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (9, 10):
        save(tmp_path, step)
    glob = Path.glob
    for turn in (1, -1):
        monkeypatch.setattr(Path, "glob", lambda self, pattern, turn=turn: sorted(glob(self, pattern))[::turn])
        assert loaded(tmp_path)[1] == 10


def test_a_copy_of_the_best_weights_is_kept_and_put_back(tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights" / "best.safetensors", tmp_path / "checkpoints"
    weights.parent.mkdir()
    folder.mkdir()
    weights.write_bytes(b"best")
    digest = files.sha256_file(weights)
    assert restore_best(tmp_path, digest, pytest.fail) == weights
    save_checkpoint(folder, 1, {"net.weight": torch.ones(3)}, {"step": 1}, weights)
    for damage in (b"besT", b"be", b"", None):
        weights.unlink() if damage is None else weights.write_bytes(damage)
        said: list[str] = []
        assert restore_best(tmp_path, digest, said.append) == weights
        assert weights.read_bytes() == b"best" and len(said) == 1 and "step-000000001" in said[0]
    (folder / "step-000000001" / "best.safetensors").write_bytes(b"lost")
    assert restore_best(tmp_path, digest, pytest.fail) == weights
    weights.write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        restore_best(tmp_path, digest, print)
    assert str(weights) in caught.value.what and "striate train --config" in caught.value.fix
    with pytest.raises(DataError, match=r"best\.safetensors is damaged"):
        check_checkpoint(folder / "step-000000001")


def test_newer_ones_than_the_one_in_use_are_cleared(tmp_path: Path) -> None:
    """They were passed over; were they left, they might be read once more, beside a log that was cut back."""
    save(tmp_path, 4)
    (save(tmp_path, 8) / "state.json").write_text("{}")
    used = load_checkpoint(tmp_path, print)[2]
    clean_checkpoints(tmp_path, used.name)
    assert steps(tmp_path) == ["step-000000004"]


def test_a_newer_format_is_passed_over_with_a_sentence(tmp_path: Path) -> None:
    target = save(tmp_path, 1)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(DataError) as caught:
        load_checkpoint(tmp_path, print)
    assert "has format 2" in caught.value.cause and "install a newer" in caught.value.cause


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", '{"format": 1, "sha256": {"../x": "y"}}', '{"format": 1, "sha256": 3}']
)
def test_a_wrong_manifest_is_no_checkpoint(tmp_path: Path, manifest: str) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "manifest.json").write_text(manifest)
    assert loaded(tmp_path)[0] == 1.0


def test_cleaning_takes_only_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-000000002").mkdir()
    (tmp_path / ".x.tmp").touch()
    (tmp_path / "note.txt").touch()
    clean_checkpoints(tmp_path)
    assert steps(tmp_path) == ["note.txt", "step-000000001"]


def test_no_pickle(tmp_path: Path) -> None:
    for path in save(tmp_path, 1).iterdir():
        assert path.suffix in (".safetensors", ".json") and not path.read_bytes().startswith((b"\x80", b"PK"))
    assert checkpoint.KEPT == 2
