"""The decoder: every mode to stated values, upright, and one DataError for whatever goes wrong."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.data.decode import DECODER_VERSION, decode, decode_fitted
from striate.data.formats import guess, recognise
from striate.data.preprocess import Preprocess, over_white
from striate.errors import DataError

quiet = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def pictures(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A colour picture without symmetry that JPEG keeps well."""
    down, across = np.mgrid[0:height, 0:width]
    planes = (255 * down / height, 255 * across / width, np.where((down < 9) & (across < 16), 250, 20))
    return np.stack(planes, axis=2).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, form: str, **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    end = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + end


def tiff16(values: np.ndarray, photometric: int) -> bytes:
    """A gray TIFF of 16 bits written by hand: Pillow writes no other photometric interpretation."""
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, 0)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, values.size * 2)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, start if tag == 273 else value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + values.astype("<u2").tobytes()


def tiff16_colour(values: np.ndarray, order: str) -> bytes:
    """A colour TIFF of 16 bits a sample, in one of the byte orders."""
    height, width, _ = values.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 0)]
    tags += [(277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, values.size * 2)]
    after = 8 + 2 + 12 * len(tags) + 4  # the three depths, then the pixels
    entries = b""
    for tag, kind, count, value in tags:
        packed = struct.pack(order + ("H2x" if kind == 3 and count == 1 else "I"), value)
        packed = struct.pack(order + "I", {258: after, 273: after + 6}[tag]) if tag in (258, 273) else packed
        entries += struct.pack(order + "HHI", tag, kind, count) + packed
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + "HIH", 42, 8, len(tags)) + entries + b"\0\0\0\0"
    return head + struct.pack(order + "3H", 16, 16, 16) + values.astype(order + "u2").tobytes()


# --- modes ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["PNG", "BMP", "TIFF", "WEBP", "GIF"]),
    st.sampled_from([1, 3]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_lossless_files_give_their_very_values(form: str, channels: int, height: int, width: int, seed: int) -> None:
    pixels = pictures(height, width, channels, seed)
    if form == "GIF":
        pixels = np.repeat(pixels[..., :1], channels, axis=2)  # 256 colours at most
    notes: list[str] = []
    got = decode(encoded(pixels, form, **({"lossless": True} if form == "WEBP" else {})), channels=None, notes=notes)
    expected = np.repeat(pixels, 3, axis=2) if (form, channels) == ("WEBP", 1) else pixels  # WEBP knows no gray
    if form == "GIF":
        expected = pixels[..., :1]  # a palette of grays is gray
    assert np.array_equal(got, expected) and got.flags.c_contiguous and notes == []


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_laid_over_white_and_said(channels: int) -> None:
    pixels = pictures(20, 30, channels)
    notes: list[str] = []
    got = decode(encoded(pixels, "PNG"), channels=None, notes=notes)
    assert np.array_equal(got, over_white(pixels)) and notes == ["alpha over white"]
    opaque = pixels.copy()
    opaque[..., -1] = 255
    notes.clear()
    assert np.array_equal(decode(encoded(opaque, "PNG"), channels=None, notes=notes), pixels[..., :-1])
    assert notes == []


def test_two_levels_are_black_and_white() -> None:
    mask = pictures(9, 13, 1)[..., 0] > 127
    got = decode(encoded(Image.fromarray(mask), "PNG"), channels=None)
    assert np.array_equal(got[..., 0], np.where(mask, 255, 0))


def test_palettes_give_their_colours_and_a_palette_of_grays_is_gray() -> None:
    indices = pictures(8, 8, 1)[..., 0] % 4
    colours = np.array([[0, 0, 0], [10, 200, 30], [255, 255, 255], [9, 9, 8]], np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette(colours.tobytes())
    assert np.array_equal(decode(encoded(image, "PNG"), channels=None), colours[indices])
    grays = np.repeat(np.array([[0], [90], [255], [17]], np.uint8), 3, axis=1)
    image.putpalette(np.concatenate([grays, [[255, 0, 0]]]).astype(np.uint8).tobytes())  # the red is not used
    assert np.array_equal(decode(encoded(image, "PNG"), channels=None), grays[indices][..., :1])


def test_transparent_colours_of_palette_gray_and_colour_become_white() -> None:
    indices = pictures(8, 8, 1)[..., 0] % 3
    colours = np.array([[5, 6, 7], [10, 200, 30], [90, 80, 70]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    expected = np.where((indices == 1)[..., None], 255, colours[indices])
    for form in ("PNG", "GIF"):
        assert np.array_equal(decode(encoded(image, form, transparency=1), channels=None), expected)
    half = decode(encoded(image, "PNG", transparency=bytes([255, 128, 255])), channels=None)
    assert np.array_equal(half[indices == 0], colours[indices][indices == 0])
    assert np.abs(half[indices == 1][0] - (colours[1].astype(float) * 128 / 255 + 127)).max() <= 1
    gray, colour = pictures(6, 6, 1) % 4 * 50, pictures(6, 6, 3) % 2 * 60
    assert np.array_equal(decode(encoded(gray, "PNG", transparency=50), channels=1), np.where(gray == 50, 255, gray))
    there = (colour == (60, 0, 60)).all(axis=2, keepdims=True)
    got = decode(encoded(colour, "PNG", transparency=(60, 0, 60)), channels=3)
    assert there.any() and np.array_equal(got, np.where(there, 255, colour))


def test_palette_given_as_image_is_not_changed_by_decoding() -> None:
    image = Image.fromarray(pictures(8, 8, 1)[..., 0] % 3)
    image.putpalette([5, 6, 7, 10, 200, 30, 90, 80, 70])
    image.info["transparency"] = 1
    before = image.tobytes(), image.getpalette(), dict(image.info), np.asarray(image.convert("RGB")).tobytes()
    decode(image, channels=3)
    assert before == (image.tobytes(), image.getpalette(), dict(image.info), np.asarray(image.convert("RGB")).tobytes())


def test_cmyk_ycbcr_and_lab_become_rgb() -> None:
    picture = Image.fromarray(smooth(24, 40))
    for mode, form, worst in (("CMYK", "TIFF", 0), ("CMYK", "JPEG", 24), ("YCbCr", "TIFF", 3), ("LAB", "TIFF", 40)):
        notes: list[str] = []
        got = decode(encoded(picture.convert(mode), form), channels=None, notes=notes)
        assert got.shape == (24, 40, 3) and notes == [f"{mode} to RGB"]
        difference = np.abs(got.astype(int) - np.asarray(picture))
        assert difference.max() <= worst and difference.mean() <= 4  # LAB cuts off what it cannot hold


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_by_its_depth_to_the_nearest_level(form: str) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (50, 60), dtype=np.uint16)
    values[0, :3] = 0, 255, 65535
    notes: list[str] = []
    got = decode(encoded(Image.fromarray(values), form), channels=None, notes=notes)
    assert np.array_equal(got[..., 0], np.rint(values * (255 / 65535)).astype(np.uint8))
    assert notes == ["16 bits scaled to 8"]


def test_16_bit_gray_of_other_byte_order_and_white_is_zero() -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 7), dtype=np.uint16)
    levels = np.rint(values * (255 / 65535)).astype(np.uint8)[..., None]
    assert np.array_equal(decode(tiff16(values, 1), channels=None), levels)
    assert np.array_equal(decode(tiff16(values, 0), channels=None), 255 - levels)
    swapped = Image.frombytes("I;16B", (7, 5), values.astype(">u2").tobytes())
    assert np.array_equal(decode(swapped, channels=None), levels)


def test_16_bit_png_of_colour_alpha_and_transparent_colour() -> None:
    values = np.random.default_rng(2).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    key = png_chunk(b"tRNS", values[1, 2].astype(">u2").tobytes())
    high = (values >> 8).astype(np.uint8)
    assert np.array_equal(decode(png(5, 4, 16, 2, rows), channels=None), high)
    keyed = high.copy()
    keyed[1, 2] = 255
    assert np.array_equal(decode(png(5, 4, 16, 2, rows, key), channels=None), keyed)
    gray = values[..., 0]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in gray)
    key = png_chunk(b"tRNS", gray[3, 4:5].astype(">u2").tobytes())
    notes: list[str] = []
    got = decode(png(5, 4, 16, 0, rows, key), channels=None, notes=notes)
    assert got[3, 4, 0] == 255 and notes == ["16 bits scaled to 8", "alpha over white"]
    assert abs(int(got[0, 0, 0]) - gray[0, 0] / 257) <= 0.5


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_of_tiff_is_scaled_and_not_clipped(order: str) -> None:
    values = np.linspace(0, 65535, 60).astype(np.uint16).reshape(4, 5, 3)
    got = decode(tiff16_colour(values, order), channels=None)
    exact = values * (255 / 65535)
    assert got[0, 0, 0] == 0 and got[-1, -1, -1] == 255 and len(np.unique(got)) == 60
    assert np.array_equal(got, values >> 8) and np.abs(exact - got).max() < 1


@pytest.mark.parametrize("values", [0, 129, 65535], ids=str)
def test_16_bit_gray_with_alpha_stays_gray(values: int) -> None:
    pixels = np.full((3, 4, 2), values, np.uint16)
    pixels[..., 1] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    notes: list[str] = []
    assert np.array_equal(decode(png(4, 3, 16, 4, rows), channels=None, notes=notes), pixels[..., :1] >> 8)
    assert notes == ["16 bits scaled to 8"]


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.linspace(0, 1, 35, dtype=np.float32), 0.0, 1.0),
        (np.linspace(0.2, 0.4, 35, dtype=np.float32), 0.0, 1.0),
        (np.linspace(-3, 1000, 35, dtype=np.float32), -3.0, 1000.0),
        (np.arange(35, dtype=np.int32) * 100_000 - 7, -7.0, 3_399_993.0),
        (np.full(35, 9.0, dtype=np.float32), 9.0, 10.0),
    ],
    ids=["0 to 1", "within 0 to 1", "floats", "integers", "constant"],
)
def test_32_bit_values_are_scaled_by_their_range(values: np.ndarray, low: float, high: float) -> None:
    values = values.reshape(5, 7)
    notes: list[str] = []
    got = decode(encoded(Image.fromarray(values), "TIFF"), channels=None, notes=notes)
    assert np.array_equal(got[..., 0], np.rint((values.astype(float) - low) * (255 / (high - low))))
    assert len(notes) == 1 and notes[0].startswith("32-bit values from")


def test_floats_that_are_none_are_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="NaN or infinite"):
            decode(encoded(Image.fromarray(np.full((3, 3), bad, np.float32)), "TIFF"), channels=1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    upright = smooth(30, 44)
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]  # the Transpose that the camera did: the inverse
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    data = encoded(stored, form, exif=exif, **options)
    for source in (data, Image.open(io.BytesIO(data))):
        got = decode(source, channels=3)
        assert got.shape == upright.shape and got.flags.c_contiguous
        assert np.abs(got.astype(int) - upright).mean() < (3 if form == "JPEG" else 1e-9)


@quiet
def test_a_damaged_exif_block_does_not_hide_the_picture() -> None:
    block = b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\x12\x01" * 20
    data = encoded(smooth(20, 20), "JPEG", exif=block)
    assert decode(data, channels=3).shape == (20, 20, 3)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_said(form: str) -> None:
    frames = [Image.new("RGB", (9, 6), colour) for colour in ("red", "blue", "green")]
    notes: list[str] = []
    lossless = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **lossless)
    got = decode(data, channels=3, notes=notes)
    assert (got == (255, 0, 0)).all() and notes == ["first frame of 3"]


def test_channels_are_converted_by_the_one_rule() -> None:
    colour, gray = pictures(7, 9, 3), pictures(7, 9, 1)
    assert np.array_equal(
        decode(encoded(colour, "PNG"), channels=1)[..., 0], np.asarray(Image.fromarray(colour).convert("L"))
    )
    assert np.array_equal(decode(encoded(gray, "PNG"), channels=3), np.repeat(gray, 3, axis=2))
    with pytest.raises(DataError, match=r"a picture of [\d,]+ bytes: a picture has 3 channels and the net takes 5"):
        decode(encoded(colour, "PNG"), channels=5)


# --- arrays and images ---------------------------------------------------------------------------------------------


def test_arrays_by_the_stated_rules() -> None:
    colour = pictures(12, 10, 3)
    assert np.array_equal(decode(colour, channels=None), colour)
    assert np.array_equal(decode(colour.transpose(2, 0, 1), channels=None), colour)
    assert np.array_equal(decode(colour[..., 0], channels=None), colour[..., :1])
    assert np.array_equal(decode(colour[None, ..., 0], channels=None), colour[..., :1])
    assert np.array_equal(decode(colour / 255.0, channels=None), colour)
    assert np.array_equal(decode((colour / 255.0).astype(np.float32), channels=None), colour)
    assert np.array_equal(decode(colour > 99, channels=None), np.where(colour > 99, 255, 0))
    notes: list[str] = []
    alpha = pictures(12, 10, 4)
    assert np.array_equal(decode(alpha, channels=None, notes=notes), over_white(alpha))
    assert notes == ["alpha over white"]
    assert np.array_equal(decode(alpha, channels=4), alpha)
    many = pictures(12, 10, 6)
    assert np.array_equal(decode(many, channels=6), many)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((8, 8), np.uint16), "has type uint16"),
        (np.zeros((8, 8), np.int64), "has type int64"),
        (np.zeros((8, 8), complex), "has type complex128"),
        (np.full((8, 8), 255.0), "floats from 255 to 255"),
        (np.full((8, 8), -0.5), "floats from -0.5 to -0.5"),
        (np.full((8, 8), np.nan), "floats from nan to nan"),
        (np.zeros((8, 8, 5), np.uint8), "has shape (8, 8, 5)"),
        (np.zeros((3, 8, 3), np.uint8), "can be read as (H, W, C) and as (C, H, W)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one picture at a time"),
        (np.zeros((0, 8, 3), np.uint8), "has shape (0, 8, 3)"),
        (np.zeros(5, np.uint8), "has shape (5,)"),
        (np.zeros((100, 100, 3), np.uint8), "100×100 = 10,000 pixels"),
        (np.array([["a"]]), "has type <U1"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_other_arrays_are_refused(array: np.ndarray, told: str) -> None:
    with pytest.raises(DataError) as caught:
        decode(array, channels=None, max_pixels=9_999)
    assert told in str(caught.value) and str(caught.value).startswith("an array")


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
)
def test_an_image_gives_what_its_file_would(mode: str) -> None:
    image = Image.fromarray(pictures(9, 7, 4))
    for step in {"La": "LA", "PA": "P", "RGBX": "RGB", "LAB": "RGB", "HSV": "RGB"}.get(mode, ""), mode:
        image = image.convert(step) if step else image
    kept = image.tobytes()
    got = decode(image, channels=None)
    alpha, gray = image.has_transparency_data, mode in ("1", "L", "LA", "La")
    plain = ("LA" if gray else "RGBA") if alpha else ("L" if gray else "RGB")
    values = np.asarray(image.convert(plain)).reshape(9, 7, -1)
    assert np.array_equal(got, over_white(values) if alpha else values)
    assert image.tobytes() == kept


def test_what_is_no_source_is_refused() -> None:
    for source in (7, None, ["a.png"], io.StringIO("text")):
        with pytest.raises(DataError):
            decode(source, channels=3)  # type: ignore[arg-type]


# --- files that are not what they should be ------------------------------------------------------------------------


def told(source: Any, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        decode(source, channels=3, **options)
    error = caught.value
    assert error.what and error.cause and error.fix, "what, cause and fix are all said"
    assert "\n" not in error.what + error.cause + error.fix
    return error


def test_files_streams_and_bytes_give_the_same(tmp_path: Path) -> None:
    data = encoded(pictures(6, 5, 3), "PNG")
    path = tmp_path / "wrong.jpg"  # the name does not matter
    path.write_bytes(data)
    before = path.stat()
    expected = decode(data, channels=3)
    with path.open("rb") as stream:
        sources = [path, str(path), bytearray(data), memoryview(data), stream, io.BytesIO(data), Image.open(path)]
        assert all(np.array_equal(decode(source, channels=3), expected) for source in sources)
    assert path.read_bytes() == data and path.stat().st_mtime_ns == before.st_mtime_ns


def test_missing_empty_folder_and_text_are_told(tmp_path: Path) -> None:
    assert "no.png does not exist" in told(tmp_path / "no.png").what
    assert "is a folder" in told(tmp_path).what
    empty, text, page = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.jpg"
    empty.write_bytes(b"")
    text.write_text("hello")
    page.write_text("\n <!DOCTYPE html><html>not found</html>")
    assert "a.png is empty" in told(empty).what and "is empty" in told(b"").what
    assert told(text).cause.startswith("it is text;") and told(page).cause.startswith("it is a web page;")
    assert told("a\0b.png").what == "a\\x00b.png cannot be opened"
    assert "cannot be opened" in told("x" * 5000).what
    assert told(io.BytesIO(b""), name="upload 3").what == "upload 3 is empty"


@pytest.mark.skipif(os.name == "nt", reason="pipes, sockets and devices lie in folders on Unix only")
def test_pipes_sockets_devices_and_links_never_hang(tmp_path: Path) -> None:
    pipe, dangling, loop = tmp_path / "pipe.png", tmp_path / "link.png", tmp_path / "loop.png"
    os.mkfifo(pipe)
    dangling.symlink_to(tmp_path / "gone.png")
    loop.symlink_to(loop)
    reasons: list[DataError] = []
    worker = threading.Thread(target=lambda: reasons.append(told(pipe)), daemon=True)
    worker.start()
    worker.join(5)
    assert reasons and "is a pipe" in reasons[0].what
    assert "is a link to nothing" in told(dangling).what
    assert "cannot be opened" in told(loop).what
    assert "is a device" in told("/dev/zero").what
    folder = os.getcwd()
    os.chdir(tmp_path)  # a socket's path may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s.png")
            assert "is a socket" in told("s.png").what
    finally:
        os.chdir(folder)


@pytest.fixture
def as_another_user() -> Iterator[None]:
    if not hasattr(os, "seteuid"):
        pytest.skip("file permissions of Unix")
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    yield
    if was_root:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(pictures(4, 4, 1), "PNG"))
    path.chmod(0)
    request.getfixturevalue("as_another_user")
    error = told(path)
    assert "may not be read" in error.what and error.cause == "permission is denied"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize(
    "name", [b"\xe7\x8c\xab.png", b"a\nb.png", b"-rf.png", b"\xff\xfe.png", "أ😀.png".encode(), b"n" * 251 + b".png"]
)
def test_any_name_is_read_and_told_on_one_line(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    path.write_bytes(encoded(pictures(4, 4, 1), "PNG"))
    assert decode(path, channels=1).shape == (4, 4, 1)
    path.write_bytes(b"nothing")
    told(path).what.encode("utf-8")


def test_the_size_is_read_before_the_pixels() -> None:
    huge = png(100_000, 100_000, 8, 2, b"\0" * 1000)
    assert "100000×100000 = 10,000,000,000 pixels" in told(huge).what
    small = encoded(pictures(20, 30, 3), "PNG")
    assert "20" in told(small, max_pixels=599).what
    assert decode(small, channels=3, max_pixels=600).shape == (20, 30, 3)
    assert "30×20 = 600 pixels" in told(Image.open(io.BytesIO(small)), max_pixels=599).what


def test_a_large_jpeg_is_decoded_scaled_and_said() -> None:
    pixels = np.asarray(Image.fromarray(smooth(30, 44)).resize((880, 600)))
    notes: list[str] = []
    got = decode(encoded(pixels, "JPEG", quality=95), channels=3, max_pixels=880 * 600 // 8, notes=notes)
    assert got.shape == (150, 220, 3) and notes == ["decoded at 1/4 of 880×600"]
    reduced = np.asarray(Image.fromarray(pixels).reduce(4)).astype(int)
    assert np.abs(got - reduced).mean() < 3
    assert "pixels" in told(encoded(pixels, "JPEG"), max_pixels=880 * 600 // 9).what
    assert "pixels" in told(encoded(pixels, "JPEG", progressive=True), max_pixels=880 * 600 // 4).what


def photograph(height: int, width: int) -> np.ndarray:
    """Shapes at all scales, a little noise: as hard on scaling as a photograph is."""
    down, across = np.mgrid[0:height, 0:width] / 40.0
    waves = [np.sin(down * k + across * (5 - k)) + np.sign(np.sin(across * 2**k - down)) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return np.clip(np.stack(waves, axis=2) * 45 + 128 + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("target", "part"),
    [((75, 110), 4), ((76, 110), 2), ((75, 111), 2), ((37, 55), 8), ((1, 1), 8), ((150, 220), 2), ((151, 220), 1)],
    ids=str,
)
def test_a_jpeg_is_decoded_at_the_least_part_that_keeps_twice_the_target(target: tuple[int, int], part: int) -> None:
    pixels = photograph(600, 880)
    notes: list[str] = []
    data = encoded(pixels, "JPEG", quality=90)
    got = decode(data, channels=3, target=target, notes=notes)
    assert got.shape == (600 // part, 880 // part, 3)
    assert notes == ([f"decoded at 1/{part} of 880×600"] if part > 1 else [])
    progressive = decode(encoded(pixels, "JPEG", quality=90, progressive=True), channels=3, target=target)
    assert progressive.shape == got.shape
    assert decode(encoded(pixels, "PNG"), channels=3, target=target).shape == (600, 880, 3)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(75, 75), (64, 96), (37, 37)], ids=str)
def test_decoding_at_a_part_changes_little(fit: str, size: tuple[int, int]) -> None:
    preprocess = Preprocess(size, fit, 3)
    data = encoded(photograph(600, 880), "JPEG", quality=92)
    notes: list[str] = []
    got = decode_fitted(data, preprocess, notes=notes).astype(int)
    difference = np.abs(got - preprocess.geometry(decode(data, channels=3)))
    assert notes and difference.mean() < 2 and difference.max() < 40  # docs/data.md has the figure of photographs


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_is_chosen_for_the_upright_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    notes: list[str] = []
    data = encoded(photograph(600, 880), "JPEG", exif=exif)
    decode(data, channels=3, target=(75, 110), notes=notes)  # fits at 1/4 lying, at 1/2 turned
    assert notes[0] == f"decoded at 1/{4 if orientation < 5 else 2} of 880×600"


def test_the_limit_and_the_target_together() -> None:
    data = encoded(photograph(600, 880), "JPEG")
    for limit, target, part in (
        (880 * 600, (75, 110), 4),  # the target decides
        (880 * 600 // 4, (290, 430), 2),  # the limit does
        (880 * 600 // 4, (75, 110), 4),
        (880 * 600 // 8, (150, 220), 4),
    ):
        notes: list[str] = []
        decode(data, channels=3, target=target, max_pixels=limit, notes=notes)
        assert notes == [f"decoded at 1/{part} of 880×600"]
    assert "pixels" in told(data, target=(1, 1), max_pixels=880 * 600 // 9).what


def test_the_same_file_gives_the_same_values_as_when_it_was_cached() -> None:
    """Change a digest here only together with `DECODER_VERSION`: caches hold what the decoder gave before."""
    assert DECODER_VERSION == 1
    deep = np.arange(0, 65536, 97, dtype=np.uint16)[:600].reshape(20, 30)
    alpha = np.stack([np.arange(600, dtype=np.uint16).reshape(20, 30) * k % 256 for k in (1, 3, 7, 11)], axis=2)
    found = ""
    for data in (encoded(Image.fromarray(deep), "PNG"), encoded(alpha.astype(np.uint8), "PNG")):
        for fit in ("crop", "pad", "stretch"):
            found += hashlib.sha256(decode_fitted(data, Preprocess((9, 8), fit, 3))).hexdigest()[:8]
    assert found == "c352f7de2eff18f1337544fadb0b41ad2109d253fd95794d"


DAMAGED_TIFF = """
    import io, sys
    from PIL import Image
    from striate.data import opening
    from striate.data.decode import decode
    from striate.errors import DataError

    if sys.argv[1] == "loud":
        opening._silence_libtiff = lambda: None
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "TIFF", compression="tiff_lzw")
    data = bytearray(buffer.getvalue())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes([255] * 40)
    try:
        decode(bytes(data), channels=1)
    except DataError as error:
        print(error.what)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="on Linux Pillow's libtiff is always a library of its own")
def test_libtiff_prints_nothing() -> None:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(DAMAGED_TIFF)]
    loud, quiet = (
        subprocess.run([*command, how], capture_output=True, text=True, timeout=60, check=True)
        for how in ("loud", "quiet")
    )
    assert "not yet in table" in loud.stderr and quiet.stderr == ""
    assert quiet.stdout == loud.stdout and "cannot be decoded" in quiet.stdout


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_a_file_cut_off_is_refused(form: str) -> None:
    data = encoded(pictures(40, 40, 3), form)
    for part in (0.1, 0.5, 0.9):
        error = told(data[: int(len(data) * part)])
        assert "cannot be decoded" in error.what or "not a picture" in error.what


@quiet
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
@example("PNG", [(0.2, 0)], 1.0)
def test_damaged_bytes_give_an_array_or_a_data_error(form: str, changes: list[tuple[float, int]], kept: float) -> None:
    data = bytearray(encoded(smooth(12, 20), form))
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        got = decode(bytes(data[: int(kept * len(data))]), channels=None, max_pixels=1_000_000)
    except DataError:
        return
    assert got.dtype == np.uint8 and got.ndim == 3 and got.shape[2] in (1, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"RIFF\0\0\0\0WEBP"]),
)
def test_random_bytes_are_a_data_error(body: bytes, start: bytes) -> None:
    with pytest.raises(DataError):
        decode(start + body, channels=3)


def test_a_wrong_check_sum_in_a_png_is_refused() -> None:
    data = encoded(pictures(10, 10, 3), "PNG")
    place = data.index(b"IDAT") + 4 + struct.unpack(">I", data[data.index(b"IDAT") - 4 : data.index(b"IDAT")])[0]
    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    assert "check sum of a IDAT chunk" in told(damaged).cause


def test_no_memory_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", fail)
    assert "not enough memory" in told(Image.new("L", (3, 3))).cause


def test_other_kinds_of_files_are_named() -> None:
    kinds = {
        b"\0\0\0\x18ftypheic\0\0\0\0": "HEIC", b"\0\0\0\x1cftypavif": "AVIF", b"\0\0\0\x18ftypmp42": "film",
        b"%PDF-1.7": "PDF", b"PK\x03\x04....": "zip", b"<svg xmlns=": "SVG", b"\xef\xbb\xbf<?xml ": "XML",
        b"\0\0\0\0\0\0": "zeros", b"8BPS\0\1": "Photoshop", b"P6 3 3 255 \0": "50 36 20", b"name,label\n": "text",
    }  # fmt: skip
    for start, kind in kinds.items():
        assert kind in guess(start) and recognise(start) is None
        assert kind in told(start).cause


def test_nothing_stays_open() -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("open files are counted in /proc")
    path = Path(__file__)
    before = len(list(folder.iterdir()))
    for _ in range(5):
        told(path)
        told(path.parent)
    assert len(list(folder.iterdir())) == before


def test_many_threads_give_the_same() -> None:
    files = [encoded(pictures(30, 20, 3, seed), form) for seed in range(10) for form in ("PNG", "JPEG", "GIF", "WEBP")]
    alone = [decode(data, channels=3) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, channels=3), files * 4))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 4, together))


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, striate.data.decode; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the public odd and hostile pictures ---------------------------------------------------------------------------


def test_pngsuite_valid_files_decode_and_the_others_are_refused(data_root: Path) -> None:
    files = sorted((data_root / "images" / "pngsuite").glob("*.png"))
    broken = [path for path in files if path.name.startswith("x")]
    assert len(files) >= 170 and len(broken) >= 14
    for path in broken:
        told(path)
    for path in sorted(set(files) - set(broken)):
        pixels = decode(path, channels=None)
        assert pixels.ndim == 3 and pixels.shape[2] in (1, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pngsuite_agrees_with_libpng_through_torchvision(data_root: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs_io = pytest.importorskip("torchvision.io")
    if not hasattr(theirs_io, "decode_image"):
        pytest.skip("this torchvision decodes no files")
    modes = theirs_io.ImageReadMode
    compared = 0
    for path in sorted((data_root / "images" / "pngsuite").glob("[!x]*.png")):
        notes: list[str] = []
        ours = decode(path, channels=3, notes=notes)
        alpha = "alpha over white" in notes
        if alpha and "6a08" not in path.name:
            continue  # torchvision expands alpha of the other kinds in its own way
        data = torch.from_numpy(np.fromfile(path, np.uint8))
        read = theirs_io.decode_image(data, modes.RGB_ALPHA if alpha else modes.RGB)
        theirs = (read.to(torch.int32) >> (8 if read.dtype == torch.uint16 else 0)).to(torch.uint8)
        theirs = over_white(theirs.permute(1, 2, 0).numpy()) if alpha else theirs.permute(1, 2, 0).numpy()
        assert np.abs(ours.astype(int) - theirs).max() <= 1, path.name
        compared += 1
    assert compared >= 130


@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_the_orientation_set_comes_out_upright(data_root: Path, kind: str) -> None:
    folder = data_root / "images" / "exif-orientation"
    first = decode(folder / f"{kind}_1.jpg", channels=3).astype(np.int16)
    for orientation in range(2, 9):
        notes: list[str] = []
        got = decode(folder / f"{kind}_{orientation}.jpg", channels=3, notes=notes)
        assert got.shape == first.shape and notes == [f"turned upright (EXIF orientation {orientation})"]
        assert np.abs(got - first).mean() < 6


@quiet
def test_hostile_pictures_give_an_array_or_a_data_error(data_root: Path) -> None:
    files = sorted(path for path in (data_root / "images" / "pillow").rglob("*") if path.is_file())
    assert len(files) >= 600
    good = 0
    for path in files:
        try:
            pixels = decode(path, channels=None)
        except DataError as error:
            assert path.name in error.what and error.cause and error.fix
            continue
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3)
        good += 1
    assert good >= 500
