"""ResNet, the nets for ImageNet (He, Zhang, Ren and Sun 2015): blocks that add to what they were given."""

from __future__ import annotations

from torch import Tensor, nn

from striate.models.initialise import draw_convolutions
from striate.models.layers import Size, Stem, Window, as_size, check_least, least_input, map_sizes, small_stem
from striate.models.registry import register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, I, H, W) -> (B, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(in_channels, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        change = self.relu1(self.bn1(self.conv1(x)))
        change = self.bn2(self.conv2(change))
        return self.relu2(change + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, beside a shortcut: (B, I, H, W) -> (B, 4*width, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        change = self.relu1(self.bn1(self.conv1(x)))
        change = self.relu2(self.bn2(self.conv2(change)))
        change = self.bn3(self.conv3(change))
        return self.relu3(change + (x if self.downsample is None else self.downsample(x)))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut of a block whose shape changes, a 1x1 convolution (the paper's option B); None elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


#: depth: the block, and how many of them stand in each of the four layers (the paper's table 1).
FORMS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


@register("resnet18", "Residual net of 18 layers, blocks of two 3x3 convolutions; 11,689,512 parameters", depth=18)
@register("resnet34", "Residual net of 34 layers, blocks of two 3x3 convolutions; 21,797,672 parameters", depth=34)
@register("resnet50", "Residual net of 50 layers, bottleneck blocks; 25,557,032 parameters", depth=50)
@register("resnet101", "Residual net of 101 layers, bottleneck blocks; 44,549,160 parameters", depth=101)
@register("resnet152", "Residual net of 152 layers, bottleneck blocks; 60,192,808 parameters", depth=152)
class ResNet(nn.Module):
    """Residual net: each block computes what to add to its input, so that gradients pass through many layers.

    A deeper plain net does worse on its own train set, because it does not even learn to leave maps as they are. A
    block that adds begins there. The paper's table 1, at 224 pixels:

        map      layer    18            34            50                    101     152
        112x112  conv1    7x7, 64, stride 2
        56x56    maxpool  3x3, stride 2
        56x56    layer1   [3x3, 64] 2·2   [3x3, 64] 2·3   [1x1, 64; 3x3, 64; 1x1, 256]     ·3      ·3      ·3
        28x28    layer2   [3x3, 128] 2·2  [3x3, 128] 2·4  [1x1, 128; 3x3, 128; 1x1, 512]   ·4      ·4      ·8
        14x14    layer3   [3x3, 256] 2·2  [3x3, 256] 2·6  [1x1, 256; 3x3, 256; 1x1, 1024]  ·6      ·23     ·36
        7x7      layer4   [3x3, 512] 2·2  [3x3, 512] 2·3  [1x1, 512; 3x3, 512; 1x1, 2048]  ·3      ·3      ·3
        1x1      fc       mean of each map, 1000

    `stem`: `imagenet` as above; `cifar` for small pictures: conv1 is 3x3 with stride 1, and there is no maxpool;
    `auto` takes that where a side is under 64 pixels.

    Unlike the paper, as in torchvision: a bottleneck halves the map in its 3x3 convolution and not in the first 1x1;
    weights are drawn as He et al. (2015) do, but with the fan-out. The names of parameters are torchvision's. Our ReLUs
    do not write in place, so that a convolution's output can be looked at. What halves a map needs two pixels of it.
    Takes (B, in_channels, H, W) with sides of at least 17 pixels (`cifar`: 5), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        input_size: int | Size = 224,
        *,
        depth: int,
        stem: Stem = "auto",
    ) -> None:
        super().__init__()
        size = as_size(input_size)
        small = small_stem(stem, size)
        begin = [] if small else [Window("conv1", 7, 2, 3, least=2), Window("maxpool", 3, 2, 1, least=2)]
        windows = [*begin, *(Window(f"layer{number} (stride 2)", 3, 2, 1, least=2) for number in (2, 3, 4))]
        map_sizes(self, size, windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        if small:
            self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        block, counts = FORMS[depth]
        channels = 64
        for number, (width, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True), start=1):
            blocks = []
            for place in range(count):
                blocks.append(block(channels, width, stride=2 if number > 1 and place == 0 else 1))
                channels = block.expansion * width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        draw_convolutions(self, "fan_out")

    @property
    def layers(self) -> list[nn.Module]:
        """The four sequences of blocks."""
        return [self.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"conv1": self.relu, **{f"layer{number}": layer for number, layer in enumerate(self.layers, start=1)}}

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 3, 224, 224) -> (B, 64, 112, 112)
        x = self.maxpool(x)  # -> (B, 64, 56, 56)
        for layer in self.layers:  # -> (B, 64, 56, 56) -> (B, 128, 28, 28) -> (B, 256, 14, 14) -> (B, 512, 7, 7)
            x = layer(x)  # with bottlenecks 4 times the channels
        x = self.avgpool(x).flatten(1)  # -> (B, 512)
        return self.fc(x)  # -> (B, 1000)
