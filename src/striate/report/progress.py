"""How far a long pass over pictures is: a bar on a terminal, some lines in a pipe, all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

LINES = 10
QUIET_SECONDS = 3.0  # a pass that is over by then needs no lines


class Progress:
    """Shows one pass after another; used as `with Progress() as progress: work(progress.stage("reading"))`."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, title: str) -> Callable[[int, int], None]:
        """Begin a pass; what is returned is called with (done, total)."""
        if self._bar is not None:
            task = self._bar.add_task(title, total=None)
            return lambda done, total: self._bar.update(task, completed=done, total=total)
        return _Lines(title, self.quiet)


class _Lines:
    def __init__(self, title: str, quiet: bool) -> None:
        self.title, self.quiet = title, quiet
        self._began, self._next = 0.0, 1

    def __call__(self, done: int, total: int) -> None:
        self._began = self._began or time.perf_counter()
        share = done * LINES // max(total, 1)
        if self.quiet or share < self._next:
            return
        self._next = share + 1
        if time.perf_counter() - self._began > QUIET_SECONDS:
            print(f"  {self.title}: {done:,} of {total:,}", file=sys.stderr, flush=True)
