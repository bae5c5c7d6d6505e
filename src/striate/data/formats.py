"""Formats of picture files, told by content: what is read, and what something else looks like."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"8BPS": "a Photoshop file",
    b"\x00\x00\x01\x00": "an icon file",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 picture",
    b"\xff\x4f\xff\x51": "a JPEG 2000 picture",
    b"\x93NUMPY": "a numpy array",
    b"\x89HDF": "an HDF5 file",
}
_MARKUP = {b"<svg": "an SVG drawing", b"<html": "a web page", b"<!doctype html": "a web page", b"<?xml": "an XML file"}
_HEIC = "a HEIC picture (phones write JPEG when their camera is set to 'most compatible')"
_BRANDS = {
    b"avif": "an AVIF picture",
    b"avis": "an AVIF picture",
    b"hei": _HEIC,
    b"hev": _HEIC,
    b"mif": _HEIC,
    b"msf": _HEIC,
}


def recognise(start: bytes) -> str | None:
    """Return the format by the first 16 bytes of a file (JPEG, PNG, BMP, GIF, WEBP or TIFF), or None."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    return next((form for magic, form in _STARTS.items() if start.startswith(magic)), None)


def png_sides(content: bytes) -> tuple[int, int] | None:
    """Return the width and height that the header of a PNG tells, which comes first in it; None for other files."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 24:
        return None
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def guess(start: bytes) -> str:
    """Say what the first bytes of something that is no picture look like."""
    if start[4:8] == b"ftyp":
        return "is " + next((kind for brand, kind in _BRANDS.items() if start[8:].startswith(brand)), "a film")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, kind in [*_OTHERS.items(), *_MARKUP.items()]:
        if start.startswith(magic) or text.startswith(magic):
            return f"is {kind}"
    if not start.strip(b"\x00"):
        return "begins with zeros only"
    printable = sum(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start)
    return "is text" if printable == len(start) else f"begins with the bytes {start[:8].hex(' ')}"


def check_png(stream: BinaryIO) -> None:
    """Check the sums of the chunks that make the picture: Pillow does not check those of IDAT."""
    stream.seek(8)
    while True:
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        if head[4:] not in (b"IHDR", b"PLTE", b"IDAT"):
            stream.seek(length + 4, os.SEEK_CUR)
            continue
        body, check = stream.read(length), stream.read(4)
        if len(check) == 4 and zlib.crc32(body, zlib.crc32(head[4:])) != int.from_bytes(check, "big"):
            raise ValueError(f"the check sum of a {head[4:].decode()} chunk is wrong: the file is damaged")
