"""AlexNet as the fourth article writes it (Krizhevsky 2014, in torchvision's layout)."""

from __future__ import annotations

from torch import Tensor, nn

from striate.models.layers import Size, Window, as_size, check_least, least_input, map_sizes
from striate.models.registry import positive, register


@register("alexnet")
class AlexNet(nn.Module):
    """AlexNet: five convolutions, three overlapping pools, two wide linear layers; 44,428,106 parameters.

    Large kernels first (11x11, stride 4), ReLU in place of sigmoids, pools that overlap (3 pixels wide, 2 apart) and
    dropout against overfitting of the linear layers, which hold 42 of its 44 million parameters.

    As in the article: the second hidden layer has 1024 units; `hidden=(4096, 4096)` gives torchvision's `alexnet`, with
    the same names of parameters, order of random numbers and outputs. Unlike the paper of 2012: one column, fewer maps,
    no local response normalisation. Our ReLUs do not write in place, so that a convolution's output can be looked at.

    Made for 224 pixels. At the article's 96 the map is 2x2 before the adaptive pool to 6x6, which repeats each value
    nine times: 9216 numbers, of which 1024 differ. Under 63 pixels it cannot run.
    Takes (B, in_channels, H, W), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | Size = 96,
        *,
        hidden: tuple[int, ...] = (4096, 1024),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        windows = (
            Window("features.0 (convolution)", 11, 4, 2),
            Window("features.2 (max pool)", 3, 2),
            Window("features.3 (convolution)", 5, padding=2),
            Window("features.5 (max pool)", 3, 2),
            Window("features.6 (convolution)", 3, padding=1),
            Window("features.8 (convolution)", 3, padding=1),
            Window("features.10 (convolution)", 3, padding=1),
            Window("features.12 (max pool)", 3, 2),
        )
        map_sizes(self, as_size(input_size), windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        features = 256 * 6 * 6
        layers: list[nn.Module] = []
        for units in hidden:
            layers += [nn.Dropout(dropout), nn.Linear(features, positive("a hidden layer's size", units)), nn.ReLU()]
            features = units
        layers.append(nn.Linear(features, num_classes))
        self.classifier = nn.Sequential(*layers)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order: each convolution after its ReLU."""
        return {f"conv{number}": self.features[index] for number, index in enumerate((1, 4, 7, 9, 11), start=1)}

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        # (B, 3, 96, 96) -> (B, 64, 23, 23) -> (B, 192, 11, 11) -> (B, 256, 5, 5) -> (B, 256, 2, 2)
        x = self.features(x)
        x = self.avgpool(x)  # -> (B, 256, 6, 6)
        return self.classifier(x.flatten(1))  # -> (B, 9216) -> (B, 4096) -> (B, 1024) -> (B, 10)
