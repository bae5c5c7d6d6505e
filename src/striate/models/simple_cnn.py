"""The third article's two nets for CIFAR-10: one convolution, and then two."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from striate.models.layers import Size, Window, as_size, check_picture, make_activation, map_sizes
from striate.models.registry import register

Activation = Literal["relu", "leaky-relu", "sigmoid", "tanh", "none"]


@register("simple-cnn")
class SimpleCNN(nn.Module):
    """One convolution 3->18, max pool, 4608-64-10: the least that deserves the name CNN; 296,130 parameters.

    294,976 of the parameters join the pooled maps (18 x 16 x 16 = 4608 numbers) to 64 units; the convolution has 504.
    `kernel`, `stride` and `padding` are the convolution's: the map's side is floor((n + 2p - k) / s) + 1, and the
    linear layer's size follows from it; the article works it out by hand and writes it down.
    Takes (B, in_channels, H, W), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | Size = 32,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        height, width = as_size(input_size)
        self.input_shape = (in_channels, height, width)
        windows = (Window("conv1", kernel, stride, padding), Window("pool1", 2, 2))
        map_height, map_width = map_sizes(self, (height, width), windows)[-1]
        self.conv1 = nn.Conv2d(in_channels, 18, kernel_size=kernel, stride=stride, padding=padding)
        self.activation1 = make_activation(activation)
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.fc1 = nn.Linear(18 * map_height * map_width, 64)
        self.activation2 = make_activation(activation)
        self.fc2 = nn.Linear(64, num_classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"conv1": self.activation1, "pool1": self.pool1}

    def forward(self, x: Tensor) -> Tensor:
        check_picture(self, x, self.input_shape)
        x = self.pool1(self.activation1(self.conv1(x)))  # (B, 3, 32, 32) -> (B, 18, 32, 32) -> (B, 18, 16, 16)
        x = self.activation2(self.fc1(x.flatten(1)))  # -> (B, 4608) -> (B, 64)
        return self.fc2(x)  # -> (B, 10)


@register("less-simple-cnn")
class LessSimpleCNN(nn.Module):
    """Two convolutions 3->18->18, each with a max pool, 1152-64-10: deeper and yet smaller; 77,880 parameters.

    A second pool quarters the numbers that reach the linear layer, and the second convolution sees patterns of
    patterns. The article writes the second convolution as 3->18 again; that cannot run, because it gets the 18 maps of
    the first, so ours is 18->18. `kernel`, `stride` and `padding` are those of both convolutions.
    Takes (B, in_channels, H, W), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | Size = 32,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        height, width = as_size(input_size)
        self.input_shape = (in_channels, height, width)
        windows = (
            Window("conv1", kernel, stride, padding),
            Window("pool1", 2, 2),
            Window("conv2", kernel, stride, padding),
            Window("pool2", 2, 2),
        )
        map_height, map_width = map_sizes(self, (height, width), windows)[-1]
        self.conv1 = nn.Conv2d(in_channels, 18, kernel_size=kernel, stride=stride, padding=padding)
        self.activation1 = make_activation(activation)
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(18, 18, kernel_size=kernel, stride=stride, padding=padding)
        self.activation2 = make_activation(activation)
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.fc1 = nn.Linear(18 * map_height * map_width, 64)
        self.activation3 = make_activation(activation)
        self.fc2 = nn.Linear(64, num_classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"conv1": self.activation1, "pool1": self.pool1, "conv2": self.activation2, "pool2": self.pool2}

    def forward(self, x: Tensor) -> Tensor:
        check_picture(self, x, self.input_shape)
        x = self.pool1(self.activation1(self.conv1(x)))  # (B, 3, 32, 32) -> (B, 18, 32, 32) -> (B, 18, 16, 16)
        x = self.pool2(self.activation2(self.conv2(x)))  # -> (B, 18, 16, 16) -> (B, 18, 8, 8)
        x = self.activation3(self.fc1(x.flatten(1)))  # -> (B, 1152) -> (B, 64)
        return self.fc2(x)  # -> (B, 10)
