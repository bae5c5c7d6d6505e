"""Checkpoints: all that resume needs, with a manifest of digests written last."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from striate.errors import DataError
from striate.files import could_not_write, remove_temporaries, sha256_file, sync_directory, write_bytes, write_json
from striate.runs.tensors import read_tensors, write_tensors

KEPT = 2
FORMAT = 1
TENSORS, STATE, BEST, MANIFEST = "state.safetensors", "state.json", "best.safetensors", "manifest.json"
# A step is saved a second time when the epoch that it ends is counted: the first one stays until the second is whole.
AGAIN = "-again"
_NAME = re.compile(rf"step-(\d+)((?:{AGAIN})*)")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], best: Path | None = None
) -> Path:
    """Write checkpoint `step` and drop all but the two newest, which happens only once the new one is durable.

    `tensors`: names such as net.…, ema.…, optimizer.…; `state`: plain values; `best`: the best weights so far, of which
    a copy is kept. A checkpoint without its manifest is not one. Raises WriteFailed with path and reason where it
    cannot be written; the older ones are then untouched.
    """
    target = folder / f"step-{step:09d}"
    while target.exists():
        target = target.with_name(target.name + AGAIN)
    try:
        target.mkdir()
    except OSError as error:
        raise could_not_write(target, error) from error
    digests = {TENSORS: write_tensors(target / TENSORS, tensors)}
    write_json(target / STATE, dict(state))
    digests[STATE] = sha256_file(target / STATE)
    if best is not None:
        _copy(best, target / BEST)
        digests[BEST] = sha256_file(target / BEST)
    write_json(target / MANIFEST, {"format": FORMAT, "step": step, "sha256": digests})
    try:
        sync_directory(folder)
    except OSError as error:
        raise could_not_write(target, error) from error
    for old in list_checkpoints(folder)[:-KEPT]:
        _remove(old)
    return target


def load_checkpoint(
    folder: Path, report: Callable[[str], None]
) -> tuple[dict[str, torch.Tensor], dict[str, Any], Path]:
    """Read the newest checkpoint whose digests are right; say which ones were passed over.

    The best weights of that time then stand in the run's weights/, put back from a copy if need be.
    Raises DataError where none is left.
    """
    passed_over = []
    for candidate in reversed(list_checkpoints(folder)):
        try:
            digests = check_checkpoint(candidate)
            if BEST in digests:
                restore_best(folder.parent, digests[BEST], report)
            return read_tensors(candidate / TENSORS), _read_state(candidate), candidate
        except DataError as error:
            passed_over.append(error.what)
            report(f"checkpoint passed over: {error.what}")
    raise DataError(
        f"{folder} holds no checkpoint that can be used",
        "; ".join(passed_over) or "the run ended before its first save",
        f"train again: striate train --config {folder.parent / 'config.yaml'}",
    )


def restore_best(run: Path, sha256: str, report: Callable[[str], None]) -> Path:
    """Return weights/best.safetensors of a run, put back from a checkpoint's copy where it is not the one of `sha256`.

    Raises DataError naming it where no copy is left.
    """
    path = run / "weights" / BEST
    if _has_digest(path, sha256):
        return path
    for candidate in reversed(list_checkpoints(run / "checkpoints")):
        if _has_digest(candidate / BEST, sha256):
            _copy(candidate / BEST, path)
            report(f"{path} was missing or not the best one: put back from {candidate.name}")
            return path
    raise DataError(
        f"{path} is damaged or missing",
        "its SHA-256 is not that of the best weights, and no checkpoint holds them",
        f"restore it, or train again: striate train --config {run / 'config.yaml'}",
    )


def clean_checkpoints(folder: Path, used: str = "") -> None:
    """Remove what an interrupted save left behind.

    `used` names the checkpoint that a run goes on from: newer ones were passed over as damaged, and the logs are cut
    back to before them.
    """
    remove_temporaries(folder)
    whole = list_checkpoints(folder)
    names = [entry.name for entry in whole]
    kept = set(whole[: names.index(used) + 1] if used in names else whole)
    for entry in folder.iterdir():
        if entry.is_dir() and entry not in kept:
            _remove(entry)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder that are whole, oldest first."""
    named = [(entry, _NAME.fullmatch(entry.name)) for entry in folder.glob("step-*")]
    order = sorted((int(name[1]), len(name[2]), entry) for entry, name in named if name is not None)
    return [entry for _, _, entry in order if (entry / MANIFEST).is_file()]


def check_checkpoint(folder: Path) -> dict[str, str]:
    """Compare the files of a checkpoint with its manifest, and return their digests.

    Raises DataError naming the one that is damaged.
    """
    digests = _read_manifest(folder)
    for name, digest in digests.items():
        try:
            same = sha256_file(folder / name) == digest
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror or error})") from error
        if not same:
            raise DataError(f"{folder / name} is damaged (its digest differs from the manifest)")
    return digests


def _read_manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        digests, version, step = dict(manifest["sha256"]), int(manifest["format"]), int(manifest["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if version > FORMAT:
        raise DataError(f"{path} has format {version} (this striate reads up to {FORMAT}: install a newer one)")
    name = _NAME.fullmatch(folder.name)
    if version != FORMAT or name is None or step != int(name[1]):
        raise DataError(f"{path} is damaged, or is that of another checkpoint")
    if not {TENSORS, STATE} <= digests.keys() <= {TENSORS, STATE, BEST}:
        raise DataError(f"{path} names other files than a checkpoint holds")
    return digests


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder / STATE} cannot be read ({type(error).__name__}: {error})") from error


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        return sha256_file(path) == sha256
    except OSError:
        return False


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise DataError(
            f"{source} cannot be read", error.strerror or str(error), "it was there when the run wrote it; restore it"
        ) from error
    write_bytes(target, content)


def _remove(folder: Path) -> None:
    # The manifest first: a removal that is cut off leaves no damaged checkpoint, but none.
    with contextlib.suppress(OSError):
        (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
