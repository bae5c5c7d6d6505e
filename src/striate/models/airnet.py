"""A small VGG-like net built for speed, of the family of cifar10-airbench (Keller Jordan 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.layers import Size, Window, as_size, check_least, least_input, map_sizes
from striate.models.registry import positive, register

#: Side of the whitening kernels in pixels.
PATCH = 2
#: Added to each eigenvalue before its root is taken, so that directions without variance are not blown up.
WHITENING_FLOOR = 5e-4
#: The logits are divided by this, which keeps the softmax soft in the first steps.
LOGIT_DIVISOR = 9.0


class ConvGroup(nn.Module):
    """Convolution, max pool, BatchNorm, GELU, convolution, BatchNorm, GELU: halves the map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = dirac_conv(in_channels, out_channels)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.norm1 = shift_only_norm(out_channels)
        self.activation1 = nn.GELU()
        self.conv2 = dirac_conv(out_channels, out_channels)
        self.norm2 = shift_only_norm(out_channels)
        self.activation2 = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))  # (B, I, H, W) -> (B, O, H, W) -> (B, O, H//2, W//2)
        x = self.activation1(self.norm1(x))
        return self.activation2(self.norm2(self.conv2(x)))


def dirac_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that starts by passing its inputs through; kernels to spare start at random."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:in_channels])
    return conv


def shift_only_norm(channels: int) -> nn.BatchNorm2d:
    """Return a BatchNorm that learns a shift and no scale, with statistics that follow the last few batches."""
    norm = nn.BatchNorm2d(channels, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


@register("airnet")
class AirNet(nn.Module):
    """Whitening, then three groups of two 3x3 convolutions with BatchNorm and GELU: accurate in few epochs.

    The first layer's 2x2 kernels are not learned: they are the principal directions of the training pictures' own
    patches, each scaled so that its answers have a mean square of one, and their negatives; so the net starts from
    uncorrelated inputs. Only its bias is trained. `fit_whitening` computes them and has to be called once before the
    training; without it the first layer keeps its random kernels. `whitening=false` makes it an ordinary convolution
    that is trained.

    Ours differs from airbench94: the widths are an option, and the last pool takes the greatest value of each whole
    map, which is the original's 3x3 pool at 28 and 32 pixels and goes for any larger or smaller map too.
    Takes (B, in_channels, H, W) with sides of at least 9 pixels, returns (B, num_classes).
    Source: K. Jordan, '94% on CIFAR-10 in 3.29 seconds on a single GPU', 2024; whitening after D. Page, 2018.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | Size = 32,
        *,
        widths: tuple[int, ...] = (64, 256, 256),
        whitening: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise UsageError(f"airnet's widths are {widths}", "it has three groups", "give three, as in 64,256,256")
        first, second, third = (positive("a width of airnet", width) for width in widths)
        windows = [Window("whiten", PATCH), *(Window(f"group{number}.pool", 2, 2) for number in (1, 2, 3))]
        map_sizes(self, as_size(input_size), windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        self.whitening = whitening
        kernels = 2 * in_channels * PATCH**2
        self.whiten = nn.Conv2d(in_channels, kernels, kernel_size=PATCH)
        self.whiten.weight.requires_grad_(not whitening)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        self.activation = nn.GELU()
        self.group1 = ConvGroup(kernels, first)
        self.group2 = ConvGroup(first, second)
        self.group3 = ConvGroup(second, third)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(third, num_classes, bias=False)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"whiten": self.activation, "group1": self.group1, "group2": self.group2, "group3": self.group3}

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        x = self.activation(self.whiten(x))  # (B, 3, 32, 32) -> (B, 24, 31, 31)
        x = self.group1(x)  # -> (B, 64, 15, 15)
        x = self.group2(x)  # -> (B, 256, 7, 7)
        x = self.group3(x)  # -> (B, 256, 3, 3)
        x = self.pool(x).flatten(1)  # -> (B, 256)
        return self.fc(x) / LOGIT_DIVISOR  # -> (B, 10)

    @torch.no_grad()
    def fit_whitening(self, images: Tensor) -> None:
        """Set the first layer's kernels from the patches of some training pictures; a few thousand are plenty.

        `images` are (N, in_channels, H, W) floats, normalised as the net gets them in training. UsageError if the net
        was built with `whitening=False`, or the pictures have other channels, none is given or one is not finite.
        """
        if not self.whitening:
            raise UsageError("this airnet was built with whitening=false", "its first layer is trained instead")
        check_least(self, images, self.in_channels, PATCH)
        weight = self.whiten.weight
        features = math.prod(weight.shape[1:])
        # Summed in double precision: millions of patches in float32 would lose the small eigenvalues.
        products = torch.zeros(features, features, dtype=torch.float64, device=weight.device)
        patches = 0
        for some in images.split(256):
            # (N, C, H, W) -> (N, C, H-1, W-1, 2, 2) -> (N*(H-1)*(W-1), C*2*2)
            windows = some.to(weight.device, torch.float64).unfold(2, PATCH, 1).unfold(3, PATCH, 1)
            rows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, features)
            products += rows.T @ rows
            patches += len(rows)
        if patches == 0 or not products.isfinite().all():
            raise UsageError(f"airnet's whitening got {len(images)} pictures", "it needs some, all of finite values")
        variances, directions = torch.linalg.eigh(products / patches)
        kernels = (directions / (variances + WHITENING_FLOOR).sqrt()).T.flip(0)  # the largest variance first
        kernels = kernels.reshape(-1, *weight.shape[1:])  # (C*2*2, C*2*2) -> (C*2*2, C, 2, 2)
        weight.copy_(torch.cat((kernels, -kernels)))
