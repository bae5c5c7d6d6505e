"""How figures are written, and sides that run in a process of their own. The standard library alone."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def spread(values: Sequence[float], form: str = "{:,.0f}") -> str:
    """Return median (minimum to maximum); the one value alone where there is one."""
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them."""
    return [int(part) for part in text.split(",")]


def figure_of(name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> float:
    """Run one side in a process of its own; return the number that it prints last. `name` is what to call it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def memory_of(process: int, kind: str = "Rss") -> float:
    """Return the megabytes that a process and all that descend from it hold now; 0 where there is no /proc.

    Pages that they share count in each of them with `Rss`, once with `Pss`.
    """
    total = 0.0
    with contextlib.suppress(OSError, StopIteration):  # one of them has just ended
        proc = Path("/proc") / str(process)
        lines = (proc / "smaps_rollup").read_text().splitlines()
        total = next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))
        for task in (proc / "task").iterdir():
            total += sum(memory_of(int(child), kind) for child in (task / "children").read_text().split())
    return total
