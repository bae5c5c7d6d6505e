"""The run folder: names, claim, lock, status."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from striate.errors import DataError, StriateError, UsageError, unknown_name
from striate.files import Lock, sha256_file, sync_directory, write_json, write_text

FORMAT = 1
RESULTS = (
    "weights/best.safetensors", "weights/last.safetensors", "weights/features.safetensors",
    "weights/start.safetensors", "start.json", "model.json",
    "steps.csv", "results.csv", "evaluation.json", "predictions.csv", "data.json", "split.json",
)  # fmt: skip


class RunFolder:
    """The folder of one training run; docs/formats.md lists its files."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def weights(self) -> Path:
        """Folder of best.safetensors and last.safetensors."""
        return self.path / "weights"

    @property
    def checkpoints(self) -> Path:
        """Folder of what resume needs."""
        return self.path / "checkpoints"

    def file(self, name: str) -> Path:
        """Path of one of the run's files."""
        return self.path / name

    def lock(self) -> Lock:
        """Hold the folder for one process."""
        return Lock(self.path)

    def write_json(self, name: str, value: Any) -> None:
        """Write one of the run's JSON documents."""
        write_json(self.file(name), value)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one of the run's JSON documents. Raises DataError naming the file where that fails."""
        path = self.file(name)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path} is missing", "the run is incomplete", "train again, or name another run") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read", str(error), "the file is damaged; train again") from error
        if not isinstance(value, dict) or int(value.get("format", FORMAT)) > FORMAT:
            raise DataError(
                f"{path} has format {value.get('format') if isinstance(value, dict) else '?'}",
                f"this striate reads formats up to {FORMAT}",
                "install a newer striate",
            )
        return value

    def set_status(self, state: str, **details: Any) -> None:
        """Record `running`, `finished`, `interrupted` or `failed` in status.json."""
        self.write_json("status.json", {"format": FORMAT, "state": state, **details})

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file that holds a result: a finished run keeps them in status.json."""
        return {name: sha256_file(self.file(name)) for name in RESULTS if self.file(name).is_file()}

    def status(self) -> Mapping[str, Any]:
        """Return what set_status recorded last."""
        return self.read_json("status.json")

    def must_be_trained(self) -> None:
        """Raise UsageError for a run of imported weights, which has no training to go on with or to repeat."""
        status: Mapping[str, Any] = {}
        with contextlib.suppress(DataError):  # a damaged file is told of by those who need it
            status = self.status()
        if "imported" in status:
            raise UsageError(f"{self} was imported", "its weights were trained elsewhere", "train one: striate train")


def check_out(out: Path) -> None:
    """Refuse a folder that is not empty. Raises UsageError; LockHeld, naming the process, where a training is in it."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    if RunFolder(out).file(".lock").is_file():
        with RunFolder(out).lock():
            pass
    raise UsageError(f"{out} is not empty", "a run needs a folder of its own", "choose another --out")


def claim_run(data: str, model: str, out: Path | None, base: Path = Path("runs")) -> RunFolder:
    """Make a new run folder: exactly `out`, or `base/<data>-<model>-<n>` with the next free number.

    The folder is claimed by making it exclusively, so two trainings never share one.
    Raises UsageError or LockHeld where `out` is there and not empty, StriateError where no folder can be made.
    """
    try:
        if out is not None:
            out = Path(out)
            out.mkdir(parents=True, exist_ok=True)
            check_out(out)
            folder = RunFolder(out)
        else:
            folder = RunFolder(_next_free(base, f"{_plain(data)}-{_plain(model)}"))
            write_text(base / "latest", folder.path.name + "\n")
        folder.weights.mkdir()
        folder.checkpoints.mkdir()
        sync_directory(folder.path.parent)
    except OSError as error:
        target = out or base
        raise StriateError(
            f"cannot make a run folder in {target}", error.strerror or str(error), "choose another folder with --out"
        ) from error
    return folder


def open_run(path: str | Path) -> RunFolder:
    """Find a run by its folder, by its name under runs/, or as `runs/latest`.

    Raises UsageError with near names where there is none.
    """
    given = Path(path)
    for candidate in (given, Path("runs") / given):
        if candidate.is_file() and candidate.name == "latest":
            candidate = candidate.parent / candidate.read_text(encoding="utf-8").strip()
        if candidate.is_dir() and (candidate / "config.yaml").is_file():
            return RunFolder(candidate)
    if given.is_dir():
        raise DataError(f"{given} is no run folder", "it holds no config.yaml", "name the folder that train printed")
    beside = given.parent if given.parent.is_dir() and given.parent != Path(".") else Path("runs")
    known = [entry.name for entry in beside.iterdir() if entry.is_dir()] if beside.is_dir() else []
    raise unknown_name("run", str(path), known, "name the folder that train printed, or runs/latest")


def _next_free(base: Path, stem: str) -> Path:
    base.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(re.escape(stem) + r"-(\d+)")
    numbers = [int(match[1]) for entry in base.iterdir() if (match := pattern.fullmatch(entry.name))]
    number = max(numbers, default=0) + 1
    while True:
        candidate = base / f"{stem}-{number}"
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.").lower() or "run"
