"""VGG (Simonyan and Zisserman 2014): nothing but 3x3 convolutions, and many of them."""

from __future__ import annotations

from torch import Tensor, nn

from striate.models.initialise import draw_convolutions, has_memory
from striate.models.layers import Size, Stem, Window, as_size, check_least, least_input, map_sizes, small_stem
from striate.models.registry import register

#: depth: the convolutions of each of the five blocks (the paper's configurations A, B, D and E).
FORMS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


@register("vgg11", "VGG of 11 layers: 3x3 convolutions in five blocks; 132,863,336 parameters", depth=11)
@register("vgg13", "VGG of 13 layers: 3x3 convolutions in five blocks; 133,047,848 parameters", depth=13)
@register("vgg16", "VGG of 16 layers: 3x3 convolutions in five blocks; 138,357,544 parameters", depth=16)
@register("vgg19", "VGG of 19 layers: 3x3 convolutions in five blocks; 143,667,240 parameters", depth=19)
class VGG(nn.Module):
    """VGG: two 3x3 convolutions see as far as one of 5x5, with fewer weights and one more nonlinearity.

    Each block ends in a 2x2 max pool, which halves the map, and the next has twice the channels, up to 512. Of the
    paper's table 1, at 224 pixels:

        map      block  channels  vgg11 (A)  vgg13 (B)  vgg16 (D)  vgg19 (E)
        224x224  1      64        1          2          2          2
        112x112  2      128       1          2          2          2
        56x56    3      256       2          2          3          4
        28x28    4      512       2          2          3          4
        14x14    5      512       2          2          3          4
        7x7      then   4096, 4096, 1000, with dropout

    `batch_norm`: a BatchNorm after each convolution, which the paper of 2014 could not have; without it the net needs a
    small learning rate. `stem`: `imagenet` as above; `cifar` for small pictures: dropout and one linear layer after
    the mean of each map take the place of the three, which hold 124 million of vgg11's 133 million parameters; `auto`
    takes that where a side is under 64 pixels. The convolutions are the same.

    Unlike the paper, as in torchvision: the last map is brought to 7x7 by an average, so that other sizes go; weights
    are drawn as He et al. (2015) do, with the fan-out, where the paper begins with the weights of a trained vgg11. The
    names of parameters are torchvision's, with `batch_norm` those of its `vgg11_bn` and so on.
    Takes (B, in_channels, H, W) with sides of at least 32 pixels, returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        input_size: int | Size = 224,
        *,
        depth: int,
        batch_norm: bool = False,
        stem: Stem = "auto",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        size = as_size(input_size)
        layers: list[nn.Module] = []
        windows = []
        self.ends = []  # of the blocks: the place of the last ReLU before each pool
        channels = in_channels
        for width, count in zip(WIDTHS, FORMS[depth], strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                layers.append(nn.ReLU())
                channels = width
            self.ends.append(len(layers) - 1)
            windows.append(Window(f"features.{len(layers)} (max pool)", 2, 2))
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        map_sizes(self, size, windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        self.features = nn.Sequential(*layers)
        if small_stem(stem, size):
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, num_classes))
        else:
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(4096, num_classes),
            )
        draw_convolutions(self, "fan_out")
        for layer in self.modules():
            if isinstance(layer, nn.Linear) and has_memory(layer.weight):
                nn.init.normal_(layer.weight, std=0.01)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order: the end of each block, before its pool."""
        return {f"block{number}": self.features[place] for number, place in enumerate(self.ends, start=1)}

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        # (B, 3, 224, 224) -> (B, 64, 112, 112) -> (B, 128, 56, 56) -> (B, 256, 28, 28) -> (B, 512, 14, 14)
        x = self.features(x)  # -> (B, 512, 7, 7)
        x = self.avgpool(x).flatten(1)  # -> (B, 25088)
        return self.classifier(x)  # -> (B, 4096) -> (B, 4096) -> (B, 1000)
