"""The larger nets of same_net.py in Keras 3, layer for layer as torchvision's there, for ten classes.

torch's padding stands before the convolution: Keras' own "same" pads unevenly where the stride is 2.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


def convolve(x: Any, width: int, size: int, stride: int = 1, padding: int = 0, bias: bool = True) -> Any:
    if stride == 1 and padding == size // 2:
        return layers.Conv2D(width, size, padding="same", use_bias=bias)(x)
    x = layers.ZeroPadding2D(padding)(x) if padding else x
    return layers.Conv2D(width, size, strides=stride, use_bias=bias)(x)


def normalised(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))


def alexnet(x: Any) -> Any:
    x = layers.MaxPooling2D(3, 2)(layers.ReLU()(convolve(x, 64, 11, 4, 2)))
    x = layers.MaxPooling2D(3, 2)(layers.ReLU()(convolve(x, 192, 5, 1, 2)))
    for width in (384, 256, 256):
        x = layers.ReLU()(convolve(x, width, 3, 1, 1))
    x = layers.MaxPooling2D(3, 2)(x)  # 2 × 2 of 96 × 96
    x = layers.UpSampling2D(3)(x)  # what torchvision's adaptive pool to 6 × 6 does with 2 × 2
    x = layers.Flatten()(x)
    for width in (4096, 1024):
        x = layers.Dense(width, activation="relu")(layers.Dropout(0.5)(x))
    return layers.Dense(10)(x)


def resnet18(x: Any) -> Any:
    x = normalised(convolve(x, 64, 3, 1, 1, bias=False))
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = normalised(convolve(x, width, 3, stride, 1, bias=False))
            y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(convolve(y, width, 3, 1, 1, bias=False))
            if stride == 2:
                x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(convolve(x, width, 1, 2, bias=False))
            x = layers.ReLU()(layers.Add()([x, y]))
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def vgg16(x: Any) -> Any:
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = normalised(convolve(x, width, 3, 1, 1))
        x = layers.MaxPooling2D(2)(x)
    return layers.Dense(10)(layers.Flatten()(x))


NETS = {"alexnet": alexnet, "resnet18": resnet18, "vgg16": vgg16}


def make_net(name: str, side: int) -> Any:
    """Return a net for pictures (B, side, side, 3) that gives logits (B, 10)."""
    inputs = keras.Input((side, side, 3))
    return keras.Model(inputs, NETS[name](inputs))
