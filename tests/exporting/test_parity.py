"""The proof: what is compared, in which batches, and that no difference and no number that is none passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from striate.errors import VerificationError
from striate.exporting.parity import Answers, ask_session, compare, is_same, latencies, open_session, tolerances


def answers(*logits: list[float]) -> Answers:
    scores = np.array(logits, np.float32)
    raised = np.exp(scores)
    return Answers(raised / raised.sum(1, keepdims=True), scores)


class Session:
    """Stands for onnxruntime's: answers with the mean of each picture, and notes how many it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def run(self, outputs: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs == ["probabilities", "logits"]
        pictures = given["images"]
        self.asked.append(len(pictures))
        means = pictures.mean((1, 2, 3))[:, None]
        return [means, -means]


@pytest.mark.parametrize(("count", "asked"), [(1, [1]), (2, [1, 1]), (10, [1, 2, 7]), (150, [1, 2, 7, 64, 64, 12])])
def test_every_picture_is_asked_once_and_in_order(count: int, asked: list[int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 3, 1), dtype=np.uint8)
    session = Session()
    found = ask_session(session, images)
    assert session.asked == asked
    assert np.array_equal(found.probabilities[:, 0], images.mean((1, 2, 3)))
    assert np.array_equal(found.logits, -found.probabilities)


def test_what_is_compared() -> None:
    wanted = answers([1.0, 2.0], [3.0, 0.0], [0.0, 0.0])
    compared = compare(wanted, answers([1.0, 2.0], [3.0, 0.0], [0.0, 0.5]))
    assert compared["agreement"] == pytest.approx(2 / 3)
    assert compared["largest_difference"]["logit"] == 0.5
    assert compared["largest_difference"]["probability"] == pytest.approx(1 / (1 + np.exp(-0.5)) - 0.5)
    assert not is_same(compared, tolerances(wanted))
    assert is_same(compare(wanted, wanted), tolerances(wanted))


def test_a_shift_of_all_logits_does_not_pass_though_no_probability_changes() -> None:
    wanted = answers([1.0, 2.0], [3.0, 0.0])
    shifted = Answers(wanted.probabilities, wanted.logits + 0.01)
    assert compare(wanted, shifted)["largest_difference"]["probability"] == 0
    assert not is_same(compare(wanted, shifted), tolerances(wanted))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_does_not_pass(broken: float) -> None:
    wanted = answers([1.0, 2.0], [3.0, 0.0])
    for name in ("probabilities", "logits"):
        found = answers([1.0, 2.0], [3.0, 0.0])
        getattr(found, name)[1, 1] = broken
        assert not is_same(compare(wanted, found), tolerances(wanted))


def test_logits_are_measured_by_the_largest() -> None:
    assert tolerances(answers([0.1, 0.2]))["logit"] == pytest.approx(1e-4)
    assert tolerances(answers([-50.0, 20.0])) == {"probability": 1e-5, "logit": pytest.approx(5e-3)}


def test_other_shapes_are_refused() -> None:
    with pytest.raises(VerificationError, match="shapes"):
        compare(answers([1.0, 2.0]), answers([1.0, 2.0, 3.0]))


def fixed_to(count: int) -> bytes:
    """A graph that takes `count` pictures and no other number."""
    shape = [count, 2, 2, 1]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["x"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "fixed",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, 4]) for name in ("probabilities", "logits")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


def test_a_graph_for_one_number_of_pictures_alone_is_found_out() -> None:
    images = np.zeros((30, 2, 2, 1), np.uint8)
    for count in (1, 2, 64):
        with pytest.raises(VerificationError, match="cannot run"):
            ask_session(open_session(fixed_to(count), 1), images)


def test_what_is_no_graph_is_told() -> None:
    model = onnx.load_from_string(fixed_to(1))
    model.graph.node[0].op_type = "Cost"
    for content in (b"", b"text", model.SerializeToString()):
        with pytest.raises(VerificationError, match="cannot be loaded") as caught:
            open_session(content, 1)
        assert caught.value.cause


def test_sides_are_timed_in_turn_in_batches_of_1_and_64() -> None:
    asked: list[tuple[str, int]] = []

    def side(name: str) -> Any:
        return lambda pictures: asked.append((name, len(pictures)))

    told = latencies({"a": side("a"), "b": side("b")}, np.zeros((3, 2, 2, 1), np.uint8))
    assert set(told) == {"a", "b"} and set(told["a"]) == {"1", "64"}
    assert {count for _, count in asked} == {1, 64}
    assert [name for name, _ in asked] == ["a", "b"] * (len(asked) // 2)
    assert all(0 <= row["low"] <= row["median"] <= row["high"] for row in told["b"].values())
