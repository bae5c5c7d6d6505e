"""No telemetry: every verb does its work with the network out of reach, and nothing so much as asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.cli.main import build

SHORT = ["--epochs", "1", "--threads", "1", "--device", "cpu", "--quiet"]
PICTURES = ["--data", "digits", "--split", "train", "--index", "0:3"]
#: Each verb with its arguments, in the order in which they are run in one folder; the last number is the exit code.
COMMANDS: tuple[tuple[str, list[str], int], ...] = (
    ("train", ["digits", *SHORT, "--out", "one"], 0),
    ("train", ["digits", "--model", "mlp", *SHORT, "--out", "two"], 0),
    ("train", ["mnist", "--no-download", *SHORT], 3),
    ("check", ["pictures"], 0),
    ("resume", ["one", "--quiet"], 2),
    ("verify", ["one"], 0),
    ("tune", ["digits", "--model", "mlp", "--trials", "2", *SHORT[:-1], "--no-retrain", "--out", "found"], 0),
    ("eval", ["one"], 0),
    ("predict", ["one", *PICTURES, "--plot", "answers.png"], 0),
    ("explain", ["one", *PICTURES, "--exciting", "conv1:0"], 0),
    ("report", ["one"], 0),
    ("export", ["one", "--to", "onnx", "--out", "one.onnx"], 0),
    ("export", ["one", "--to", "striate"], 0),
    ("compare", ["one", "two", "--data", "digits", "--split", "train", "--index", "1"], 0),
    ("import", ["one/weights/best.safetensors", "--model", "three-conv", "--input-size", "8", "--out", "three"], 0),
    ("lesson", ["conv", "--html", "conv.html", "--plot", "kernels.png"], 0),
    ("models", [], 0),
    ("models", ["alexnet"], 0),
    ("recipes", ["digits"], 0),
    ("data ls", [], 0),
    ("data show", ["digits"], 0),
    ("data add", ["one/samples.png"], 3),
    ("cache ls", [], 0),
    ("cache clear", [], 0),
)

# An audit hook sees every call, also from C; it is inherited by forked processes.
CHILD = """
import json, sys
asked = []
def refuse(event, arguments):
    if event.startswith(("socket.", "http.", "urllib.", "ftplib.", "smtplib.")) and event != "socket.gethostname":
        asked.append([event, repr(arguments)[:200]])
        raise OSError(f"the network is out of reach: {event} {arguments}")
sys.addaudithook(refuse)
from striate.cli.main import run
codes = [run([*verb.split(), *words]) for verb, words, _ in json.loads(sys.argv[1])]
told = {"codes": codes, "asked": list(asked)}
import socket
for attempt in (lambda: socket.getaddrinfo("localhost", 80), socket.socket):
    try:
        attempt()
    except OSError:
        pass
told["caught"] = len(asked) - len(told["asked"])
open("told.json", "w").write(json.dumps(told))
"""


def leaves(command: Any, name: str = "") -> list[str]:
    """Return every verb, `data ls` for a verb of a group."""
    if not hasattr(command, "list_commands"):
        return [name]
    return [
        leaf
        for word in command.list_commands(None)
        for leaf in leaves(command.get_command(None, word), f"{name} {word}".strip())
    ]


def draw_pictures(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_every_verb_is_run_here() -> None:
    # A server is asked through the network; tests/serve/test_models.py shows that it asks for nothing itself.
    assert {verb for verb, _, _ in COMMANDS} == set(leaves(build())) - {"serve"}, "add the new verb to COMMANDS"


@pytest.mark.slow
def test_no_verb_asks_for_the_network(tmp_path: Path) -> None:
    known = set(leaves(build()))
    commands = [entry for entry in COMMANDS if entry[0] in known]
    draw_pictures(tmp_path / "pictures")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STRIATE_")}
    environment.update(HOME=str(tmp_path / "home"), XDG_CACHE_HOME=str(tmp_path / "cache"), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(commands)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["caught"] == 2, "the hook sees nothing: the test could not fail"
    assert told["asked"] == []
    failed = [(verb, words, code) for (verb, words, wanted), code in zip(commands, told["codes"]) if code != wanted]
    assert not failed, done.stderr
