"""model.json and its weights: a round trip, and everything that is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.preprocess import Preprocess
from striate.errors import DataError, UsageError
from striate.models import create_model
from striate.predictor.nets import load_net
from striate.runs import model_file
from striate.runs.folder import RunFolder
from striate.runs.model_file import (
    MOST_CHANNELS,
    MOST_CLASSES,
    MOST_IN_OPTION,
    ModelCard,
    read_card,
    read_weights,
    size_problem,
    write_card,
)
from striate.runs.packed import model_of_run
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
        *("format", "model", "classes", "preprocess", "output", "temperature", "weights", "metrics", "licence"),
        "sha256",
    }
    assert set(value["model"]) == {"name", "class", "options", "num_classes", "in_channels", "input_size"}
    assert value["model"]["input_size"] == [28, 32] and set(value["weights"]) == {"file", "sha256", "epoch"}


def test_a_card_that_was_changed_says_so_unless_its_digest_is_taken_out(tmp_path: Path) -> None:
    path = written(tmp_path) / "model.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for value in ({**document, "temperature": 1.5}, {**document, "sha256": "0" * 64}, {**document, "sha256": None}):
        path.write_text(json.dumps(value), encoding="utf-8")
        with pytest.raises(DataError, match="someone changed it") as caught:
            read_card(tmp_path)
        assert "model.json" in caught.value.what
    path.write_text(json.dumps({**document, "sha257": document.pop("sha256")}), encoding="utf-8")
    with pytest.raises(DataError, match="an entry 'sha257', which no card has"):
        read_card(tmp_path)
    path.write_text(json.dumps({**document, "temperature": 1.5}), encoding="utf-8")
    assert read_card(tmp_path).temperature == 1.5


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
        ("model.in_channels", MOST_CHANNELS + 1, "in_channels is 1025"),
        ("model.input_size", [28, 5000], "input_size is 5000"),
        ("model.class", 3, "no name and class"),
        ("model.options", {"hidden": [10**9]}, "option 'hidden' is out of range"),
        ("classes", ["a", "a", "b"], "stands in it twice"),
        ("classes", ["a", "", "b"], "list of names"),
        ("preprocess.size", [28, 28], "preprocess makes pictures of"),
        ("preprocess.fit", "bend", "unknown fit"),
        ("metrics.macs", "many", "no numbers"),
        ("licence", 5, "no text"),
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


def test_a_run_is_loaded_only_with_the_digest_that_is_expected(tmp_path: Path) -> None:
    net = create_model("lenet5", 3, 1, (28, 32))
    (tmp_path / "weights").mkdir()
    digest = write_tensors(tmp_path / "weights" / "best.safetensors", net.state_dict())
    card = dataclasses.replace(CARD, options={}, weights={**CARD.weights, "sha256": digest})
    for expected in (None, digest, digest.upper()):
        loaded = load_net(model_of_run(RunFolder(tmp_path), card), expect_sha256=expected)
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(DataError, match="not the file that was expected") as caught:
        load_net(model_of_run(RunFolder(tmp_path), card), expect_sha256="0" * 64)
    assert digest in caught.value.cause


def test_weights_are_compared_with_the_net_before_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path)
    card = dataclasses.replace(CARD, options={}, weights=read_card(folder).weights)
    monkeypatch.setattr("striate.predictor.nets.build_net", None)
    with pytest.raises(DataError, match="does not fit the net") as caught:
        load_net(model_of_run(RunFolder(folder), card))
    assert "missing: conv1.bias, conv1.weight" in caught.value.cause and "not in the net: a, n" in caught.value.cause


def test_a_net_of_the_users_own_has_to_answer_with_one_number_a_class(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 32, 4))
    (tmp_path / "weights").mkdir()
    digest = write_tensors(tmp_path / "weights" / "best.safetensors", net.state_dict())
    card = dataclasses.replace(CARD, name=None, options={}, weights={**CARD.weights, "sha256": digest})
    with pytest.raises(UsageError, match="4"):
        load_net(model_of_run(RunFolder(tmp_path), card), net)


def test_an_older_format_is_brought_up_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Format 0 was never written; here its model says `arch`, and -1 says `net`."""

    def from_0(value: dict[str, Any]) -> dict[str, Any]:
        model = dict(value["model"])
        return {**value, "model": {**model, "name": model.pop("arch")}}

    def from_minus_1(value: dict[str, Any]) -> dict[str, Any]:
        model = dict(value["model"])
        return {**value, "model": {**model, "arch": model.pop("net")}}

    value = dataclasses.replace(CARD, weights={**CARD.weights, "sha256": "ab"}).to_json()
    value["model"]["net"] = value["model"].pop("name")
    value["format"] = -1
    (tmp_path / "model.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match="has format -1"):
        read_card(tmp_path)
    monkeypatch.setattr(model_file, "MIGRATIONS", {0: from_0, -1: from_minus_1})
    assert read_card(tmp_path).name == "lenet5"


@pytest.mark.parametrize("value", [True, "1", 1.0, None, [1]])
def test_a_format_is_a_whole_number(tmp_path: Path, value: Any) -> None:
    (tmp_path / "model.json").write_text(json.dumps({**CARD.to_json(), "format": value}), encoding="utf-8")
    with pytest.raises(DataError, match="not a model card"):
        read_card(tmp_path)


def test_sizes_that_may_be_built() -> None:
    assert size_problem(MOST_CLASSES, MOST_CHANNELS, (4096, 4096), {"hidden": [4096] * 100, "pool": "max"}) == ""
    assert size_problem(1, 1, (1, 1), {"hidden": "4096,4096", "whitening": False, "dropout": 0.5, "a": None}) == ""
    for options in (
        {"a": MOST_IN_OPTION + 1},
        {"a": -1e9},
        {"a": "1_000_000"},
        {"a": [1] * 101},
        {"": 1},
        {"a": {}},
        [],
    ):
        assert size_problem(2, 1, (8, 8), options)
    for sizes in ((0, 1, (8, 8)), (2, True, (8, 8)), (2, 1, (8, 0)), (2, 1, (8, 8.0)), (MOST_CLASSES + 1, 1, (8, 8))):
        assert size_problem(*sizes, {})


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_card_with_any_byte_changed_is_read_or_refused(data: st.DataObject) -> None:
    """Nothing but DataError: what is read keeps every rule of a card."""
    content = bytearray(
        json.dumps(dataclasses.replace(CARD, weights={**CARD.weights, "sha256": "ab"}).to_json()).encode()
    )
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(32, 126))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.json").write_bytes(content)
        with contextlib.suppress(DataError):
            assert read_card(Path(folder)).problem() == ""
