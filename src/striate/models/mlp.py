"""The plain net without convolutions that the first article starts from."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from striate.models.layers import Size, as_size, check_picture, make_activation
from striate.models.registry import positive, register


@register("mlp")
class MLP(nn.Module):
    """Multi-layer perceptron 784-200-10: every pixel joined to every hidden unit, the measure for the CNNs.

    It takes the picture as one long row of numbers, so it does not know that two pixels are neighbours: a digit moved
    by three pixels is a new digit to it. Nearly all of its 159,010 weights sit in the first layer.

    The article ends in a sigmoid; this net returns logits, and the sigmoid belongs to the loss and to the probabilities
    (the setting `output: sigmoid`). Takes (B, in_channels, H, W), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        input_size: int | Size = 28,
        *,
        hidden: tuple[int, ...] = (200,),
        activation: Literal["leaky-relu", "sigmoid", "relu"] = "leaky-relu",
    ) -> None:
        super().__init__()
        height, width = as_size(input_size)
        self.input_shape = (in_channels, height, width)
        features = in_channels * height * width
        layers: list[nn.Module] = [nn.Flatten()]
        for units in hidden:
            layers += [nn.Linear(features, positive("a hidden layer's size", units)), make_activation(activation)]
            features = units
        layers.append(nn.Linear(features, num_classes))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        check_picture(self, x, self.input_shape)
        return self.layers(x)  # (B, C, H, W) -> (B, C*H*W) -> (B, hidden) -> (B, num_classes)
