"""GoogLeNet (Szegedy et al. 2014): inception modules, which look at several sizes at once, and auxiliary heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from striate.models.layers import Size, Stem, Window, as_size, check_least, least_input, map_sizes, small_stem
from striate.models.registry import register


class BasicConv2d(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Four branches over the same map, their answers side by side: (B, I, H, W) -> (B, a + b + c + d, H, W).

    1x1; 1x1 to fewer channels and then 3x3, twice; 3x3 max pool and then 1x1.
    """

    def __init__(self, in_channels: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(in_channels, one, 1)
        self.branch2 = nn.Sequential(BasicConv2d(in_channels, three[0], 1), BasicConv2d(*three, 3, padding=1))
        # 5x5 in the paper; torchvision's weights, and so ours, have 3x3 here (pytorch/vision issue 906)
        self.branch3 = nn.Sequential(BasicConv2d(in_channels, five[0], 1), BasicConv2d(*five, 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), BasicConv2d(in_channels, pooled, 1))
        self.out_channels = one + three[1] + five[1] + pooled

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier in the middle of the net: (B, I, H, W) -> (B, num_classes)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = BasicConv2d(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pool(x))  # (B, 512, 14, 14) -> (B, 512, 4, 4) -> (B, 128, 4, 4)
        x = self.relu(self.fc1(x.flatten(1)))  # -> (B, 2048) -> (B, 1024)
        return self.fc2(self.dropout(x))  # -> (B, 1000)


#: The paper's table 1: channels of 1x1, of 3x3 with those before it, of 5x5 with those before it, and after the pool.
MODULES = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


@register("googlenet")
class GoogLeNet(nn.Module):
    """GoogLeNet: nine inception modules, no wide linear layer; 6,624,904 parameters, 6,379,984 more in two helpers.

    An inception module looks at its map with kernels of several sizes; 1x1 convolutions before the costly ones keep the
    work small. It won in 2014 with a twelfth of AlexNet's parameters. The paper's table 1, at 224 pixels:

        layer      map      channels   1x1   3x3        5x5       after the pool
        conv1      112x112  64         7x7, stride 2
        maxpool1   56x56
        conv2, 3   56x56    192        1x1, 64; 3x3, 192
        maxpool2   28x28
        3a, 3b     28x28    256, 480   64, 128 and so on: MODULES above
        maxpool3   14x14
        4a ... 4e  14x14    512, 512, 512, 528, 832
        maxpool4   7x7
        5a, 5b     7x7      832, 1024
        fc         1x1      mean of each map, dropout 0.4, 1000

    `auxiliary_logits`: in training two more classifiers answer from the maps of 4a and 4d; their losses, each times
    0.3, are added to the net's (section 5), so that the lower layers hear of the error. They take no part in an answer.
    `auxiliary=false` leaves them out. `stem`: `imagenet` as above; `cifar` for small pictures: conv1 is 3x3 with stride
    1, and there is no maxpool1; `auto` takes that where a side is under 64 pixels.

    Unlike the paper, as in torchvision, whose names the parameters have: a BatchNorm after each convolution in place of
    response normalisation; 3x3 where the paper has 5x5; heads that pool to 4x4 from any size; weights normal with a
    deviation of 0.01. torchvision's published weights want pictures with a mean and a deviation of 0.5.
    Takes (B, in_channels, H, W) with sides of at least 15 pixels (`cifar`: 4), returns (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        input_size: int | Size = 224,
        *,
        auxiliary: bool = True,
        stem: Stem = "auto",
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        size = as_size(input_size)
        small = small_stem(stem, size)
        # In ceil mode a 3x3 pool of stride 2 gives floor(n / 2), as a window of 2x2 does.
        pools = [Window(f"maxpool{number}", 2, 2) for number in ((2, 3) if small else (1, 2, 3))]
        windows = pools if small else [Window("conv1", 7, 2, 3), *pools]
        map_sizes(self, size, windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        self.conv1 = BasicConv2d(in_channels, 64, 3, padding=1) if small else BasicConv2d(in_channels, 64, 7, 2, 3)
        self.maxpool1 = nn.Identity() if small else nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, 1)
        self.conv3 = BasicConv2d(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = 192
        for name, widths in MODULES.items():
            module = Inception(channels, *widths)
            self.add_module(f"inception{name}", module)
            channels = module.out_channels
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.aux1 = AuxiliaryHead(512, num_classes) if auxiliary else None
        self.aux2 = AuxiliaryHead(528, num_classes) if auxiliary else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        self._seen: tuple[Tensor, ...] = ()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.01)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        modules = {f"inception{name}": getattr(self, f"inception{name}") for name in MODULES}
        return {"conv1": self.conv1, "conv3": self.conv3, **modules}

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        x = self.conv1(x)  # (B, 3, 224, 224) -> (B, 64, 112, 112)
        x = self.maxpool1(x)  # -> (B, 64, 56, 56)
        x = self.conv3(self.conv2(x))  # -> (B, 64, 56, 56) -> (B, 192, 56, 56)
        x = self.maxpool2(x)  # -> (B, 192, 28, 28)
        x = self._inception(x, "3a", "3b")  # -> (B, 256, 28, 28) -> (B, 480, 28, 28)
        x = self.maxpool3(x)  # -> (B, 480, 14, 14)
        x = after_4a = self._inception(x, "4a")  # -> (B, 512, 14, 14)
        x = after_4d = self._inception(x, "4b", "4c", "4d")  # -> (B, 512, 14, 14), twice, -> (B, 528, 14, 14)
        x = self._inception(x, "4e")  # -> (B, 832, 14, 14)
        x = self.maxpool4(x)  # -> (B, 832, 7, 7)
        x = self._inception(x, "5a", "5b")  # -> (B, 832, 7, 7) -> (B, 1024, 7, 7)
        x = self.avgpool(x).flatten(1)  # -> (B, 1024)
        if self.training and torch.is_grad_enabled():
            self._seen = (after_4a, after_4d)
        return self.fc(self.dropout(x))  # -> (B, 1000)

    def _inception(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(f"inception{name}")(x)
        return x

    def auxiliary_logits(self) -> tuple[Tensor, ...]:
        """Return what the two heads say of the batch that last went forward in training: each (B, num_classes).

        Nothing without `auxiliary`, and nothing where no such batch waits: a batch is asked about once.
        """
        seen, self._seen = self._seen, ()
        if self.aux1 is None or self.aux2 is None or not seen:
            return ()
        return self.aux1(seen[0]), self.aux2(seen[1])

    def __getstate__(self) -> dict[str, Any]:
        """Leave a batch's maps out of copies: they belong to a step, and torch refuses to copy them."""
        return {**self.__dict__, "_seen": ()}
