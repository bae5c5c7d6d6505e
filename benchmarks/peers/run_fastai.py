"""fastai, as its book trains from scratch: https://github.com/fastai/fastbook.

Gray pictures: chapter 13, "Convolutional Neural Networks" (five convolutions of stride 2 with BatchNorm, one cycle of 5
epochs at 0.1, batch 512), whose table ends at 99 % on MNIST. Fashion-MNIST is trained the same. CIFAR-10, for which
fastai 2 has no recipe from scratch: chapter 14, "ResNets", which trains ten classes of photographs: fastai's own
xresnet18, one cycle of 5 epochs at 0.003, batch 64, its usual augmentation, at CIFAR-10's size. Pictures are read by
fastai's DataBlock, from arrays instead of files, with as many workers as it takes by itself.
"""

from __future__ import annotations

from typing import Any

import fastai
import numpy as np
import torch
from fastai.vision.all import (
    Callback,
    CancelFitException,
    CategoryBlock,
    DataBlock,
    Flatten,
    ImageBlock,
    IndexSplitter,
    Learner,
    Normalize,
    PILImage,
    PILImageBW,
    aug_transforms,
    imagenet_stats,
    set_seed,
    xresnet18,
)
from protocol import Race
from torch import nn
from torch.nn import functional


def book_convolution(inputs: int, outputs: int, kernel: int = 3, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)]
    if act:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs))


def book_cnn(classes: int) -> nn.Sequential:
    """Return the net of chapter 13: 28 → 14 → 7 → 4 → 2 → 1 pixels."""
    return nn.Sequential(
        book_convolution(1, 8, kernel=5),
        book_convolution(8, 16),
        book_convolution(16, 32),
        book_convolution(32, 64),
        book_convolution(64, classes, act=False),
        Flatten(),
    )


class Clock(Callback):
    def __init__(self, race: Race, predict: Any) -> None:
        self.race, self.predict = race, predict

    def before_train(self) -> None:
        self.race.start()

    def after_batch(self) -> None:
        if self.training and self.race.step(len(self.yb[0])):
            raise CancelFitException

    def after_train(self) -> None:
        if self.race.judge(self.predict):
            raise CancelFitException


def main() -> None:
    race = Race.of_command_line()
    set_seed(race.seed)
    images = np.concatenate([race.train_images, race.test_images])
    labels = np.concatenate([race.train_labels, race.test_labels])
    images = images.squeeze(-1) if images.shape[-1] == 1 else images
    train_count = len(race.train_images)
    if race.data == "cifar10":
        kind, batch_size, epochs, rate = PILImage, 64, 5, 3e-3
        batch_transforms = [*aug_transforms(size=32, min_scale=0.75), Normalize.from_stats(*imagenet_stats)]
        net = xresnet18(n_out=race.classes)
    else:
        kind, batch_size, epochs, rate = PILImageBW, 512, 5, 0.1
        batch_transforms, net = [Normalize()], book_cnn(race.classes)
    block = DataBlock(
        (ImageBlock(cls=kind), CategoryBlock(vocab=range(race.classes))),
        splitter=IndexSplitter([]),
        get_x=lambda index: images[index],
        get_y=lambda index: int(labels[index]),
        batch_tfms=batch_transforms,
    )
    loaders = block.dataloaders(range(train_count), bs=batch_size)
    test_loader = loaders.test_dl(range(train_count, len(images)), bs=500)

    def predict() -> np.ndarray:
        learner.model.eval()
        with torch.inference_mode():
            found = [learner.model(batch[0]).argmax(1) for batch in test_loader]
        learner.model.train()
        return np.asarray(torch.cat(found))

    learner = Learner(loaders, net, loss_func=functional.cross_entropy, cbs=[Clock(race, predict)])
    learner.fit_one_cycle(epochs, rate)
    race.finish(predict, fastai=fastai.__version__, torch=torch.__version__)


if __name__ == "__main__":
    main()
