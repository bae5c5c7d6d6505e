"""Preprocess: from a uint8 picture of any size to the float tensor a net sees, as plain data that travels with a model.

The geometry happens once, in uint8, with Pillow's antialiased bilinear filter. After it only
`(x.float() − mean) · (1/std)` happens, in units of 0–255. Training, evaluation, prediction, export and serving use
this one object.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.data.disk import in_pieces, let_go, room_for, spans
from striate.data.style import DrawingStyle
from striate.errors import DataError, UsageError, unknown_name

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]
FITS = ("crop", "pad", "stretch")

# Pillow hands rows over in pieces of 64 KiB and slows down fortyfold on rows much longer than that.
_LONGEST_ROW = 8192
_LET_GO = 256 << 20  # bytes of pictures on disk that are worked on at a time
_FIELDS = ("size", "fit", "channels", "mean", "std", "drawing")


@dataclass(frozen=True)
class Preprocess:
    """Size, fit, channels, mean and std: all that is needed to prepare a picture for a net.

    `size` is (height, width) in pixels. Scaling is bilinear and antialiased, along rows first and then along columns.
    `fit` says how a picture of another shape is brought to the size: `stretch` scales both sides; `crop` scales the
    largest centred region that has the shape of `size`; `pad` scales the whole picture into `size`, centres it and
    fills the rest with `background` (0–255, black unless given). `mean` and `std` have one number per channel, in
    units of 0–255; without them they are 0 and 255. `drawing` is the style of the train pictures where they are
    drawings, to which drawings of one's own are brought (data/drawing.py); geometry takes no notice of it.
    Raises UsageError for values that cannot be.
    """

    size: tuple[int, int]
    fit: str = "stretch"
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    drawing: DrawingStyle | None = None
    background: int = 0

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise unknown_name("fit", str(self.fit), FITS)
        if len(self.size) != 2 or any(int(side) != side or side < 1 for side in self.size):
            raise UsageError(f"size {self.size} is no picture size", "expected (height, width) in whole pixels, from 1")
        if self.channels < 1:
            raise UsageError(f"channels is {self.channels}", "a picture has at least 1 channel", "use 1 (gray) or 3")
        if not 0 <= self.background <= 255:
            raise UsageError(f"background is {self.background}", "expected a value from 0 to 255")
        if self.drawing is not None and self.channels != 1:
            raise UsageError(f"drawings have {self.channels} channels", "they are gray", "leave drawing out, or use 1")
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        object.__setattr__(self, "mean", _per_channel("mean", self.mean or (0.0,) * self.channels, self.channels))
        object.__setattr__(self, "std", _per_channel("std", self.std or (255.0,) * self.channels, self.channels))
        if min(self.std) < 1e-6:
            raise UsageError(f"std is {self.std}", "each has to be 0.000001 or more", "give it in units of 0–255")

    def geometry(self, image: Pixels) -> Pixels:
        """Bring one picture uint8 (H, W, C) to the size and channels of the net.

        Channels by the rule of `to_channels`, then the fit. A picture that fits already is returned as it is, not
        copied. Returns uint8 (height, width, channels). Raises DataError for an array that is no such picture.
        """
        _check_pixels(image, 3, "(H, W, C)")
        if image.shape == (*self.size, self.channels):
            return image
        return self._fit(image[None])[0]

    def geometry_all(self, images: Pixels, threads: int | None = None, allowance: int | None = None) -> Pixels:
        """Bring pictures uint8 (N, H, W, C) to the size and channels of the net: the bytes of `geometry` on each.

        `threads`: how many work at once; None for one per processor core. `allowance`: bytes that new pictures may take
        in memory; more lie on disk. Returns uint8 (N, height, width, channels).
        """
        _check_pixels(images, 4, "(N, H, W, C)")
        shape = (len(images), *self.size, self.channels)
        if images.shape == shape:
            return images
        out = np.empty(shape, dtype=np.uint8) if allowance is None else room_for(shape, allowance)
        widest = max(self.size[1], images.shape[2]) * images.shape[3]
        together = max(1, _LONGEST_ROW // widest)

        def work(start: int) -> None:
            out[start : start + together] = self._fit(images[start : start + together])

        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            for start, end in spans(len(images), max(images[:1].nbytes, out[:1].nbytes), _LET_GO):
                for _ in pool.map(work, range(start, end, together)):
                    pass
                let_go(images[start:end])
                let_go(out[start:end])
        return out

    def told(self, image: Pixels) -> list[str]:
        """Say what `geometry` does to a picture uint8 (H, W, C), one phrase each; nothing to one that fits already."""
        (height, width, found), (goal_height, goal_width) = image.shape, self.size
        phrases = []
        if (found, self.channels) in ((3, 1), (1, 3)):
            phrases.append("colour to gray" if found == 3 else "gray to colour")
        if (height, width) != self.size:
            how = {"stretch": "stretched", "crop": "cropped and scaled", "pad": "scaled and padded"}[self.fit]
            phrases.append(f"{how} from {width}×{height} to {goal_width}×{goal_height}")
        return phrases

    def normalise(self, batch: torch.Tensor, channels_last: bool = True) -> torch.Tensor:
        """Compute `(x.float() − mean) · (1/std)` in float32.

        `batch` (B, H, W, C), uint8 or floats of 0–255; returns float32 (B, C, H, W), a view whose strides are
        channels-last, or where that is not wanted a copy laid out as a DataLoader's batches are. Mean and 1/std are
        rounded to float32 once (`constants`). With mean 0 and std 255 this is x·(1/255), which differs from the x/255
        of ToTensor in the last bit for 126 of the 256 values (by at most 6e-8). Raises DataError for another number of
        channels.
        """
        if batch.dim() != 4 or batch.shape[3] != self.channels:
            raise DataError(
                f"a batch has shape {tuple(batch.shape)}", f"expected (B, H, W, {self.channels})", "check the axes"
            )
        import torch

        count, height, width, channels = batch.shape
        if torch.compiler.is_compiling():
            # In a graph whole maps are subtracted: over a last axis of 3 onnxruntime takes eight times as long.
            mean, scale = (
                torch.tensor(values.tolist(), device=batch.device)[:, None, None] for values in self.constants()
            )
            pictures = (batch.permute(0, 3, 1, 2).float() - mean) * scale
            return pictures if channels_last else pictures.contiguous()
        # One long row per picture: broadcasting over a last axis of 3 would be many times slower.
        mean_row, scale_row = _constant_rows(self.mean, self.std, height * width, batch.device)
        flat = batch.reshape(count, height * width * channels)
        if batch.dtype == torch.uint8:
            flat = flat.to(torch.float32)
            if any(self.mean):  # x − 0 is x: a pass saved, the same bits
                flat.sub_(mean_row)
            flat.mul_(scale_row)
        else:
            flat = (flat.to(torch.float32) - mean_row) * scale_row
        pictures = flat.view(count, height, width, channels).permute(0, 3, 1, 2)  # (B, C, H, W)
        # One channel is in both layouts at once, and torch would take it for channels-last: the copy says which.
        return pictures if channels_last else pictures.clone(memory_format=torch.contiguous_format)

    def constants(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and 1/std as float32 (C,), the numbers that `normalise` uses; 1/std is taken in float64 first."""
        return np.array(self.mean, np.float32), (1.0 / np.array(self.std, np.float64)).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for model.json; `background` is written only where it is not black."""
        data: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        data.update(size=list(self.size), mean=list(self.mean), std=list(self.std))
        if self.drawing is not None:
            data["drawing"] = self.drawing.to_json()
        if self.background:
            data["background"] = self.background
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocess:
        """Build it from what `to_json` gave, exactly. Raises DataError naming the field that is wrong."""
        if not isinstance(data, Mapping):
            raise DataError("preprocess is not a JSON object", f"got {type(data).__name__}")
        wrong = [f"{name} is missing" for name in _FIELDS if name not in data]
        wrong += [f"{name} is unknown" for name in data if name not in (*_FIELDS, "background")]
        wrong += [f"{name} is no list" for name in ("size", "mean", "std") if not isinstance(data.get(name, []), list)]
        if wrong:
            raise DataError("preprocess has not the fields this version of striate writes", "; ".join(wrong))
        try:
            for name in ("channels", "background"):
                if type(data.get(name, 0)) is not int:
                    raise UsageError(f"{name} is {data[name]!r}", "expected a whole number")
            return cls(
                size=tuple(data["size"]),  # type: ignore[arg-type]
                fit=data["fit"],
                channels=data["channels"],
                mean=tuple(data["mean"]),
                std=tuple(data["std"]),
                drawing=None if data["drawing"] is None else DrawingStyle.from_json(data["drawing"]),
                background=data.get("background", 0),
            )
        except UsageError as error:
            raise DataError(f"preprocess: {error.what}", error.cause, error.fix) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError("preprocess holds a value of the wrong kind", str(error)) from error

    def _fit(self, images: Pixels) -> Pixels:
        """Do the geometry of pictures (n, h, w, c) of one shape."""
        # Repeating gray after scaling gives the same bytes as before it, for a third of the work.
        if images.shape[3] != self.channels and (images.shape[3], self.channels) != (1, 3):
            images = to_channels(images, self.channels)
        height, width = images.shape[1:3]
        goal_height, goal_width = self.size
        if self.fit == "pad":
            scale = min(goal_height / height, goal_width / width)
            inner = (max(1, round(height * scale)), max(1, round(width * scale)))
            fitted = np.full((len(images), *self.size, images.shape[3]), self.background, dtype=np.uint8)
            top, left = (goal_height - inner[0]) // 2, (goal_width - inner[1]) // 2
            scaled = _scale(images, inner, (0.0, 0.0, float(width), float(height)))
            fitted[:, top : top + inner[0], left : left + inner[1]] = scaled
        elif self.fit == "crop":
            scale = min(height / goal_height, width / goal_width)  # source pixels per pixel
            across, down = goal_width * scale, goal_height * scale
            left_edge, top_edge = max(0.0, (width - across) / 2), max(0.0, (height - down) / 2)
            box = (left_edge, top_edge, min(float(width), left_edge + across), min(float(height), top_edge + down))
            fitted = _scale(images, self.size, box)
        else:
            fitted = _scale(images, self.size, (0.0, 0.0, float(width), float(height)))
        return to_channels(fitted, self.channels)


def to_channels(images: Pixels, channels: int) -> Pixels:
    """Bring pictures uint8 (…, H, W, C) to `channels`, as they are where they have them.

    3 → 1: Pillow's luma, (19595 R + 38470 G + 7471 B + 32768) >> 16, the weights of ITU-R 601-2. 1 → 3: repeated.
    2 or 4: the last channel is alpha, and the picture is laid over white first. Raises DataError for the rest.
    """
    found = images.shape[-1]
    if found == channels:
        return images
    if found in (2, 4):
        return to_channels(over_white(images), channels)
    if (found, channels) == (1, 3):
        return np.repeat(images, 3, axis=-1)
    if (found, channels) == (3, 1):
        rows = np.ascontiguousarray(images).reshape(-1, images.shape[-2], 3)
        return np.asarray(Image.fromarray(rows).convert("L")).reshape(*images.shape[:-1], 1)
    raise DataError(
        f"a picture has {found} channels and the net takes {channels}",
        "only gray (1), colour (3) and either with alpha (2, 4) can be converted",
        f"give pictures with {channels} channels",
    )


def over_white(images: Pixels) -> Pixels:
    """Lay pictures uint8 (…, C + 1), whose last channel is alpha, over white: (c·a + 255·(255 − a)) / 255, rounded."""
    alpha = images[..., -1:]
    if alpha.size and int(alpha.min()) == 255:
        return np.ascontiguousarray(images[..., :-1])
    out = np.empty((*images.shape[:-1], images.shape[-1] - 1), dtype=np.uint8)
    # Row by row of the first axis, so that a large picture needs no large uint16 copy.
    for row in range(len(images)):
        opacity = images[row, ..., -1:].astype(np.uint16)
        blend = images[row, ..., :-1] * opacity
        blend += 255 * (255 - opacity) + 127
        out[row] = blend // 255
    return out


def measure(images: Pixels, chosen: NDArray[np.int64] | None = None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of pictures uint8 (N, H, W, C), in units of 0–255.

    `chosen`: the indices of those that count; None for all.

    Exact: a histogram is counted, the sums are whole numbers, and only the last division and root are rounded. The
    deviation is that of the population (divided by n). It is at least 1.0, so that a constant channel can be divided
    by it. Raises DataError where there is no picture.
    """
    _check_pixels(images, 4, "(N, H, W, C)")
    rows = np.arange(len(images)) if chosen is None else chosen
    if len(rows) == 0:
        raise DataError("there is no picture to measure mean and std on", f"the shape is {images.shape}")
    values = range(256)
    means, deviations = [], []
    counted = np.zeros((images.shape[3], 256), dtype=np.int64)
    for some in in_pieces(images, rows):
        counted += _histogram(some)
    for counts in counted:
        histogram = [int(count) for count in counts]
        total = sum(histogram)
        first = sum(count * value for count, value in zip(histogram, values))
        second = sum(count * value * value for count, value in zip(histogram, values))
        means.append(first / total)
        deviations.append(max(1.0, math.sqrt((total * second - first * first) / (total * total))))
    return tuple(means), tuple(deviations)


def _histogram(images: Pixels) -> NDArray[np.int64]:
    """Count the values of each channel of (N, H, W, C): int64 (C, 256)."""
    channels = images.shape[-1]
    flat = np.ascontiguousarray(images).reshape(-1)
    counts = np.zeros((channels, 256), dtype=np.int64)
    # Two bytes are counted at once: byte k belongs to channel k mod C, so the pairs repeat after C of them.
    even = len(flat) // (2 * channels) * (2 * channels)
    pairs = flat[:even].view("<u2")
    piece = channels << 17  # a multiple of C; its counters and values stay in the processor's cache
    for column in range(channels):
        table = np.zeros(65536, dtype=np.int64)
        for start in range(0, len(pairs), piece):
            table += np.bincount(pairs[start + column : start + piece : channels], minlength=65536)
        square = table.reshape(256, 256)  # (second byte, first byte)
        counts[2 * column % channels] += square.sum(axis=0)
        counts[(2 * column + 1) % channels] += square.sum(axis=1)
    for channel in range(channels):
        counts[channel] += np.bincount(flat[even + channel :: channels], minlength=256)
    return counts


def _scale(images: Pixels, size: tuple[int, int], box: tuple[float, float, float, float]) -> Pixels:
    """Scale the region `box` (left, upper, right, lower) of pictures (n, h, w, c) to `size` (height, width)."""
    count, height, width, channels = images.shape
    goal_height, goal_width = size
    bilinear = Image.Resampling.BILINEAR
    if (height, width) == size and box == (0.0, 0.0, float(width), float(height)):
        return images
    if channels not in (1, 3):
        planes = [_scale(images[..., channel : channel + 1], size, box) for channel in range(channels)]
        return np.concatenate(planes, axis=3)
    # Along rows first, rounded, then along columns, in two calls: in one call Pillow picks the order by the sizes and
    # by its version. Each row, then each column, stands alone, so that many pictures under each other, then side by
    # side, give the same bytes as one.
    tall = _as_image(np.ascontiguousarray(images).reshape(count * height, width, channels))
    tall = tall.resize((goal_width, count * height), bilinear, (box[0], 0.0, box[2], float(count * height)))
    if count == 1:
        one = tall.resize(size[::-1], bilinear, (0.0, box[1], float(goal_width), box[3]))
        return np.asarray(one).reshape(1, *size, channels)
    rows = np.asarray(tall).reshape(count, height, goal_width * channels)
    beside = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(height, count * goal_width * channels)
    wide = Image.fromarray(beside)
    wide = wide.resize((wide.width, goal_height), bilinear, (0.0, box[1], float(wide.width), box[3]))
    scaled = np.asarray(wide).reshape(goal_height, count, goal_width, channels)
    return scaled.transpose(1, 0, 2, 3)  # (n, goal height, goal width, c)


def _as_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


@functools.lru_cache(maxsize=16)
def _constant_rows(
    mean: tuple[float, ...], std: tuple[float, ...], pixels: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1/std as float32 on the device: one number where all channels agree, else repeated for each pixel."""
    import torch

    scale = [1.0 / value for value in std]
    # Tensors made in inference mode could not be used outside it later.
    with torch.inference_mode(False):
        rows = [torch.tensor(values, dtype=torch.float32, device=device) for values in (mean, scale)]
        rows = [row[:1] if len(set(row.tolist())) == 1 else row.repeat(pixels) for row in rows]
    return rows[0], rows[1]


def _per_channel(name: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != channels:
        raise UsageError(
            f"{name} has {len(numbers)} numbers for {channels} channels", "one number per channel is needed"
        )
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"{name} is {numbers}", "expected finite numbers")
    return numbers


def _check_pixels(images: np.ndarray, axes: int, form: str) -> None:
    if images.ndim != axes or images.dtype != np.uint8:
        raise DataError(
            f"pictures have shape {images.shape} and type {images.dtype}", f"expected uint8 {form}", "decode them first"
        )
    if 0 in images.shape[-3:]:
        raise DataError(f"pictures have shape {images.shape}", "there is no pixel in them", "check the array")
