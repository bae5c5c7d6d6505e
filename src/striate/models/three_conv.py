"""The fifth article's net for MNIST: three convolutions and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from striate.models.layers import Size, Window, as_size, check_picture, map_sizes
from striate.models.registry import register


@register("three-conv")
class ThreeConv(nn.Module):
    """Three 3x3 convolutions 1->8->16->32 with ReLU, max pool after the first two, 1568-10; 21,578 parameters.

    Each pool halves the map and each convolution doubles the number of maps. One linear layer is enough here: by then
    each of the 7x7 places holds 32 answers to 'is this pattern here?'. A padding of 1 keeps the size, so that only the
    pools change it: 28 -> 14 -> 7.

    Ours differs: `flatten(1)` in place of a view(-1, 1568), which turns a larger picture into several samples.
    Takes (B, in_channels, H, W), returns (B, num_classes).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, input_size: int | Size = 28) -> None:
        super().__init__()
        height, width = as_size(input_size)
        self.input_shape = (in_channels, height, width)
        windows = (
            Window("conv1", 3, padding=1),
            Window("pool1", 2, 2),
            Window("conv2", 3, padding=1),
            Window("pool2", 2, 2),
            Window("conv3", 3, padding=1),
        )
        map_height, map_width = map_sizes(self, (height, width), windows)[-1]
        self.conv1 = nn.Conv2d(in_channels, 8, kernel_size=3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv3 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.relu3 = nn.ReLU()
        self.fc = nn.Linear(32 * map_height * map_width, num_classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"conv1": self.relu1, "conv2": self.relu2, "conv3": self.relu3}

    def forward(self, x: Tensor) -> Tensor:
        check_picture(self, x, self.input_shape)
        x = self.pool1(self.relu1(self.conv1(x)))  # (B, 1, 28, 28) -> (B, 8, 28, 28) -> (B, 8, 14, 14)
        x = self.pool2(self.relu2(self.conv2(x)))  # -> (B, 16, 14, 14) -> (B, 16, 7, 7)
        x = self.relu3(self.conv3(x))  # -> (B, 32, 7, 7)
        return self.fc(x.flatten(1))  # -> (B, 1568) -> (B, 10)
