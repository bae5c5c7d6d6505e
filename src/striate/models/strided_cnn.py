"""The first article's CNN: stride instead of pooling."""

from __future__ import annotations

from torch import Tensor, nn

from striate.models.layers import LEAKY_SLOPE, Size, Window, as_size, check_picture, map_sizes
from striate.models.registry import register


@register("strided-cnn")
class StridedCNN(nn.Module):
    """Two strided convolutions with LeakyReLU and BatchNorm: 28 -> 12 -> 5 pixels with 3,720 parameters.

    Each kernel looks for one small pattern everywhere, so ten kernels do what thousands of the MLP's weights did; the
    stride of 2 halves the map, which other nets leave to pooling.

    Ours differs: `flatten(1)` in place of the article's View(250), which knows a batch of one picture only; logits in
    place of the sigmoid at the end (the setting `output: sigmoid`). Training on one picture a step, as the article
    does, makes the running statistics of BatchNorm an average over the last few pictures: in evaluation mode the net is
    then worse than it was in training. Statistics taken afresh on whole batches after the training are the remedy.
    Takes (B, in_channels, H, W), returns (B, num_classes).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, input_size: int | Size = 28) -> None:
        super().__init__()
        height, width = as_size(input_size)
        self.input_shape = (in_channels, height, width)
        windows = (Window("conv1", kernel=5, stride=2), Window("conv2", kernel=3, stride=2))
        map_height, map_width = map_sizes(self, (height, width), windows)[-1]
        self.conv1 = nn.Conv2d(in_channels, 10, kernel_size=5, stride=2)
        self.activation1 = nn.LeakyReLU(LEAKY_SLOPE)
        self.norm1 = nn.BatchNorm2d(10)
        self.conv2 = nn.Conv2d(10, 10, kernel_size=3, stride=2)
        self.activation2 = nn.LeakyReLU(LEAKY_SLOPE)
        self.norm2 = nn.BatchNorm2d(10)
        self.fc = nn.Linear(10 * map_height * map_width, num_classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"conv1": self.norm1, "conv2": self.norm2}

    def forward(self, x: Tensor) -> Tensor:
        check_picture(self, x, self.input_shape)
        x = self.norm1(self.activation1(self.conv1(x)))  # (B, 1, 28, 28) -> (B, 10, 12, 12)
        x = self.norm2(self.activation2(self.conv2(x)))  # -> (B, 10, 5, 5)
        return self.fc(x.flatten(1))  # -> (B, 250) -> (B, 10)
