"""Ultralytics' `yolo classify train`, as its pages of the data sets say.

https://docs.ultralytics.com/datasets/classify/mnist/ (fashion-mnist/ and cifar10/ alike):
`yolo classify train data=mnist model=yolo26n-cls.pt epochs=100 imgsz=28` (imgsz=32 for CIFAR-10), all else by default.
The pages advise weights pretrained on ImageNet, which are downloaded; here the same net starts from scratch
(`yolo26n-cls.yaml`), so that no side has seen other pictures. Its loader reads class folders of PNG files, as its own
copies of the data sets are; writing them is not counted. It is judged by the averaged weights, which it would save.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

# Its settings file would go to the user's folder, and plots would ask for a font to be downloaded.
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
os.environ.setdefault("YOLO_OFFLINE", "true")

import numpy as np
import torch
import ultralytics
from protocol import Race
from torch.utils.data import DataLoader
from ultralytics import YOLO

NET = "yolo26n-cls.yaml"


class Over(Exception):
    """Training has to stop."""


def main() -> None:
    race = Race.of_command_line()
    folder = race.picture_folder()
    loader: Any = None
    trainers: list[Any] = []

    def predict() -> np.ndarray:
        nonlocal loader
        trainer = trainers[0]
        if loader is None:  # its own loader shuffles these pictures too
            loader = DataLoader(trainer.build_dataset(str(folder / "test"), "val"), batch_size=100)
        net = trainer.ema.ema.eval()
        answers, classes = [], []
        with torch.inference_mode():
            for batch in loader:
                found = net(batch["img"].float())
                answers.append((found[0] if isinstance(found, tuple) else found).argmax(1))
                classes.append(batch["cls"])
        # The data set goes through the folder by class; a file's name is its place in the data set.
        order = np.argsort([int(Path(sample[0]).stem) for sample in loader.dataset.samples])
        if not np.array_equal(np.asarray(torch.cat(classes))[order], race.test_labels):
            raise RuntimeError("the pictures do not come as they were written")
        return np.asarray(torch.cat(answers))[order]

    def starts(trainer: Any) -> None:
        trainers.append(trainer)
        race.start()

    def ends_batch(trainer: Any) -> None:
        count = len(race.train_images)
        if race.step(min(trainer.batch_size, count - race.pictures % count)):
            raise Over

    def ends_epoch(trainer: Any) -> None:
        if race.judge(predict):
            raise Over

    model = YOLO(NET)
    model.add_callback("on_train_start", starts)
    model.add_callback("on_train_batch_end", ends_batch)
    model.add_callback("on_train_epoch_end", ends_epoch)
    size = 32 if race.data == "cifar10" else 28
    with contextlib.suppress(Over):
        model.train(data=str(folder), epochs=100, imgsz=size, seed=race.seed, device="cpu", val=False, plots=False)
    race.finish(predict, ultralytics=ultralytics.__version__, torch=torch.__version__)


if __name__ == "__main__":
    main()
