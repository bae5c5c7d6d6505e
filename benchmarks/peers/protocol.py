"""How a peer of time_to_accuracy.py is asked and answers: one process, one data set, one seed, one line of JSON.

A peer is a script `run_NAME.py` beside this file, run by the Python of an environment of its own. It needs numpy alone
of what this file imports. It makes a `Race` of its command line, trains as its framework's page does, and calls

- `start` when the first step begins: the clock runs from here, so that reading and importing count only from prompt to
  prompt, and compiling counts;
- `step` after every step: true when the time is over, and training has to stop;
- `judge` at every epoch's end: true when the target is reached, and training has to stop. The clock stands meanwhile;
- `finish` in the end: it judges once more where steps were taken since, and prints the answer.

What a framework's page holds out of the train pictures for validation is trained on instead, and its own validation is
left out: the test pictures after each epoch take its place, off the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Predict = Callable[[], np.ndarray]
PARTS = ("train", "test")


def accuracy_of(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of predictions (N,) that equal the labels (N,)."""
    if predictions.shape != labels.shape:
        raise ValueError(f"{predictions.shape} predictions for {labels.shape} labels")
    return float(np.mean(predictions == labels))


def save_arrays(folder: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images uint8 (N, H, W, C) and labels int64 (N,) of `train` or `test` as a race reads them."""
    np.save(folder / f"{part}_images.npy", images)
    np.save(folder / f"{part}_labels.npy", labels)


class Race:
    """The data, the clock and what was seen. Images are uint8 (N, H, W, C), labels int64 (N,)."""

    def __init__(self, data: str, folder: Path, seed: int, target: float, limit: float) -> None:
        self.data, self.folder, self.seed, self.target, self.limit = data, folder, seed, target, limit
        arrays = {f"{part}_{kind}": np.load(folder / f"{part}_{kind}.npy") for part in PARTS for kind in ARRAYS}
        self.train_images, self.train_labels = arrays["train_images"], arrays["train_labels"]
        self.test_images, self.test_labels = arrays["test_images"], arrays["test_labels"]
        self.classes = int(self.train_labels.max()) + 1
        self.pictures = 0  # trained on so far
        self.unclocked = 0.0  # seconds that count nowhere: judging, and files in the form that a framework wants
        self._clock = 0.0
        self._running_since: float | None = None
        self._judged_at = -1
        self._accuracies: list[float] = []

    @classmethod
    def of_command_line(cls, parser: argparse.ArgumentParser | None = None) -> Race:
        """Read the arguments that every peer takes."""
        given = add_arguments(parser or argparse.ArgumentParser()).parse_args()
        return cls(given.data, given.folder, given.seed, given.target, given.limit)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        running = 0.0 if self._running_since is None else time.perf_counter() - self._running_since
        return self._clock + running

    def start(self) -> None:
        """Let the clock run; again does nothing."""
        if self._running_since is None:
            self._running_since = time.perf_counter()

    def step(self, pictures: int) -> bool:
        """Note a step on so many pictures; return whether the time is over."""
        self.pictures += pictures
        return self.seconds >= self.limit

    def judge(self, predict: Predict) -> bool:
        """Compare the predictions (N,) of all test pictures with the labels; return whether training has to stop."""
        with self.off_the_clock():
            self._accuracies.append(accuracy_of(np.asarray(predict()), self.test_labels))
        self._judged_at = self.pictures
        return self.reached or self.seconds >= self.limit

    @property
    def reached(self) -> bool:
        return bool(self._accuracies) and self._accuracies[-1] >= self.target

    @contextlib.contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """Do something that counts nowhere."""
        began, running = time.perf_counter(), self._running_since is not None
        self._clock, self._running_since = self.seconds, None
        yield
        self.unclocked += time.perf_counter() - began
        if running:
            self.start()

    def finish(self, predict: Predict, **versions: str) -> None:
        """Stop the clock and print the answer."""
        self._clock, self._running_since = self.seconds, None
        if self._judged_at != self.pictures:
            self.judge(predict)
        told = "reached" if self.reached else "limit" if self.seconds >= self.limit else "end"
        answer = {
            **{"stopped": told, "seconds": self.seconds, "accuracy": self._accuracies[-1]},
            **{"best": max(self._accuracies), "epochs": self.pictures / len(self.train_images)},
            **{"pictures": self.pictures, "unclocked": self.unclocked, "versions": versions},
        }
        print(f"\n{json.dumps(answer)}", flush=True)  # a progress bar may stand before it

    def picture_folder(self) -> Path:
        """Return a folder train|test/CLASS/INDEX.png of all pictures; written once, off the clock."""
        folder = self.folder / "pictures"
        with self.off_the_clock():
            if not folder.exists():
                self._write_pictures(folder)
        return folder

    def _write_pictures(self, folder: Path) -> None:
        from PIL import Image

        for part in PARTS:
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            for label in range(self.classes):
                (folder / part / str(label)).mkdir(parents=True)
            for index, (image, label) in enumerate(zip(images, labels)):
                Image.fromarray(image.squeeze()).save(folder / part / str(label) / f"{index:05}.png")


ARRAYS = ("images", "labels")


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--data", required=True, help="mnist, fashion-mnist or cifar10")
    parser.add_argument("--folder", required=True, type=Path, help="where the arrays lie")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--target", required=True, type=float, help="accuracy, 0 to 1")
    parser.add_argument("--limit", required=True, type=float, help="seconds of training")
    return parser
