"""A small VGG-like net built for speed, of the family of cifar10-airbench (Keller Jordan 2024)."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.layers import Size, Window, as_size, check_least, least_input, map_sizes
from striate.models.registry import positive, register

#: Added to each eigenvalue before its root is taken, so that directions without variance are not blown up.
WHITENING_FLOOR = 5e-4
#: A direction with less than this share of the largest variance is left out.
NO_VARIANCE = 1e-7
#: Without a head_scale the logits are divided by this, which keeps the softmax soft in the first steps.
LOGIT_DIVISOR = 9.0

Activation = Literal["gelu", "gelu-tanh", "relu", "silu"]


class ConvGroup(nn.Sequential):
    """Convolution, max pool, BatchNorm, activation, and then convolution, BatchNorm, activation: halves the map.

    `convs` is the number of convolutions: (B, I, H, W) -> (B, O, H, W) -> (B, O, H//2, W//2), and so it stays.
    """

    def __init__(
        self, in_channels: int, out_channels: int, convs: int, activation: Activation, norm_momentum: float
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, convs + 1):
            layers[f"conv{number}"] = dirac_conv(in_channels if number == 1 else out_channels, out_channels)
            if number == 1:
                layers["pool"] = nn.MaxPool2d(kernel_size=2, stride=2)
            layers[f"norm{number}"] = shift_only_norm(out_channels, norm_momentum)
            layers[f"activation{number}"] = make_airnet_activation(activation)
        super().__init__(layers)


def dirac_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that starts by passing its inputs through; kernels to spare start at random."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:in_channels])
    return conv


def shift_only_norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    """Return a BatchNorm that learns a shift and no scale; a large momentum follows the last few batches.

    airbench94 adds 1e-12 to the variances, ours torch's 1e-5: the losses are the same, and the rounding errors of a
    channel that is constant stay small.
    """
    norm = nn.BatchNorm2d(channels, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm


def make_airnet_activation(name: Activation) -> nn.Module:
    """Return the activation called `name`; gelu-tanh is the approximation of gelu by a tanh."""
    if name.startswith("gelu"):
        return nn.GELU("tanh" if name == "gelu-tanh" else "none")
    return nn.ReLU() if name == "relu" else nn.SiLU()


@register("airnet")
class AirNet(nn.Module):
    """Whitening, then three groups of two 3x3 convolutions with BatchNorm and GELU: accurate in few epochs.

    The first layer's kernels are not learned: they are the principal directions of the training pictures' own
    patches, each scaled so that its answers have a mean square of one, and their negatives; so the net starts from
    uncorrelated inputs. Only its bias is trained. `fit_whitening` computes them and has to be called once before the
    training; without it the first layer keeps its random kernels. `whitening=false` makes it an ordinary convolution
    that is trained.

    `widths`: channels of each group, as many groups as there are widths. `convs`: convolutions in a group, one number
    for all or one for each. `patch`, `patch_stride`: side and stride of the first layer's kernels in pixels; a stride
    of 2 leaves a quarter of the work. `whitening_width`: number of these kernels, an even one; those of the largest
    variance are taken; 0: all 2 * in_channels * patch². `norm_momentum`: of BatchNorm's statistics. `head_scale`: the
    last layer's weights start with a standard deviation of 1, and the logits are multiplied by head_scale / the last
    width, as in airbench94_muon; 0: the weights start as torch's and the logits are divided by 9, as in airbench94.

    Ours differs from airbench94: what is an option here is a constant there, BatchNorm's floor is torch's, and the last
    pool takes the greatest value of each whole map, which is the original's 3x3 pool at 28 and 32 pixels and goes for
    any larger or smaller map too.
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
        convs: tuple[int, ...] = (2,),
        patch: int = 2,
        patch_stride: int = 1,
        whitening: bool = True,
        whitening_width: int = 0,
        activation: Activation = "gelu",
        norm_momentum: float = 0.4,
        head_scale: float = 0.0,
    ) -> None:
        super().__init__()
        widths = tuple(positive("a width of airnet", width) for width in widths)
        convs = tuple(positive("airnet's convs", count) for count in convs)
        convs = convs * len(widths) if len(convs) == 1 else convs
        if not widths or len(convs) != len(widths):
            raise UsageError(
                f"airnet has {len(widths)} widths and {len(convs)} numbers of convolutions",
                "it needs at least one width, and one number for all groups or one for each",
                "such as widths=64,256,256 and convs=2",
            )
        if not 0 < norm_momentum <= 1 or not 0 <= head_scale < math.inf:
            raise UsageError(
                f"airnet's norm_momentum is {norm_momentum} and its head_scale {head_scale}",
                "the first is above 0 and at most 1, the second 0 or more",
            )
        self.group_names = tuple(f"group{number}" for number in range(1, len(widths) + 1))
        windows = [Window("whiten", patch, patch_stride), *(Window(f"{name}.pool", 2, 2) for name in self.group_names)]
        map_sizes(self, as_size(input_size), windows)
        self.in_channels = in_channels
        self.least = least_input(windows)
        self.whitening = whitening
        self.patch = patch
        kernels = self._count_kernels(whitening_width)
        self.whiten = nn.Conv2d(in_channels, kernels, kernel_size=patch, stride=patch_stride)
        self.whiten.weight.requires_grad_(not whitening)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        self.activation = make_airnet_activation(activation)
        for name, before, width, count in zip(self.group_names, (kernels, *widths), widths, convs):
            self.add_module(name, ConvGroup(before, width, count, activation, norm_momentum))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes, bias=False)
        self.divisor = LOGIT_DIVISOR
        if head_scale:
            self.fc.weight.data /= self.fc.weight.data.std()
            self.divisor = widths[-1] / head_scale

    def _count_kernels(self, wanted: int) -> int:
        all_of_them = 2 * self.in_channels * self.patch**2
        if wanted % 2 or not 0 <= wanted <= all_of_them:
            raise UsageError(
                f"airnet's whitening_width is {wanted}",
                f"its {self.in_channels}x{self.patch}x{self.patch} patches have {all_of_them // 2} directions, each "
                "taken with its negative",
                f"give an even number up to {all_of_them}, or 0 for all",
            )
        return wanted or all_of_them

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"whiten": self.activation, **{name: getattr(self, name) for name in self.group_names}}

    @property
    def whitening_bias(self) -> nn.Parameter | None:
        """The bias of the first layer, if its kernels are frozen: the one thing about it that can be trained."""
        return self.whiten.bias if self.whitening else None  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        check_least(self, x, self.in_channels, self.least)
        x = self.activation(self.whiten(x))  # (B, 3, 32, 32) -> (B, 24, 31, 31)
        for name in self.group_names:
            x = getattr(self, name)(x)  # -> (B, 64, 15, 15) -> (B, 256, 7, 7) -> (B, 256, 3, 3)
        x = self.pool(x).flatten(1)  # -> (B, 256)
        return self.fc(x) / self.divisor  # -> (B, 10)

    @torch.no_grad()
    def fit_whitening(self, images: Tensor) -> None:
        """Set the first layer's kernels from the patches of some training pictures; a few thousand are plenty.

        `images` are (N, in_channels, H, W) floats, normalised as the net gets them in training. UsageError if the net
        was built with `whitening=False`, or the pictures have other channels, none is given or one is not finite.
        """
        if not self.whitening:
            raise UsageError("this airnet was built with whitening=false", "its first layer is trained instead")
        check_least(self, images, self.in_channels, self.patch)
        weight = self.whiten.weight
        features = math.prod(weight.shape[1:])
        # Summed in double precision: millions of patches in float32 would lose the small eigenvalues.
        products = torch.zeros(features, features, dtype=torch.float64, device=weight.device)
        patches = 0
        for some in images.split(256):
            # with the default patch: (N, C, H, W) -> (N, C, H-1, W-1, 2, 2) -> (N*(H-1)*(W-1), C*2*2)
            windows = some.to(weight.device, torch.float64).unfold(2, self.patch, 1).unfold(3, self.patch, 1)
            rows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, features)
            products += rows.T @ rows
            patches += len(rows)
        if patches == 0 or not products.isfinite().all():
            raise UsageError(f"airnet's whitening got {len(images)} pictures", "it needs some, all of finite values")
        variances, directions = torch.linalg.eigh(products / patches)
        # Gray pictures in three channels vary in some directions by rounding errors alone; BatchNorm blows those up.
        directions[:, variances < NO_VARIANCE * variances[-1]] = 0.0
        kernels = (directions / (variances + WHITENING_FLOOR).sqrt()).T.flip(0)  # the largest variance first
        kernels = kernels[: len(weight) // 2].reshape(-1, *weight.shape[1:])  # (C*2*2, C*2*2) -> (C*2*2, C, 2, 2)
        weight.copy_(torch.cat((kernels, -kernels)))
