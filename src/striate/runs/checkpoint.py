"""Checkpoints: all that resume needs, with a manifest of digests written last."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from striate.errors import DataError, StriateError
from striate.files import sha256_file, write_json
from striate.runs.tensors import read_tensors, write_tensors

KEPT = 2
TENSORS, STATE, MANIFEST = "state.safetensors", "state.json", "manifest.json"


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Path:
    """Write checkpoint `step` and drop all but the two newest, which happens only once the new one is durable.

    `tensors`: names such as net.…, ema.…, optimizer.…; `state`: plain numbers. A checkpoint without its manifest is
    not one. Raises StriateError with path and reason where it cannot be written; the older ones are then untouched.
    """
    target = folder / f"step-{step:09d}"
    try:
        if target.exists():
            shutil.rmtree(target)
        target.mkdir()
    except OSError as error:
        raise StriateError(
            f"could not write {target}", error.strerror or str(error), "make room, then resume"
        ) from error
    digests = {TENSORS: write_tensors(target / TENSORS, tensors)}
    write_json(target / STATE, dict(state))
    digests[STATE] = sha256_file(target / STATE)
    write_json(target / MANIFEST, {"format": 1, "step": step, "sha256": digests})
    for old in _complete(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(
    folder: Path, report: Callable[[str], None]
) -> tuple[dict[str, torch.Tensor], dict[str, Any], Path]:
    """Read the newest checkpoint whose digests are right; say which ones were passed over.

    Raises DataError where none is left.
    """
    passed_over = []
    for candidate in reversed(_complete(folder)):
        try:
            return *_read_checkpoint(candidate), candidate
        except DataError as error:
            passed_over.append(error.what)
            report(f"checkpoint passed over: {error.what}")
    raise DataError(
        f"{folder} holds no checkpoint that can be used",
        "; ".join(passed_over) or "the run ended before its first save",
        "train again",
    )


def clean_checkpoints(folder: Path) -> None:
    """Remove what an interrupted save left behind."""
    whole = set(_complete(folder))
    for entry in folder.iterdir():
        if entry.is_dir() and entry not in whole:
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_file() and entry.suffix == ".tmp":
            with contextlib.suppress(OSError):
                entry.unlink()


def _complete(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.glob("step-*") if (entry / MANIFEST).is_file())


def _read_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digests = dict(manifest["sha256"])
        for name in (TENSORS, STATE):
            if sha256_file(folder / name) != digests[name]:
                raise DataError(f"{folder / name} is damaged (its digest differs from the manifest)")
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be read ({type(error).__name__}: {error})") from error
    return read_tensors(folder / TENSORS), state
