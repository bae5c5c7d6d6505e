"""Augmentation of a whole batch at once: pure functions of a batch and a generator.

A batch is (B, H, W, C), uint8, or floats in units of 0–255. It is never changed in place. All random numbers of a batch
are drawn at once from a generator on the CPU, so that a batch is a function of the generator's seed alone, on any
device. There is no Python per picture. Labels are not seen here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from striate.errors import UsageError, unknown_name

FILLS = ("zero", "reflect")
_PIECE = 1 << 18  # values changed at once in float32


@dataclass(frozen=True)
class Operation:
    """One kind of change with its strength; `str` gives the text that `parse` reads."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field, value in dataclasses.asdict(self).items():
            if not isinstance(value, str) and not 0 <= value < math.inf:
                raise UsageError(f"{self.name} with {field} {value}", "expected a number from 0")

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw the random numbers for `count` pictures of `size` (H, W): one row of numbers for each."""
        raise NotImplementedError

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        """Change the batch (B, H, W, C) by the numbers `drawn` for it, row by row; shape and type are kept."""
        raise NotImplementedError

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for this batch and change it."""
        return apply((self,), batch, generator)

    def __str__(self) -> str:
        values = dataclasses.astuple(self)
        defaults = [field.default for field in dataclasses.fields(self)]
        given = [i + 1 for i, value in enumerate(values) if value != defaults[i]]
        shown = values[: max(given, default=min(1, len(values)))]
        return ":".join([self.name, *(repr(value) if isinstance(value, float) else str(value) for value in shown)])


@dataclass(frozen=True)
class Shift(Operation):
    """Move each picture by up to `pixels` in each direction; see `shift`."""

    name: ClassVar[str] = "shift"
    pixels: int
    fill: str = "zero"

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2 * self.pixels + 1, (count, 2), generator=generator)

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self.pixels == 0:
            return batch
        count, height, width, channels = batch.shape
        padded = _padded(batch, self.pixels, self.fill)  # (B, H + 2p, W + 2p, C)
        padded_height, padded_width = padded.shape[1:3]
        first = torch.arange(count, device=batch.device) * padded_height + drawn[:, 0]
        rows = first[:, None] + torch.arange(height, device=batch.device)
        starts = (rows * padded_width + drawn[:, 1:]) * channels  # (B, H)
        # Every row of a window is one run of bytes: gathering runs is ten times quicker than gathering pixels.
        run = width * channels
        runs = padded.view(-1).as_strided((max(padded.numel() - run + 1, 0), run), (1, 1))
        return runs.index_select(0, starts.view(-1)).view(batch.shape)


@dataclass(frozen=True)
class Flip(Operation):
    """Mirror each picture left to right with probability 1/2; see `flip`."""

    name: ClassVar[str] = "flip"

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, (count, 1), generator=generator)

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        pixels = math.prod(batch.shape[1:])
        both = torch.stack((batch, batch.flip(2)), dim=1).view(2 * len(batch), pixels)  # plain and mirrored in turn
        chosen = 2 * torch.arange(len(batch), device=batch.device) + drawn[:, 0]
        return both.index_select(0, chosen).view(batch.shape)


@dataclass(frozen=True)
class Cutout(Operation):
    """Cover a square of `side` pixels of each picture; see `cutout`."""

    name: ClassVar[str] = "cutout"
    side: int
    fill: int = 0

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.stack([torch.randint(0, length, (count,), generator=generator) for length in size], dim=1)

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self.side == 0:
            return batch
        count, height, width, channels = batch.shape
        span = torch.arange(self.side, device=batch.device) - self.side // 2
        # The centre lies in the picture, so a row moved to the border is a row that the square covers anyway.
        rows = (drawn[:, :1] + span).clamp_(0, height - 1) + height * torch.arange(count, device=batch.device)[:, None]
        columns = (drawn[:, 1:] + span).clamp_(0, width - 1)
        covered = (rows[:, :, None] * width + columns[:, None, :]).view(-1)  # (B · side · side,)
        out = batch.clone(memory_format=torch.contiguous_format)
        out.view(-1, channels).index_fill_(0, covered, self.fill)
        return out


@dataclass(frozen=True)
class Affine(Operation):
    """Turn, scale and shear each picture a little; see `affine`."""

    name: ClassVar[str] = "affine"
    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.rand((count, 3), generator=generator) * 2 - 1

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self == Affine() or len(batch) == 0:
            return batch
        return _in_pieces(self._change, batch, drawn)

    def _change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        count, height, width, _ = batch.shape
        angle = torch.deg2rad(drawn[:, 0] * self.degrees)[:, None, None]  # (B, 1, 1), as the next four
        size = (1 + drawn[:, 1] * self.scale)[:, None, None]
        slant = torch.tan(torch.deg2rad(drawn[:, 2] * self.shear))[:, None, None]
        cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
        # Places of the pixels' middles, −1 … 1 on each axis, as grid_sample counts them.
        rows = (torch.arange(height, device=batch.device) * 2 + 1) / height - 1
        columns = (torch.arange(width, device=batch.device) * 2 + 1) / width - 1
        rows, columns = rows.view(1, -1, 1), columns.view(1, 1, -1)
        # From a pixel of the result to its place in the source. (affine_grid does this three times slower.)
        grid = torch.empty((count, height, width, 2), device=batch.device)
        torch.add(
            (cosine - sine * slant) * columns, (cosine * slant + sine) * (height / width) * rows, out=grid[..., 0]
        )
        torch.add(-sine * (width / height) * columns, cosine * rows, out=grid[..., 1])
        planes = batch.permute(0, 3, 1, 2).to(torch.float32).contiguous()  # (B, C, H, W)
        moved = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return moved.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Colour(Operation):
    """Change brightness and contrast of each picture; see `colour`."""

    name: ClassVar[str] = "colour"
    brightness: float = 0.0
    contrast: float = 0.0

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.rand((count, 2), generator=generator) * 2 - 1

    def change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        if self == Colour() or len(batch) == 0:
            return batch
        return _in_pieces(self._change, batch, drawn)

    def _change(self, batch: Tensor, drawn: Tensor) -> Tensor:
        flat = batch.reshape(len(batch), -1).to(torch.float32)  # (B, H · W · C)
        bright = 1 + drawn[:, :1] * self.brightness
        contrast = 1 + drawn[:, 1:] * self.contrast
        # A float64 sum of whole numbers is exact, so that it does not depend on the number of threads.
        middle = flat.mean(dim=1, keepdim=True, dtype=torch.float64).to(torch.float32)
        changed = (flat * (bright * contrast)).add_(middle * bright * (1 - contrast))
        return changed.clamp_(0, 255).view(batch.shape)


def shift(batch: Tensor, pixels: int, generator: torch.Generator, fill: str = "zero") -> Tensor:
    """Move each picture by −pixels … pixels along both axes, each value as likely.

    What comes in at the border is 0 (`zero`) or the picture mirrored without its border row (`reflect`, which needs
    sides longer than `pixels`). Raises UsageError for other fills and for pictures that small.
    """
    return Shift(pixels, fill)(batch, generator)


def flip(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each picture left to right with probability 1/2. Not for digits and letters."""
    return Flip()(batch, generator)


def cutout(batch: Tensor, side: int, generator: torch.Generator, fill: int = 0) -> Tensor:
    """Cover a square of `side` × `side` pixels with `fill`, its centre at any pixel, cut off at the border.

    Source: DeVries and Taylor 2017, arXiv:1708.04552.
    """
    return Cutout(side, fill)(batch, generator)


def affine(
    batch: Tensor, generator: torch.Generator, degrees: float = 0.0, scale: float = 0.0, shear: float = 0.0
) -> Tensor:
    """Turn by −degrees … degrees, scale by 1 − scale … 1 + scale and shear by −shear … shear degrees, about the middle.

    Sampled bilinearly in one pass, in float32; outside the picture is 0; uint8 results are rounded.
    """
    return Affine(degrees, scale, shear)(batch, generator)


def colour(batch: Tensor, generator: torch.Generator, brightness: float = 0.0, contrast: float = 0.0) -> Tensor:
    """Multiply by 1 − brightness … 1 + brightness, then stretch about the picture's mean by 1 ∓ contrast.

    One number of each for a picture, the same for all channels; the result is cut to 0–255, and rounded for uint8.
    """
    return Colour(brightness, contrast)(batch, generator)


def apply(
    operations: Iterable[Operation],
    batch: Tensor,
    generator: torch.Generator,
    start: int = 0,
    total: int | None = None,
) -> Tensor:
    """Apply the operations in turn.

    `batch` (B, H, W, C) may be rows start … start + B of a batch of `total` pictures: the numbers are drawn for all of
    them, so that several processes with their share each see what one would. The generator must be on the CPU.
    Raises UsageError for a batch that is none.
    """
    if batch.dim() != 4:
        raise UsageError(f"a batch has shape {tuple(batch.shape)}", "augmentation expects (B, H, W, C)")
    if generator.device.type != "cpu":
        raise UsageError(
            f"the generator is on {generator.device}", "augmentation draws on the CPU", "use a CPU generator"
        )
    total = start + len(batch) if total is None else total
    for operation in operations:
        drawn = operation.draw(total, (batch.shape[1], batch.shape[2]), generator)
        batch = operation.change(batch, drawn[start : start + len(batch)].to(batch.device, non_blocking=True))
    return batch


@dataclass(frozen=True)
class _Number:
    """One number in the text of an operation: the field it sets, whole or not, and its range."""

    field: str
    kind: type
    low: float
    high: float
    needed: bool = True


_PIXELS = _Number("pixels", int, 0, 4096)
_DEGREES, _SHEAR = _Number("degrees", float, 0, 180), _Number("shear", float, 0, 60)
_SCALE = _Number("scale", float, 0, 0.9)
_BRIGHTNESS, _CONTRAST = _Number("brightness", float, 0, 1), _Number("contrast", float, 0, 1)
_FORMS: dict[str, tuple[type[Operation], tuple[_Number, ...], str]] = {
    "shift": (Shift, (_PIXELS,), "shift:2 or shift:4:reflect"),
    "flip": (Flip, (), "flip"),
    "cutout": (
        Cutout,
        (_Number("side", int, 0, 4096), _Number("fill", int, 0, 255, needed=False)),
        "cutout:8 or cutout:8:128",
    ),
    "affine": (
        Affine,
        (_DEGREES, replace(_SCALE, needed=False), replace(_SHEAR, needed=False)),
        "affine:10:0.1:5 (degrees, scale, shear)",
    ),
    "rotate": (Affine, (_DEGREES,), "rotate:10 (degrees)"),
    "scale": (Affine, (_SCALE,), "scale:0.1 (from 0.9 to 1.1 times)"),
    "shear": (Affine, (_SHEAR,), "shear:5 (degrees)"),
    "colour": (Colour, (_BRIGHTNESS, replace(_CONTRAST, needed=False)), "colour:0.2:0.2 (brightness, contrast)"),
    "brightness": (Colour, (_BRIGHTNESS,), "brightness:0.2 (from 0.8 to 1.2 times)"),
    "contrast": (Colour, (_CONTRAST,), "contrast:0.2 (from 0.8 to 1.2 times)"),
}


def parse(text: str) -> tuple[Operation, ...]:
    """Read a setting such as "shift:2,flip,cutout:8,rotate:10"; an empty text or "none" gives no operation.

    `rotate`, `scale` and `shear` next to each other are done in one pass, and so are `brightness` and `contrast`.
    Raises UsageError for an unknown name (with near ones) and for a number that is missing, wrong or out of range.
    """
    if text.strip().lower() in ("", "none"):
        return ()
    operations: list[Operation] = []
    for piece in text.split(","):
        operation = _parse_one(piece.strip())
        joined = _join(operations[-1], operation) if operations else None
        operations[-1:] = [joined] if joined else [*operations[-1:], operation]
    return tuple(operations)


def _parse_one(text: str) -> Operation:
    name, *values = (part.strip() for part in text.split(":"))
    if name not in _FORMS:
        raise unknown_name("augmentation", name, _FORMS)
    maker, numbers, example = _FORMS[name]
    fields: dict[str, float | str] = {}
    if maker is Shift and len(values) == 2:
        fields["fill"] = values.pop()
        if fields["fill"] not in FILLS:
            raise unknown_name("fill of shift", str(fields["fill"]), FILLS)
    if not sum(number.needed for number in numbers) <= len(values) <= len(numbers):
        raise UsageError(
            f"augmentation {text!r}", f"{name} with {len(values)} numbers has no meaning", f"write {example}"
        )
    for number, value in zip(numbers, values):
        fields[number.field] = _read(number, value, text, example)
    return maker(**fields)  # type: ignore[arg-type]


def _read(number: _Number, value: str, text: str, example: str) -> float:
    try:
        read: float = number.kind(value)
    except ValueError:
        wanted = "a whole number" if number.kind is int else "a number"
        raise UsageError(
            f"augmentation {text!r}", f"{number.field} is {value!r}, not {wanted}", f"write {example}"
        ) from None
    if not number.low <= read <= number.high:
        bounds = f"from {number.low:g} to {number.high:g}"
        raise UsageError(f"augmentation {text!r}", f"{number.field} is {value}, not {bounds}", f"write {example}")
    return read


def _join(first: Operation, second: Operation) -> Operation | None:
    """Make one operation of two that touch different fields of the same kind, or None."""
    if type(first) is not type(second) or not isinstance(first, (Affine, Colour)):
        return None
    ours, theirs = dataclasses.asdict(first), dataclasses.asdict(second)
    if any(ours[name] and theirs[name] for name in ours):
        return None
    return replace(first, **{name: value for name, value in theirs.items() if value})


def _padded(batch: Tensor, pixels: int, fill: str) -> Tensor:
    """Add `pixels` on all four sides: contiguous (B, H + 2p, W + 2p, C)."""
    count, height, width, channels = batch.shape
    if fill == "zero":
        padded = batch.new_zeros((count, height + 2 * pixels, width + 2 * pixels, channels))
        padded[:, pixels : pixels + height, pixels : pixels + width] = batch
        return padded
    if fill != "reflect":
        raise unknown_name("fill of shift", fill, FILLS)
    if pixels >= min(height, width):
        raise UsageError(
            f"shift:{pixels}:reflect on pictures of {height}×{width}",
            "a picture has no more rows to mirror than its own",
            f"shift by at most {min(height, width) - 1}",
        )
    padded = batch.new_empty((count, height + 2 * pixels, width + 2 * pixels, channels))
    padded[:, pixels : pixels + height, pixels : pixels + width] = batch
    for axis, length in ((1, height), (2, width)):  # the border row itself is not repeated
        near, far = padded.narrow(axis, pixels + 1, pixels), padded.narrow(axis, length - 1, pixels)
        padded.narrow(axis, 0, pixels).copy_(near.flip(axis))
        padded.narrow(axis, pixels + length, pixels).copy_(far.flip(axis))
    return padded


def _in_pieces(change: Callable[[Tensor, Tensor], Tensor], batch: Tensor, drawn: Tensor) -> Tensor:
    """Change some pictures at a time, to floats that stay in the processor's cache, and round them for uint8."""
    out = torch.empty(batch.shape, dtype=batch.dtype, device=batch.device)
    together = max(1, _PIECE // max(1, math.prod(batch.shape[1:])))
    for start in range(0, len(batch), together):
        rows = slice(start, start + together)
        changed = change(batch[rows], drawn[rows])
        out[rows] = changed.round_().clamp_(0, 255) if batch.dtype == torch.uint8 else changed
    return out


def describe(operations: Sequence[Operation]) -> str:
    """Return the text that `parse` reads back, "none" for no operation."""
    return ",".join(str(operation) for operation in operations) or "none"
