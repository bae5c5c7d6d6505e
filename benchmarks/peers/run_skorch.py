"""skorch, as its notebook "MNIST with scikit-learn and skorch" trains a convolutional net.

https://github.com/skorch-dev/skorch/blob/master/notebooks/MNIST.ipynb: two convolutions and two linear layers with
dropout, Adam at 0.002, 10 epochs, batch 128 and no shuffling (skorch's defaults), pixels from 0 to 1, arrays given to
`fit`. Fashion-MNIST and CIFAR-10 are trained the same; skorch's documents have no recipe from scratch for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import skorch
import torch
from protocol import Race
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional


class Cnn(nn.Module):
    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.conv2_drop = nn.Dropout2d(0.5)
        self.fc1 = nn.Linear(64 * (((side - 2) // 2 - 2) // 2) ** 2, 100)
        self.fc1_drop = nn.Dropout(0.5)
        self.fc2 = nn.Linear(100, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(functional.max_pool2d(self.conv1(x), 2))
        x = torch.relu(functional.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = torch.relu(self.fc1_drop(self.fc1(x.flatten(1))))
        return torch.softmax(self.fc2(x), dim=-1)


class Clock(skorch.callbacks.Callback):
    """skorch ends `fit` in good order on a KeyboardInterrupt."""

    def __init__(self, race: Race, predict: Any) -> None:
        self.race, self.predict = race, predict

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.race.start()

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **_: Any) -> None:
        if training and self.race.step(len(batch[1])):
            raise KeyboardInterrupt

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        if self.race.judge(self.predict):
            raise KeyboardInterrupt


def main() -> None:
    race = Race.of_command_line()
    torch.manual_seed(race.seed)
    train, test = (
        np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype("float32") / 255
        for images in (race.train_images, race.test_images)
    )
    _, channels, side, _ = train.shape

    def predict() -> np.ndarray:
        return net.predict(test)

    net = NeuralNetClassifier(
        Cnn,
        module__channels=channels,
        module__side=side,
        module__classes=race.classes,
        max_epochs=10,
        lr=0.002,
        optimizer=torch.optim.Adam,
        train_split=None,
        callbacks=[("clock", Clock(race, predict))],
    )
    net.fit(train, race.train_labels)
    race.finish(predict, skorch=skorch.__version__, torch=torch.__version__)


if __name__ == "__main__":
    main()
