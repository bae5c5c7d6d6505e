"""LeNet-5 as its paper has it (LeCun, Bottou, Bengio and Haffner 1998): a table of connections, and drawn targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from striate.models.layers import Size, Window, as_size, check_picture, map_sizes
from striate.models.registry import register

#: The paper's table I: the maps of S2 that each of the 16 maps of C3 reads, those that read equally many together.
TABLE = {
    3: ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    4: (
        *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
        *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    ),
    6: ((0, 1, 2, 3, 4, 5),),
}

#: The digits in 7 x 12 pixels, as in the paper's figure 3: what the 84 units of F6 should draw for each class.
DIGITS = """
..###.. ...#... .#####. #####.. ....#.. ####### ..####. ####### .#####. .####..
.#...#. ..##... #.....# .....#. ...##.. #...... .#..... ......# #.....# #....#.
#.....# .###... ......# ......# ...##.. #...... #...... ......# #.....# #.....#
#.....# ...#... ......# ......# ..#.#.. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. .....#. ..#.#.. #.###.. #.###.. .....#. .#...#. #.....#
#.....# ...#... ....#.. ..###.. .#..#.. ##...#. ##...#. ....#.. ..###.. .#...##
#.....# ...#... ...#... .....#. .#..#.. ......# #.....# ....#.. .#...#. ..###.#
#.....# ...#... ..#.... ......# #...#.. ......# #.....# ...#... #.....# ......#
#.....# ...#... .#..... ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...#... #...... ......# ....#.. ......# #.....# ..#.... #.....# ......#
.#...#. ...#... #...... .....#. ....#.. #....#. .#...#. ..#.... #.....# .....#.
..###.. .#####. ####### #####.. ....#.. .####.. ..###.. ..#.... .#####. .####..
"""


class ScaledTanh(nn.Module):
    """1.7159 · tanh(2/3 · x): it passes through (1, 1) and (-1, -1), where it bends most (the paper's appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """The sum of four neighbours, times a coefficient of its map, plus a bias: (B, C, H, W) -> (B, C, H//2, W//2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        sums = 4 * nn.functional.avg_pool2d(x, kernel_size=2)
        return sums * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class TableConv2d(nn.Module):
    """5x5 convolution whose maps read some of the maps before it: (B, 6, H, W) -> (B, 16, H-4, W-4).

    Maps that read equally many are one convolution in groups, each over the maps of its own row of the table.
    """

    def __init__(self) -> None:
        super().__init__()
        for count, rows in TABLE.items():
            conv = nn.Conv2d(count * len(rows), len(rows), kernel_size=5, groups=len(rows))
            self.add_module(f"read{count}", conv)

    def forward(self, x: Tensor) -> Tensor:
        read = {count: [place for row in rows for place in row] for count, rows in TABLE.items()}
        return torch.cat([self.get_submodule(f"read{count}")(x[:, places]) for count, places in read.items()], dim=1)


class Codes(nn.Module):
    """Minus the squared distance to each class's code of 84 numbers, which are 1 or -1: (B, 84) -> (B, num_classes)."""

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", make_codes(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(dim=2)


def make_codes(num_classes: int) -> Tensor:
    """Return codes (num_classes, 84) of 1 and -1: drawn digits for up to ten classes, else by chance, always alike."""
    if num_classes > 10:
        by_chance = torch.Generator("cpu").manual_seed(1998)
        return torch.randint(0, 2, (num_classes, 84), generator=by_chance, device="cpu").float() * 2 - 1
    lines = [line.split() for line in DIGITS.split("\n") if line]
    drawn = ["".join(line[digit] for line in lines) for digit in range(num_classes)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in drawn], device="cpu")


@register("lenet5-1998")
class LeNet51998(nn.Module):
    """LeNet-5 of 1998: a table joins S2 to C3, subsampling is trained, classes are drawn codes; 60,000 parameters.

    The paper's figure 2 and section II.B, at 32 pixels:

        layer  what it is                            map       parameters
        C1     5x5 convolution, 6 maps               28x28            156
        S2     subsampling, 6 coefficients, 6 biases 14x14             12
        C3     5x5 convolution, 16 maps, by table    10x10          1,516
        S4     subsampling                           5x5               32
        C5     5x5 convolution over all, 120         1x1           48,120
        F6     linear, 84                                          10,164
        output squared distances to 10 codes of 84                    (fixed)

    After each of C1 to F6 comes 1.7159 · tanh(2/3 · x). In C3 each map reads 3, 4 or all 6 of S2's: that breaks the
    symmetry, and keeps the connections few. The code of a class is its digit drawn in 7x12 pixels of 1 and -1: digits
    that look alike have codes that are near each other. A logit is minus the squared distance to a code.

    Unlike the paper: trained on the cross-entropy of these logits (the paper's equation 9 has a constant in the sum
    for what is no digit at all); the digits are drawn anew in the same field; fewer than ten classes take the first of
    them, and beyond ten the codes are 1 and -1 by chance. A picture with a side under 32 gets a frame of 2 pixels that
    repeats its edge, as the paper's 28x28 digits stand in 32x32. On a larger picture C5 is as large as its map.
    Weights and biases are drawn as in the paper: uniform within ±2.4 / fan-in.
    Takes (B, in_channels, H, W) with sides of at least 28 pixels, returns (B, num_classes).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, input_size: int | Size = 32) -> None:
        super().__init__()
        height, width = as_size(input_size)
        frame = 2 if min(height, width) < 32 else 0
        windows = (Window("c1", 5, padding=frame), Window("s2", 2, 2), Window("c3", 5), Window("s4", 2, 2))
        last = Window("c5", 5)
        c5_size = map_sizes(self, (height, width), (*windows, last))[-2]
        self.input_shape = (in_channels, height, width)
        self.frame = nn.ReplicationPad2d(frame) if frame else nn.Identity()
        self.c1 = nn.Conv2d(in_channels, 6, kernel_size=5)
        self.tanh1 = ScaledTanh()
        self.s2 = Subsampling(6)
        self.tanh2 = ScaledTanh()
        self.c3 = TableConv2d()
        self.tanh3 = ScaledTanh()
        self.s4 = Subsampling(16)
        self.tanh4 = ScaledTanh()
        self.c5 = nn.Conv2d(16, 120, kernel_size=c5_size)
        self.tanh5 = ScaledTanh()
        self.f6 = nn.Linear(120, 84)
        self.tanh6 = ScaledTanh()
        self.output = Codes(num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | Subsampling):
                fan_in = 4 if isinstance(layer, Subsampling) else layer.weight[0].numel()
                nn.init.uniform_(layer.weight, -2.4 / fan_in, 2.4 / fan_in)
                nn.init.uniform_(layer.bias, -2.4 / fan_in, 2.4 / fan_in)  # type: ignore[arg-type]

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The layers whose maps are worth a look, in order."""
        return {"C1": self.tanh1, "S2": self.tanh2, "C3": self.tanh3, "S4": self.tanh4}

    def forward(self, x: Tensor) -> Tensor:
        check_picture(self, x, self.input_shape)
        x = self.frame(x)  # (B, 1, 28, 28) -> (B, 1, 32, 32)
        x = self.tanh1(self.c1(x))  # -> (B, 6, 28, 28)
        x = self.tanh2(self.s2(x))  # -> (B, 6, 14, 14)
        x = self.tanh3(self.c3(x))  # -> (B, 16, 10, 10)
        x = self.tanh4(self.s4(x))  # -> (B, 16, 5, 5)
        x = self.tanh5(self.c5(x))  # -> (B, 120, 1, 1)
        x = self.tanh6(self.f6(x.flatten(1)))  # -> (B, 84)
        return self.output(x)  # -> (B, 10)
