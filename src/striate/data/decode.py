"""The one decoder of train, evaluate, predict and serve: a file, bytes, a PIL image or an array → uint8 (H, W, C).

Formats are JPEG, PNG, BMP, GIF, WEBP and TIFF, recognised by content, not by name. The size is read before the pixels.
Whatever goes wrong becomes one DataError with the name of the source, the cause and what to do. Nothing is written.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from striate.data.formats import check_png, guess, recognise
from striate.data.preprocess import over_white, to_channels
from striate.errors import DataError, StriateError

Pixels = NDArray[np.uint8]
Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | Image.Image | np.ndarray

MAX_PIXELS = 50_000_000

# Opened by class and not by Image.open: no other format can slip in, and Image.open would warn of large pictures where
# this module refuses them (filters for warnings cannot be set safely while several threads decode).
_OPENERS: dict[str, Callable[..., ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
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
_KNOWN = "JPEG, PNG, BMP, GIF, WEBP and TIFF are read"
_COPY_AGAIN = "copy or download it again, or leave it out"
_PLAIN = {  # what Pillow says → what it means
    "not identified by this driver": "its header is damaged",
    "cannot load this image": "it has a header but no pixels",
    "Truncated File Read": "it is cut off",
}
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0112, 258, 262
_MOST_BYTES = 1 << 30  # of a stream that cannot seek
_MOST_SCALING = 8  # times max_pixels that a JPEG may have for its header to be trusted with scaled decoding


def decode(
    source: Source,
    *,
    channels: int | None,
    max_pixels: int = MAX_PIXELS,
    notes: list[str] | None = None,
    name: str | None = None,
) -> Pixels:
    """Decode one picture to uint8 (H, W, C), upright.

    `source`: a path, bytes, an open binary file, a PIL image, or an array (H, W), (H, W, C) or (C, H, W), uint8, bool
    or floats 0–1. `channels`: None keeps gray as 1 and colour as 3; 1 or 3 converts by the rule of
    `preprocess.to_channels`; an array with just that many channels is taken as it is.
    `max_pixels`: larger pictures are refused before their pixels are read, but for a plain JPEG of up to eight times as
    many, which is decoded at 1/2, 1/4 or 1/8 of its sides. `notes` collects what was done beside reading, one phrase
    each. `name` is what errors call the source.

    EXIF orientation is applied. Alpha is laid over white. Of an animation the first frame is taken. 16-bit gray is
    scaled by its bit depth; 16-bit colour keeps its high bytes. 32-bit integers are scaled so that the smallest value
    is 0 and the largest 255, and so are floats unless they lie in 0–1, which becomes 0–255. A palette of grays is gray.
    Raises DataError naming the source, the cause and what to do, and nothing else.
    """
    notes = [] if notes is None else notes
    label = name or _label(source)
    try:
        if isinstance(source, Image.Image):
            pixels = _from_image(source, label, max_pixels, notes)
        elif isinstance(source, (str, os.PathLike)):
            with _opened(source, label) as stream:
                pixels = _from_stream(stream, label, max_pixels, notes)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            pixels = _from_stream(io.BytesIO(source), label, max_pixels, notes)
        elif hasattr(source, "read"):
            pixels = _from_stream(_seekable(source, label), label, max_pixels, notes)
        elif hasattr(source, "__array__"):
            pixels = _from_array(np.asarray(source), label, channels, max_pixels, notes)
        else:
            raise DataError(
                f"{label} is no picture",
                "expected a path, bytes, an open file, a PIL image or an array",
                "pass one of these",
            )
        return pixels if channels is None else np.ascontiguousarray(to_channels(pixels, channels))
    except StriateError as error:
        if error.what.startswith(label):
            raise
        raise DataError(f"{label}: {error.what}", error.cause, error.fix) from error
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        cause = "there is not enough memory for it" if isinstance(error, MemoryError) else _reason(error)
        raise DataError(f"{label} cannot be decoded", cause, "make it smaller, or leave it out") from error
    except Exception as error:  # Pillow and the file system raise many kinds on damaged files
        raise DataError(f"{label} cannot be decoded", _reason(error), _COPY_AGAIN) from error


def _from_stream(stream: BinaryIO, label: str, max_pixels: int, notes: list[str]) -> Pixels:
    start = stream.read(512)
    if not start:
        raise DataError(f"{label} is empty", "it holds no byte", _COPY_AGAIN)
    form = recognise(start)
    if form is None:
        raise DataError(f"{label} is not a picture", f"it {guess(start)}; {_KNOWN}", "convert it, or leave it out")
    stream.seek(0)
    if form == "PNG":
        check_png(stream)
        stream.seek(0)
    with _OPENERS[form](stream) as image:
        if form == "JPEG":
            _draft(image, max_pixels, notes)
        return _from_image(image, label, max_pixels, notes)


def _from_image(image: Image.Image, label: str, max_pixels: int, notes: list[str]) -> Pixels:
    _check_size(image.width, image.height, label, max_pixels)
    tiles: list[Any] = getattr(image, "tile", [])
    deep = bool(tiles) and "16" in str(tiles[0][3])  # of a PNG: two bytes a sample
    image.load()
    orientation = _orientation(image, notes)
    frames = _frames(image)
    if frames > 1:
        notes.append(f"first frame of {frames}")
    pixels = _eight_bits(image, deep, notes)
    if orientation in _TURNS:
        swapped, rows, columns = _TURNS[orientation]
        pixels = pixels.transpose(1, 0, 2) if swapped else pixels
        pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
        notes.append(f"turned upright (EXIF orientation {orientation})")
    return np.ascontiguousarray(pixels)


def _eight_bits(image: Image.Image, deep: bool, notes: list[str]) -> Pixels:
    """Bring a loaded image of any mode to uint8 (H, W, 1 or 3), alpha over white."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;"):
        return _scaled(image, notes)
    gray = mode in ("1", "L", "LA", "La") or (mode in ("P", "PA") and _has_gray_palette(image))
    if image.has_transparency_data:
        if mode in ("P", "1", "L", "RGB"):
            image = image.copy()  # Pillow writes the transparency into the palette while converting
            key = image.info.get("transparency")
            if deep and isinstance(key, tuple):
                image.info["transparency"] = tuple(value >> 8 for value in key)
        blended = np.asarray(image.convert("LA" if mode in ("1", "L", "LA", "La") else "RGBA"))
        if int(blended[..., -1].min()) < 255:
            notes.append("alpha over white")
        pixels = over_white(blended)
    else:
        if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            notes.append(f"{mode} to RGB")
        goal = "L" if mode in ("1", "L") else "RGB"
        pixels = np.asarray(image if mode == goal else image.convert(goal))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels[..., :1] if gray else pixels


def _scaled(image: Image.Image, notes: list[str]) -> Pixels:
    """Scale 16-bit gray by its bit depth, 32-bit values by their range: uint8 (H, W, 1)."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise DataError("the picture holds NaN or infinite values", "they cannot be scaled", "write finite values")
    inverted = False
    if image.mode not in ("I", "F"):
        tags = getattr(image, "tag_v2", {})
        bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
        inverted = tags.get(_PHOTOMETRIC) == 0  # white is zero; Pillow turns this round for 8 bits only
        low, high = 0.0, float((1 << bits) - 1)
        notes.append(f"{bits} bits scaled to 8")
    else:
        if image.mode == "F" and low >= 0.0 and high <= 1.0:
            low, high = 0.0, 1.0
        notes.append(f"32-bit values from {low:g} to {high:g} scaled to 0–255")
    pixels = np.empty((*values.shape, 1), dtype=np.uint8)
    for row, line in enumerate(values):  # a row at a time: float64 of a large picture would fill the memory
        level = np.rint((line.astype(np.float64) - low) * (255.0 / max(high - low, 1e-300)))
        level = np.minimum(level, 255.0)
        pixels[row, :, 0] = 255.0 - level if inverted else level
    key = image.info.get("transparency")
    if image.mode.startswith("I;") and isinstance(key, int) and bool((values == key).any()):
        notes.append("alpha over white")
        pixels[values == key] = 255
    return pixels


def _from_array(array: np.ndarray, label: str, channels: int | None, max_pixels: int, notes: list[str]) -> Pixels:
    known = (1, 2, 3, 4) if channels is None else (1, 2, 3, 4, channels)
    wanted = "expected (H, W), (H, W, C) or (C, H, W) with 1, 3 or, with alpha, 2 or 4 channels"
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"{label} has shape {array.shape}", wanted, "pass one picture at a time")
    last, first = array.shape[2] in known, array.shape[0] in known
    if last and first and array.shape[0] != 1:
        raise DataError(
            f"{label} of shape {array.shape} can be read as (H, W, C) and as (C, H, W)",
            "both the first and the last axis could be the channels",
            "pass a larger picture, or a PIL image",
        )
    if not last and not first:
        raise DataError(f"{label} has shape {array.shape}", wanted, "check the order of the axes")
    array = array if last else array.transpose(1, 2, 0)
    _check_size(array.shape[1], array.shape[0], label, max_pixels)
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):
            raise DataError(
                f"{label} has floats from {low:g} to {high:g}", "expected 0–1", "divide by 255 if they are 0–255"
            )
        array = np.rint(array * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise DataError(
            f"{label} has type {array.dtype}",
            "expected uint8 0–255, bool or floats 0–1",
            "convert it: array.astype('uint8') if the values are 0–255",
        )
    if array.shape[2] in (2, 4) and array.shape[2] != channels:
        if int(array[..., -1].min()) < 255:
            notes.append("alpha over white")
        array = over_white(array)
    return np.ascontiguousarray(array)


def _check_size(width: int, height: int, label: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DataError(
            f"{label} has {width}×{height} = {width * height:,} pixels",
            f"at most {max_pixels:,} are decoded, so that one file cannot fill the memory",
            f"make it smaller, or raise max_pixels to {width * height}",
        )


def _draft(image: ImageFile.ImageFile, max_pixels: int, notes: list[str]) -> None:
    """Let the JPEG decoder itself scale down a picture above the limit."""
    width, height = image.size
    # A progressive JPEG keeps all its coefficients in memory whatever the scale.
    if not max_pixels < width * height <= _MOST_SCALING * max_pixels or "progressive" in image.info:
        return
    for part in (2, 4, 8):
        if -(-width // part) * -(-height // part) <= max_pixels and width >= part <= height:
            image.draft(None, (width // part, height // part))
            notes.append(f"decoded at 1/{part} of {width}×{height}")
            return


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels are good, only the block of camera data is not
        notes.append("EXIF block damaged, orientation unknown")
        return 1


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a later frame is damaged; only the first is wanted
        return 1


def _has_gray_palette(image: Image.Image) -> bool:
    palette = np.array(image.getpalette("RGB") or [0, 0, 0], dtype=np.int64).reshape(-1, 3)
    used = np.array(image.histogram()[:256]) > 0
    colours = palette[used[: len(palette)]]
    return bool((colours == colours[:, :1]).all())


@contextmanager
def _opened(path: str | os.PathLike[str], label: str) -> Iterator[BinaryIO]:
    """Open a regular file, and nothing else: never waits for a pipe, never touches a device."""
    try:
        _check_regular(os.stat(path).st_mode, label)
        # A pipe put there in between must not hold us up either.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        if os.path.islink(path):
            raise DataError(
                f"{label} is a link to nothing", "the file it names is not there", "mend the link"
            ) from None
        raise DataError(f"{label} does not exist", "there is no such file", "check the name and the folder") from None
    except PermissionError:
        raise DataError(f"{label} may not be read", "permission is denied", f"allow it: chmod u+r {label}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{label} cannot be opened", _reason(error), "check the name and the folder") from error
    with open(number, "rb") as stream:
        _check_regular(os.fstat(number).st_mode, label)
        yield stream


def _check_regular(mode: int, label: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise DataError(f"{label} is a folder", "expected one picture file", "name a file in it")
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    kind = kinds.get(stat.S_IFMT(mode), "no regular file")
    raise DataError(f"{label} is {kind}", "only regular files are read", "name a picture file")


def _seekable(stream: Any, label: str) -> BinaryIO:
    """Return the rest of a binary stream as one that starts at 0."""
    data = stream.read(_MOST_BYTES + 1)
    if not isinstance(data, bytes):
        raise DataError(f"{label} gives text, not bytes", "a picture is binary", "open it with mode 'rb'")
    if len(data) > _MOST_BYTES:
        raise DataError(f"{label} gives more than {_MOST_BYTES:,} bytes", "no picture is that large", "name a file")
    return io.BytesIO(data)


def _label(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return _printable(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"a picture of {len(source):,} bytes"
    if isinstance(source, Image.Image):
        return _printable(os.fsdecode(getattr(source, "filename", "") or "a PIL image"))
    if hasattr(source, "read"):
        given = getattr(source, "name", None)
        return _printable(given) if isinstance(given, str) and given else "a stream"
    return "an array" if hasattr(source, "__array__") else f"a {type(source).__name__}"


def _printable(text: str) -> str:
    """Escape what would break a line of output: line ends, control characters, bytes that are no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _reason(error: Exception) -> str:
    text = " ".join(str(error.strerror if isinstance(error, OSError) and error.strerror else error).split())
    if text.startswith("decoder error") or not text:
        return f"its compressed data are damaged ({text or type(error).__name__})"
    return _printable(_PLAIN.get(text, text))
