"""What a client may ask for: compressed bodies, parts and JSON, of the right kind and of hostile ones."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from striate.serve.limits import Limits, inflate, parse_json, parse_parts
from striate.serve.refusals import Refused

SMALL = Limits(max_body=10_000, max_json_depth=4, max_json_brackets=100)
KIND = "multipart/form-data; boundary=edge"


def status_of(function: Any, *arguments: Any) -> int:
    with pytest.raises(Refused) as caught:
        function(*arguments)
    return caught.value.status


def test_compressed_bodies() -> None:
    plain = bytes(range(256)) * 30
    assert inflate(gzip.compress(plain), "gzip", SMALL) == plain
    assert inflate(zlib.compress(plain), "deflate", SMALL) == plain
    for bomb in (gzip.compress(bytes(10_001)), zlib.compress(bytes(100_000_000))):
        assert status_of(inflate, bomb, "gzip", SMALL) == 413
    for damaged in (b"", b"no gzip", gzip.compress(plain)[:-9], gzip.compress(plain) + b"more"):
        assert status_of(inflate, damaged, "gzip", SMALL) == 400


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(
        b"--edge\r\ncontent-disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return body + b"--edge--\r\n"


@given(some.lists(some.binary(max_size=100).filter(lambda content: b"\r\n--edge" not in content), max_size=5))
def test_parts_come_as_they_were_sent(contents: list[bytes]) -> None:
    body = form(*((f'name="p{number}"; filename="{number}.png"', content) for number, content in enumerate(contents)))
    found = parse_parts(body, KIND, 5)
    assert [part.content for part in found] == contents
    assert [(part.name, part.filename) for part in found] == [(f"p{n}", f"{n}.png") for n in range(len(contents))]


def test_names_of_parts() -> None:
    body = form(('name="a"; filename="\u00e4\u4e2d.png"', b"1"), ('name="b"', b"2"))
    (first, second) = parse_parts(body, KIND, 5)
    assert (first.filename, second.filename) == ("\u00e4\u4e2d.png", None)


def test_hostile_forms() -> None:
    good = form(('name="a"; filename="a"', b"1"))
    assert status_of(parse_parts, form(*[('name="a"; filename="a"', b"")] * 6), KIND, 5) == 413
    for kind in ("multipart/form-data", "multipart/mixed; boundary=edge", "multipart/form-data; boundary=" + "e" * 999):
        assert status_of(parse_parts, good, kind, 5) == 400
    headers = b"--edge\r\n" + b"x: y\r\n" * 1000 + b"\r\n1\r\n--edge--\r\n"
    long = b"--edge\r\nx: " + b"y" * 100_000 + b"\r\n\r\n1\r\n--edge--\r\n"
    nameless = form(('filename="a"', b"1"))
    for body in (b"", b"--edge", good[:-9], good[:20], b"nothing of the kind", headers, long, nameless):
        assert status_of(parse_parts, body, KIND, 5) == 400, body[:40]


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text() | some.floats(allow_nan=False, allow_infinity=False),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=30,
)


@given(VALUES, some.booleans())
def test_json_is_read_or_too_deep(value: Any, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    if depth_of(value) > SMALL.max_json_depth:
        assert status_of(parse_json, body, SMALL) == 400
    else:
        assert parse_json(body, SMALL) == value


def test_hostile_json() -> None:
    assert parse_json(b'{"[[[[[[[": "]\\"[[[[[[\\\\"}', SMALL) == {"[[[[[[[": ']"[[[[[[\\'}
    deep, wide = b"[" * 50 + b"]" * 50, b"[" + b"[]," * 100 + b"1]"
    assert status_of(parse_json, deep, SMALL) == 400
    assert status_of(parse_json, wide, SMALL) == 413
    assert status_of(parse_json, b"[" * 10_000_000, Limits()) == 413
    for body in (
        b"",
        b"{",
        b"nan",
        b"[NaN]",
        b"[-Infinity]",
        b"\xff",
        b'"\xed\xa0\x80"',
        b'{"a" 1}',
        b"9" * 5000,
        b"]",
    ):
        assert status_of(parse_json, body, SMALL) == 400, body[:20]


def test_json_that_begins_strings_without_end_is_read_in_one_pass() -> None:
    """Were each quote looked at anew, this would take hours."""
    for body in (b'"' + b'\\"' * 2_000_000, b'"\\' * 2_000_000, b'""' * 2_000_000):
        assert status_of(parse_json, body, Limits()) == 400
