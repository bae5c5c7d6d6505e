"""steps.csv and results.csv: every digit kept, cut back at a resume, a torn line forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from striate.errors import DataError, StriateError
from striate.runs import journal
from striate.runs.journal import EpochResult, Journal, read_results, read_steps


def result(epoch: int, **changed: Any) -> EpochResult:
    values: dict[str, Any] = {
        "epoch": epoch,
        "step": 10 * epoch,
        "seconds": 1.5,
        "lr": 0.1,
        "train_loss": 0.1 + epoch,
        "train_accuracy": 0.5,
        "val_loss": None,
        "val_accuracy": None,
        "images_per_second": 12345.6,
        "peak_memory_mb": 99.5,
    }
    return EpochResult(**{**values, **changed})


def started(folder: Path, steps: int = 20, epochs: int = 2) -> Journal:
    made = Journal(folder)
    made.start()
    made.add_steps([(step, 1 + (step - 1) // 10, 0.1, step / 7) for step in range(1, steps + 1)])
    for epoch in range(1, epochs + 1):
        made.add_result(result(epoch))
    return made


def test_losses_keep_every_digit(tmp_path: Path) -> None:
    made = Journal(tmp_path)
    made.start()
    losses = [float(np.float32(value)) for value in (1 / 3, 1e-30, 123456.789, 2.3025851)]
    made.add_steps([(step, 1, 1 / 3, loss) for step, loss in enumerate(losses, 1)])
    assert read_steps(tmp_path) == ([1, 2, 3, 4], losses)
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,lr,loss" and lines[1] == f"1,1,{1 / 3!r},{losses[0]!r}"


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    made = Journal(tmp_path)
    made.start()
    rows = [result(1), result(2, val_loss=0.1, val_accuracy=0.97)]
    for row in rows:
        made.add_result(row)
    assert read_results(tmp_path) == rows
    assert (tmp_path / "results.csv").read_text().splitlines()[0] == (
        "epoch,step,seconds,lr,train_loss,train_accuracy,val_loss,val_accuracy,images_per_second,peak_memory_mb"
    )


def test_rewind_keeps_steps_and_whole_epochs(tmp_path: Path) -> None:
    made = started(tmp_path)
    made.rewind(14, 1)
    assert read_steps(tmp_path)[0] == list(range(1, 15))
    assert [row.epoch for row in read_results(tmp_path)] == [1]
    made.add_steps([(15, 2, 0.1, 0.5)])
    assert read_steps(tmp_path)[0] == list(range(1, 16))
    made.rewind(0, 0)
    assert read_steps(tmp_path) == ([], []) and read_results(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "steps.csv"]


def test_rewind_at_the_last_step_of_an_epoch_that_is_not_over(tmp_path: Path) -> None:
    """A save after an epoch's last step, and then a crash between its row and its own save."""
    made = started(tmp_path)
    made.rewind(20, 1)
    assert [row.epoch for row in read_results(tmp_path)] == [1] and read_steps(tmp_path)[0][-1] == 20


@pytest.mark.parametrize("torn", ["2", "21,", "21,3,0.1", "21,3,0.1,0.12", "\n"])
def test_a_torn_last_line_is_forgotten(tmp_path: Path, torn: str) -> None:
    made = started(tmp_path)
    with open(tmp_path / "steps.csv", "a") as stream:
        stream.write(torn)
    made.rewind(20, 2)
    made.add_steps([(21, 3, 0.1, 0.25)])
    steps, losses = read_steps(tmp_path)
    assert steps == list(range(1, 22)) and losses[-1] == 0.25


def test_a_missing_log_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"steps\.csv is missing"):
        read_steps(tmp_path)
    made = started(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    made.add_steps([(21, 3, 0.1, 0.25)])
    monkeypatch.setattr(journal.os, "fsync", full)
    with pytest.raises(StriateError) as caught:
        made.sync()
    assert "steps.csv" in caught.value.what and caught.value.cause == "No space left on device"
    monkeypatch.setattr(journal.csv, "writer", full)
    with pytest.raises(StriateError, match=r"could not write .*steps\.csv"):
        made.add_steps([(22, 3, 0.1, 0.25)])


def test_a_log_that_someone_took_away_is_begun_anew(tmp_path: Path) -> None:
    made = started(tmp_path)
    made.steps_path.unlink()
    made.sync()
    made.add_steps([(21, 3, 0.1, 0.25)])
    assert read_steps(tmp_path) == ([21], [0.25])
    assert made.rewind(21, 2) == 20, "twenty rows are missing"
    made.steps_path.write_text("nonsense\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_steps(tmp_path)
    made.steps_path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_steps(tmp_path)
    assert made.rewind(21, 2) == 21 and read_steps(tmp_path) == ([], [])


def test_a_line_that_lost_its_end_is_not_taken_for_a_number(tmp_path: Path) -> None:
    made = started(tmp_path, steps=2)
    whole = made.steps_path.read_text()
    for cut in range(1, len(whole.splitlines()[-1]) + 1):
        made.steps_path.write_text(whole[:-cut])
        assert read_steps(tmp_path)[0] == [1]
