"""Foreign weights: whatever a program saves of a state dict comes back as it was, or is refused."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from striate.errors import DataError, MissingExtra
from striate.files import sha256_file
from striate.runs import foreign
from striate.runs.foreign import check_torch, find_state, read_foreign, tell_form, without_prefix
from striate.runs.plain_pickle import NotPlain, check_pickle

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        torch.equal(one[name].nan_to_num(), two[name].nan_to_num()) and one[name].dtype == two[name].dtype
        for name in one
    )


def read(path: Path, value: Any, **options: Any) -> dict[str, torch.Tensor]:
    torch.save(value, path, **options)
    return read_foreign(path, 1 << 20)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "alexnet.model", "weights", "a.safetensors", "权重.bin"])
def test_the_name_of_a_file_does_not_matter(tmp_path: Path, name: str) -> None:
    state = dict(make_net().state_dict())
    assert equal(read(tmp_path / name, state), state)
    save_file(state, tmp_path / name)
    assert equal(read_foreign(tmp_path / name, 1 << 20), state)


def test_checkpoints_parameters_and_parallel_nets(tmp_path: Path) -> None:
    net = make_net()
    state = dict(net.state_dict())
    optimizer = torch.optim.Adam([{"params": net[0].parameters()}, {"params": net[3].parameters()}], lr=0.1)
    net(torch.rand(2, 1, 3, 3)).sum().backward()
    optimizer.step()
    rest = {"epoch": 3, "loss": 0.5, "best": None, "note": "名", "ok": True, "optimizer": optimizer.state_dict()}
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for word in foreign.WRAPPERS:
        assert equal(read(tmp_path / "a.pt", {**rest, word: net.state_dict()}), state)
    assert equal(read(tmp_path / "a.pt", nn.DataParallel(net).state_dict()), state)
    parameters = dict(net.named_parameters())
    assert equal(read(tmp_path / "a.pt", parameters), {name: value.detach() for name, value in parameters.items()})


def test_layouts_and_shared_storages(tmp_path: Path) -> None:
    shared = torch.arange(24.0)
    value = {
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "transposed": torch.rand(3, 4).T,
        "whole": shared,
        "part": shared[4:8],
        "view": shared.view(4, 6)[:, ::2],
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 3),
    }
    assert equal(read(tmp_path / "a.pt", value), value)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES)), min_size=1, max_size=6), st.integers(0, 999))
def test_any_state_dict_comes_back_as_torch_reads_it(
    kinds: list[tuple[tuple[int, ...], torch.dtype]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = {
        f"layer{number}.weight": (torch.randn(shape, generator=generator) * 50).to(dtype)
        for number, (shape, dtype) in enumerate(kinds)
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    oracle = torch.load(stream, weights_only=True)
    packed = foreign.zipfile.ZipFile(stream)
    members = foreign._check_members(packed, len(stream.getvalue()))
    mine = torch.load(foreign._pack(packed, members), weights_only=True)
    assert equal(mine, oracle) and equal(mine, state)


def test_a_flipped_bit_never_alters_a_value(tmp_path: Path) -> None:
    state = dict(make_net().state_dict())
    torch.save(state, tmp_path / "good.pt")
    content = (tmp_path / "good.pt").read_bytes()
    generator, refused = random.Random(0), 0
    for _ in range(300):
        place = generator.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.randrange(8)
        (tmp_path / "flipped.pt").write_bytes(flipped)
        try:
            found = read_foreign(tmp_path / "flipped.pt", 1 << 20)
        except DataError:
            refused += 1
        else:  # torch pads its archives: most bytes of a small one mean nothing
            assert equal(found, state), f"byte {place}"
    assert refused > 50


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    torch.save(make_net().state_dict(), tmp_path / "good.pt")
    content = (tmp_path / "good.pt").read_bytes()
    for length in [*range(0, len(content), len(content) // 25), len(content) - 1]:
        (tmp_path / "cut.pt").write_bytes(content[:length])
        with pytest.raises(DataError):
            read_foreign(tmp_path / "cut.pt", 1 << 20)


def test_what_torch_gets_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    load = torch.load

    def record(*given: Any, **options: Any) -> Any:
        asked.update(options, file=given)
        return load(*given, **options)

    monkeypatch.setattr(torch, "load", record)
    read(tmp_path / "a.pt", {"a": torch.ones(1)})
    (packed,) = asked.pop("file")
    assert isinstance(packed, io.BytesIO), "bytes that were checked, no file that could change"
    assert asked == {"map_location": "cpu", "weights_only": True, "mmap": False}


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cu121", "2.9.1"])
def test_a_torch_that_is_not_safe_is_refused(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(MissingExtra, match="too old") as caught:
        read(tmp_path / "a.pt", {"a": torch.ones(1)})
    assert "torch>=2.10" in caught.value.fix


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0+cpu", "2.14.1+cu130", "3.0.0a0+git12"])
def test_a_safe_torch(version: str) -> None:
    check_torch(version)


def test_sizes_and_digests(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(6 << 20)}, path)
    with pytest.raises(DataError, match="bytes") as caught:
        read_foreign(path, 1000)
    assert "16,777,216" in caught.value.cause
    digest = sha256_file(path)
    assert read_foreign(path, 24 << 20, digest.upper()).keys() == {"a"}
    with pytest.raises(DataError, match="not the file that was expected"):
        read_foreign(path, 24 << 20, "0" * 64)
    with pytest.raises(DataError, match="there is no file"):
        read_foreign(tmp_path / "gone.pt", 1)
    with pytest.raises(DataError, match="is no file"):
        read_foreign(tmp_path, 1)


@pytest.mark.parametrize(
    ("start", "form"),
    [
        (b"PK\x03\x04abc", "zip"),
        (b"\x08\0\0\0\0\0\0\0{", "safetensors"),
        (b"", "empty"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a bare pickle"),
        (b"\x1f\x8b\x08", "a compressed archive"),
        (b"hello", "no file of weights"),
    ],
)
def test_forms_are_told_by_content(start: bytes, form: str) -> None:
    assert tell_form(start).startswith(form)


def test_where_the_state_dict_stands() -> None:
    one = {"a": torch.ones(1)}
    assert find_state({"epoch": 1, "model": one}, Path("x")) == one
    for value in ({}, {"epoch": 1}, [one], {"weights": one}, {"model": one, "state_dict": one}, {1: torch.ones(1)}):
        with pytest.raises(DataError, match="state dict"):
            find_state(value, Path("x"))
    assert without_prefix({"module.a": one["a"]}) == one
    assert without_prefix({"module.a": one["a"], "b": one["a"]}).keys() == {"module.a", "b"}


def test_an_expanded_tensor_is_not_dense(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not weights alone") as caught:
        read(tmp_path / "a.pt", {"a": torch.ones(1).expand(1000)})
    assert "storage" in caught.value.cause


def test_many_instructions_are_refused() -> None:
    with pytest.raises(NotPlain, match="more than 200,000 instructions"):
        check_pickle(b"\x80\x02" + b"]" * 200_001 + b".", {})
