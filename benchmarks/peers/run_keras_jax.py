"""Keras 3 on JAX, as Keras' own examples train: https://keras.io/examples/vision/mnist_convnet/ for the gray pictures.

Two convolutions and a dropout, Adam, batch 128, 15 epochs. Fashion-MNIST has no example of its own and is trained the
same. CIFAR-10: the ResNet-20 of Keras' older examples (https://keras.io/zh/examples/cifar10_resnet/), which says 92 %
after 200 epochs: batch 32, Adam at 0.001 and lower from epoch 80 on, the mean picture subtracted, shifts by up to a
tenth and mirroring, here as Keras 3's layers. Pictures go in as arrays, Keras' own way for what fits into memory.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"

from typing import Any

import jax
import keras
import numpy as np
from keras import layers
from protocol import Race


def convnet(race: Race) -> Any:
    """Return the net of mnist_convnet, compiled."""
    net = keras.Sequential(
        [
            keras.Input(race.train_images.shape[1:]),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(race.classes, activation="softmax"),
        ]
    )
    net.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    return net


def resnet20(race: Race) -> Any:
    """Return the net of cifar10_resnet, version 1, compiled."""

    def convolve(x: Any, width: int, size: int = 3, stride: int = 1) -> Any:
        weights = {"kernel_initializer": "he_normal", "kernel_regularizer": keras.regularizers.L2(1e-4)}
        return layers.Conv2D(width, size, strides=stride, padding="same", **weights)(x)

    def normalised(x: Any) -> Any:
        return layers.BatchNormalization()(x)

    inputs = keras.Input(race.train_images.shape[1:])
    x = layers.RandomFlip("horizontal")(layers.RandomTranslation(0.1, 0.1, fill_mode="nearest")(inputs))
    x = layers.ReLU()(normalised(convolve(x, 16)))
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(normalised(convolve(x, width, stride=stride)))
            y = normalised(convolve(y, width))
            if stride == 2:
                x = convolve(x, width, 1, 2)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    net = keras.Model(inputs, layers.Dense(race.classes, activation="softmax", kernel_initializer="he_normal")(x))
    net.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.Adam(1e-3), metrics=["accuracy"])
    return net


def lower_rate(epoch: int, _: float) -> float:
    """Return the rate of cifar10_resnet."""
    for begins, factor in ((180, 5e-4), (160, 1e-3), (120, 1e-2), (80, 1e-1)):
        if epoch > begins:
            return 1e-3 * factor
    return 1e-3


class Clock(keras.callbacks.Callback):
    def __init__(self, race: Race, batch_size: int, predict: Any) -> None:
        super().__init__()
        self.race, self.batch_size, self.predict = race, batch_size, predict

    def on_train_begin(self, logs: Any = None) -> None:
        self.race.start()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        left = len(self.race.train_images) - batch * self.batch_size
        self.model.stop_training = self.race.step(min(self.batch_size, left))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = self.race.judge(self.predict)


def main() -> None:
    race = Race.of_command_line()
    keras.utils.set_random_seed(race.seed)
    train, test = (images.astype("float32") / 255 for images in (race.train_images, race.test_images))
    callbacks: list[Any] = []
    if race.data == "cifar10":
        mean = train.mean(axis=0)
        train, test = train - mean, test - mean
        net, batch_size, epochs = resnet20(race), 32, 200
        callbacks.append(keras.callbacks.LearningRateScheduler(lower_rate))
    else:
        net, batch_size, epochs = convnet(race), 128, 15

    def predict() -> np.ndarray:
        return np.asarray(net.predict(test, batch_size=500, verbose=0)).argmax(1)

    labels = keras.utils.to_categorical(race.train_labels, race.classes)
    callbacks.append(Clock(race, batch_size, predict))
    net.fit(train, labels, batch_size=batch_size, epochs=epochs, verbose=2, callbacks=callbacks)
    race.finish(predict, keras=keras.__version__, jax=jax.__version__)


if __name__ == "__main__":
    main()
