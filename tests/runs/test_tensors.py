"""Tensors on disk: any layout goes in, the same numbers come out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from striate.errors import DataError
from striate.files import sha256_file
from striate.runs.tensors import Described, read_header, read_tensors, write_tensors


def test_every_layout_and_kind_comes_back(tmp_path: Path) -> None:
    random = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    shared = torch.arange(6.0)
    tensors = {
        "channels last": random.to(memory_format=torch.channels_last),
        "transposed": random.transpose(1, 3),
        "part": shared[2:4],
        "whole": shared,
        "again": shared,
        "counter": torch.tensor(7),
        "gradient": torch.ones(2, requires_grad=True),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "none": torch.empty(0, 3),
    }
    digest = write_tensors(tmp_path / "t.safetensors", tensors)
    assert digest == sha256_file(tmp_path / "t.safetensors")
    back = read_tensors(tmp_path / "t.safetensors")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype and back[name].shape == tensor.shape


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, 2)}
    assert write_tensors(tmp_path / "one", tensors) == write_tensors(tmp_path / "two", dict(reversed(tensors.items())))


@pytest.mark.parametrize("content", [b"", b"not a tensor file at all", b"\xff" * 100])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.safetensors cannot be read"):
        read_tensors(path)


def test_a_cut_file_and_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        read_tensors(path)
    with pytest.raises(DataError, match="is missing"):
        read_tensors(tmp_path / "gone")


def test_a_header_tells_what_is_there_without_loading_it(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"b": torch.ones(2, 3), "a": torch.tensor(7), "c": torch.empty(0, 3)})
    described = read_header(path)
    assert described["a"] == Described(torch.int64, (), *(described["a"].first, described["a"].first + 8))
    assert described["b"].shape == (2, 3) and described["c"].shape == (0, 3)
    assert [(entry.dtype, entry.shape) for entry in described.values()] == [
        (tensor.dtype, tuple(tensor.shape)) for tensor in (read_tensors(path)[name] for name in described)
    ]


def test_what_another_writer_wrote_is_read(tmp_path: Path) -> None:
    tensors = {"x": torch.rand(3, 2), "flag": torch.tensor([True, False]), "h": torch.rand(5).half()}
    save_file(tensors, tmp_path / "t.safetensors", metadata={"note": "theirs"})
    back = read_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items()) and back.keys() == tensors.keys()


def test_only_the_file_of_the_digest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    digest = write_tensors(path, {"a": torch.ones(100), "b": torch.zeros(3)})
    assert torch.equal(read_tensors(path, digest)["a"], torch.ones(100))
    content = path.read_bytes()
    generator = random.Random(0)
    for _ in range(60):
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(DataError):
            read_tensors(path, digest)
