"""A process that has imported everything once and forks a real `striate` process for each request.

Starting Python and torch takes seconds; a fork takes milliseconds, so many kills fit into a test. Reads one JSON
request a line, {"arguments": [...], "folder": ..., "environment": {...}, "disturb": {name: number}}, answers with
{"pid": n}, and when the child has ended with {"pid": n, "status": exit code, or minus the signal}.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import random
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def most_file_bytes(limit: float) -> None:
    """Let no file grow beyond so many bytes, as a full disk would not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))


def seconds_a_sync(seconds: float) -> None:
    """Make the disk slow: each fsync takes so long."""
    sync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(seconds)
        sync(descriptor)

    os.fsync = slow  # type: ignore[assignment]


def clock_runs_back(speed: float) -> None:
    """Let the time of day run backwards, so many times as fast as it should run forwards."""
    now, now_ns = time.time, time.time_ns
    began, began_ns = now(), now_ns()
    time.time = lambda: began - speed * (now() - began)
    time.time_ns = lambda: began_ns - int(speed * (now_ns() - began_ns))


def shuffled_folders(seed: float) -> None:
    """List folders in another order than the system does."""
    listdir, scandir, dice = os.listdir, os.scandir, random.Random(seed)

    def shuffled(*arguments: Any) -> list[Any]:
        names = sorted(listdir(*arguments))
        dice.shuffle(names)
        return names

    class Entries:
        """What os.scandir returns: an iterator and a context manager."""

        def __init__(self, *arguments: Any) -> None:
            with scandir(*arguments) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            dice.shuffle(entries)
            self.rest = iter(entries)

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return next(self.rest)

        def __enter__(self) -> Entries:
            return self

        def __exit__(self, *_: object) -> None:
            return

        def close(self) -> None:
            return

    os.listdir, os.scandir = shuffled, Entries  # type: ignore[assignment]


DISTURBANCES: dict[str, Callable[[float], None]] = {
    function.__name__: function for function in (most_file_bytes, seconds_a_sync, clock_runs_back, shuffled_folders)
}


def child(request: dict[str, Any]) -> None:
    """Become `striate ARGUMENTS` in its own session, with output to files in its folder. Does not return."""
    code = 99
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its children to ignore it
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        for number, name in ((0, os.devnull), (1, "stdout.txt"), (2, "stderr.txt")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o644), number)
        for name, value in request["disturb"].items():
            DISTURBANCES[name](value)
        from striate.cli.main import run

        code = run(request["arguments"])
    except KeyboardInterrupt:  # before `run` listens for it; Python itself would end so
        code = 130
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve requests until stdin closes."""
    for name in ("matplotlib.pyplot", "sklearn.datasets", "torch._dynamo", "striate.api", "striate.cli.train"):
        importlib.import_module(name)
    import torch

    from striate.training import loop

    platform.platform()  # runs `uname` once, and the children have its answer
    torch.set_num_threads(1)
    loop.RECORD_STEPS = 3  # runs here have few steps; a save falls between blocks
    tell({"ready": True})
    running: set[int] = set()
    while True:
        # One thread does it all: a fork of a process with threads may take over a lock that nobody frees.
        asked, _, _ = select.select([sys.stdin], [], [], 0.01)
        if asked:
            line = sys.stdin.readline()
            if not line:
                break
            pid = os.fork()
            if pid == 0:
                child(json.loads(line))
            running.add(pid)
            tell({"pid": pid})
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                tell({"pid": pid, "status": os.waitstatus_to_exitcode(status)})
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def tell(message: dict[str, Any]) -> None:
    """Write one line of JSON."""
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
