"""Several processes on one socket: who starts them, replaces one that died, and stops them all.

The first process computes nothing: it has no threads and no model, so that its workers can be forked from it. Models
are therefore made in a process of their own (`elsewhere`), and reach the workers as bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from striate.errors import StriateError, UsageError

Tell = Callable[[BaseException], int]

_LOOK_SECONDS = 0.1
# A worker that lived shorter is started anew only after a wait that doubles, and never exceeds the second.
_SHORT_LIFE_SECONDS = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 4.0
# In a row, of workers that died before they could answer.
_MOST_FAILED_STARTS = 3
_STOP_SECONDS = 10.0
_READ_BYTES = 1 << 20
#: Where Prometheus' client keeps the numbers of several processes; it has to be set before that is imported.
SHARED_NUMBERS = "PROMETHEUS_MULTIPROC_DIR"


def elsewhere(make: Callable[[], bytes], tell: Tell) -> bytes:
    """Return what `make` returns in a process of its own, whose threads and memory end with it.

    `tell` prints an error there and returns its exit code. Raises SystemExit with that code. A system without fork
    makes it in this process.
    """
    if not hasattr(os, "fork"):
        return make()
    reading, writing = os.pipe()
    pid = _fork()
    if pid == 0:
        os.close(reading)
        _leave(lambda: _write_all(writing, make()), tell)
    os.close(writing)
    try:
        with open(reading, "rb") as stream:
            content = stream.read()
    except BaseException:  # Ctrl-C
        _send(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise SystemExit(code if code > 0 else 128 - code)
    return content


def share_of_cores(workers: int, cores: int) -> int:
    """Return how many threads each of several workers computes with, so that together they have one for each core."""
    return max(1, cores // max(1, workers))


def supervise(
    work: Callable[[Callable[[], None]], int],
    workers: int,
    sockets: Sequence[socket.socket],
    *,
    tell: Tell,
    told: Callable[[str], None] = lambda event: None,
) -> int:
    """Keep `workers` processes running until a signal comes; return the exit code.

    Each calls `work` with a function that it calls when it can answer. The first is waited for: what makes it fail
    would make all fail, and its exit code is returned. One that dies later is replaced. SIGTERM or SIGINT stops all
    gracefully, a second one at once; so does the death of this process. `told` gets "ready", "stopping", and a line for
    each death.
    Raises UsageError on a system without fork, StriateError where one worker after the other dies before it can answer.
    """
    if not hasattr(os, "fork"):
        raise UsageError("several workers need fork", "this system has none", "use --workers 1, or several servers")
    with _shared_numbers(), _Supervisor(work, workers, sockets, tell, told) as supervisor:
        return supervisor.run()


@contextlib.contextmanager
def _shared_numbers() -> Iterator[None]:
    """Name a folder in which the workers keep their numbers, so that any of them can tell those of all."""
    if SHARED_NUMBERS in os.environ:  # the user's own
        yield
        return
    folder = tempfile.mkdtemp(prefix="striate-numbers-")
    os.environ[SHARED_NUMBERS] = folder
    try:
        yield
    finally:
        del os.environ[SHARED_NUMBERS]
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Worker:
    """One place for a worker: the process that has it, or when the next is due."""

    pid: int = 0
    status: int = -1  # a pipe's end: a byte comes when it can answer
    since: float = 0.0
    ready: bool = False
    due: float = 0.0
    wait: float = 0.0


class _Supervisor:
    """What `supervise` does. A `with` around it leaves no process behind."""

    def __init__(
        self,
        work: Callable[[Callable[[], None]], int],
        workers: int,
        sockets: Sequence[socket.socket],
        tell: Tell,
        told: Callable[[str], None],
    ) -> None:
        self.work, self.sockets, self.tell, self.told = work, sockets, tell, told
        self.workers = [_Worker() for _ in range(workers)]
        self.failed_starts = 0
        self.began = False  # the first worker could answer
        self.signals: list[int] = []
        # Nobody writes into it. Its writing end is open in this process alone: a worker that reads its end is alone.
        self.alive_reading, self.alive_writing = os.pipe()
        self._before = {one: signal.signal(one, self._note) for one in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> _Supervisor:
        return self

    def __exit__(self, *error: object) -> None:
        self._kill_all()
        for one, handler in self._before.items():
            signal.signal(one, handler)
        for end in (self.alive_reading, self.alive_writing):
            os.close(end)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def run(self) -> int:
        """Start the workers, keep them running, and stop them."""
        self._start(self.workers[0])
        while not self.workers[0].ready and not self.signals:
            ended = self._look()
            if ended and ended[0] < 0:
                raise StriateError(f"signal {-ended[0]} ended the first worker", "it could not answer yet")
            if ended:
                return ended[0]
            time.sleep(_LOOK_SECONDS)
        self.began = True
        for worker in self.workers[1:]:
            if not self.signals:
                self._start(worker)
        ready = False
        while not self.signals:
            self._look()
            if self.failed_starts >= _MOST_FAILED_STARTS:
                raise StriateError(
                    "the workers die before they can answer",
                    f"{self.failed_starts} in a row did",
                    "the lines above say why; if they say nothing, memory may be short: try --workers 1",
                )
            now = time.monotonic()
            for worker in self.workers:
                if worker.pid == 0 and now >= worker.due:
                    self._start(worker)
            if not ready and all(worker.ready for worker in self.workers):
                ready = True
                self.told("ready")
            time.sleep(_LOOK_SECONDS)
        return self._stop()

    def _start(self, worker: _Worker) -> None:
        reading, writing = os.pipe()
        pid = _fork()
        if pid == 0:
            os.close(reading)
            os.close(self.alive_writing)
            for other in self.workers:
                if other.status >= 0:
                    os.close(other.status)
            _follow(self.alive_reading)
            _leave(lambda: self.work(lambda: _write_all(writing, b"1")), self.tell)
        os.close(writing)
        os.set_blocking(reading, False)
        worker.pid, worker.status, worker.since, worker.ready = pid, reading, time.monotonic(), False

    def _look(self) -> list[int]:
        """See who can answer, and who has died; return the exit codes of these."""
        ended = []
        for worker in self.workers:
            if worker.pid == 0:
                continue
            if not worker.ready and _has_byte(worker.status):
                worker.ready, self.failed_starts = True, 0
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                ended.append(os.waitstatus_to_exitcode(status))
                self._bury(worker, ended[-1])
        return ended

    def _bury(self, worker: _Worker, code: int) -> None:
        now = time.monotonic()
        if self.began and not self.signals:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self.told(f"worker {worker.pid} ended with {how}")
        short = not worker.ready or now - worker.since < _SHORT_LIFE_SECONDS
        worker.wait = min(_LONGEST_WAIT, worker.wait * 2 or _FIRST_WAIT) if short else 0.0
        worker.due = now + worker.wait
        self.failed_starts += not worker.ready
        os.close(worker.status)
        _forget_numbers(worker.pid)
        worker.pid, worker.status = 0, -1

    def _stop(self) -> int:
        """Ask all workers to stop, and wait; a second signal, or too long a wait, kills them."""
        self.told("stopping")
        for one in self.sockets:  # or the system would go on taking connections that nobody answers
            one.close()
        for worker in self.workers:
            if worker.pid:
                _send(worker.pid, signal.SIGTERM)
        ends, codes = time.monotonic() + _STOP_SECONDS, []
        while any(worker.pid for worker in self.workers):
            codes += self._look()
            if len(self.signals) > 1:
                self._kill_all()
                return 128 + self.signals[1]
            if time.monotonic() > ends:
                self._kill_all()
                return 1
            time.sleep(_LOOK_SECONDS)
        return max((code for code in codes if code != -signal.SIGTERM), key=abs, default=0)  # -15: was still starting

    def _kill_all(self) -> None:
        for worker in self.workers:
            if worker.pid:
                _send(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                os.close(worker.status)
                worker.pid, worker.status = 0, -1


def _fork() -> int:
    """Fork. In the child SIGTERM ends, until the server has its own handler, and Ctrl-C is the parent's business."""
    for stream in (sys.stdout, sys.stderr):  # or what they hold would be written twice
        stream.flush()
    stops = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
    return pid


def _leave(work: Callable[[], object], tell: Tell) -> NoReturn:
    """Do a child's work and end its process: what the parent has on its stack is the parent's."""
    code = 1
    try:
        found = work()
        code = found if isinstance(found, int) else 0
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else tell(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _follow(alive: int) -> None:
    """End this process when its parent is gone: gracefully, and if that takes too long, at once."""

    def watch() -> None:
        os.read(alive, 1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_STOP_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _write_all(end: int, content: bytes) -> None:
    with open(end, "wb") as stream:
        stream.write(content)


def _has_byte(end: int) -> bool:
    try:
        return bool(os.read(end, 1))
    except BlockingIOError:
        return False


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _forget_numbers(pid: int) -> None:
    """Remove what a dead worker counted as its present state; its sums stay."""
    folder = os.environ.get(SHARED_NUMBERS, "")
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith("gauge_live") and name.endswith(f"_{pid}.db"):
                os.unlink(os.path.join(folder, name))
