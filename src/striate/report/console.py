"""What a person sees while a run trains: a bar on a terminal, about ten lines an epoch in a pipe."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from striate.report.text import ROW_HEADER, duration, epoch_row

LINES_PER_EPOCH = 10
LINES_AFTER_SECONDS = 3.0


class Display:
    """Shows progress on stderr and epoch rows on stdout; used as `with Display(…) as display:`.

    Progress goes to a bar with loss and pictures/s on a terminal, else to about ten lines an epoch. `quiet` shows
    nothing. An estimate of the whole time stands beside the bar; in a pipe it is told once, from the first steps.
    """

    def __init__(self, *, steps_per_epoch: int, quiet: bool = False) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.quiet = quiet
        self._began = time.perf_counter()
        self._estimated = False
        self._next_line = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Display:
        if not self.quiet:
            say(ROW_HEADER)
            if sys.stderr.isatty():
                self._start_bar()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def progress(
        self,
        *,
        epoch: int,
        step: int,
        step_in_epoch: int,
        loss: float,
        pictures_per_second: float,
        estimate: float | None,
    ) -> None:
        """Show where an epoch (from 0) stands: `loss` its mean so far, `estimate` the seconds of the whole run."""
        if self.quiet:
            return
        if self._bar is not None:
            whole = "" if estimate is None else f"  about {duration(estimate)} in all"
            about = f"loss {loss:.4f}  {pictures_per_second:,.0f} pictures/s{whole}"
            self._bar.update(self._task, completed=step_in_epoch, description=f"epoch {epoch + 1}", about=about)
            return
        if estimate is not None and not self._estimated and self._is_long():
            self._estimated = True
            note(f"estimated {duration(estimate)} of training in all, from the first {step:,} steps")
        share = step_in_epoch * LINES_PER_EPOCH // self.steps_per_epoch
        if share >= self._next_line and step_in_epoch < self.steps_per_epoch:
            self._next_line = share + 1
            if self._is_long():
                print(
                    f"  epoch {epoch + 1}, step {step_in_epoch:,} of {self.steps_per_epoch:,}: loss {loss:.4f},"
                    f" {pictures_per_second:,.0f} pictures/s",
                    file=sys.stderr,
                    flush=True,
                )

    def epoch(self, result: dict[str, Any], epochs: int | None) -> None:
        """Show the row of a finished epoch, of so many; None: it is not known yet."""
        self._next_line = 0
        if self.quiet:
            return
        line = epoch_row(result, epochs)
        if self._bar is not None:
            self._bar.update(self._task, completed=0)
        say(line)

    def _is_long(self) -> bool:
        """Say whether the run has gone on for so long that a person waits: shorter ones need no lines of their own."""
        return time.perf_counter() - self._began > LINES_AFTER_SECONDS

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[about]}"))
        # While the bar is up rich prints for us; rows that go to a file must still reach it.
        self._bar = Progress(
            *columns,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("epoch 1", total=self.steps_per_epoch, about="")
        self._bar.start()


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line of result on stdout."""
    print(line, file=stream or sys.stdout, flush=True)


def note(line: str) -> None:
    """Print a line about the work on stderr."""
    print(line, file=sys.stderr, flush=True)
