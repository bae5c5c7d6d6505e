"""LeNet-5 as the second article writes it (after LeCun, Bottou, Bengio and Haffner 1998)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from striate.models.layers import (
    Size,
    Window,
    as_size,
    check_least,
    check_picture,
    least_input,
    make_activation,
    map_sizes,
)
from striate.models.registry import register


@register("lenet5")
class LeNet5(nn.Module):
    """LeNet-5: two convolutions, each with a sigmoid and average pooling, then 400-120-84-10; 61,706 parameters.

    The pattern of nearly all CNNs since: maps get smaller and more numerous, then linear layers decide. With sigmoids
    the gradient is small: the first epoch of plain SGD may sit at a loss of ln(10); `activation=relu` and `pool=max`
    show what later nets gained. `head=gap` puts one average over each map in place of the linear layers, so that the
    size of the picture no longer matters.

    As in the article, and unlike the paper: the picture is 28x28 with a padding of 2 (not 32x32), each conv2 kernel
    sees all six maps (the paper joins them by a table), pooling has no weights, and the last layer is linear (the paper
    has radial basis functions). The article's Xavier-uniform weights are a setting of the training (`init`).
    Takes (B, in_channels, H, W), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        input_size: int | Size = 28,
        *,
        activation: Literal["sigmoid", "tanh", "relu", "none"] = "sigmoid",
        pool: Literal["average", "max"] = "average",
        head: Literal["fc", "gap"] = "fc",
    ) -> None:
        super().__init__()
        height, width = as_size(input_size)
        windows = (Window("conv1", 5, padding=2), Window("pool1", 2, 2), Window("conv2", 5), Window("pool2", 2, 2))
        map_height, map_width = map_sizes(self, (height, width), windows)[-1]
        self.input_shape = (in_channels, height, width)
        self.least = least_input(windows)
        make_pool = nn.AvgPool2d if pool == "average" else nn.MaxPool2d
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5, padding=2)
        self.activation1 = make_activation(activation)
        self.pool1 = make_pool(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.activation2 = make_activation(activation)
        self.pool2 = make_pool(kernel_size=2, stride=2)
        if head == "gap":
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))
        else:
            self.head = nn.Sequential(
                nn.Flatten(),
                nn.Linear(16 * map_height * map_width, 120),
                make_activation(activation),
                nn.Linear(120, 84),
                make_activation(activation),
                nn.Linear(84, num_classes),
            )
        self.any_size = head == "gap"

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"conv1": self.activation1, "pool1": self.pool1, "conv2": self.activation2, "pool2": self.pool2}

    def forward(self, x: Tensor) -> Tensor:
        if self.any_size:
            check_least(self, x, self.input_shape[0], self.least)
        else:
            check_picture(self, x, self.input_shape)
        x = self.activation1(self.conv1(x))  # (B, 1, 28, 28) -> (B, 6, 28, 28)
        x = self.pool1(x)  # -> (B, 6, 14, 14)
        x = self.activation2(self.conv2(x))  # -> (B, 16, 10, 10)
        x = self.pool2(x)  # -> (B, 16, 5, 5)
        return self.head(x)  # -> (B, 400) -> (B, 120) -> (B, 84) -> (B, 10)
