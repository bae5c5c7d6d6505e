"""Where this process stands among those that torchrun started."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """One of `size` processes, of which `local_size` run on this machine: its `rank` of all and `local_rank` here.

    `restarts`: how often torchrun has started them anew; `job` names the torchrun, the same after a restart; `parent`
    is its process.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    restarts: int
    job: str
    parent: int

    @property
    def threads(self) -> int:
        """This process's part of the machine's cores, or OMP_NUM_THREADS: at least one.

        torchrun sets that to 1 where the user did not; 1 is therefore taken for not set (--threads 1 says it).
        """
        asked = os.environ.get("OMP_NUM_THREADS", "1")
        if asked.isdigit() and int(asked) > 1:
            return int(asked)
        return max(1, cores() // self.local_size)

    def command(self, verb: str) -> str:
        """Return how to start `striate VERB` again in the same way, on each machine."""
        machines = f"--nnodes {self.size // self.local_size} … " if self.size > self.local_size else ""
        return f"torchrun {machines}--nproc-per-node {self.local_size} -m striate {verb}"


def cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return where torchrun put this process, from the variables that it sets; None for one that it did not start."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    if "TORCHELASTIC_RUN_ID" not in environ or not all(environ.get(name, "").isdigit() for name in names):
        return None
    rank, size, local_rank, local_size, restarts = (int(environ[name]) for name in names)
    parent = os.getppid()
    job = f"{environ['TORCHELASTIC_RUN_ID']} {platform.node()} {parent}"
    return Launch(rank, size, local_rank, local_size, restarts, job, parent)
