"""Is a pickle nothing but weights? Told by reading its instructions as data; not one of them is carried out.

torch's own unpickler refuses code, but not what only costs memory or time (deeply nested keys, storages that claim
more bytes than they have). So a pickle gets there only if it consists of what torch.save writes for tensors, numbers,
text, dicts and lists.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

MOST_BYTES, MOST_INSTRUCTIONS = 1 << 20, 200_000  # a tensor takes about 125 and 30
MOST_NUMBER = 1 << 40
DEEPEST_TUPLE = 4

MAKE_TENSOR, MAKE_PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
MAKE_DICT = "collections OrderedDict"
STORAGES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
GLOBALS = {MAKE_TENSOR, MAKE_PARAMETER, MAKE_DICT, *STORAGES}
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NotPlain(Exception):
    """The pickle holds something else than weights; the text says what."""


@dataclass(frozen=True)
class _Named:
    """A function or type that the pickle names."""

    name: str


@dataclass(eq=False, slots=True)
class _Thing:
    """What an instruction would make: a dict, ordered dict, list, tuple, storage or tensor."""

    kind: str
    items: tuple[Any, ...] = ()  # of a tuple
    depth: int = 0  # of a tuple
    count: int = 0  # of a storage: its numbers
    keys: set[Any] | None = None  # of a dict


def check_pickle(content: bytes, storages: Mapping[str, int]) -> None:
    """Raise NotPlain unless a pickle builds only tensors, numbers, text, dicts and lists.

    `storages`: the bytes that the file really holds for each storage's name.
    """
    if len(content) > MOST_BYTES:
        raise NotPlain(f"its pickle has {len(content):,} bytes, more than {MOST_BYTES:,}")
    machine = _Machine(storages)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if number > MOST_INSTRUCTIONS:
                raise NotPlain(f"its pickle has more than {MOST_INSTRUCTIONS:,} instructions")
            machine.take(operation.name, argument)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise NotPlain(f"its pickle is damaged ({type(error).__name__}: {str(error)[:80]})") from error


class _Machine:
    """The stack, marks and memo that an unpickler would have, with descriptions in place of the things."""

    def __init__(self, storages: Mapping[str, int]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def take(self, name: str, argument: Any) -> None:
        """Follow one instruction. Raises NotPlain for one that torch.save does not write for weights."""
        stack = self.stack
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name == "EMPTY_TUPLE":
            stack.append(_tuple([]))
        elif name in TUPLES:
            count = TUPLES[name]
            stack[-count:] = [_tuple([stack[place] for place in range(-count, 0)])]
        elif name == "TUPLE":
            items = self._to_mark()
            self.stack.append(_tuple(items))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append(_Thing("dict", keys=set()) if name == "EMPTY_DICT" else _Thing("list"))
        elif name in ("SETITEM", "SETITEMS"):
            items = self._to_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _set_items(self.stack[-1], items)
        elif name in ("APPEND", "APPENDS"):
            if name == "APPENDS":
                self._to_mark()
            else:
                stack.pop()
            _must_be(self.stack[-1], "list")
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_reduce(stack.pop(), arguments))
        elif name == "BUILD":
            _build(stack.pop(), stack[-1])
        elif name == "STOP":
            stack.pop()
        elif name == "PROTO" and argument != 2:
            raise NotPlain(f"its pickle has protocol {argument}, and torch.save writes 2")
        elif name != "PROTO":
            raise NotPlain(f"its pickle has the instruction {name}, which torch.save does not write for weights")

    def _to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def _storage(self, name: Any) -> _Thing:
        word, kind, key, place, count = _must_be(name, "tuple").items
        if word != "storage" or not isinstance(kind, _Named) or not isinstance(place, str) or not _whole(count):
            raise NotPlain("its pickle asks for something else than a storage")
        needed = count * STORAGES[kind.name].itemsize
        if needed != self.storages[key]:
            raise NotPlain(f"the storage {key} has {self.storages[key]:,} bytes where {needed:,} are needed")
        return _Thing("storage", count=count)


def _named(words: str) -> _Named:
    if words not in GLOBALS:
        if "sparse" in words:
            raise NotPlain("it holds sparse tensors")
        name = words.replace(" ", ".")[:80]
        if words.startswith("torch "):
            raise NotPlain(f"it holds {name}, and weights need none")
        raise NotPlain(f"it names {name}: a whole module, or other code, which is never run")
    return _Named(words)


def _tuple(items: list[Any]) -> _Thing:
    depth = 1 + max((item.depth for item in items if isinstance(item, _Thing)), default=0)
    if depth > DEEPEST_TUPLE:
        raise NotPlain("its pickle nests tuples deeper than torch.save does")
    return _Thing("tuple", tuple(items), depth)


def _set_items(target: Any, items: list[Any]) -> None:
    keys = items[::2]
    if len(items) % 2 or not isinstance(target, _Thing) or target.keys is None:
        raise NotPlain("its pickle sets entries of something else than a dict")
    if not all(isinstance(key, (str, int)) for key in keys):
        raise NotPlain("a dict in it has keys that are neither text nor numbers")
    target.keys.update(keys)


def _reduce(function: Any, arguments: Any) -> _Thing:
    """Describe what a call would return, if it is one of the three that build weights."""
    values = _must_be(arguments, "tuple").items
    name = function.name if isinstance(function, _Named) else ""
    if name == MAKE_DICT and not values:
        return _Thing("ordered dict", keys=set())
    if name == MAKE_TENSOR:
        storage, offset, shape, strides, _, hooks = values
        _check_shape(
            _must_be(storage, "storage").count, offset, _must_be(shape, "tuple").items, _must_be(strides, "tuple").items
        )
        _must_be(hooks, "ordered dict")
        return _Thing("tensor")
    if name == MAKE_PARAMETER:
        tensor, _, hooks = values
        _must_be(hooks, "ordered dict")
        return _must_be(tensor, "tensor")
    raise NotPlain("its pickle makes a call that torch.save does not write for weights")


def _check_shape(count: int, offset: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> None:
    """Refuse a tensor that reaches beyond its storage, or is larger than it: one that repeats numbers is not dense."""
    whole = len(shape) == len(strides) and all(_whole(number) for number in (offset, *shape, *strides))
    size = math.prod(shape) if whole else -1
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides)) if size > 0 else -1
    if not 0 <= size <= count or last >= count:
        raise NotPlain("a tensor in it has a shape that its storage cannot have")


def _build(state: Any, target: Any) -> None:
    # A state dict carries the versions of its layers as an attribute; any other could hide one of the dict's methods.
    _must_be(target, "ordered dict")
    if _must_be(state, "dict").keys != {"_metadata"}:
        raise NotPlain("its pickle sets attributes")


def _must_be(value: Any, kind: str) -> _Thing:
    if not isinstance(value, _Thing) or value.kind != kind:
        raise NotPlain(f"its pickle has something else where a {kind} belongs")
    return value


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_NUMBER
