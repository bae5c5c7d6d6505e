"""The five articles' nets and how each trains them, written afresh, with the plain net beside the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision import transforms


@dataclass
class Article:
    """A net as its article has it, and what the loop needs; `transform` takes one PIL picture."""

    data: str
    net: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any, Any], Any]
    batch_size: int
    epochs: int
    transform: Callable[[Any], Any]
    train_pictures: int | None = None  # where the article takes only the first of them


def one_hot_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy of sigmoids (B, 10) against one-hot labels."""
    targets = torch.zeros(len(labels), 10)
    targets[range(len(labels)), labels] = 1.0
    return nn.functional.binary_cross_entropy(outputs, targets)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.LeakyReLU(0.02), nn.Linear(200, 10), nn.Sigmoid())


def strided_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 10, 5, stride=2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
        nn.Conv2d(10, 10, 3, stride=2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
        nn.Flatten(), nn.Linear(250, 10), nn.Sigmoid(),
    )  # fmt: skip


def lenet5() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
        nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    return net


def simple_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 18, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(),
        nn.Linear(4608, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten(),
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(inplace=True),
        nn.Dropout(), nn.Linear(4096, 1024), nn.ReLU(inplace=True), nn.Linear(1024, 10),
    )  # fmt: skip


def three_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip


def make_article(name: str) -> Article:
    """Return an article's net, fresh, with its optimizer and the rest."""
    to_tensor = transforms.ToTensor()
    half = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    cross_entropy = nn.CrossEntropyLoss()
    if name in ("mlp", "strided-cnn"):
        net = mlp() if name == "mlp" else strided_cnn()
        return Article("mnist", net, torch.optim.Adam(net.parameters(), lr=0.001), one_hot_loss, 1, 3, to_tensor)
    if name == "lenet5":
        net = lenet5()
        return Article("fashion-mnist", net, torch.optim.SGD(net.parameters(), 0.9), cross_entropy, 256, 10, to_tensor)
    if name == "simple-cnn":
        net, transform = simple_cnn(), transforms.Compose([to_tensor, half])
        return Article(
            "cifar10", net, torch.optim.Adam(net.parameters(), lr=0.001), cross_entropy, 32, 5, transform, 20_000
        )
    if name == "alexnet":
        net, transform = alexnet(), transforms.Compose([transforms.Resize((96, 96)), to_tensor, half])
        optimizer = torch.optim.Adam(net.parameters(), lr=0.001, weight_decay=0.0001)
        return Article("cifar10", net, optimizer, cross_entropy, 500, 20, transform)
    net = three_conv()
    return Article("mnist", net, torch.optim.Adam(net.parameters(), lr=0.01), cross_entropy, 64, 10, to_tensor)


def train_steps(article: Article, loader: Iterable[Any]) -> Iterator[int]:
    """Train one epoch as the articles do, keeping the running loss and accuracy; yield the pictures of each step."""
    article.net.train()
    total, correct = 0.0, 0
    for images, labels in loader:
        outputs = article.net(images)
        loss = article.loss(outputs, labels)
        article.optimizer.zero_grad()
        loss.backward()
        article.optimizer.step()
        total += loss.item()
        correct += int((outputs.argmax(1) == labels).sum())
        yield len(labels)
