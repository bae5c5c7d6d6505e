"""The two logs of a run: steps.csv (a row a step) and results.csv (a row an epoch)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from striate.errors import DataError, StriateError
from striate.files import write_text

STEP_COLUMNS = ("step", "epoch", "lr", "loss")


@dataclass(frozen=True)
class EpochResult:
    """One row of results.csv. Accuracies are fractions; empty where there is no validation set."""

    epoch: int
    step: int
    seconds: float
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    images_per_second: float
    peak_memory_mb: float


StepRow = tuple[int, int, float, float]


class Journal:
    """Appends to steps.csv and results.csv; `rewind` cuts both back to a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.steps_path = folder / "steps.csv"
        self.results_path = folder / "results.csv"

    def start(self) -> None:
        """Write the headers."""
        _append(self.steps_path, [STEP_COLUMNS])
        _append(self.results_path, [tuple(field.name for field in fields(EpochResult))])

    def add_steps(self, rows: Iterable[StepRow]) -> None:
        """Append rows (step, epoch, lr, loss). Losses keep every digit of their float32."""
        _append(self.steps_path, [(step, epoch, repr(lr), repr(loss)) for step, epoch, lr, loss in rows])

    def add_result(self, result: EpochResult) -> None:
        """Append the row of an epoch."""
        _append(self.results_path, [tuple("" if v is None else v for v in asdict(result).values())])

    def rewind(self, step: int, epoch: int) -> None:
        """Keep what was logged up to `step`, and of `epoch` whole epochs; the resumed run writes the rest again.

        Both files are written anew, for a power cut may have left half a line at their end.
        """
        results = tuple(field.name for field in fields(EpochResult))
        for path, columns, column, last in (
            (self.steps_path, STEP_COLUMNS, "step", step),
            (self.results_path, results, "epoch", epoch),
        ):
            kept = [[row[name] for name in columns] for row in _read(path) if int(row[column]) <= last]
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([columns, *kept])
            write_text(path, text.getvalue())


def read_steps(folder: Path) -> tuple[list[int], list[float]]:
    """Return the step numbers and losses of steps.csv."""
    rows = _read(folder / "steps.csv")
    return [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows]


def read_results(folder: Path) -> list[EpochResult]:
    """Return the rows of results.csv."""
    results = []
    for row in _read(folder / "results.csv"):
        numbers = {name: (float(text) if text else None) for name, text in row.items()}
        numbers["epoch"], numbers["step"] = int(row["epoch"]), int(row["step"])  # type: ignore[assignment]
        results.append(EpochResult(**numbers))  # type: ignore[arg-type]
    return results


def _append(path: Path, rows: Sequence[Sequence[object]]) -> None:
    try:
        with open(path, "a", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise StriateError(
            f"could not write {path}", error.strerror or str(error), "make room, then run striate resume"
        ) from error


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "the run is incomplete", "train again, or name another run") from None
    # A line torn by a power cut has fewer columns; it is after the last save, so nothing is lost with it.
    return [row for row in rows if None not in row.values() and None not in row]
