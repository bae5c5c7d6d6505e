"""Tensors on disk: safetensors only, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from striate.errors import DataError
from striate.files import sha256_bytes, write_bytes


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write tensors atomically and return the file's SHA-256.

    safetensors takes no channels-last or shared memory, so each tensor is written as a contiguous copy of its own.
    """
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    content = save(plain, metadata={"format": "pt", **(metadata or {})})
    write_bytes(path, content)
    return sha256_bytes(content)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a file onto the CPU. Raises DataError naming the file where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "the weights were not saved or were moved", "train again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read", str(error), "the file is damaged; restore it or train again"
        ) from error
