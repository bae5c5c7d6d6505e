"""Bodies of the Open Inference Protocol, version 2: a request's pictures as numpy, and answers as JSON or raw bytes.

The protocol: kserve.github.io, "Open Inference Protocol (V2)". Raw tensors behind the JSON, a body of nothing but one
picture, and answers as the best classes are extensions of Triton's (docs/protocol/extension_binary_data.md and
extension_classification.md of triton-inference-server/server).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Images
from striate.predictor.onnx_backend import INPUT, LOGITS, PROBABILITIES
from striate.predictor.predictor import Logits
from striate.serve.limits import Limits, parse_json
from striate.serve.refusals import Refused

OUTPUTS = (PROBABILITIES, LOGITS)
#: The header that says how many bytes of JSON stand before raw tensors.
JSON_LENGTH = "inference-header-content-length"
MOST_ID = 256
MOST_SECONDS = 3600.0


@dataclass(frozen=True)
class Ends:
    """What a model is called, takes and gives: pictures of `size` (H, W, C), at most so many, and answers by class."""

    name: str
    version: str
    size: tuple[int, int, int]
    classes: Sequence[str]
    most: int


@dataclass(frozen=True)
class Wanted:
    """One output that is asked for: raw behind the JSON or in it, whole or as its `best` so many classes (0: whole)."""

    name: str
    binary: bool = False
    best: int = 0


@dataclass(frozen=True)
class Question:
    """What a request asks: pictures uint8 (N, H, W, C), outputs in order; `seconds` is how long the client waits."""

    images: Images
    outputs: tuple[Wanted, ...]
    id: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Body:
    """The body of an answer; `json_length` is how many bytes of it are JSON, where raw tensors follow them."""

    content: bytes
    json_length: int | None = None


def read_question(body: bytes, json_length: str | None, ends: Ends, limits: Limits) -> Question:
    """Return what a request's body asks of a model.

    `json_length` is the value of the header JSON_LENGTH, or None without it. Raises Refused.
    """
    length = _header_length(json_length, len(body))
    if length == 0 and json_length is not None:
        return _one_raw_picture(body, ends.size)
    text, raw = body[:length], body[length:]
    request = parse_json(text, limits)
    urls = {"model_name": ends.name, "model_version": ends.version}
    request = _object(request, "the request", {"inputs"}, {"id", "parameters", "outputs", *urls})
    for key, value in urls.items():
        if request.get(key, value) != value:
            raise Refused(400, f"the request's {key} is {_shown(request[key])}, and its address asks {_shown(value)}")
    if not isinstance(request.get("id", ""), str) or len(request.get("id", "")) > MOST_ID:
        raise Refused(400, f"the request's id is no text of up to {MOST_ID} letters")
    binary, seconds = _request_parameters(request)
    inputs = _list(request["inputs"], "inputs")
    if len(inputs) != 1:
        raise Refused(400, f"the request has {len(inputs):,} inputs, and the model takes one, {INPUT!r}")
    images = _read_input(inputs[0], raw, ends)
    return Question(images, _read_outputs(request.get("outputs", []), binary), request.get("id"), seconds)


def write_answer(question: Question, logits: Logits, probabilities: NDArray[Any], ends: Ends) -> Body:
    """Return the body that answers a question with logits and probabilities (N, K).

    Raises Refused where a number in the answer is not finite and JSON is asked for, which cannot write it.
    """
    tensors = {PROBABILITIES: probabilities, LOGITS: logits}
    outputs: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for wanted in question.outputs:
        values = np.ascontiguousarray(tensors[wanted.name], "<f4")  # (N, K)
        texts = _best_classes(values, ends.classes, wanted.best) if wanted.best else None  # (N, best)
        output: dict[str, Any] = {"name": wanted.name, "datatype": "FP32", "shape": list(values.shape)}
        if texts is not None:
            output.update(datatype="BYTES", shape=[len(texts), len(texts[0])])
        if wanted.binary:
            behind.append(values.tobytes() if texts is None else _pack_texts(texts))
            output["parameters"] = {"binary_data_size": len(behind[-1])}
        elif texts is not None:
            output["data"] = list(itertools.chain.from_iterable(texts))
        elif not np.isfinite(values).all():
            raise Refused(500, f"{wanted.name} holds a number that JSON cannot write: ask for binary_data")
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": ends.name, "model_version": ends.version}
    if question.id is not None:
        answer["id"] = question.id
    text = json.dumps({**answer, "outputs": outputs}, separators=(",", ":")).encode()
    return Body(b"".join([text, *behind]), len(text) if behind else None)


def _header_length(value: str | None, size: int) -> int:
    """Return how many of a body's bytes are JSON: all of them without the header."""
    if value is None:
        return size
    if not (value.isascii() and value.isdecimal() and len(value) < 20):
        raise Refused(400, f"Inference-Header-Content-Length is no number of bytes but {_shown(value)}")
    if int(value) > size:
        raise Refused(400, f"Inference-Header-Content-Length is {int(value):,}, and the body has {size:,} bytes")
    return int(value)


def _one_raw_picture(body: bytes, size: tuple[int, int, int]) -> Question:
    if len(body) != math.prod(size):
        raise Refused(
            400, f"a body without JSON is one picture of {math.prod(size):,} bytes, and this one has {len(body):,}"
        )
    images = np.frombuffer(body, np.uint8).reshape(1, *size)
    return Question(images, tuple(Wanted(name, binary=True) for name in OUTPUTS))


def _request_parameters(request: Mapping[str, Any]) -> tuple[bool, float | None]:
    """Return whether outputs are raw where nothing else is said, and the seconds that the client waits."""
    known = {"binary_data_output", "timeout"}
    parameters = _parameters(request, "the request", known)
    binary = _flag(parameters, "binary_data_output")
    microseconds = _whole(parameters.get("timeout", 0))
    if microseconds is None or not 0 <= microseconds <= MOST_SECONDS * 1e6:
        given = _shown(parameters["timeout"])
        raise Refused(400, f"timeout is no whole number of microseconds up to an hour but {given}")
    return binary, microseconds / 1e6 if microseconds else None


def _read_input(value: Any, raw: bytes, ends: Ends) -> Images:
    """Return the pictures of the one input, from its JSON or from the bytes behind it."""
    entry = _object(value, "the input", {"name", "shape", "datatype"}, {"data", "parameters"})
    if entry["name"] != INPUT:
        raise Refused(400, f"there is no input {_shown(entry['name'])}: the model takes {INPUT!r}")
    if entry["datatype"] != "UINT8":
        raise Refused(400, f"input {INPUT!r} has datatype {_shown(entry['datatype'])}, and the model takes UINT8")
    shape = [_whole(length) for length in _list(entry["shape"], f"the shape of input {INPUT!r}")]
    if not shape or shape[0] is None or tuple(shape[1:]) != ends.size:
        wanted = f"[N, {', '.join(map(str, ends.size))}]"
        raise Refused(400, f"input {INPUT!r} has shape {_shown(entry['shape'])}, and the model takes {wanted}")
    if not 1 <= shape[0] <= ends.most:
        raise Refused(
            400, f"input {INPUT!r} has {_shown(shape[0])} pictures, and a request may have 1 to {ends.most:,}"
        )
    parameters = _parameters(entry, f"input {INPUT!r}", {"binary_data_size"})
    if "binary_data_size" not in parameters:
        if raw:
            raise Refused(400, f"{len(raw):,} bytes stand behind the JSON, and input {INPUT!r} has no binary_data_size")
        if "data" not in entry:
            raise Refused(400, f"input {INPUT!r} has neither data nor the parameter binary_data_size")
        return _read_values(entry["data"], (shape[0], *ends.size))
    if "data" in entry:
        raise Refused(400, f"input {INPUT!r} has data and the parameter binary_data_size: one of them is meant")
    given, needed = parameters["binary_data_size"], shape[0] * math.prod(ends.size)
    if _whole(given) != needed:
        raise Refused(
            400, f"input {INPUT!r} has binary_data_size {_shown(given)}, and its shape needs {needed:,} bytes"
        )
    if len(raw) != needed:
        raise Refused(400, f"input {INPUT!r} needs {needed:,} bytes behind the JSON, and {len(raw):,} are there")
    return np.frombuffer(raw, np.uint8).reshape(shape[0], *ends.size)


def _read_values(data: Any, shape: tuple[int, ...]) -> Images:
    """Return whole numbers from 0 to 255, in nested lists of this shape or in one flat list, as uint8."""
    level = _list(data, f"the data of input {INPUT!r}")
    if level and isinstance(level[0], list):
        pictures = len(level)
        for length in shape[1:]:
            if pictures != shape[0] or any(type(part) is not list or len(part) != length for part in level):
                raise Refused(400, f"the data of input {INPUT!r} are not nested as its shape {list(shape)} says")
            level = list(itertools.chain.from_iterable(level))
    if len(level) != math.prod(shape):
        raise Refused(400, f"input {INPUT!r} has {len(level):,} values, and its shape needs {math.prod(shape):,}")
    if not set(map(type, level)) <= {int, float}:
        raise Refused(400, f"the data of input {INPUT!r} are not all numbers")
    lowest, highest = min(level), max(level)
    if not 0 <= lowest <= highest <= 255:
        raise Refused(400, f"input {INPUT!r} has {_shown(lowest if lowest < 0 else highest)}, and UINT8 holds 0 to 255")
    values = np.array(level, np.float64)
    images = values.astype(np.uint8)
    if not (images == values).all():
        raise Refused(400, f"input {INPUT!r} has {_shown(values[images != values][0])}, and UINT8 holds whole numbers")
    return images.reshape(shape)


def _read_outputs(value: Any, binary: bool) -> tuple[Wanted, ...]:
    """Return the outputs asked for, or all of them where none is named."""
    if value == []:
        return tuple(Wanted(name, binary) for name in OUTPUTS)
    wanted: list[Wanted] = []
    for part in _list(value, "outputs"):
        entry = _object(part, "an output", {"name"}, {"parameters"})
        name = entry["name"]
        if name not in OUTPUTS:
            raise Refused(400, f"there is no output {_shown(name)}: the model gives {' and '.join(map(repr, OUTPUTS))}")
        if any(name == other.name for other in wanted):
            raise Refused(400, f"output {name!r} is asked for twice")
        parameters = _parameters(entry, f"output {name!r}", {"binary_data", "classification"})
        best = _whole(parameters.get("classification", 1))
        if best is None or best < 1:
            given = _shown(parameters["classification"])
            raise Refused(400, f"output {name!r} has classification {given}, which is no number of classes")
        wanted.append(
            Wanted(name, _flag(parameters, "binary_data", binary), best if "classification" in parameters else 0)
        )
    return tuple(wanted)


def _best_classes(values: NDArray[np.float32], classes: Sequence[str], best: int) -> list[list[str]]:
    """Return for each row its highest values as "value:index:class", highest first; all if there are fewer classes."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :best]  # (N, K) -> (N, best)
    return [
        [f"{row[place]!s}:{place}:{classes[place]}" for place in places]
        for row, places in zip(values, order.tolist(), strict=True)
    ]


def _pack_texts(texts: Sequence[Sequence[str]]) -> bytes:
    """Return texts as bytes, before each its length as four bytes, the lowest first."""
    encoded = [text.encode("utf-8", "replace") for text in itertools.chain.from_iterable(texts)]
    return b"".join(part for text in encoded for part in (len(text).to_bytes(4, "little"), text))


def _object(value: Any, what: str, needed: set[str], more: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(400, f"{what} is no JSON object")
    for name in sorted(needed - value.keys()):
        raise Refused(400, f"{what} has no {name!r}")
    for name in sorted(value.keys() - needed - more):
        raise Refused(400, f"{what} has {_shown(name)}, which means nothing here")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(400, f"{what} is no list")
    return value


def _parameters(owner: Mapping[str, Any], what: str, known: set[str]) -> dict[str, Any]:
    """Return the parameters of a request or tensor. One that is not known is refused: it would do nothing."""
    parameters = owner.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refused(400, f"the parameters of {what} are no JSON object")
    for name in sorted(parameters.keys() - known):
        raise Refused(400, f"{what} has the parameter {_shown(name)}, and this server knows {', '.join(sorted(known))}")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Refused(400, f"{name} is neither true nor false but {_shown(value)}")
    return value


def _whole(value: Any) -> int | None:
    """Return a whole number, which JSON may write as 2.0, or None for anything else."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def _shown(value: Any) -> str:
    """Return a client's value for a sentence, cut where it is long."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a very large number"
    return text if len(text) <= 80 else text[:77] + "…"
