"""Opens picture files for the decoder: regular files only, the format by content, the header read and no pixels yet.

Whatever goes wrong becomes one DataError with the name of the source, the cause and what to do (`explained`).
"""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

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
from striate.errors import DataError, StriateError

MAX_PIXELS = 50_000_000
# A header that claims more is not believed: no camera takes such pictures.
_MOST_ALLOWED = 1_000_000_000
# Times max_pixels that a JPEG may have for its header to be trusted with scaled decoding.
MOST_SCALING = 8

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
_KNOWN = "JPEG, PNG, BMP, GIF, WEBP and TIFF are read"
_COPY_AGAIN = "copy or download it again, or leave it out"
_PLAIN = {  # what Pillow says → what it means
    "not identified by this driver": "its header is damaged",
    "cannot load this image": "it has a header but no pixels",
    "Truncated File Read": "it is cut off",
}
_ORIENTATION = 0x0112
_MOST_BYTES = 1 << 30  # of a stream that cannot seek

# What Pillow logs of damaged files is told in our errors; without a handler logging would print it to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def explained(label: str) -> Iterator[None]:
    """Turn whatever is raised within into a DataError that names `label`; KeyboardInterrupt passes."""
    try:
        yield
    except StriateError as error:
        if label in error.what:
            raise
        raise DataError(f"{label}: {error.what}", error.cause, error.fix) from error
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        cause = "there is not enough memory for it" if isinstance(error, MemoryError) else reason(error)
        raise DataError(f"{label} cannot be decoded", cause, "make it smaller, or leave it out") from error
    except Exception as error:  # Pillow and the file system raise many kinds on damaged files
        raise DataError(f"{label} cannot be decoded", reason(error), _COPY_AGAIN) from error


@contextmanager
def open_picture(stream: BinaryIO, label: str, *, check: bool) -> Iterator[tuple[str, ImageFile.ImageFile]]:
    """Yield the format and Pillow's image, whose pixels are not read yet.

    `check`: also check the sums inside a PNG, for which all of it is read. Raises DataError for what is no picture,
    and anything at all for what is a damaged one.
    """
    start = stream.read(512)
    if not start:
        raise DataError(f"{label} is empty", "it holds no byte", _COPY_AGAIN)
    form = recognise(start)
    if form is None:
        raise DataError(f"{label} is not a picture", f"it {guess(start)}; {_KNOWN}", "convert it, or leave it out")
    if form == "PNG" and check:
        check_png(stream)
    if form == "TIFF":
        _silence_libtiff()
    stream.seek(0)
    with _OPENERS[form](stream) as image:
        yield form, image


def check_size(width: int, height: int, label: str, max_pixels: int) -> None:
    """Raise DataError for a picture above the limit."""
    pixels = width * height
    if pixels > max_pixels:
        allow = f"allow it: --max-pixels {pixels}" if pixels <= _MOST_ALLOWED else "leave it out"
        raise DataError(
            f"{label} has {width}×{height} = {pixels:,} pixels",
            f"at most {max_pixels:,} are decoded, so that one file cannot fill the memory",
            f"make it smaller, or {allow}",
        )


def scalable(image: ImageFile.ImageFile, max_pixels: int) -> bool:
    """Say whether a JPEG above the limit may be decoded at a part of its size."""
    # A progressive JPEG keeps all its coefficients in memory whatever the scale.
    return image.width * image.height <= MOST_SCALING * max_pixels and "progressive" not in image.info


def orientation(image: Image.Image, notes: list[str]) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels are good, only the block of camera data is not
        notes.append("EXIF block damaged, orientation unknown")
        return 1


@functools.cache
def _silence_libtiff() -> None:
    """Stop libtiff, the C library in Pillow, from printing its remarks on damaged files to stderr.

    Its own switch is used, in the copy that Pillow is linked with: nothing else is touched, and no thread is in danger,
    as it would be if stderr were turned away for a while. Where the copy is inside Pillow's own file (Windows), the
    switch cannot be found and the remarks stay.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            switch = getattr(library, name)
            switch.argtypes, switch.restype = [ctypes.c_void_p], ctypes.c_void_p
            switch(None)


def open_regular(path: str | os.PathLike[str], label: str) -> BinaryIO:
    """Open a regular file, and nothing else: never waits for a pipe, never touches a device. Raises DataError."""
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
        raise DataError(f"{label} cannot be opened", reason(error), "check the name and the folder") from error
    stream = open(number, "rb")  # noqa: SIM115
    try:
        _check_regular(os.fstat(number).st_mode, label)
    except DataError:
        stream.close()
        raise
    return stream


def seekable(stream: Any, label: str) -> BinaryIO:
    """Return the rest of a binary stream as one that starts at 0."""
    data = stream.read(_MOST_BYTES + 1)
    if not isinstance(data, bytes):
        raise DataError(f"{label} gives text, not bytes", "a picture is binary", "open it with mode 'rb'")
    if len(data) > _MOST_BYTES:
        raise DataError(f"{label} gives more than {_MOST_BYTES:,} bytes", "no picture is that large", "name a file")
    return io.BytesIO(data)


def printable(text: str) -> str:
    """Escape what would break a line of output: line ends, control characters, bytes that are no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: Exception) -> str:
    """Say on one line what an error of Pillow or of the file system means."""
    text = " ".join(str(error.strerror if isinstance(error, OSError) and error.strerror else error).split())
    if text.startswith("decoder error") or not text:
        return f"its compressed data are damaged ({text or type(error).__name__})"
    return printable(_PLAIN.get(text, text))


def _check_regular(mode: int, label: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise DataError(f"{label} is a folder", "expected one picture file", "name a file in it")
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    kind = kinds.get(stat.S_IFMT(mode), "no regular file")
    raise DataError(f"{label} is {kind}", "only regular files are read", "name a picture file")
