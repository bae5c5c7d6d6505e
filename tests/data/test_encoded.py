"""Many encoded pictures at once: the same pixels as Pillow opening them one by one."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.data import encoded
from striate.data.encoded import decode_all
from striate.errors import DataError

WHERE = Path("a.parquet")
RANDOM = np.random.default_rng(5)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: tuple[int, int], channels: int, rows: bytes, pieces: int = 1, extra: bytes = b"") -> bytes:
    """Write a PNG from filtered rows: any filter numbers, any number of IDAT chunks."""
    head = struct.pack(">IIBBBBB", size[1], size[0], 8, 0 if channels == 1 else 2, 0, 0, 0)
    stream = zlib.compress(rows)
    step = -(-len(stream) // pieces)
    data = b"".join(chunk(b"IDAT", stream[at : at + step]) for at in range(0, len(stream), step))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + data + chunk(b"IEND", b"")


def by_pillow(content: bytes) -> np.ndarray:
    array = np.asarray(Image.open(io.BytesIO(content)))
    return array if array.ndim == 3 else array[..., None]


def saved(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def refused(contents: list[bytes | None]) -> str:
    with pytest.raises(DataError) as caught:
        decode_all(WHERE, contents, "do this")
    return str(caught.value)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    count=st.integers(1, 8),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    pieces=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_every_png_filter_in_every_row(
    count: int, height: int, width: int, channels: int, pieces: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    contents: list[bytes | None] = []
    for _ in range(count):
        rows = random.integers(0, 256, (height, 1 + width * channels), dtype=np.uint8)
        rows[:, 0] = random.integers(0, 5, height)
        contents.append(png((height, width), channels, rows.tobytes(), pieces))
    got = decode_all(WHERE, contents, "")
    assert np.array_equal(got, np.stack([by_pillow(content or b"") for content in contents]))


def test_the_quick_way_is_taken_and_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(300, 5, 4, 3)
    contents = [saved(image) for image in images]
    slow = [by_pillow(content) for content in contents]
    monkeypatch.setattr(encoded, "_decode_one", None)  # calling it would fail
    assert np.array_equal(decode_all(WHERE, contents, ""), images) and np.array_equal(slow, images)


def test_what_is_not_plain_is_left_to_pillow() -> None:
    images = pixels(4, 6, 6, 3)
    noted = chunk(b"tEXt", b"Comment\0hello")
    contents: list[bytes | None] = [
        saved(images[0]),
        png((6, 6), 3, b"".join(b"\0" + row.tobytes() for row in images[1]), extra=noted),
        saved(images[2], "WEBP", lossless=True),
        saved(images[3], "BMP"),
    ]
    assert np.array_equal(decode_all(WHERE, contents, ""), images)
    jpeg = saved(np.full((8, 8, 3), 90, np.uint8), "JPEG")
    assert np.array_equal(decode_all(WHERE, [jpeg, jpeg], ""), np.stack([by_pillow(jpeg)] * 2))
    interlaced = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1))
    interlaced += chunk(b"IDAT", zlib.compress(b"\0\x07")) + chunk(b"IEND", b"")
    assert decode_all(WHERE, [interlaced], "").tolist() == [[[[7]]]]


def test_the_row_at_fault_is_named() -> None:
    good = saved(pixels(6, 6, 3))
    row = b"\0" + bytes(18)
    flipped = bytearray(good)
    flipped[60] ^= 1
    wrong_sum = bytearray(good)
    wrong_sum[-13] ^= 1  # the last byte before IEND belongs to the sum over the pixels, which are right
    for bad in (
        bytes(wrong_sum),
        good[:-30],
        bytes(flipped),
        b"",
        None,
        b"<html>",
        png((6, 6), 3, row * 5),
        good[:20],
        b"\x89PNG",
    ):
        message = refused([good] * 200 + [bad] + [good] * 100)
        assert "a.parquet, row 200" in message, bad
        assert "a.parquet, row 0" in refused([bad, good])
    assert "do this" in refused([good, good[:-30]])


def test_a_filter_that_does_not_exist_is_refused() -> None:
    good = saved(pixels(6, 6, 3))
    assert "row 1" in refused([good, png((6, 6), 3, (b"\x09" + bytes(18)) * 6)])


def test_all_must_be_alike() -> None:
    first = saved(pixels(6, 6, 3))
    assert "row 1: the picture is RGB 5 × 6" in refused([first, saved(pixels(6, 5, 3))])
    assert "row 1: the picture is L 6 × 6" in refused([first, saved(pixels(6, 6))])
    assert "mode RGBA" in refused([saved(pixels(6, 6, 4))])


def test_pictures_that_unpack_to_more_than_announced_are_not_unpacked_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = saved(pixels(6, 6, 3))
    bomb = png((6, 6), 3, (b"\0" + bytes(18)) * 6 + bytes(30_000_000))
    assert "row 1" in refused([good, bomb])
    monkeypatch.setattr(encoded, "MOST_BYTES", 100)
    assert "do not fit" in refused([good, good])
