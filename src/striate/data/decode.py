"""The one decoder of train, evaluate, predict and serve: a file, bytes, a PIL image or an array → uint8 (H, W, C).

Formats are JPEG, PNG, BMP, GIF, WEBP and TIFF, recognised by content, not by name. The size is read before the pixels.
Whatever goes wrong becomes one DataError with the name of the source, the cause and what to do. Nothing is written.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

from striate.data.drawing import STEPS, Redrawn, inverted, over_contrast, redraw, separate_digits
from striate.data.modes import Flatten, Pixels, stored_as, to_eight_bits, without_alpha
from striate.data.opening import (
    MAX_PIXELS,
    check_size,
    explained,
    open_picture,
    open_regular,
    orientation,
    printable,
    scalable,
    seekable,
)
from striate.data.preprocess import Preprocess, over_white, to_channels
from striate.errors import DataError

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | Image.Image | np.ndarray

# Part of the cache's address. Raise it whenever the same file comes to other values (tests/data/test_decode.py
# holds digests that tell).
DECODER_VERSION = 1

# EXIF orientation → axes swapped?, rows reversed?, columns reversed? (in this order)
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# A JPEG decoded at a part of its size keeps at least this many times the wanted sides (docs/data.md has the effect).
_SPARE = 2
# A digit is looked for in a picture of at least twice these sides.
_DRAWING_SIDES = (500, 500)
# Pixels that all threads together may be decoding: at about 10 bytes each, two thirds of a gigabyte.
_MOST_IN_FLIGHT = 64_000_000
_in_flight = 0
_landed = threading.Condition()


def decode(
    source: Source,
    *,
    channels: int | None,
    target: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    notes: list[str] | None = None,
    name: str | None = None,
    flatten: Flatten = over_white,
) -> Pixels:
    """Decode one picture to uint8 (H, W, C), upright.

    `source`: a path, bytes, an open binary file, a PIL image, or an array (H, W), (H, W, C) or (C, H, W), uint8, bool
    or floats 0–1. `channels`: None keeps gray as 1 and colour as 3; 1 or 3 converts by the rule of
    `preprocess.to_channels`; an array with just that many channels is taken as it is.
    `target`: (height, width) that the picture will be scaled to afterwards. The file of a JPEG that is much larger is
    then decoded at 1/2, 1/4 or 1/8 of its sides, the least part that keeps twice the target on both sides.
    `max_pixels`: larger pictures are refused before their pixels are read, but for a plain JPEG of up to eight times as
    many, which is decoded at the largest such part that fits. `notes` collects what was done beside reading, one
    phrase each. `name` is what errors call the source.

    EXIF orientation is applied. Alpha is laid over white, unless `flatten` does otherwise. Of an animation the first
    frame is taken. 16-bit gray is scaled by its bit depth to the nearest level; of 16-bit colour the high byte is
    taken, which is value/256. 32-bit integers are scaled so that the smallest value is 0 and the largest 255, and so
    are floats unless they lie in 0–1, which becomes 0–255. A palette of grays is gray.
    Raises DataError naming the source, the cause and what to do, and nothing else.
    """
    label = name or _label(source)
    notes = [] if notes is None else notes
    with explained(label):
        pixels = _decode(source, label, channels, target, max_pixels, notes, flatten)
        return pixels if channels is None else np.ascontiguousarray(to_channels(pixels, channels))


def decode_fitted(
    source: Source,
    preprocess: Preprocess,
    *,
    max_pixels: int = MAX_PIXELS,
    notes: list[str] | None = None,
    name: str | None = None,
    tell_fit: bool = False,
) -> Pixels:
    """Decode one picture and bring it to the size and channels of the net: uint8 (height, width, channels).

    The one way from a file to what a net sees, in training as in every answer. Options and errors as in `decode`;
    `tell_fit`: the notes also say how channels and size were changed, which is told of an answer.
    """
    label = name or _label(source)
    notes = [] if notes is None else notes
    with explained(label):
        pixels = _decode(source, label, preprocess.channels, preprocess.size, max_pixels, notes)
        if tell_fit:
            notes += preprocess.told(pixels)
        return preprocess.geometry(pixels)


def decode_drawn(
    source: Source,
    preprocess: Preprocess,
    *,
    skip: frozenset[str] = frozenset(),
    separate: bool = False,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> list[Redrawn]:
    """Decode a picture for a net whose training pictures are drawings, and bring it to their style.

    A picture that is in that style after the plain geometry is what `decode_fitted` gives, to the byte; so is every
    picture where `skip` holds all STEPS. `separate`: one result for each digit in the picture, else there is one.
    Options and errors as in `decode`; raises DataError where `separate` finds nothing.
    """
    label, style = name or _label(source), preprocess.drawing
    if hasattr(source, "read") and not isinstance(source, Image.Image):
        source = seekable(source, label).read()  # it may be decoded twice
    plain: list[str] = []
    if style is None or skip.issuperset(STEPS):
        pixels = decode_fitted(source, preprocess, max_pixels=max_pixels, notes=plain, name=label, tell_fit=True)
        return [Redrawn(pixels, tuple(plain))]
    notes: list[str] = []
    with explained(label):
        target = None if separate else _DRAWING_SIDES
        flatten = over_white if "alpha" in skip else over_contrast
        pixels = _decode(source, label, 1, target, max_pixels, notes, flatten)
        height, width = pixels.shape[:2]
        fitted = preprocess.geometry(pixels)
        if style.holds(fitted):
            steps = (*notes, *preprocess.told(pixels))
            # What may have been decoded otherwise for training: a large JPEG, and what has alpha.
            if any("alpha" in note for note in notes) or min(height, width) >= 2 * _SPARE * min(preprocess.size):
                exact = decode_fitted(source, preprocess, max_pixels=max_pixels, notes=plain, name=label, tell_fit=True)
                if style.holds(exact):
                    fitted, steps = exact, tuple(plain)
            return [Redrawn(fitted, steps, (0, 0, width, height))]
        if "polarity" not in skip and style.holds(255 - fitted):
            steps = (*notes, *preprocess.told(pixels), inverted(style.ground == 0))
            return [Redrawn(255 - fitted, steps, (0, 0, width, height))]
        found = separate_digits if separate else redraw
        drawn = found(pixels, style, preprocess.size, skip)
    if not drawn:
        raise DataError(f"{label} shows no ink", "nothing in it stands out from its ground", "check the picture")
    return [replace(one, steps=(*notes, *one.steps)) for one in drawn]


def _decode(
    source: Source,
    label: str,
    channels: int | None,
    target: tuple[int, int] | None,
    max_pixels: int,
    notes: list[str],
    flatten: Flatten = over_white,
) -> Pixels:
    """Decode one picture with the channels that it has; an array with `channels` channels is taken as it is."""
    if isinstance(source, Image.Image):
        return _from_image(source, label, max_pixels, notes, flatten)
    if isinstance(source, (str, os.PathLike)):
        with open_regular(source, label) as stream:
            return _from_stream(stream, label, target, max_pixels, notes, flatten)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(io.BytesIO(source), label, target, max_pixels, notes, flatten)
    if hasattr(source, "read"):
        return _from_stream(seekable(source, label), label, target, max_pixels, notes, flatten)
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source), label, channels, max_pixels, notes, flatten)
    raise DataError(
        f"{label} is no picture", "expected a path, bytes, an open file, a PIL image or an array", "pass one of these"
    )


def _from_stream(
    stream: BinaryIO,
    label: str,
    target: tuple[int, int] | None,
    max_pixels: int,
    notes: list[str],
    flatten: Flatten,
) -> Pixels:
    with open_picture(stream, label, check=True) as (form, image):
        if form == "JPEG":
            _draft(image, target, max_pixels, notes)
        return _from_image(image, label, max_pixels, notes, flatten)


def _from_image(image: Image.Image, label: str, max_pixels: int, notes: list[str], flatten: Flatten) -> Pixels:
    check_size(image.width, image.height, label, max_pixels)
    with _room_for(image.width * image.height):
        stored = stored_as(image)
        image.load()
        turn = orientation(image, notes)
        frames = _frames(image)
        if frames > 1:
            notes.append(f"first frame of {frames}")
        pixels = to_eight_bits(image, stored, notes, flatten)
        if turn in _TURNS:
            swapped, rows, columns = _TURNS[turn]
            pixels = pixels.transpose(1, 0, 2) if swapped else pixels
            pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
            notes.append(f"turned upright (EXIF orientation {turn})")
        return np.ascontiguousarray(pixels)


@contextmanager
def _room_for(pixels: int) -> Iterator[None]:
    """Wait until a picture of so many pixels can be decoded beside those of other threads; alone it always can."""
    global _in_flight
    with _landed:
        _landed.wait_for(lambda: _in_flight == 0 or _in_flight + pixels <= _MOST_IN_FLIGHT)
        _in_flight += pixels
    try:
        yield
    finally:
        with _landed:
            _in_flight -= pixels
            _landed.notify_all()


def _draft(image: ImageFile.ImageFile, target: tuple[int, int] | None, max_pixels: int, notes: list[str]) -> None:
    """Let the JPEG decoder itself scale down a picture that is much larger than wanted, or above the limit."""
    width, height = image.size
    part = 1
    if width * height > max_pixels:
        if not scalable(image, max_pixels):
            return
        part = next((part for part in (2, 4, 8) if -(-width // part) * -(-height // part) <= max_pixels), 1)
    if target is not None:
        high, wide = target if orientation(image, []) < 5 else target[::-1]  # 5 to 8: lying on its side
        spare = min(width // (_SPARE * wide), height // (_SPARE * high))
        part = max(part, next((part for part in (8, 4, 2) if part <= spare), 1))
    if part > 1 and width >= part <= height:
        image.draft(None, (width // part, height // part))
        notes.append(f"decoded at 1/{part} of {width}×{height}")


def _from_array(
    array: np.ndarray, label: str, channels: int | None, max_pixels: int, notes: list[str], flatten: Flatten
) -> Pixels:
    array = _channels_last(array, label, channels, notes)
    check_size(array.shape[1], array.shape[0], label, max_pixels)
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
        notes.append("bool to 0 and 255")
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):
            raise DataError(
                f"{label} has floats from {low:g} to {high:g}",
                "expected 0–1",
                "divide by 255 if they are 0–255, or undo the normalisation: the net's own is done here",
            )
        array = np.rint(array * 255.0).astype(np.uint8)
        notes.append("floats 0–1 to 0–255")
    elif array.dtype != np.uint8:
        raise DataError(
            f"{label} has type {array.dtype}",
            "expected uint8 0–255, bool or floats 0–1",
            "convert it: array.astype('uint8') if the values are 0–255, (array >> 8).astype('uint8') if 0–65535",
        )
    if array.shape[2] in (2, 4) and array.shape[2] != channels:
        array = without_alpha(array, notes, flatten)
    return np.ascontiguousarray(array)


def _channels_last(array: np.ndarray, label: str, channels: int | None, notes: list[str]) -> np.ndarray:
    """Return an array as (H, W, C). Raises DataError where the axes are not those of one picture, or not told apart."""
    wanted = "expected (H, W), (H, W, C) with 1 or 3 channels and perhaps alpha, or (C, H, W) with 1 or 3"
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        fix = "pass a list of pictures: list(array)" if array.ndim == 4 else "pass one picture at a time"
        raise DataError(f"{label} has shape {array.shape}", f"{wanted}, one picture at a time", fix)
    last, first = array.shape[2] in (1, 2, 3, 4, channels), array.shape[0] in (1, 3, channels)
    if last and first and array.shape[0] != 1:
        raise DataError(
            f"{label} of shape {array.shape} can be read as (H, W, C) and as (C, H, W)",
            "both the first and the last axis could be the channels",
            "pass a larger picture, or a PIL image",
        )
    if last:
        return array
    if first:
        notes.append("(C, H, W) to (H, W, C)")
        return array.transpose(1, 2, 0)
    raise DataError(f"{label} has shape {array.shape}", wanted, "check the order of the axes")


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a later frame is damaged; only the first is wanted
        return 1


def _label(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return printable(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"a picture of {len(source):,} bytes"
    if isinstance(source, Image.Image):
        return printable(os.fsdecode(getattr(source, "filename", "") or "a PIL image"))
    if hasattr(source, "read"):
        given = getattr(source, "name", None)
        return printable(given) if isinstance(given, str) and given else "a stream"
    return "an array" if hasattr(source, "__array__") else f"a {type(source).__name__}"
