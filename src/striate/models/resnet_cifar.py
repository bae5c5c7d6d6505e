"""ResNet, the nets for CIFAR-10 (He, Zhang, Ren and Sun 2015, section 4.2): thin and deep."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from striate.models.initialise import draw_convolutions
from striate.models.layers import Size, Window, as_size, check_least, least_input, map_sizes
from striate.models.registry import register


class Shortcut(nn.Module):
    """The paper's option A, without parameters: every other pixel, and empty maps for the channels that are new.

    (B, I, H, W) -> (B, I + more, H/stride, W/stride).
    """

    def __init__(self, stride: int, more: int) -> None:
        super().__init__()
        self.stride = stride
        self.more = more

    def extra_repr(self) -> str:
        return f"stride={self.stride}, more={self.more}"

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, I, H, W) -> (B, width, H/stride, W/stride)."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if stride == 1 else Shortcut(stride, width - in_channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        change = self.relu1(self.bn1(self.conv1(x)))
        change = self.bn2(self.conv2(change))
        return self.relu2(change + self.shortcut(x))


@register("resnet20", "Residual net for CIFAR of 20 layers, 16-32-64 channels; 269,722 parameters", depth=20)
@register("resnet32", "Residual net for CIFAR of 32 layers, 16-32-64 channels; 464,154 parameters", depth=32)
@register("resnet44", "Residual net for CIFAR of 44 layers, 16-32-64 channels; 658,586 parameters", depth=44)
@register("resnet56", "Residual net for CIFAR of 56 layers, 16-32-64 channels; 853,018 parameters", depth=56)
@register("resnet110", "Residual net for CIFAR of 110 layers, 16-32-64 channels; 1,727,962 parameters", depth=110)
class ResNetCifar(nn.Module):
    """Residual net for CIFAR: 6n + 2 layers, n blocks of two 3x3 convolutions on each of three sizes of map.

    A fortieth of resnet18's parameters, and yet 20 to 110 layers. The paper's table:

        map       32x32   16x16   8x8
        layers    1 + 2n  2n      2n      then the mean of each map, and 10
        channels  16      32      64

    Its errors on CIFAR-10 with 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters: 8.75, 7.51, 7.17, 6.97 and 6.43 %,
    after 64,000 steps of 128 pictures, shifted by up to 4 pixels and mirrored.

    Shortcuts have no parameters (option A). As in the paper: weights after He et al. (2015), normal, by the fan-in.
    What halves a map needs two pixels of it.
    Takes (B, in_channels, H, W) with sides of at least 3 pixels, returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | Size = 32,
        *,
        depth: int,
    ) -> None:
        super().__init__()
        windows = [Window(f"layer{number} (stride 2)", 3, 2, 1, least=2) for number in (2, 3)]
        map_sizes(self, as_size(input_size), windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        self.conv1 = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        count = (depth - 2) // 6
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(count)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(count - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(count - 1)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        draw_convolutions(self)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"conv1": self.relu, "layer1": self.layer1, "layer2": self.layer2, "layer3": self.layer3}

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 3, 32, 32) -> (B, 16, 32, 32)
        x = self.layer1(x)  # -> (B, 16, 32, 32)
        x = self.layer2(x)  # -> (B, 32, 16, 16)
        x = self.layer3(x)  # -> (B, 64, 8, 8)
        x = self.avgpool(x).flatten(1)  # -> (B, 64)
        return self.fc(x)  # -> (B, 10)
