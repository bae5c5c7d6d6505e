"""Many small encoded pictures of one size and mode into one array."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from striate.data.dataset import Images
from striate.errors import DataError

# What one table may unpack to.
MOST_BYTES = 4 << 30
# What is decoded at once. 2,500 pictures of CIFAR-10 leave the processor's cache and took 1.7 times as long as 100.
_TOGETHER_BYTES = 400_000
_PNG_HEAD = 33


def decode_all(path: Path, encoded: Sequence[bytes | None], fix: str, threads: int | None = None) -> Images:
    """Decode PNG, JPEG, WebP or BMP files that lie in the rows of `path`: uint8 (N, H, W, C).

    All must have the size and mode of the first, L (C = 1) or RGB (C = 3).
    Raises DataError naming the row, with `fix`, where one does not decode or is not like the first.
    """
    first = _open(path, 0, encoded[0], fix)
    mode, (width, height), channels = first.mode, first.size, len(first.getbands())
    if mode not in ("L", "RGB"):
        raise DataError(
            f"{path}, row 0: the picture has mode {mode}", "expected L (gray) or RGB", "convert the pictures to RGB"
        )
    if len(encoded) * height * width * channels > MOST_BYTES:
        raise DataError(
            f"{path}: {len(encoded):,} pictures of {width} × {height} pixels do not fit",
            f"a table may unpack to {MOST_BYTES:,} bytes",
            "make the pictures smaller",
        )
    images = np.empty((len(encoded), height, width, channels), dtype=np.uint8)
    together = max(1, _TOGETHER_BYTES // (height * width * channels))

    def decode_some(start: int) -> None:
        some = encoded[start : start + together]
        target = images[start : start + together]
        if not _decode_together(some, target):
            for row, content in enumerate(some, start):
                _decode_one(path, row, content, fix, first, target[row - start])

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for _ in pool.map(decode_some, range(0, len(encoded), together)):
            pass
    return images


def _decode_together(encoded: Sequence[bytes | None], target: Images) -> bool:
    """Decode plain PNGs of one size as a single tall one; False where one of them is not plain, or broken.

    Opening a 32 × 32 PNG costs Pillow more than decoding it, and holds the interpreter's lock. So the pictures' rows
    are unpacked, put below each other and given to Pillow's decoder in one piece. A PNG row may refer to the one
    above it, which is zero for the first row: so a row of zeros goes before each picture.
    """
    count, height, width, channels = target.shape
    row_bytes = 1 + width * channels  # the number of the row's filter, then its values
    head = encoded[0][:_PNG_HEAD] if encoded[0] else b""
    pieces: list[bytes] = []
    for content in encoded:
        rows = _png_rows(content, head, height * row_bytes) if content else None
        if rows is None or len(rows) != height * row_bytes:
            return False
        pieces += (bytes(row_bytes), rows)
    mode = "L" if channels == 1 else "RGB"
    # Level 0: the decoder wants a zlib stream, which need not be small.
    stream = zlib.compress(b"".join(pieces), 0)
    try:
        tall = Image.frombytes(mode, (width, count * (height + 1)), stream, "zip", mode, 0)
    except (OSError, ValueError):
        return False
    target[:] = np.asarray(tall).reshape(count, height + 1, width, channels)[:, 1:]
    return True


def _png_rows(content: bytes, head: bytes, expected: int) -> bytes | None:
    """Return a PNG's filtered rows, at most one byte more than expected, or None for one that is not plain.

    Plain: with this head, 8 bits gray or RGB, not interlaced, and nothing in it but pixels, whose sums are right.
    """
    # Bytes 16–24 are width and height, then bits, colour type, and three zeros of which the last is "not interlaced".
    if content[:_PNG_HEAD] != head or head[12:16] != b"IHDR" or head[24:29] not in (b"\x08\0\0\0\0", b"\x08\2\0\0\0"):
        return None
    parts, at = [], _PNG_HEAD
    while (kind := content[at + 4 : at + 8]) == b"IDAT":
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return None
        parts.append(content[at + 8 : end])
        at = end + 4
    if kind != b"IEND" or not parts:
        return None
    unpacking = zlib.decompressobj()
    try:
        rows = unpacking.decompress(b"".join(parts), expected + 1)
    except zlib.error:
        return None
    return rows if unpacking.eof or len(rows) > expected else None


def _decode_one(path: Path, row: int, content: bytes | None, fix: str, first: Image.Image, target: Images) -> None:
    picture = _open(path, row, content, fix)
    if picture.mode != first.mode or picture.size != first.size:
        raise DataError(
            f"{path}, row {row}: the picture is {picture.mode} {picture.width} × {picture.height}",
            f"row 0 is {first.mode} {first.width} × {first.height}, and all must be alike",
            "bring all pictures to one size and mode",
        )
    try:
        # Decoding a PNG does not check the sums in it, so a damaged one could pass; verify() uses the picture up.
        _open(path, row, content, fix).verify()
        # Nor does it miss rows that are not there.
        height, width, channels = target.shape
        expected = height * (1 + width * channels)
        rows = _png_rows(content, content[:_PNG_HEAD], expected) if content else None
        if rows is not None and len(rows) != expected:
            raise ValueError("its pixels are more or fewer than its size")
        target[:] = np.frombuffer(picture.tobytes(), dtype=np.uint8).reshape(target.shape)
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError and others
        raise _broken(path, row, error, fix) from error


def _open(path: Path, row: int, content: bytes | None, fix: str) -> Image.Image:
    if not content:
        raise DataError(f"{path}, row {row}: no picture bytes", "a path alone is not enough", "embed the pictures")
    try:
        return Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP", "BMP"))
    except UnidentifiedImageError as error:
        shown = repr(content[:16]) if content[:1] == b"<" else content[:16].hex(" ")
        raise _broken(path, row, f"it begins with {shown}, which is no picture format", fix) from error
    except Exception as error:  # a damaged header: OSError, ValueError, SyntaxError, struct.error …
        raise _broken(path, row, error, fix) from error


def _broken(path: Path, row: int, cause: object, fix: str) -> DataError:
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return DataError(f"{path}, row {row}: the picture does not decode", reason, fix)
