"""The size of a map that leaves a convolution or a pool, and the sum that gives it, as one would write it down."""

from __future__ import annotations

import operator
from typing import Any, overload

from striate.errors import UsageError

Pair = tuple[int, int]


@overload
def output_size(in_size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int: ...
@overload
def output_size(
    in_size: int | Pair, kernel: int | Pair, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> int | Pair: ...
def output_size(in_size: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> int | Pair:
    """Return ⌊(in + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1, the size that leaves a convolution or a pool.

    Each argument is one number of pixels, or a pair (height, width); the answer is a pair if any of them is.
    UsageError for a kernel larger than the padded input, and for numbers that are no lengths.
    """
    given = {"in_size": in_size, "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    least = {"padding": 0}
    pairs = {name: _pair(name, value, least.get(name, 1)) for name, value in given.items()}
    sizes = []
    for axis in (0, 1):
        length, span, step, border, spread = (pairs[name][axis] for name in given)
        reach = spread * (span - 1) + 1
        if reach > length + 2 * border:
            spread_text = f" with a dilation of {spread} spans {reach} pixels and" if spread > 1 else ""
            border_text = f" with a padding of {border} on each side" if border else ""
            raise UsageError(
                f"a kernel of {span}{spread_text} is larger than an input of {length}{border_text}",
                f"the padded input has {length + 2 * border} pixels",
                f"use an input of at least {reach - 2 * border}, or a padding of at least {-(-(reach - length) // 2)}",
            )
        sizes.append((length + 2 * border - reach) // step + 1)
    one = not any(isinstance(value, list | tuple) for value in given.values())
    return sizes[0] if one else (sizes[0], sizes[1])


def _pair(name: str, value: Any, least: int) -> Pair:
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    try:
        if any(isinstance(number, bool) for number in pair):
            raise TypeError
        height, width = (operator.index(number) for number in pair)
    except (TypeError, ValueError):
        cause = "it has to be one whole number, or height and width"
        raise UsageError(f"{name} is {value!r}", cause) from None
    if min(height, width) < least:
        raise UsageError(f"{name} is {value!r}", f"it has to be at least {least}")
    return height, width


def window_sum(
    length: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    result: int,
    ceil_mode: bool = False,
) -> str:
    """Write down the sum for one axis: `⌊(28 − 5)/2⌋ + 1 = 12`; `padding` is that before and after."""
    before, after = padding
    border = f" + 2·{before}" if before == after and before else f" + {before} + {after}" if before or after else ""
    reach = f"{kernel}" if dilation == 1 or kernel == 1 else f"({dilation}·({kernel} − 1) + 1)"
    rest = length + before + after - (dilation * (kernel - 1) + 1)
    left, right = "⌈⌉" if ceil_mode else "⌊⌋"
    told = f"{left}({length}{border} − {reach})/{stride}{right} + 1"
    plain = (-(-rest // stride) if ceil_mode else rest // stride) + 1
    if plain == result:
        return f"{told} = {result}"
    # torch leaves out a last window that would begin in the padding behind the map.
    return f"{told} − {plain - result} = {result}"


def transposed_sum(length: int, kernel: int, stride: int, padding: int, dilation: int, extra: int, result: int) -> str:
    """Write down the sum of a transposed convolution for one axis: `(7 − 1)·2 − 2·1 + 4 = 14`."""
    reach = f"{kernel}" if dilation == 1 or kernel == 1 else f"{dilation}·({kernel} − 1) + 1"
    border = f" − 2·{padding}" if padding else ""
    more = f" + {extra}" if extra else ""
    return f"({length} − 1)·{stride}{border} + {reach}{more} = {result}"
