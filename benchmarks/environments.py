"""Environments of other frameworks, one for each, so that none of them decides what another gets.

A peer NAME has its requirements in `peers/NAME.txt` and its environment in the folder NAME of --environments.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
NAMES = tuple(sorted(path.stem for path in PEERS.glob("*.txt")))


def default_folder() -> Path:
    """Return the folder of environments where none is given; outside the tree."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "striate-peers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--environments", type=Path, default=default_folder(), help="folder of the environments")
    parser.add_argument("--prepare", choices=NAMES, metavar="NAME", help=f"make one and end: {', '.join(NAMES)}")


def python_of(folder: Path, name: str) -> Path:
    """Return the Python of a peer's environment, whether it exists or not."""
    return folder / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def why_absent(folder: Path, name: str) -> str | None:
    """Return why a peer is left out, or None if its environment exists."""
    if python_of(folder, name).exists():
        return None
    return f"no environment {folder / name}; make it: python {Path(sys.argv[0]).as_posix()} --prepare {name}"


def environ_of(temporary: Path | str) -> dict[str, str]:
    """Return the variables of a side's process: not our own, and what it keeps for itself goes to a folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_WAIT_POLICY")}
    return {**kept, "FASTAI_HOME": f"{temporary}/fastai", "KERAS_HOME": f"{temporary}/keras", "MPLBACKEND": "agg"}


def prepare(folder: Path, name: str) -> None:
    """Make a peer's environment of its requirement file."""
    venv.create(folder / name, with_pip=True)
    command = [python_of(folder, name), "-m", "pip", "install", "-r", PEERS / f"{name}.txt"]
    if subprocess.run(list(map(str, command)), check=False).returncode:
        raise SystemExit(f"{name} cannot be installed here")
