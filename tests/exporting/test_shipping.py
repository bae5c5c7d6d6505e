"""`striate.export`: what it proves is true of the file, and a file that is not true is never there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import striate
from striate import shipping
from striate.data.builtin import load_named
from striate.errors import DataError, MissingExtra, UsageError, VerificationError, WriteFailed
from striate.exporting import onnx as exporting
from striate.exporting import parity
from striate.files import sha256_file

DIGITS = load_named("digits").train


@pytest.fixture(autouse=True)
def few_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "ROUNDS", 3)


@pytest.fixture(scope="module")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("file") / "digits.onnx"
    return path, striate.export(digits_run, out=path)


def test_the_record_is_true_of_the_file(digits_run: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    path, record = exported
    assert record["file"] == str(path) and record["run"] == digits_run.name and record["int8"] is None
    assert (record["bytes"], record["sha256"]) == (path.stat().st_size, sha256_file(path))
    assert record["pictures"] == {"data": "digits", "split": "validation", "count": 153}
    assert record["agreement"] == 1.0 and record["tolerance"]["probability"] == 1e-5
    assert 0 <= record["largest_difference"]["probability"] <= 1e-5
    wanted = striate.evaluate(digits_run, split="validation", device="cpu")["top1"]["value"]
    assert record["accuracy"] == {"torch": pytest.approx(wanted), "onnxruntime": pytest.approx(wanted)}
    assert set(record["latency_ms"]) == {"torch", "onnxruntime"} and record["load_seconds"] > 0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_file_answers_as_the_run_in_every_way(digits_run: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    path, _ = exported
    run, file = striate.load(digits_run, device="cpu"), striate.load(path)
    assert np.abs(run.logits(DIGITS.images) - file.logits(DIGITS.images)).max() < 1e-4
    pictures = [image[..., 0] for image in DIGITS.images[:200]]
    for one, other in zip(run.predict(pictures), file.predict(pictures), strict=True):
        assert one.label == other.label
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-5)
    numbers = striate.evaluate(path, data="digits", split="train")
    assert numbers["top1"]["value"] == pytest.approx((run.logits(DIGITS.images).argmax(1) == DIGITS.labels).mean())
    with pytest.raises(UsageError, match="is a model alone"):
        striate.evaluate(path)


def with_a_broken_weight(build: Any, amount: float) -> Any:
    """Return `build_graph` whose graph has one weight of one layer changed."""

    def broken(*arguments: Any) -> onnx.ModelProto:
        model = build(*arguments)
        tensor = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] += amount
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        del model.metadata_props[-1]  # of the graph's digest: the proof has to see it, not the reader
        return model

    return broken


@pytest.mark.parametrize("amount", [0.5, float("nan")])
@pytest.mark.parametrize("int8", [False, True])
def test_one_broken_weight_and_no_file_is_there(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amount: float, int8: bool
) -> None:
    monkeypatch.setattr(shipping, "build_graph", with_a_broken_weight(exporting.build_graph, amount))
    with pytest.raises(VerificationError, match="does not answer as run does") as caught:
        striate.export(digits_run, out=tmp_path / "m.onnx", int8=int8)
    assert caught.value.exit_code == 5 and "at most 1e-05 is rounding" in caught.value.cause
    assert not caught.value.record["largest_difference"]["probability"] <= 1e-5
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_where_the_proof_fails(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    with pytest.raises(UsageError, match="is there already"):
        striate.export(digits_run, out=path)
    monkeypatch.setattr(shipping, "build_graph", with_a_broken_weight(exporting.build_graph, 0.5))
    with pytest.raises(VerificationError):
        striate.export(digits_run, out=path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"] and path.read_bytes() == b"before"


def test_int8_says_what_it_costs_and_is_refused_beyond_a_limit(digits_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    record = striate.export(digits_run, out=path, int8=True, calibration=100)
    told = record["int8"]
    assert told["calibration"] == 100 and told["most_loss"] == 0.02
    assert told["accuracy_lost"] == pytest.approx(record["accuracy"]["onnxruntime"] - record["accuracy"]["int8"])
    assert told["largest_difference"]["probability"] > 1e-5 >= record["largest_difference"]["probability"]
    assert record["bytes"] == path.stat().st_size < told["float32_bytes"]
    assert set(record["latency_ms"]) == {"torch", "onnxruntime", "int8"}
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    split = striate.evaluate(path, data="digits", split="train")["top1"]["value"]
    assert split == pytest.approx(striate.evaluate(digits_run, split="train")["top1"]["value"], abs=0.03)


def test_int8_that_costs_too_much_leaves_no_file(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantise = shipping.quantise
    # Ranges measured on black pictures say nothing of real ones.
    monkeypatch.setattr(shipping, "quantise", lambda model, pictures: quantise(model, np.zeros_like(pictures)))
    with pytest.raises(VerificationError, match="points of accuracy are lost") as caught:
        striate.export(digits_run, out=tmp_path / "m.onnx", int8=True)
    assert caught.value.exit_code == 5 and caught.value.record["int8"]["accuracy_lost"] > 0.02
    assert list(tmp_path.iterdir()) == []


def test_a_packed_run_answers_bit_for_bit(digits_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "digits.safetensors"
    record = striate.export(digits_run, to="striate", out=path)
    assert (record["bytes"], record["sha256"]) == (path.stat().st_size, sha256_file(path))
    run, file = striate.load(digits_run, device="cpu"), striate.load(path, device="cpu")
    assert np.array_equal(run.logits(DIGITS.images[:300]), file.logits(DIGITS.images[:300]))
    assert striate.evaluate(path, data="digits", split="train", device="cpu")["samples"] == len(DIGITS)
    again = striate.export(path, to="striate", out=tmp_path / "again.safetensors")
    assert again["bytes"] == record["bytes"]
    proved = striate.export(path, data="digits", out=tmp_path / "m.onnx", pictures=50)
    assert proved["pictures"] == {"data": "digits", "split": "train", "count": 50}


def test_a_packed_file_that_reads_as_another_is_not_named(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = shipping.pack_model
    monkeypatch.setattr(
        shipping, "pack_model", lambda card, tensors: pack(card, {k: v + 1 for k, v in tensors.items()})
    )
    with pytest.raises(VerificationError, match="reads as another model"):
        striate.export(digits_run, to="striate", out=tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


class Own(nn.Module):
    """A net of the user's own that takes a view of its maps and ends in a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.pool, self.head, self.end = nn.AdaptiveAvgPool2d(2), nn.Linear(16, 2), nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.conv(x))))
        return self.end(self.head(x.view(x.size(0), -1)))


def test_a_net_of_ones_own_trained_on_arrays(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 7, 1), dtype=np.uint8)
    data = (images, np.arange(60) % 2)
    loss = {"loss": "binary-cross-entropy", "validation": 0}
    run = striate.train(
        data, model=Own, epochs=1, batch_size=10, device="cpu", quiet=True, out=tmp_path / "run", **loss
    )
    with pytest.raises(UsageError, match="your own class Own"):
        striate.export(run.folder)
    with pytest.raises(UsageError, match="trained on arrays"):
        striate.export(run.folder, model=Own)
    record = striate.export(run.folder, model=Own, data=data)
    assert record["pictures"]["split"] == "test" and record["file"] == str(tmp_path / "run" / "model.onnx")
    wanted = striate.load(run.folder, model=Own, device="cpu").predict(list(images))
    for one, other in zip(wanted, striate.load(tmp_path / "run" / "model.onnx").predict(list(images)), strict=True):
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-5)
    striate.export(run.folder, to="striate")
    packed = striate.load(tmp_path / "run" / "model.safetensors", model=Own, device="cpu")
    assert packed.predict(images[0]).probabilities == pytest.approx(wanted[0].probabilities, abs=1e-6)


def test_what_is_missing_is_told(digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingExtra, match="cannot export") as caught:
        striate.export(digits_run, out=tmp_path / "m.onnx")
    assert "onnxscript" in caught.value.cause and caught.value.fix == "pip install 'striate[export]'"
    striate.export(digits_run, to="striate", out=tmp_path / "m.safetensors")  # needs none of it


def test_what_cannot_be_is_refused_before_anything_is_written(digits_run: Path, tmp_path: Path) -> None:
    for settings in (
        {"to": "onnx", "out": "m.safetensors"},
        {"to": "striate", "out": "m.onnx"},
        {"to": "striate", "int8": True},
        {"pictures": 0},
        {"to": "tflite"},
    ):
        with pytest.raises(UsageError):
            striate.export(digits_run, **settings)
    with pytest.raises(UsageError, match="unknown run"):
        striate.export(tmp_path / "nothing")
    with pytest.raises(WriteFailed):
        striate.export(digits_run, to="striate", out=tmp_path / "no folder" / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_not_exported(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    weights = tmp_path / "run" / "weights" / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    for to in ("onnx", "striate"):
        with pytest.raises(DataError, match="damaged"):
            striate.export(tmp_path / "run", to=to)
        assert not list((tmp_path / "run").glob("model.[os]*")) and not list((tmp_path / "run").glob(".*.tmp"))
