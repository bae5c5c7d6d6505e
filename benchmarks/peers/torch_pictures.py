"""Arrays as torchvision's data sets give them: one PIL picture at a time, through a transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader


class Pictures:
    """What torchvision's MNIST and CIFAR10 are once their files are read; images uint8 (N, H, W, C)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Any], Any]) -> None:
        self.images, self.labels, self.transform = (
            images.squeeze(-1) if images.shape[-1] == 1 else images,
            labels,
            transform,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def predict(net: nn.Module, pictures: Pictures) -> np.ndarray:
    """Return the predictions (N,) of a net in evaluation mode, and leave it in training mode."""
    net.eval()
    with torch.inference_mode():
        found = [net(images).argmax(1) for images, _ in DataLoader(pictures, batch_size=500)]
    net.train()
    return torch.cat(found).numpy()
