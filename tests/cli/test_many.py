"""Ten thousand pictures through `predict`: all answered, in order, in bounded memory, whatever is among them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COUNT = 10_000
BAD = {0: b"", 17: b"hello, this is text", 5_000: b"\x89PNG\r\n\x1a\n cut off", COUNT - 1: b"GIF89a"}
# What 10,000 pictures may take beyond 1,000, in megabytes: three times docs/predict.md.
MOST_GROWTH_MB = 3 * 8

# Peak memory after a thousand pictures, and after all of them, in one process.
PROGRAM = """
import os, re, sys
from pathlib import Path
from striate.cli.main import run
_, model, folder, few, form, out = sys.argv
peaks, codes = [], []
for pictures in (few, folder):
    sys.stdout.flush()
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    codes.append(run(["predict", model, pictures, form, "--device", "cpu"]))
    # getrusage would count what the process that started this one had
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
sys.stderr.write(f"codes {codes} grown {peaks[1] - peaks[0]:.1f}\\n")
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of 10,000 pictures, most of them links to ten files, and one of the first thousand."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(root / f"{number}.png")
    folder, few = root / "all", root / "few"
    for place, count in ((folder, COUNT), (few, 1_000)):
        place.mkdir()
        for number in range(count):
            name = place / f"{number:05}.png"
            if number in BAD:
                name.write_bytes(BAD[number])
            else:
                os.link(root / f"{number % 10}.png", name)
    return folder, few


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is asked of Linux")
@pytest.mark.parametrize(
    ("backend", "form"), [("onnx", "--csv"), pytest.param("torch", "--jsonl", marks=pytest.mark.slow)]
)
def test_ten_thousand_pictures(
    many: tuple[Path, Path], digits_run: Path, tmp_path: Path, backend: str, form: str
) -> None:
    model = digits_run
    if backend == "onnx":
        linear_onnx = pytest.importorskip("tests.predictor.linear_onnx")
        model = tmp_path / "model.onnx"
        model.write_bytes(linear_onnx.linear_model().SerializeToString())
    folder, few = many
    command = [sys.executable, "-c", PROGRAM, str(model), str(folder), str(few), form, str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    told = ended.stderr.splitlines()
    assert "codes [3, 3]" in told[-1] and f"{len(BAD)} of {COUNT} pictures could not be read" in told, ended.stderr[
        -500:
    ]
    print(told[-1])
    assert float(told[-1].split()[-1]) < MOST_GROWTH_MB, told[-1]
    with open(tmp_path / "out", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream)) if form == "--csv" else [json.loads(line) for line in stream]
    assert [Path(row["source"]).name for row in rows] == [f"{number:05}.png" for number in range(COUNT)]
    assert {number for number, row in enumerate(rows) if row.get("error")} == set(BAD)
    seen = {}
    for number, row in enumerate(rows):
        if number not in BAD:  # the same picture, the same answer, wherever it stands
            answer = row["label"], round(float(row["probability"]), 4)
            assert seen.setdefault(number % 10, answer)[0] == answer[0]
            assert abs(seen[number % 10][1] - answer[1]) < 2e-4
