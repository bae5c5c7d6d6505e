"""A run whose net makes no mistake on the test pictures gets a picture that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import striate


def test_a_net_without_mistakes(tmp_path: Path) -> None:
    labels = np.arange(200) % 2
    images = np.zeros((200, 8, 8), np.uint8)
    images[labels == 1] = 255
    run = striate.train((images, labels), model="mlp", epochs=4, out=tmp_path / "run", quiet=True)
    assert run.evaluation["top1"]["value"] == 1.0
    assert (run.folder / "confusion_matrix.png").is_file() and (run.folder / "mistakes.png").is_file()
