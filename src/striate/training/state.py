"""The state of a learner as named tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from striate.errors import DataError
from striate.training.loop import Learner


def state_tensors(learner: Learner) -> dict[str, Tensor]:
    """Return the net (net.…), the optimizer (optimizer.<parameter number>.…) and the average (ema.…) as tensors."""
    tensors = {f"net.{name}": tensor for name, tensor in learner.net.state_dict().items()}
    for number, parameter in enumerate(learner.parameters):
        for name, value in learner.optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    if learner.average is not None:
        tensors.update({f"ema.{name}": tensor for name, tensor in learner.average.state.items()})
    return tensors


def load_state(learner: Learner, tensors: Mapping[str, Tensor]) -> None:
    """Put named tensors back into a learner.

    Optimizer state is copied into memory laid out as its parameter is: the fused kernels walk parameter, gradient
    and state side by side and would read a foreign layout in the wrong order, in silence.
    Raises DataError where names or shapes do not fit.
    """
    own = {f"net.{name}": tensor for name, tensor in learner.net.state_dict().items()}
    if learner.average is not None:
        own.update({f"ema.{name}": tensor for name, tensor in learner.average.state.items()})
    saved = {name for name in tensors if not name.startswith("optimizer.")}
    wrong = sorted(saved ^ set(own)) or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise DataError("the checkpoint does not fit the net", ", ".join(wrong[:5]), "resume with the same net")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        for number, parameter in enumerate(learner.parameters):
            prefix = f"optimizer.{number}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            learner.optimizer.state[parameter] = {name: _like(parameter, value) for name, value in state.items()}


def first_non_finite(learner: Learner, tensors: Mapping[str, Tensor]) -> str | None:
    """Name the first weight, average or optimizer state that is not finite; buffers may hold what they like."""
    buffers = {name for name, _ in learner.net.named_buffers()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and name.partition(".")[2] not in buffers and not bool(tensor.isfinite().all()):
            return name
    return None


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    if value.shape == parameter.shape and value.ndim > 0:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    # The step counter, which the fused kernels want beside the weights.
    return value.to(parameter.device if parameter.is_cuda else "cpu", copy=True)
