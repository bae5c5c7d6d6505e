"""AlexNet as it won in 2012 (Krizhevsky, Sutskever and Hinton): two towers, and response normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from striate.models.layers import Size, Stem, Window, as_size, check_picture, map_sizes, small_stem
from striate.models.registry import positive, register


@register("alexnet-2012")
class AlexNet2012(nn.Module):
    """AlexNet of 2012: 96-256-384-384-256 in two towers, 4096-4096; 60,965,224 parameters.

    The net began the field as it is: ReLU, dropout and two graphics cards. Of the paper's figure 2, at 227 pixels:

        layer   kernel         channels  towers  map
        conv1   11x11, stride 4      96       2  55x55   response normalisation, then pool1 -> 27x27
        conv2   5x5, padding 2      256       2  27x27   response normalisation, then pool2 -> 13x13
        conv3   3x3, padding 1      384       1  13x13
        conv4   3x3, padding 1      384       2  13x13
        conv5   3x3, padding 1      256       2  13x13   then pool5 -> 6x6
        fc6, fc7                   4096       1          with dropout
        fc8                        1000       1

    The paper says 224 pixels, and that cannot be: (224 - 11) / 4 + 1 is 54.25, so conv1 gives 54x54 and pool5 5x5. With
    227 it is 55, as the paper counts, and so on to 6x6.

    The towers are the two GTX 580 with 3 GB each that the net was cut in halves for: each held half of the channels,
    and its conv2, conv4 and conv5 read the maps of their own card only, which are convolutions in 2 groups. conv3 and
    the linear layers read from both. (conv1 reads the picture alone, so towers make no difference there.)

    Pools overlap: 3 pixels wide, 2 apart. `lrn`: response normalisation, which divides each value by
    (2 + 1e-4 · sum of the squares at its place over 5 neighbouring channels)^0.75. These numbers were chosen for
    pictures of 0 to 255; with pictures of variance 1 the sum is small, and little is left of it but the division by
    2^0.75.

    `stem`: `imagenet` as above; `cifar` for small pictures: conv1 is 5x5 with stride 1 and padding 2, as in the
    authors' nets for CIFAR-10; `auto` takes that where a side is under 67 pixels. The size of fc6 follows from the
    picture's. `units`: of fc6 and fc7.

    Unlike the paper: weights are drawn as torch does (uniform, by the fan-in). The paper's normal ones with a deviation
    of 0.01 were for pictures of 0 to 255 too: with ours the differences between two pictures fade on their way.
    Takes (B, in_channels, H, W) with sides of at least 67 pixels (`cifar`: 15), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        input_size: int | Size = 227,
        *,
        lrn: bool = True,
        units: int = 4096,
        stem: Stem = "auto",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        height, width = as_size(input_size)
        small = small_stem(stem, (height, width), large=67)
        first = Window("conv1", 5, 1, 2) if small else Window("conv1", 11, 4)
        windows = (
            first,
            Window("pool1", 3, 2),
            Window("conv2", 5, 1, 2),
            Window("pool2", 3, 2),
            Window("conv3", 3, 1, 1),
            Window("conv4", 3, 1, 1),
            Window("conv5", 3, 1, 1),
            Window("pool5", 3, 2),
        )
        map_height, map_width = map_sizes(self, (height, width), windows)[-1]
        self.input_shape = (in_channels, height, width)
        self.conv1 = nn.Conv2d(in_channels, 96, kernel_size=first.kernel, stride=first.stride, padding=first.padding)
        self.relu1 = nn.ReLU()
        self.norm1 = LocalResponseNorm(96) if lrn else nn.Identity()
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.norm2 = LocalResponseNorm(256) if lrn else nn.Identity()
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.conv3 = nn.Conv2d(256, 384, kernel_size=3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=2)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(kernel_size=3, stride=2)
        units = positive("alexnet-2012's units", units)
        self.fc6 = nn.Linear(256 * map_height * map_width, units)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = nn.Linear(units, units)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Linear(units, num_classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order: each convolution after its ReLU."""
        return {f"conv{number}": getattr(self, f"relu{number}") for number in range(1, 6)}

    def forward(self, x: Tensor) -> Tensor:
        check_picture(self, x, self.input_shape)
        x = self.norm1(self.relu1(self.conv1(x)))  # (B, 3, 227, 227) -> (B, 96, 55, 55)
        x = self.pool1(x)  # -> (B, 96, 27, 27)
        x = self.norm2(self.relu2(self.conv2(x)))  # -> (B, 256, 27, 27)
        x = self.pool2(x)  # -> (B, 256, 13, 13)
        x = self.relu3(self.conv3(x))  # -> (B, 384, 13, 13)
        x = self.relu4(self.conv4(x))  # -> (B, 384, 13, 13)
        x = self.relu5(self.conv5(x))  # -> (B, 256, 13, 13)
        x = self.pool5(x).flatten(1)  # -> (B, 256, 6, 6) -> (B, 9216)
        x = self.drop6(self.relu6(self.fc6(x)))  # -> (B, 4096)
        x = self.drop7(self.relu7(self.fc7(x)))  # -> (B, 4096)
        return self.fc8(x)  # -> (B, 1000)


class LocalResponseNorm(nn.Module):
    """Local response normalisation, x / (2 + 1e-4 · the sum of x² over 5 neighbouring channels)^0.75; section 3.3.

    The sum is a 1x1 convolution whose kernel is a band: forward and back it takes a fourth to a sixth of the time of
    torch's module of this name, which pools in three dimensions. Takes and returns (B, channels, H, W).
    """

    band: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        place = torch.arange(channels)
        near = (place[:, None] - place).abs() <= 2
        self.register_buffer("band", 1e-4 * near.float()[..., None, None], persistent=False)  # (C, C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        root = torch.rsqrt(2 + functional.conv2d(x * x, self.band))
        return x * (root * root.sqrt())
