"""Lightning, as its own examples train; the data sets are torchvision's way, a PIL picture at a time.

Gray pictures: the image classifier of its repository,
https://github.com/Lightning-AI/pytorch-lightning/tree/master/examples/fabric/image_classifier (two convolutions, two
linear layers, dropout; Adadelta at 1.0 times 0.7 each epoch, batch 64, 14 epochs), here with its `Trainer` and with
shuffling. Fashion-MNIST has no example and is trained the same. CIFAR-10: its tutorial "CIFAR10 ~94% Baseline",
https://lightning.ai/docs/pytorch/stable/notebooks/lightning_examples/cifar10-baseline.html (torchvision's ResNet-18
with a first convolution of 3 x 3 and no first pool, SGD, one cycle to 0.1, batch 256, 30 epochs, crops and mirroring).
"""

from __future__ import annotations

import os
from typing import Any

import lightning
import torch
import torchvision
from protocol import Race
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch_pictures import Pictures, predict
from torchvision import transforms


class MnistModule(lightning.LightningModule):
    batch_size, epochs, workers = 64, 14, 0
    train_transform = test_transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )

    def __init__(self, classes: int, pictures: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
            nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, classes),
        )  # fmt: skip

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self.net(images), labels)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adadelta(self.net.parameters(), lr=1.0)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)]


class CifarModule(MnistModule):
    batch_size, epochs, workers = 256, 30, (os.cpu_count() or 2) // 2
    normalise = transforms.Normalize((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616))
    test_transform = transforms.Compose([transforms.ToTensor(), normalise])
    train_transform = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalise]
    )

    def __init__(self, classes: int, pictures: int) -> None:
        super().__init__(classes, pictures)
        self.steps_per_epoch = -(-pictures // self.batch_size)
        net = torchvision.models.resnet18(num_classes=classes)
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
        self.net = net

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, epochs=self.epochs, steps_per_epoch=self.steps_per_epoch
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class Clock(lightning.Callback):
    def __init__(self, race: Race, answer: Any) -> None:
        self.race, self.answer = race, answer

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.race.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        trainer.should_stop = self.race.step(len(batch[1]))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.should_stop = self.race.judge(self.answer)


def main() -> None:
    race = Race.of_command_line()
    lightning.seed_everything(race.seed)
    kind = CifarModule if race.data == "cifar10" else MnistModule
    module = kind(race.classes, len(race.train_images))
    train = Pictures(race.train_images, race.train_labels, kind.train_transform)
    test = Pictures(race.test_images, race.test_labels, kind.test_transform)
    loader = DataLoader(train, batch_size=kind.batch_size, shuffle=True, num_workers=kind.workers)

    def answer() -> Any:
        return predict(module.net, test)

    trainer = lightning.Trainer(max_epochs=kind.epochs, callbacks=[Clock(race, answer)])
    trainer.fit(module, loader)
    race.finish(answer, lightning=lightning.__version__, torch=torch.__version__)


if __name__ == "__main__":
    main()
