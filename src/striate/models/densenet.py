"""DenseNet (Huang, Liu, van der Maaten and Weinberger 2016): each layer reads the maps of all layers before it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.initialise import draw_convolutions
from striate.models.layers import Size, Stem, Window, as_size, check_least, least_input, map_sizes, small_stem
from striate.models.registry import positive, register

#: A layer first brings what it reads to so many times `growth` channels (the paper's bottleneck, the B of DenseNet-BC).
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1; BatchNorm, ReLU, 3x3: from all maps so far (B, I, H, W) new ones (B, growth, H, W)."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(x)))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.Module):
    """Layers on maps of one size, each reading all before it: (B, I, H, W) -> (B, I + layers*growth, H, W)."""

    def __init__(self, in_channels: int, layers: int, growth: int) -> None:
        super().__init__()
        for number in range(layers):
            self.add_module(f"denselayer{number + 1}", DenseLayer(in_channels + number * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.children():
            maps.append(layer(torch.cat(maps, dim=1)))
        return torch.cat(maps, dim=1)


class Transition(nn.Sequential):
    """BatchNorm, ReLU, 1x1 to half of the channels, 2x2 mean: (B, I, H, W) -> (B, I//2, H//2, W//2)."""

    def __init__(self, in_channels: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["norm"] = nn.BatchNorm2d(in_channels)
        layers["relu"] = nn.ReLU()
        layers["conv"] = nn.Conv2d(in_channels, in_channels // 2, kernel_size=1, bias=False)
        layers["pool"] = nn.AvgPool2d(kernel_size=2, stride=2)
        super().__init__(layers)


@register(
    "densenet121", "Dense net of 121 layers, 32 new maps a layer; 7,978,856 parameters",
    growth=32, blocks=(6, 12, 24, 16),
)  # fmt: skip
@register(
    "densenet169", "Dense net of 169 layers, 32 new maps a layer; 14,149,480 parameters",
    growth=32, blocks=(6, 12, 32, 32),
)  # fmt: skip
@register(
    "densenet201", "Dense net of 201 layers, 32 new maps a layer; 20,013,928 parameters",
    growth=32, blocks=(6, 12, 48, 32),
)  # fmt: skip
@register(
    "densenet161", "Dense net of 161 layers, 48 new maps a layer; 28,681,000 parameters",
    growth=48, blocks=(6, 12, 36, 24),
)  # fmt: skip
class DenseNet(nn.Module):
    """Dense net: each layer adds a few maps to all those before it, and reads all of them.

    Nothing has to be computed again by later layers, so a layer is thin: 32 new maps (`growth`; 48 in densenet161). A
    layer is BatchNorm, ReLU, 1x1 to 4 times `growth` channels, BatchNorm, ReLU, 3x3. The paper's table 1, at 224:

        map      layers         121   169   201   161
        112x112  conv0          7x7, stride 2, to twice `growth` channels
        56x56    pool0          3x3, stride 2
        56x56    denseblock1    6     6     6     6
        28x28    transition1    1x1 to half of the channels, 2x2 mean; and so after blocks 2 and 3
        28x28    denseblock2    12    12    12    12
        14x14    denseblock3    24    32    48    36
        7x7      denseblock4    16    32    32    24
        1x1      classifier     mean of each map, 1000

    `stem`: `imagenet` as above; `cifar` for small pictures: conv0 is 3x3 with stride 1, and there is no pool0; `auto`
    takes that where a side is under 64 pixels.

    The names of parameters are torchvision's. As in torchvision, weights are drawn after He et al. (2015), normal, by
    the fan-in, and there is no dropout, which the paper has where pictures are not augmented.
    Takes (B, in_channels, H, W) with sides of at least 29 pixels (`cifar`: 8), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        input_size: int | Size = 224,
        *,
        growth: int,
        blocks: tuple[int, ...],
        stem: Stem = "auto",
    ) -> None:
        super().__init__()
        size = as_size(input_size)
        small = small_stem(stem, size)
        begin = [] if small else [Window("features.conv0", 7, 2, 3), Window("features.pool0", 3, 2, 1)]
        transitions = [f"transition{number}" for number in range(1, len(blocks))]
        windows = [*begin, *(Window(f"features.{name}.pool", 2, 2) for name in transitions)]
        map_sizes(self, size, windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        channels = 2 * growth
        layers = self._begin(in_channels, channels, small)
        for number, count in enumerate(blocks, start=1):
            layers[f"denseblock{number}"] = DenseBlock(channels, count, growth)
            channels += count * growth
            if number < len(blocks):
                layers[f"transition{number}"] = Transition(channels)
                channels //= 2
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        draw_convolutions(self)
        nn.init.zeros_(self.classifier.bias)

    def _begin(self, in_channels: int, channels: int, small: bool) -> OrderedDict[str, nn.Module]:
        """Return what stands before the first block."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if small:
            layers["conv0"] = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        else:
            layers["conv0"] = nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=False)
        layers["norm0"] = nn.BatchNorm2d(channels)
        layers["relu0"] = nn.ReLU()
        if not small:
            layers["pool0"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        return layers

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        layers = dict(self.features.named_children())
        blocks = {name: layer for name, layer in layers.items() if name.startswith("denseblock")}
        return {"conv0": layers["relu0"] if "relu0" in layers else layers["conv0"], **blocks}

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        # (B, 3, 224, 224) -> (B, 64, 112, 112) -> (B, 64, 56, 56) -> (B, 256, 56, 56) -> (B, 512, 28, 28)
        x = self.features(x)  # -> (B, 1024, 14, 14) -> (B, 1024, 7, 7)
        x = self.avgpool(self.relu(x)).flatten(1)  # -> (B, 1024)
        return self.classifier(x)  # -> (B, 1000)


@register("densenet-cifar")
class DenseNetCifar(DenseNet):
    """Dense net for CIFAR, the paper's DenseNet-BC: three blocks on 32, 16 and 8 pixels; 769,162 parameters.

    Of `depth` = 6n + 4 layers: conv0 is 3x3 with stride 1 to twice `growth` channels, with nothing between it and the
    first block, then n layers of two convolutions in each of three blocks. From the paper's table 2, with parameters
    and the error on CIFAR-10 after 300 epochs with shifts and mirroring:

        depth   growth  parameters  error
        100     12       0.8 M      4.51 %
        250     24      15.3 M      3.62 %
        190     40      25.6 M      3.46 %

    Initial weights as in densenet121 and the like.
    Takes (B, in_channels, H, W) with sides of at least 4 pixels, returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | Size = 32,
        *,
        depth: int = 100,
        growth: int = 12,
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise UsageError(
                f"densenet-cifar's depth is {depth}", "it has to be 6n + 4", "such as depth=40 or depth=100"
            )
        blocks = (depth - 4) // 6
        growth = positive("densenet-cifar's growth", growth)
        super().__init__(num_classes, in_channels, input_size, growth=growth, blocks=(blocks,) * 3, stem="cifar")

    def _begin(self, in_channels: int, channels: int, small: bool) -> OrderedDict[str, nn.Module]:
        """Return the convolution alone: the first layer of the block begins with a BatchNorm."""
        conv = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        return OrderedDict([("conv0", conv)])
