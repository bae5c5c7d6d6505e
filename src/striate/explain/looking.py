"""What every look inside a net shares: the net at rest, its layers watched as they run, batches in pieces."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from striate.data.rows import Pictures
from striate.errors import UsageError
from striate.models.dry_run import set_mode, undisturbed
from striate.predictor.predictor import Predictor
from striate.predictor.torch_backend import TorchBackend

Floats = NDArray[np.float32]
Batch = Tensor | NDArray[Any]  # (N, C, H, W), normalised as the net gets them
Targets = int | Sequence[int] | NDArray[Any] | Tensor  # one class for all pictures, or one for each
See = Callable[[str, nn.Module, Any, Any], Tensor | None]

# A look with gradients keeps every map after the layer: fewer pictures at a time than an answer takes.
PICTURES_AT_A_TIME = 64
PIXELS_AT_A_TIME = 2**19


@contextlib.contextmanager
def at_rest(net: nn.Module) -> Iterator[None]:
    """Put a net into evaluation mode, in fp32 and without gradients, and give it back as it was found.

    Buffers, modes, random generators, `requires_grad` and gradients of all parameters are the same afterwards. Not for
    two threads at once with the same net.
    """
    wanted = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    device = next((parameter.device.type for parameter, _ in wanted), "cpu")
    try:
        with torch.inference_mode(False), undisturbed(net), torch.autocast(device, enabled=False):
            set_mode(net, False)
            for parameter, _ in wanted:
                parameter.requires_grad_(False)
            yield
    finally:
        for parameter, wants in wanted:
            parameter.requires_grad_(wants)


@contextlib.contextmanager
def watched(net: nn.Module, see: See) -> Iterator[None]:
    """Call `see(name, module, arguments, output)` whenever a module inside `net` has run, inner modules first.

    The name is the module's own, with `#2`, `#3` … for its further runs in one pass. A tensor that `see` returns takes
    the output's place in the net.
    """
    names = {module: name for name, module in net.named_modules()}
    runs: Counter[nn.Module] = Counter()

    def start(module: nn.Module, arguments: Any) -> None:
        runs.clear()

    def after(module: nn.Module, arguments: Any, output: Any) -> Tensor | None:
        runs[module] += 1
        name = names[module] if runs[module] == 1 else f"{names[module]}#{runs[module]}"
        return see(name, module, arguments, output)

    handles = [net.register_forward_pre_hook(start)]
    handles += [module.register_forward_hook(after) for module in names if module is not net]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def as_input(net: nn.Module, batch: Batch) -> Tensor:
    """Return a batch (N, C, H, W) as floats where the net's weights are. Raises UsageError for another shape."""
    tensor = (batch if isinstance(batch, Tensor) else torch.tensor(batch)).clone()  # a net may work in place
    if tensor.dim() != 4 or not len(tensor):
        raise UsageError(f"a batch has shape {tuple(tensor.shape)}", "it has to be (pictures, channels, height, width)")
    first = next(iter(net.parameters()), None)
    if first is None:
        return tensor.float()
    return tensor.to(first.device, first.dtype if first.dtype.is_floating_point else torch.float32)


def net_batches(predictor: Predictor, images: Pictures) -> Iterator[Tensor]:
    """Yield uint8 pictures (N, H, W, C) at the net's size as the batches (B, C, H, W) that a predictor's net gets.

    Raises UsageError for a predictor without a torch net.
    """
    device = next((parameter.device for parameter in predictor.net.parameters()), torch.device("cpu"))
    assert isinstance(predictor.backend, TorchBackend)
    channels_last = predictor.backend.plan.channels_last
    size = predictor.batch_pictures
    for start in range(0, len(images), size):
        batch = torch.from_numpy(np.require(images[start : start + size], requirements=["C", "W"]))
        yield predictor.preprocess.normalise(batch.to(device), channels_last)


def as_targets(targets: Targets, count: int, device: torch.device) -> Tensor:
    """Return one class number for each of `count` pictures, int64 (N,). Raises UsageError for another number."""
    numbers = torch.as_tensor(targets, dtype=torch.int64, device=device)
    numbers = numbers.expand(count) if numbers.dim() == 0 else numbers
    if numbers.shape != (count,):
        raise UsageError(f"{len(numbers)} targets do not fit {count} pictures", "give one class, or one a picture")
    return numbers


def scores(net: nn.Module, batch: Tensor, targets: Tensor) -> Tensor:
    """Return the logit of each picture's own target, (N,). Raises UsageError for a class the net does not have."""
    logits = net(batch.clone())  # (N, K); the first layer may work in place
    least, most = int(targets.min()), int(targets.max())
    if least < 0 or most >= logits.shape[1]:
        wrong = least if least < 0 else most
        raise UsageError(f"there is no class number {wrong}", f"the net has {logits.shape[1]} classes, counted from 0")
    return logits.gather(1, targets[:, None])[:, 0]


def pieces(count: int, pixels: int, at_a_time: int = PICTURES_AT_A_TIME) -> Iterator[slice]:
    """Yield slices of a batch of `count` pictures of so many pixels that bound the memory of a look."""
    size = max(1, min(at_a_time, PIXELS_AT_A_TIME // max(1, pixels)))
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def picture_pixels(batch: Tensor) -> int:
    """Return the pixels of one picture of a batch."""
    return math.prod(batch.shape[2:])
