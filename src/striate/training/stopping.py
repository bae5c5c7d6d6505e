"""How a signal stops a run: the first one asks for a save at the next step, a second one acts at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Stopping:
    """Whether a run was asked to stop: `signal` is the number of the signal that asked, 0 where none has come."""

    def __init__(self) -> None:
        self.signal = 0
        self._interrupted: Callable[[], Exception] | None = None
        self._at_once = False

    @contextlib.contextmanager
    def listening(self, interrupted: Callable[[], Exception]) -> Iterator[None]:
        """Let the first SIGINT or SIGTERM ask for a save; a second one acts at once.

        `interrupted` builds the error that a stopped run ends with.
        """
        self._interrupted = interrupted
        try:
            with self._handling():
                yield
        finally:
            self._interrupted = None  # a bound method would keep the run, and with it the lock of its folder

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end what takes long and decides nothing that is saved."""
        self._at_once = True
        try:
            self._check()
            yield
        finally:
            self._at_once = False

    def _check(self) -> None:
        if self.signal and self._interrupted is not None:
            raise self._interrupted()

    @contextlib.contextmanager
    def _handling(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, _frame: Any) -> None:
            self.signal = number
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if self._at_once:
                self._check()

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
