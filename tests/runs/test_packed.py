"""A model in one file: it holds what the run holds, and what a stranger wrote into it gets no further than a check."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import striate
from striate.data.preprocess import Preprocess
from striate.errors import DataError, StriateError
from striate.files import sha256_file
from striate.predictor.nets import load_net
from striate.runs.model_file import ModelCard, card_text, document_digest
from striate.runs.packed import KEY, open_model, open_packed, pack_model
from striate.runs.tensors import data_digest, pack_tensors


def make() -> tuple[ModelCard, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    net = striate.create_model("three-conv", 3, 1, 8)
    card = ModelCard(
        "three-conv", "ThreeConv", {}, 3, 1, (8, 8), ["a", "b", "ç"], Preprocess((8, 8), channels=1).to_json(),
        "sigmoid", 1.25, {"file": "weights/best.safetensors", "sha256": "0" * 64, "epoch": 4}, {"macs": 5}, "CC0",
    )  # fmt: skip
    return card, dict(net.state_dict())


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack_model(*make()))
    return path


def test_it_holds_what_the_run_holds(packed: Path) -> None:
    card, tensors = make()
    stored = open_model(packed)
    assert stored.packed and stored.name == "model"
    assert dataclasses.replace(stored.card, weights=card.weights) == card
    assert stored.card.weights == {"file": "here", "sha256": data_digest(packed.read_bytes()), "epoch": 4}
    read = stored.read()
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)
    net = load_net(stored).state_dict()
    assert all(torch.equal(net[name], tensors[name]) for name in tensors)
    predictor = striate.load(packed, device="cpu")
    assert (predictor.output, predictor.temperature, predictor.classes) == ("sigmoid", 1.25, ("a", "b", "ç"))
    assert pack_model(*make()) == packed.read_bytes()


def test_the_digest_that_is_expected_is_that_of_the_file(packed: Path) -> None:
    digest = sha256_file(packed)
    striate.load(packed, device="cpu", expect_sha256=digest.upper())
    for wrong in ("0" * 64, open_packed(packed).card.weights["sha256"]):
        with pytest.raises(DataError, match="not the file that was expected"):
            striate.load(packed, device="cpu", expect_sha256=wrong)


def test_every_bit_counts(packed: Path) -> None:
    """A bit turned anywhere is found, or changes nothing that is read."""
    whole = packed.read_bytes()
    card, tensors = open_packed(packed).card, open_packed(packed).read()
    for place in range(0, len(whole), 211):
        packed.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            stored = open_packed(packed)
            read = stored.read()
        except DataError:
            continue
        assert stored.card == card and all(torch.equal(read[name], tensors[name]) for name in tensors), place


def rewritten(content: bytes, change: Callable[[dict[str, Any]], Any], redo: bool = True) -> bytes:
    """Return a packed file with its card changed; `redo`: with the digest of the changed card."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"][KEY])
    change(document)
    if redo:
        document["sha256"] = document_digest(document)
    header["__metadata__"][KEY] = json.dumps(document)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


CARDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another net": lambda card: card["model"].update(name="lenet5"),
    "an unknown net": lambda card: card["model"].update(name="os.system"),
    "a net in a file": lambda card: card["model"].update(name="net.py:MyNet"),
    "more classes": lambda card: card["model"].update(num_classes=10**9),
    "huge options": lambda card: card["model"].update(options={"width": 10**9}),
    "other weights": lambda card: card["weights"].update(file="weights/best.safetensors"),
    "weights elsewhere": lambda card: card["weights"].update(file="../../etc/passwd"),
    "another digest": lambda card: card["weights"].update(sha256="0" * 64),
    "no weights": lambda card: card.pop("weights"),
    "a newer format": lambda card: card.update(format=2),
    "one entry more": lambda card: card.update(code="x"),
    "no std": lambda card: card["preprocess"].update(std=[0.0]),
    "no temperature": lambda card: card.update(temperature=0),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_card_that_lies_is_refused(packed: Path, case: str) -> None:
    packed.write_bytes(rewritten(packed.read_bytes(), CARDS[case]))
    with pytest.raises(DataError) as caught:
        striate.load(packed, device="cpu")
    assert str(packed) in caught.value.what


def test_a_card_changed_by_hand_is_refused(packed: Path) -> None:
    packed.write_bytes(rewritten(packed.read_bytes(), lambda card: card.update(temperature=2.0), redo=False))
    with pytest.raises(DataError, match="damaged, or someone changed it"):
        open_packed(packed)


def bare(tensors: dict[str, torch.Tensor], text: str | None) -> bytes:
    return pack_tensors(tensors, {} if text is None else {KEY: text})


def contents() -> dict[str, bytes]:
    card, tensors = make()
    whole = pack_model(card, tensors)
    infinite = {**tensors, "fc.bias": torch.full((3,), float("inf"))}
    odd = json.dumps({"__metadata__": {KEY: [1]}}).encode()
    return {
        "empty": b"",
        "text": b"weights " * 40,
        "cut": whole[:-1],
        "longer": whole + b"\0",
        "without a card": bare(tensors, None),
        "a card of no JSON": bare(tensors, "{"),
        "a deep card": bare(tensors, "[" * 100_000),
        "a list as card": bare(tensors, "[]"),
        "a card of a run": bare(tensors, card_text(card)),
        "a card that is no text": struct.pack("<Q", len(odd)) + odd,
        "not finite": pack_model(card, infinite),
        "missing": pack_model(card, dict(list(tensors.items())[1:])),
        "one tensor more": pack_model(card, {**tensors, "more": torch.zeros(1)}),
        "other shapes": pack_model(card, {**tensors, "fc.bias": torch.zeros(4)}),
        "half": pack_model(card, {name: tensor.half() for name, tensor in tensors.items()}),
    }


@pytest.mark.parametrize("case", contents())
def test_files_that_are_no_model_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(contents()[case])
    with pytest.raises(DataError):
        striate.load(path, device="cpu")


def test_nothing_is_built_for_weights_that_do_not_fit(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed.write_bytes(contents()["missing"])
    monkeypatch.setattr("striate.predictor.nets.build_net", None)
    with pytest.raises(DataError, match="does not fit the net"):
        striate.load(packed, device="cpu")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StriateError, match="is missing"):
        striate.load(tmp_path / "nothing.safetensors")
