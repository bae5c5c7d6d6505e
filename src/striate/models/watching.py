"""Watching one run of a net operation by operation: multiply-adds, and what each tensor sees of the picture.

torch tells every operation that reaches the processor, from layers and from functions in a `forward` alike, so that a
user's own module is followed as the registry's nets are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from striate.models.follow import RULES, Inputs, pointwise
from striate.models.receptive import Fields, pixels

Shape = tuple[int, ...]

#: Of operations without a rule in `follow`, those that move, sort, compare, add or resample numbers …
_FREE = (
    "aminmax", "all", "any", "argmax", "argmin", "argsort", "bernoulli", "bincount", "bucketize", "channel_shuffle",
    "col2im", "count_nonzero", "cummax", "cummin", "cumprod", "cumsum", "embedding", "embedding_bag", "equal",
    "gather", "histc", "im2col", "index_add", "index_copy", "index_fill", "index_put", "index_select", "isin",
    "kthvalue", "local_scalar_dense", "logcumsumexp", "masked_scatter", "masked_select", "median", "mode",
    "multinomial", "nanmedian", "nonzero", "put", "scatter", "scatter_add", "scatter_reduce", "searchsorted", "sort",
    "std_mean", "take", "topk", "trace", "tril", "triu", "unfold", "unique", "unique2", "unique_dim", "var_mean",
)  # fmt: skip
#: … and such of these as have many names.
_FREE_STARTS = (
    *("adaptive", "_adaptive", "avg_pool", "fractional_max", "max_pool", "max_unpool"),
    *("grid_sampler", "reflection_pad", "replication_pad", "upsample", "_upsample"),
)
#: Nothing of the picture is in what these return.
_EMPTY = ("empty", "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "new_empty", "new_zeros")


@dataclass(frozen=True)
class Operation:
    """One operation of torch: its name there, the shapes of its first tensors in and out, and its multiply-adds.

    `macs` is None where nothing is known of what the operation costs.
    """

    name: str
    input_shapes: tuple[Shape, ...]
    output_shape: Shape | None
    arguments: tuple[Any, ...]
    macs: int | None
    fields: Fields | None
    is_view: bool


class Watch(TorchDispatchMode):
    """Follows a picture (1, C, H, W) through the operations that run inside the block; `heard` gets each of them."""

    def __init__(self, picture: Tensor, heard: Callable[[Operation], None]) -> None:
        super().__init__()
        self.heard = heard
        self._fields: Any = WeakTensorKeyDictionary()
        self._makers: Any = WeakTensorKeyDictionary()
        self._fields[picture] = (pixels(picture.shape[2], 2), pixels(picture.shape[3], 3))

    def fields_of(self, value: Any) -> Fields | None:
        """Return what the first tensor of a value sees; None where it is not known, or sees nothing."""
        tensor = next(tensors_in(value), None)
        return None if tensor is None else self._fields.get(tensor)

    def maker_of(self, tensor: Tensor) -> str:
        """Return the name of the operation that made a tensor's numbers, without torch's marks: `softmax`, `relu`."""
        return str(self._makers.get(tensor, "")).strip("_")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and note what its outputs see."""
        kwargs = kwargs or {}
        given = [tensor for tensor in tensors_in((args, kwargs)) if tensor in self._fields]
        # An operation may write over its input, and change its shape.
        inputs = [(tuple(tensor.shape), self._fields[tensor]) for tensor in given]
        shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(args))
        output = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        outputs = list(tensors_in(output))
        fields: Fields | None = None
        for tensor in outputs:
            fields = self._follow(name, func, inputs, args, tuple(tensor.shape)) if inputs else None
            self._set(tensor, fields, bool(inputs), name)
        if name.endswith("_") and outputs and (len(inputs) > 1 or name == "copy_"):
            self._forget_aliases(outputs[0])
        first = outputs[0] if outputs else None
        is_view = is_shared(args, output) and not name.endswith("_")
        if first is not None:
            made_before = [self._makers[tensor] for tensor in given if is_view and tensor in self._makers]
            self._makers[first] = made_before[0] if made_before else name
        self.heard(
            Operation(
                name=name,
                input_shapes=shapes,
                output_shape=None if first is None else tuple(first.shape),
                arguments=tuple(args),
                macs=0 if first is None else self._cost(name, func, args, first, bool(inputs)),
                fields=None if first is None else self._fields.get(first),
                is_view=is_shared(args, output),
            )
        )
        return output

    def _follow(self, name: str, func: Any, inputs: Inputs, args: Any, shape: Shape) -> Fields | None:
        if any(fields is None for _, fields in inputs):
            return None
        if name.startswith(_EMPTY):
            return None
        rule = RULES.get(name) or RULES.get(name.removesuffix("_"))
        if rule is None:
            if torch.Tag.pointwise not in func.tags:
                return None
            rule = pointwise
        try:
            return rule(inputs, args, shape)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            return None  # arguments that the rule does not foresee: the field is not known, and the table says so

    def _cost(self, name: str, func: Any, args: Any, output: Tensor, seen: bool) -> int | None:
        """Return the multiply-adds of an operation; None for one that meets the picture and that no rule knows."""
        macs = count_macs(name, args, output)
        if macs is not None or not seen or is_shared(args, output) or torch.Tag.pointwise in func.tags:
            return macs or 0
        known = RULES.keys() - {"_native_multi_head_attention"}
        free = name.strip("_") in _FREE or name.startswith((*_EMPTY, *_FREE_STARTS))
        return 0 if free or name in known or name.removesuffix("_") in known else None

    def _forget_aliases(self, written: Tensor) -> None:
        """Other tensors in the memory that was written now hold numbers of which nothing is known."""
        aliases = [tensor for tensor in list(self._fields) if tensor is not written and _shared(tensor, written)]
        if written._base is not None:
            aliases.append(written._base)
        for tensor in aliases:
            self._fields[tensor] = None

    def _set(self, tensor: Tensor, fields: Fields | None, seen: bool, name: str) -> None:
        if seen and not name.startswith(_EMPTY):
            self._fields[tensor] = fields
        elif tensor in self._fields:
            del self._fields[tensor]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a value that may be a tensor, or lists, tuples and dicts of them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from tensors_in(entry)


def count_macs(name: str, arguments: Any, output: Tensor) -> int | None:
    """Return the multiply-adds of an operation that multiplies by weights or matrices, biases left out; else None."""
    if name == "convolution":
        weight, is_transposed = arguments[1], arguments[6]
        # Each number of the output (transposed: of the input) meets one kernel's weights, or one row of them.
        return (arguments[0] if is_transposed else output).numel() * math.prod(weight.shape[1:])
    if name in ("mm", "bmm"):
        return output.numel() * int(arguments[0].shape[-1])
    if name in ("addmm", "baddbmm"):
        return output.numel() * int(arguments[1].shape[-1])
    if name.startswith("_scaled_dot_product"):
        query, keys, values = arguments[:3]
        return math.prod(query.shape[:-1]) * int(keys.shape[-2]) * int(query.shape[-1] + values.shape[-1])
    if name == "dot":
        return int(arguments[0].numel())
    if name in ("mv", "addmv"):
        return output.numel() * int(arguments[-1 if name == "mv" else 2].shape[-1])
    if name == "mkldnn_rnn_layer":  # at each step of time every weight meets one number
        return math.prod(arguments[0].shape[:-1]) * (arguments[1].numel() + arguments[2].numel())
    if name == "_native_multi_head_attention":
        query, keys, values = arguments[:3]
        batch, length, width = query.shape
        if query is keys is values:
            return int(batch * length * width * (4 * width + 2 * length))
    return None


def is_shared(given: Any, output: Any) -> bool:
    """Say whether the first tensor of `output` stands in the memory of a tensor in `given`."""
    made = next(tensors_in(output), None)
    return made is not None and any(_shared(made, tensor) for tensor in tensors_in(given))


def _shared(one: Tensor, other: Tensor) -> bool:
    try:
        return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    except RuntimeError:  # a tensor without memory of its own
        return False
