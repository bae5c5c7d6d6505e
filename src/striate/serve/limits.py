"""How much a client may ask for: bytes of a body also when it is decompressed, parts, pixels, depth of JSON, time."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import python_multipart
from python_multipart.exceptions import FormParserError
from starlette.requests import ClientDisconnect, Request

from striate.data.opening import MAX_PIXELS
from striate.serve.refusals import Busy, Refused

MEBIBYTE = 1 << 20
# A larger body that is compressed could hold up the event loop: it may hold a thousand times as much.
_INFLATE_BYTES = 1 << 12
# An unfinished string reaches to the end, so that no text makes it look at a character twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = np.zeros(256, np.int32)
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1


@dataclass(frozen=True)
class Limits:
    """What one request may take, and in `max_memory` what the bodies of all may take together; bytes and seconds."""

    max_body: int = 20 * MEBIBYTE
    max_memory: int = 256 * MEBIBYTE
    max_pixels: int = MAX_PIXELS
    max_parts: int = 100
    max_json_depth: int = 16
    max_json_brackets: int = 1_000_000
    max_seconds: float = 30.0


class Budget:
    """The bytes of the bodies that are held at once, by all requests."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def take(self, count: int) -> None:
        """Take room for so many bytes. Raises Busy where there is none."""
        if self.held + count > self.most:
            raise Busy("too many bodies are being read", "there is no room for this one", status=503)
        self.held += count

    def give_back(self, count: int) -> None:
        """Give back what was taken."""
        self.held -= count


@dataclass(frozen=True)
class Part:
    """One part of a multipart body; `filename` is None for a field of a form."""

    name: str
    filename: str | None
    content: bytes


async def read_body(request: Request) -> bytes:
    """Return the body of a request, decompressed.

    Its room in memory is given back when the request has been answered. Raises Refused for a body that is too large,
    damaged or compressed in a way that is not known, and Busy where other bodies fill the memory.
    """
    limits: Limits = request.app.state.limits
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise Refused(415, f"content-encoding {coding[:40]!r} is not known", "gzip and deflate are", "send it plain")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_body:
        raise _too_large(limits)
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limits.max_body:
                raise _too_large(limits)
            hold(request, len(chunk))
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refused(400, "the body is not complete", "the client left before it was sent") from None
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if coding == "identity":
        return body
    if len(body) <= _INFLATE_BYTES:
        plain = inflate(body, coding, limits)
    else:
        plain = await request.app.state.decoding(inflate, body, coding, limits)
    hold(request, len(plain))
    return plain


def hold(request: Request, count: int) -> None:
    """Count bytes that a request holds until it has been answered. Raises Busy where there is no room for them."""
    request.app.state.budget.take(count)
    request.scope["striate.held"] = request.scope.get("striate.held", 0) + count


def inflate(body: bytes, coding: str, limits: Limits) -> bytes:
    """Decompress a body, never to more than may be sent plain. Raises Refused."""
    # 32: gzip or zlib, told by the header
    engine = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        plain = engine.decompress(body, limits.max_body + 1)
    except zlib.error as error:
        raise Refused(400, f"the body is no {coding}", str(error)) from None
    if len(plain) > limits.max_body:
        raise _too_large(limits, "decompressed ")
    if not engine.eof:
        raise Refused(400, f"the body is no {coding}", "it is cut off")
    if engine.unused_data:
        raise Refused(400, f"the body is no {coding}", "more follows behind its end")
    return plain


def parse_parts(body: bytes, content_type: str, max_parts: int) -> list[Part]:
    """Return the parts of a multipart/form-data body, in order. Raises Refused."""
    kind, options = python_multipart.multipart.parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(400, "the body has no parts", "its content-type names no boundary", "send multipart/form-data")
    reader = _PartReader(max_parts)
    try:
        parser = python_multipart.MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, "the body is no multipart/form-data", str(error)[:200]) from None
    if not reader.ended:
        raise Refused(400, "the body is no multipart/form-data", "it is cut off")
    return reader.parts


class _PartReader:
    """Collects the parts that the parser reports."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._most = max_parts
        self._header = self._value = b""
        self._disposition = b""
        self._content: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._content.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) == self._most:
            raise Refused(413, f"the body has more than {self._most:,} parts", "", "send fewer at a time")
        self._header = self._value = self._disposition = b""
        self._content = []

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _end(self) -> None:
        kind, options = python_multipart.multipart.parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise Refused(400, "the body is no multipart/form-data", "a part of it has no name")
        filename = options.get(b"filename")
        self.parts.append(
            Part(
                options[b"name"].decode("utf-8", "replace"),
                None if filename is None else filename.decode("utf-8", "replace"),
                b"".join(self._content),
            )
        )

    def _finish(self) -> None:
        self.ended = True


def parse_json(body: bytes, limits: Limits) -> Any:
    """Return the value of a JSON document in UTF-8. Raises Refused for what is none, too deep or too much."""
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    if len(brackets) > limits.max_json_brackets:
        raise Refused(413, "the JSON holds too many lists", f"at most {limits.max_json_brackets:,} brackets are read")
    if len(brackets) > limits.max_json_depth:
        steps = _STEP[np.frombuffer(brackets, np.uint8)]
        if int(steps.cumsum().max()) > limits.max_json_depth:
            raise Refused(400, "the JSON is too deep", f"at most {limits.max_json_depth} lists may stand in each other")
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is no JSON", str(error)[:200]) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _too_large(limits: Limits, how: str = "") -> Refused:
    return Refused(413, f"the {how}body has more than {limits.max_body:,} bytes", "", "send fewer or smaller pictures")
