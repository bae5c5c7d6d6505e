"""Augmentation of a whole batch at once: pure functions of a batch and a keyed generator, and the text that names them.

A batch is (B, H, W, C), uint8, or floats in units of 0–255. It is never changed in place. All random numbers of a batch
are drawn at once from a generator on the CPU, so that a batch is a function of the generator's seed alone, on any
device. There is no Python per picture. Each operation stands in `moves`, `warps`, `colours` or `mixing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from striate.data.colours import Colour
from striate.data.mixing import Cutmix, Mixing, Mixup
from striate.data.moves import FILLS, AlternatingFlip, Cutout, Flip, Shift
from striate.data.operation import Change, Context, Operation
from striate.data.warps import Affine, Crop
from striate.errors import UsageError, unknown_name

STORE = 1.15  # how much larger than the net sees them pictures are kept for `crop`


def apply(changes: Iterable[Change], batch: Tensor, context: Context, rows: Tensor | None = None) -> Tensor:
    """Apply the changes in turn to pictures (n, H, W, C); `crop` may change H and W.

    `rows` int64 (n,) says which rows of the whole batch these are, None that they are all of them. The numbers are
    drawn for the whole batch, so that several processes with their rows each see what one would. Raises UsageError
    for a batch that is none.
    """
    if batch.dim() != 4:
        raise UsageError(f"a batch has shape {tuple(batch.shape)}", "augmentation expects (B, H, W, C)")
    for operation in changes:
        drawn = operation.draw(context, (batch.shape[1], batch.shape[2]))
        drawn = drawn if rows is None else drawn[rows]
        batch = operation.change(batch, drawn.to(batch.device, non_blocking=True))
    return batch


def split(operations: Iterable[Operation], size: tuple[int, int]) -> tuple[tuple[Change, ...], Mixing | None]:
    """Return the changes, with `crop` giving pictures of `size` (H, W), and the mixing, if there is one."""
    changes: list[Change] = []
    mixing = None
    for operation in operations:
        if isinstance(operation, Mixing):
            mixing = operation
        elif isinstance(operation, Change):
            changes.append(replace(operation, size=size) if isinstance(operation, Crop) else operation)
    return tuple(changes), mixing


def store_size(operations: Iterable[Operation], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (H, W) in which train pictures are kept for a net that sees `size`: larger where `crop` is."""
    if not any(isinstance(operation, Crop) for operation in operations):
        return size
    return round(STORE * size[0]), round(STORE * size[1])


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
_BRIGHTNESS, _CONTRAST, _SATURATION = (_Number(f, float, 0, 1) for f in ("brightness", "contrast", "saturation"))
_ALPHA = _Number("alpha", float, 0, 100)
_FORMS: dict[str, tuple[type[Operation], tuple[_Number, ...], str]] = {
    "shift": (Shift, (_PIXELS,), "shift:2 or shift:4:reflect"),
    "flip": (Flip, (), "flip"),
    "altflip": (AlternatingFlip, (), "altflip"),
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
    "crop": (Crop, (_Number("least", float, 0.01, 1),), "crop:0.35 (least share of the area)"),
    "colour": (
        Colour,
        (_BRIGHTNESS, replace(_CONTRAST, needed=False), replace(_SATURATION, needed=False)),
        "colour:0.2:0.2:0.2 (brightness, contrast, saturation)",
    ),
    "brightness": (Colour, (_BRIGHTNESS,), "brightness:0.2 (from 0.8 to 1.2 times)"),
    "contrast": (Colour, (_CONTRAST,), "contrast:0.2 (from 0.8 to 1.2 times)"),
    "saturation": (Colour, (_SATURATION,), "saturation:0.2 (from 0.8 to 1.2 times)"),
    "mixup": (Mixup, (_ALPHA,), "mixup:0.2"),
    "cutmix": (Cutmix, (_ALPHA,), "cutmix:1"),
}


def parse(text: str) -> tuple[Operation, ...]:
    """Read a setting such as "shift:2,flip,cutout:8,rotate:10"; an empty text or "none" gives no operation.

    `rotate`, `scale` and `shear` next to each other are done in one pass, and so are `brightness`, `contrast` and
    `saturation`. One of `mixup` and `cutmix` may stand at the end. Raises UsageError for an unknown name (with near
    ones), for a number that is missing, wrong or out of range, and for mixing that is not last.
    """
    if text.strip().lower() in ("", "none"):
        return ()
    operations: list[Operation] = []
    for piece in text.split(","):
        operation = _parse_one(piece.strip())
        joined = _join(operations[-1], operation) if operations else None
        operations[-1:] = [joined] if joined else [*operations[-1:], operation]
    mixing = [operation for operation in operations if isinstance(operation, Mixing)]
    if len(mixing) > 1:
        raise UsageError(
            f"augmentation {text!r}", "pictures are mixed once", f"leave one: {' or '.join(map(str, mixing))}"
        )
    if mixing and operations[-1] is not mixing[0]:
        raise UsageError(f"augmentation {text!r}", "pictures are mixed after all else", f"write {mixing[0]} at the end")
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


def describe(operations: Sequence[Operation]) -> str:
    """Return the text that `parse` reads back, "none" for no operation."""
    return ",".join(str(operation) for operation in operations) or "none"
