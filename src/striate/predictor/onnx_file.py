"""Reads what an ONNX file says of itself, before anything runs it: metadata, and whether it is one file without loops.

An ONNX file is a protobuf message (onnx.proto): fields, each a number and a value, some of which are messages. Only
those are looked into that can hold a tensor. Neither onnx nor onnxruntime is needed for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from striate.data.opening import open_regular
from striate.errors import DataError

SUFFIX = ".onnx"
# VGG-16 has half of it; a file without external data can have 2 GiB at most.
MOST_FILE_BYTES = 1 << 30
# DenseNet-161 has 10,000.
MOST_FIELDS = 1_000_000
MOST_DEPTH = 32
#: Metadata: the text of model.json; and the SHA-256 of the bytes of the graph, where the writer gave one.
CARD_KEY, DIGEST_KEY = "striate", "striate-graph-sha256"
MEND = "copy it again, or export it again: striate export RUN --to onnx"

# message → its fields that are looked into → what they hold (onnx.proto, IR version 13)
_INSIDE = {
    "model": {7: "graph", 14: "entry", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "subgraph", 10: "tensor", 11: "subgraph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external", 14: "location"},
    "entry": {},
}


@dataclass
class OnnxFile:
    """The bytes of an ONNX file, and its metadata."""

    path: Path
    content: bytes
    metadata: dict[str, str] = field(default_factory=dict)


def is_onnx(path: str | Path) -> bool:
    """Say whether a path names an ONNX file: by its suffix, whether or not it is there."""
    return Path(path).suffix.lower() == SUFFIX


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file and what it says of itself.

    Raises DataError where it is missing, too large, damaged, changed since it was written, needs other files, or holds
    graphs inside its graph, which could run for ever.
    """
    with open_regular(path, str(path)) as stream:
        return parse_onnx(stream.read(MOST_FILE_BYTES + 1), path)


def parse_onnx(content: bytes, path: Path) -> OnnxFile:
    """Read what the bytes of an ONNX file say of themselves; `path` names them. Raises as `read_onnx` does."""
    if len(content) > MOST_FILE_BYTES:
        raise DataError(f"{path} is too large", f"at most {MOST_FILE_BYTES:,} bytes are read", "name another file")
    found = OnnxFile(path, content)
    graphs = hashlib.sha256()
    try:
        for kind, value in _walk(memoryview(content), "model"):
            if kind in ("external", "location"):
                raise DataError(f"{path} keeps weights in other files", "only one whole file is read", MEND)
            if kind == "subgraph":
                raise DataError(f"{path} holds loops or branches", "they could run for ever", MEND)
            if kind == "graph":
                graphs.update(value)
            if kind == "entry":
                entry = {number: bytes(text).decode() for number, text in _fields(value) if not isinstance(text, int)}
                found.metadata[entry.get(1, "")] = entry.get(2, "")
    except ValueError as error:
        raise DataError(f"{path} is no ONNX file, or a damaged one", str(error), MEND) from error
    if found.metadata.get(DIGEST_KEY, graphs.hexdigest()) != graphs.hexdigest():
        raise DataError(
            f"{path} is damaged, or someone changed it",
            f"the SHA-256 of its graph is {graphs.hexdigest()}, and it says {found.metadata[DIGEST_KEY][:80]}",
            MEND,
        )
    return found


def graph_digest(content: bytes) -> str:
    """Return the SHA-256 of the bytes of the graph in an ONNX file, for its metadata under DIGEST_KEY."""
    digest = hashlib.sha256()
    for number, value in _fields(memoryview(content)):
        if number == 7 and not isinstance(value, int):
            digest.update(value)
    return digest.hexdigest()


def _walk(message: memoryview, kind: str) -> Iterator[tuple[str, memoryview]]:
    """Yield each message that `_INSIDE` names, parents first, and flags that are set. Raises ValueError."""
    waiting = [(kind, message, 0)]
    count = 0
    while waiting:
        kind, message, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise ValueError(f"messages stand in it {MOST_DEPTH} deep")
        for number, value in _fields(message):
            count += 1
            if count > MOST_FIELDS:
                raise ValueError(f"it has more than {MOST_FIELDS:,} entries")
            inner = _INSIDE[kind].get(number)
            if inner is None:
                continue
            if inner == "location":
                if value == 0:
                    continue
                value = message[:0]
            if isinstance(value, int):
                raise ValueError(f"a {inner} in it is a number")
            yield inner, value
            if inner in _INSIDE:
                waiting.append((inner, value, depth + 1))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field: a whole number, or the bytes of a text, a message or an array."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            whole, at = _varint(message, at)
            yield number, whole
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("it is no protobuf message")
        end = at + length
        if end > len(message):
            raise ValueError("it is cut off, or no protobuf message")
        yield number, message[at:end]
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a whole number, seven bits a byte, and return it with the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off, or no protobuf message")
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("it is no protobuf message")
