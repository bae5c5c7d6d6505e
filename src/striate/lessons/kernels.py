"""Kernels with a name (identity, blur, edges …), and what each makes of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.data.builtin import load_named
from striate.data.decode import decode
from striate.data.preprocess import Preprocess
from striate.errors import UsageError, unknown_name
from striate.lessons.lesson import Part, Picture, Text, Values, rows_text, size_text
from striate.lessons.windows import Sliding, convolve

ENLARGED = (32, 32)  # a digit has 8×8 pixels, in which a kernel of 3×3 has no room
LONGEST_SIDE = 256  # pixels: more adds nothing to see, and the page has to stay small


class Named(NamedTuple):
    """A kernel's numbers before the division by `divisor`, its name, and what it does."""

    title: Text
    rows: tuple[tuple[int, ...], ...]
    divisor: int
    does: Text

    @property
    def cells(self) -> Values:
        """The kernel (3, 3)."""
        return np.array(self.rows, dtype=np.float64) / self.divisor


NAMED = {
    "identity": Named(
        Text("identity", "恒等"), ((0, 0, 0), (0, 1, 0), (0, 0, 0)), 1, Text("changes nothing", "原样不变")
    ),
    "blur": Named(
        Text("blur (mean)", "均值模糊"),
        ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        9,
        Text("the mean of nine pixels", "取九个像素的平均"),
    ),
    "gauss": Named(
        Text("blur (Gauss)", "高斯模糊"),
        ((1, 2, 1), (2, 4, 2), (1, 2, 1)),
        16,
        Text("a mean that weighs the middle most", "中间权重最大的加权平均"),
    ),
    "sharpen": Named(
        Text("sharpen", "锐化"),
        ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
        1,
        Text("a pixel against its four neighbours", "突出像素与四邻的差别"),
    ),
    "edge": Named(
        Text("edges", "边缘"),
        ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
        1,
        Text("nothing where all nine are equal", "九个像素相等处为零"),
    ),
    "sobel-x": Named(
        Text("vertical edges (Sobel)", "竖直边缘（Sobel）"),
        ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
        1,
        Text("right minus left", "右侧减左侧"),
    ),
    "sobel-y": Named(
        Text("horizontal edges (Sobel)", "水平边缘（Sobel）"),
        ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
        1,
        Text("below minus above", "下方减上方"),
    ),
    "emboss": Named(
        Text("emboss", "浮雕"),
        ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)),
        1,
        Text("light from the upper left", "如同光从左上照来"),
    ),
}


def named_kernel(name: str) -> Values:
    """Return the kernel (3, 3) of that name. Raises UsageError with near names."""
    if name not in NAMED:
        raise unknown_name("kernel", name, NAMED)
    return NAMED[name].cells


def read_picture(path: str | Path | None) -> NDArray[np.uint8]:
    """Return a picture file as uint8 (H, W, C), its longer side at most 256; without one a digit at 32×32.

    Raises DataError for a file that cannot be read, UsageError for a picture of under 3 pixels.
    """
    if path is None:
        digit = Image.fromarray(load_named("digits").train.images[0, :, :, 0])
        return np.asarray(digit.resize(ENLARGED, Image.Resampling.BICUBIC))[..., None]
    pixels = decode(path, channels=None, target=(LONGEST_SIDE, LONGEST_SIDE))
    height, width = pixels.shape[:2]
    if max(height, width) > LONGEST_SIDE:
        part = LONGEST_SIDE / max(height, width)
        size = (max(1, round(height * part)), max(1, round(width * part)))
        pixels = Preprocess(size, channels=pixels.shape[2]).geometry(pixels)
    if min(pixels.shape[:2]) < 3:
        raise UsageError(f"{path} has {pixels.shape[0]}×{pixels.shape[1]} pixels", "a 3×3 kernel does not fit into it")
    return pixels


def apply_kernel(pixels: NDArray[np.uint8], kernel: Values) -> Values:
    """Return what a kernel makes of each channel of a picture, as floats (H − 2, W − 2, C): no pixel is invented."""
    windows = Sliding((pixels.shape[0], pixels.shape[1]), (kernel.shape[0], kernel.shape[1]))
    channels = [
        convolve(pixels[None, ..., c].astype(np.float64), kernel[None, None], windows)[0]
        for c in range(pixels.shape[2])
    ]
    return np.stack(channels, axis=2)


def visible(values: Values, kernel: Values) -> NDArray[np.uint8]:
    """Return what a kernel made as a picture: cut to 0–255, or, of a kernel that adds up to 0, the strength."""
    if abs(kernel.sum()) < 0.5:
        values = np.abs(values) * (255 / (np.abs(values).max() or 1.0))
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def kernels_part(picture: str | Path | None) -> Part:
    """Return the part that shows every named kernel on a picture."""
    pixels = read_picture(picture)
    made = {name: apply_kernel(pixels, kernel.cells) for name, kernel in NAMED.items()}
    pictures = [Picture(Text("the picture", "原图"), pixels)]
    pictures += [
        Picture(kernel.title, visible(made[name], kernel.cells), kernel.does, _written(kernel))
        for name, kernel in NAMED.items()
    ]
    size, after = (size_text((image.shape[2], *image.shape[:2])) for image in (pixels, made["identity"]))
    return Part(
        "kernels",
        Text("Kernels with a name", "有名字的卷积核"),
        (
            Text(
                f"Nine numbers decide what is seen. The picture of {size} is laid under eight kernels of 3×3; without"
                f" padding each gives {after}. A net finds such numbers by itself, by training.",
                f"看到什么，取决于九个数字。把 {size} 的图片依次与八个 3×3 卷积核做卷积，不加填充，各得到 {after}。"
                "网络训练时会自己学出这样的数字。",
            ),
            Text(
                "Kernels whose numbers add up to 1 keep the brightness. Those that add up to 0 answer with 0 where"
                " nothing changes; they are shown without their sign, the strongest answer white.",
                "各数之和为 1 的核保持亮度；和为 0 的核在没有变化处得 0，显示时取绝对值，最强的响应为白。",
            ),
        ),
        pictures=tuple(pictures),
        numbers={
            "picture": list(pixels.shape),
            "kernels": {name: kernel.cells for name, kernel in NAMED.items()},
            "ranges": {name: [values.min(), values.max()] for name, values in made.items()},
        },
    )


def _written(kernel: Named) -> str:
    rows = rows_text(np.array(kernel.rows))
    return rows if kernel.divisor == 1 else f"({rows})/{kernel.divisor}"
