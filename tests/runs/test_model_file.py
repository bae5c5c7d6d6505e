"""model.json and its weights: a round trip, and everything that is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from striate.data.preprocess import Preprocess
from striate.errors import DataError
from striate.runs.model_file import ModelCard, read_card, read_weights, write_card
from striate.runs.tensors import write_tensors

CARD = ModelCard(
    name="lenet5",
    class_name="LeNet5",
    options={"activation": "relu", "hidden": [4, 5]},
    num_classes=3,
    in_channels=1,
    input_size=(28, 32),
    classes=["猫", "no", "1e3"],
    preprocess=Preprocess((28, 32), "crop", 1, (33.318,), (78.567,)).to_json(),
    output="softmax",
    temperature=1.25,
    weights={"file": "weights/best.safetensors", "sha256": "", "epoch": 4},
    metrics={"test_accuracy": 0.99},
    licence="CC0",
)


def written(folder: Path, **changed: Any) -> Path:
    (folder / "weights").mkdir()
    digest = write_tensors(folder / "weights" / "best.safetensors", {"a": torch.ones(2, 3), "n": torch.tensor(3)})
    weights = {**CARD.weights, "sha256": digest, **changed}
    write_card(folder, dataclasses.replace(CARD, weights=weights))
    return folder


def test_round_trip(tmp_path: Path) -> None:
    write_card(tmp_path, dataclasses.replace(CARD, weights={**CARD.weights, "sha256": "ab"}))
    back = read_card(tmp_path)
    assert back == dataclasses.replace(CARD, weights={**CARD.weights, "sha256": "ab"})
    assert Preprocess.from_json(back.preprocess) == Preprocess((28, 32), "crop", 1, (33.318,), (78.567,))


def test_the_fields_are_those_of_the_format(tmp_path: Path) -> None:
    value = json.loads((written(tmp_path) / "model.json").read_text(encoding="utf-8"))
    assert value["format"] == 1
    assert set(value) == {
        *("format", "model", "classes", "preprocess", "output", "temperature", "weights", "metrics", "licence")
    }
    assert set(value["model"]) == {"name", "class", "options", "num_classes", "in_channels", "input_size"}
    assert value["model"]["input_size"] == [28, 32] and set(value["weights"]) == {"file", "sha256", "epoch"}


def set_in(value: dict[str, Any], path: str, new: Any) -> None:
    *way, last = path.split(".")
    for key in way:
        value = value[key]
    if new is None:
        del value[last]
    else:
        value[last] = new


@pytest.mark.parametrize(
    ("path", "new", "sentence"),
    [
        ("format", 2, "has format 2"),
        ("format", None, "not a model card"),
        ("model", None, "not a model card"),
        ("model", 5, "not a model card"),
        ("model.input_size", [28], "not a model card"),
        ("model.num_classes", "many", "not a model card"),
        ("model.options", [1, 2], "not a model card"),
        ("classes", ["a", "b"], "names 2 classes for a net of 3"),
        ("output", "relu", "not softmax or sigmoid"),
        ("temperature", 0, "not a number above 0"),
        ("temperature", "warm", "not a number above 0"),
        ("weights", [], "weights do not name a file"),
        ("weights.sha256", None, "weights do not name a file"),
    ],
)
def test_cards_that_are_refused(tmp_path: Path, path: str, new: Any, sentence: str) -> None:
    value = CARD.to_json()
    set_in(value, path, new)
    (tmp_path / "model.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match=sentence) as caught:
        read_card(tmp_path)
    assert "model.json" in caught.value.what


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x80"])
def test_files_that_are_no_card(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"model\.json"):
        read_card(tmp_path)


def test_a_run_without_a_model_yet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.json is missing") as caught:
        read_card(tmp_path)
    assert "striate resume" in caught.value.fix


def test_weights_are_those_of_the_card(tmp_path: Path) -> None:
    folder = written(tmp_path)
    weights = read_weights(folder, read_card(folder))
    assert torch.equal(weights["a"], torch.ones(2, 3)) and int(weights["n"]) == 3


def test_another_digest_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    write_tensors(folder / "weights" / "best.safetensors", {"a": torch.zeros(2, 3), "n": torch.tensor(3)})
    with pytest.raises(DataError, match=r"best\.safetensors is damaged"):
        read_weights(folder, read_card(folder))


@pytest.mark.parametrize("name", ["../weights/best.safetensors", "/etc/passwd", "weights/../../secret", ".."])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path, file=name)
    with pytest.raises(DataError, match="outside its folder"):
        read_weights(folder, read_card(folder))


def test_missing_weights_and_weights_that_are_not_finite(tmp_path: Path) -> None:
    folder = written(tmp_path)
    digest = write_tensors(folder / "weights" / "best.safetensors", {"a": torch.tensor([1.0, float("nan")])})
    write_card(folder, dataclasses.replace(CARD, weights={**CARD.weights, "sha256": digest}))
    with pytest.raises(DataError, match="a holds values that are not finite"):
        read_weights(folder, read_card(folder))
    (folder / "weights" / "best.safetensors").unlink()
    with pytest.raises(DataError, match="is missing"):
        read_weights(folder, read_card(folder))
