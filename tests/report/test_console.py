"""What is shown while a net trains: rows on stdout, progress on stderr, nothing when quiet."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from striate.report import console
from striate.report.console import Display, note, say
from striate.report.text import ROW_HEADER

RESULT: dict[str, Any] = {
    "epoch": 1,
    "step": 100,
    "seconds": 9.0,
    "lr": 0.1,
    "train_loss": 0.5,
    "train_accuracy": 0.9,
    "val_loss": None,
    "val_accuracy": None,
    "images_per_second": 1000.0,
    "peak_memory_mb": 500.0,
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which every look takes a minute."""
    seconds = iter(range(0, 10**9, 60))
    monkeypatch.setattr(console.time, "perf_counter", lambda: float(next(seconds)))


def show(display: Display, steps: int, epochs: int = 2, estimate: float | None = 75.0) -> None:
    with display:
        for epoch in range(epochs):
            for step in range(1, steps + 1):
                display.progress(
                    epoch=epoch,
                    step=epoch * steps + step,
                    step_in_epoch=step,
                    loss=0.5,
                    pictures_per_second=1234.5,
                    estimate=estimate if step > 1 or epoch else None,
                )
            display.epoch({**RESULT, "epoch": epoch + 1}, epochs)


def test_about_ten_lines_an_epoch_in_a_pipe(slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    show(Display(steps_per_epoch=1000), 1000)
    out, err = capsys.readouterr()
    rows = out.splitlines()
    assert rows[0] == ROW_HEADER and len(rows) == 3 and rows[1].split()[0] == "1/2"
    lines = [line for line in err.splitlines() if line.startswith("  epoch")]
    for epoch in (1, 2):
        of_epoch = [line for line in lines if line.startswith(f"  epoch {epoch},")]
        assert 9 <= len(of_epoch) <= 11
        assert "loss 0.5000" in of_epoch[-1] and "1,234 pictures/s" in of_epoch[-1] and "of 1,000" in of_epoch[-1]


def test_short_epochs_need_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show(Display(steps_per_epoch=10), 10)
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) == 3


def test_the_whole_time_is_told_once_and_only_when_it_is_known(slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    show(Display(steps_per_epoch=100), 100)
    lines = [line for line in capsys.readouterr().err.splitlines() if "estimated" in line]
    assert lines == ["estimated 1 min 15 s of training in all, from the first 2 steps"]
    show(Display(steps_per_epoch=100), 100, estimate=None)
    assert "estimated" not in capsys.readouterr().err


def test_epochs_that_are_not_counted_yet(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(steps_per_epoch=10)
    with display:
        display.epoch(RESULT, None)
        display.epoch({**RESULT, "epoch": 2}, 7)
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["1/?", "2/7"] and len({len(row) for row in rows}) == 1


def test_quiet_shows_nothing(slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    show(Display(steps_per_epoch=50, quiet=True), 50)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("out_is_terminal", [False, True])
def test_rows_reach_stdout_while_the_bar_is_up(monkeypatch: pytest.MonkeyPatch, out_is_terminal: bool) -> None:
    out, err = Terminal() if out_is_terminal else io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    show(Display(steps_per_epoch=20), 20)
    assert sys.stdout is out and sys.stderr is err, "the streams were not given back"
    rows = (out.getvalue() + (err.getvalue() if out_is_terminal else "")).splitlines()
    assert any("1/2" in row for row in rows) and any("2/2" in row for row in rows)
    assert "pictures/s" in err.getvalue() and "about 1 min 15 s in all" in err.getvalue()
    if not out_is_terminal:
        assert out.getvalue().splitlines()[0] == ROW_HEADER and len(out.getvalue().splitlines()) == 3


def test_the_bar_is_taken_down_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    display = Display(steps_per_epoch=5)
    with pytest.raises(ZeroDivisionError), display:
        raise ZeroDivisionError
    assert sys.stderr is err and not display._bar.live.is_started


def test_results_go_to_stdout_and_remarks_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("a result")
    note("a remark")
    assert capsys.readouterr() == ("a result\n", "a remark\n")
