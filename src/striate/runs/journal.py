"""The two logs of a run: steps.csv (a row a step) and results.csv (a row an epoch)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from striate.errors import DataError
from striate.files import could_not_write, write_text

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


RESULT_COLUMNS = tuple(field.name for field in fields(EpochResult))
StepRow = tuple[int, int, float, float]


class Journal:
    """Appends to steps.csv and results.csv; `sync` makes it durable; `rewind` cuts both back to a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.steps_path = folder / "steps.csv"
        self.results_path = folder / "results.csv"

    def start(self) -> None:
        """Write the headers."""
        _append(self.steps_path, STEP_COLUMNS, [])
        _append(self.results_path, RESULT_COLUMNS, [])

    def add_steps(self, rows: Iterable[StepRow]) -> None:
        """Append rows (step, epoch, lr, loss). Losses keep every digit of their float32."""
        _append(self.steps_path, STEP_COLUMNS, [(step, epoch, repr(lr), repr(loss)) for step, epoch, lr, loss in rows])

    def add_result(self, result: EpochResult) -> None:
        """Append the row of an epoch."""
        row = tuple("" if value is None else value for value in asdict(result).values())
        _append(self.results_path, RESULT_COLUMNS, [row])

    def sync(self) -> None:
        """Make all rows durable. To be called before a checkpoint, which relies on the rows before it."""
        for path in (self.steps_path, self.results_path):
            try:
                with open(path, "r+b") as stream:
                    os.fsync(stream.fileno())
            except FileNotFoundError:  # someone took it away: the next row begins it anew
                continue
            except OSError as error:
                raise could_not_write(path, error) from error

    def rewind(self, step: int, epoch: int) -> int:
        """Keep what was logged up to `step`, and of `epoch` whole epochs; the resumed run writes the rest again.

        Both files are written anew, for a power cut may have left half a line at their end. Returns how many rows of
        steps.csv are missing before `step`, because someone else changed the file.
        """
        kept = 0
        for path, columns, column, last in (
            (self.results_path, RESULT_COLUMNS, "epoch", epoch),
            (self.steps_path, STEP_COLUMNS, "step", step),
        ):
            try:
                rows = _read(path, columns)
            except DataError:
                rows = []
            rows = [row for row in rows if row[column].isdigit() and int(row[column]) <= last]
            kept = len({row[column] for row in rows})
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([columns, *([row.get(name) or "" for name in columns] for row in rows)])
            write_text(path, text.getvalue())
        return step - kept


def read_steps(folder: Path) -> tuple[list[int], list[float]]:
    """Return the step numbers and losses of steps.csv."""
    rows = _read(folder / "steps.csv", STEP_COLUMNS)
    return [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows]


def read_results(folder: Path) -> list[EpochResult]:
    """Return the rows of results.csv."""
    results = []
    for row in _read(folder / "results.csv", ("epoch", "step")):
        numbers = {name: (float(text) if text else None) for name, text in row.items()}
        numbers["epoch"], numbers["step"] = int(row["epoch"]), int(row["step"])  # type: ignore[assignment]
        results.append(EpochResult(**numbers))  # type: ignore[arg-type]
    return results


def _append(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    try:
        with open(path, "a", encoding="utf-8", newline="") as stream:
            # A file without its header is new, or someone took the old one away.
            begun = [] if stream.tell() else [columns]
            csv.writer(stream, lineterminator="\n").writerows([*begun, *rows])
    except OSError as error:
        raise could_not_write(path, error) from error


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "the run is incomplete", "train again, or name another run") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read", str(error), "restore it, or train again") from error
    # A line torn by a power cut or a full disk has no end; it is after the last save, so nothing is lost with it.
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    rows = list(reader)
    if not set(columns) <= set(reader.fieldnames or ()):
        raise DataError(f"{path} cannot be read", "its first line does not name the columns", "restore it")
    return [row for row in rows if None not in row.values() and None not in row]
