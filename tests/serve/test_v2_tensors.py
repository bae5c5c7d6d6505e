"""Bodies of the Open Inference Protocol: what a client writes is read, what is answered a client reads, all else is one
sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.serve.limits import Limits
from striate.serve.refusals import Refused, response_to
from striate.serve.v2_tensors import Ends, Question, Wanted, read_question, write_answer

http: Any = pytest.importorskip("tritonclient.http")

NAMES = ("猫", "ant: red", "b\nc")
ENDS = Ends("net", "1", (3, 2, 1), NAMES, 5)
CLIENT = http.InferenceServerClient


def entry(**changed: Any) -> dict[str, Any]:
    made = {"name": "images", "shape": [1, 3, 2, 1], "datatype": "UINT8", "data": [0, 1, 2, 3, 4, 255], **changed}
    return {name: value for name, value in made.items() if value is not None}


def read(request: Any, raw: bytes = b"", length: str | None = None) -> Question:
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    return read_question(text + raw, length or (str(len(text)) if raw else None), ENDS, Limits())


def refused(request: Any, raw: bytes = b"", length: str | None = None, status: int = 400) -> str:
    with pytest.raises(Refused) as caught:
        read(request, raw, length)
    assert caught.value.status == status
    told = json.loads(bytes(response_to(caught.value, "/v2/models/net/infer").body))["error"]
    assert isinstance(told, str) and told and len(told) < 300 and "\n" not in told
    return told


pictures = st.integers(1, 5).flatmap(
    lambda count: st.binary(min_size=6 * count, max_size=6 * count).map(
        lambda content: np.frombuffer(content, np.uint8).reshape(count, 3, 2, 1)
    )
)
outputs = st.lists(
    st.tuples(st.sampled_from(["probabilities", "logits"]), st.booleans(), st.integers(0, 4)),
    max_size=2,
    unique_by=lambda one: one[0],
)


@settings(deadline=None)
@given(pictures, st.booleans(), outputs, st.text(max_size=20), st.integers(0, 2**32 - 1))
def test_what_the_client_writes_is_read_and_what_it_gets_it_reads(
    images: np.ndarray, binary: bool, outputs: list[tuple[str, bool, int]], name: str, seed: int
) -> None:
    tensor = http.InferInput("images", list(images.shape), "UINT8").set_data_from_numpy(images, binary_data=binary)
    asked = [http.InferRequestedOutput(output, binary_data=raw, class_count=best) for output, raw, best in outputs]
    body, length = CLIENT.generate_request_body([tensor], outputs=asked, request_id=name)
    question = read_question(body, None if length is None else str(length), ENDS, Limits())
    assert question.images.dtype == np.uint8 and np.array_equal(question.images, images)
    assert question.id == (name or None)
    everything = [("probabilities", True, 0), ("logits", True, 0)]  # so the client asks where no output is named
    assert question.outputs == tuple(Wanted(*one) for one in outputs or everything)

    random = np.random.default_rng(seed)
    logits = random.normal(0, 10, (len(images), 3)).astype(np.float32)
    tensors = {"logits": logits, "probabilities": random.random((len(images), 3))}
    answer = write_answer(question, logits, tensors["probabilities"], ENDS)
    result = CLIENT.parse_response_body(answer.content, header_length=answer.json_length)
    said = result.get_response()
    assert said.get("id") == question.id and said["model_name"] == "net" and said["model_version"] == "1"
    assert [output["name"] for output in said["outputs"]] == [output for output, _, _ in outputs or everything]
    for output, _, best in outputs or everything:
        found, wanted = result.as_numpy(output), tensors[output].astype(np.float32)
        if not best:
            assert found.dtype == np.float32 and np.array_equal(found, wanted)
            continue
        assert found.shape == (len(images), min(best, 3))
        for row, texts in zip(wanted, found, strict=True):
            for place, text in zip(np.argsort(-row, kind="stable"), texts, strict=False):
                value, index, label = (text.decode() if isinstance(text, bytes) else text).split(":", 2)
                assert (np.float32(value), int(index), label) == (row[place], place, NAMES[place])


@given(pictures)
def test_json_may_be_nested_as_the_shape_or_flat_and_whole_numbers_may_have_a_point(images: np.ndarray) -> None:
    shape = list(images.shape)
    for data in (images.tolist(), images.ravel().tolist(), images.ravel().astype(float).tolist()):
        assert np.array_equal(read({"inputs": [entry(shape=shape, data=data)]}).images, images)


def test_a_body_of_one_picture_alone() -> None:
    question = read(b"abcdef", length="0")
    assert question.images.tobytes() == b"abcdef" and question.images.shape == (1, 3, 2, 1)
    assert question.outputs == (Wanted("probabilities", True), Wanted("logits", True))
    assert "6 bytes, and this one has 12" in refused(b"abcdef" * 2, length="0")


def test_outputs_as_json_by_default_and_raw_where_asked() -> None:
    assert read({"inputs": [entry()]}).outputs == (Wanted("probabilities"), Wanted("logits"))
    assert read({"inputs": [entry()], "outputs": []}).outputs == (Wanted("probabilities"), Wanted("logits"))
    request = {"inputs": [entry()], "parameters": {"binary_data_output": True}}
    assert read(request).outputs == (Wanted("probabilities", True), Wanted("logits", True))
    request["outputs"] = [{"name": "logits", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    assert read(request).outputs == (Wanted("logits", False), Wanted("probabilities", True))
    assert read({"inputs": [entry()], "parameters": {"timeout": 1500}}).seconds == 0.0015
    assert read({"inputs": [entry()], "parameters": {"timeout": 0}}).seconds is None


def test_whole_numbers_may_be_written_with_a_point() -> None:
    best = {"name": "logits", "parameters": {"classification": 2.0}}
    question = read({"inputs": [entry(shape=[1.0, 3, 2.0, 1])], "parameters": {"timeout": 2e6}, "outputs": [best]})
    assert question.images.shape == (1, 3, 2, 1) and question.seconds == 2 and question.outputs[0].best == 2
    raw = entry(data=None, parameters={"binary_data_size": 6.0})
    assert read({"inputs": [raw]}, b"abcdef").images.tobytes() == b"abcdef"


def test_an_id_comes_back_whatever_letters_it_has() -> None:
    question = read(b'{"id": "\\ud800\\u0000\\n", ' + json.dumps({"inputs": [entry()]}).encode()[1:])
    answer = write_answer(question, np.zeros((1, 3), np.float32), np.zeros((1, 3)), ENDS)
    assert json.loads(answer.content)["id"] == question.id == "\ud800\0\n"


def test_the_example_of_the_protocol_names_the_model_in_its_body() -> None:
    assert read({"model_name": "net", "model_version": "1", "inputs": [entry()]}).images.shape == (1, 3, 2, 1)
    assert "'other'" in refused({"model_name": "other", "inputs": [entry()]})


RAW = {"binary_data_size": 6}


@pytest.mark.parametrize(
    ("request_", "raw", "words"),
    [
        ([], b"", "the request is no JSON object"),
        ({}, b"", "the request has no 'inputs'"),
        ({"inputs": {}}, b"", "inputs is no list"),
        ({"inputs": []}, b"", "has 0 inputs"),
        ({"inputs": [entry(), entry()]}, b"", "has 2 inputs"),
        ({"inputs": [entry()], "input": 1}, b"", "the request has 'input'"),
        ({"inputs": [entry()], "id": 7}, b"", "id is no text"),
        ({"inputs": [entry()], "id": "x" * 300}, b"", "id is no text"),
        ({"inputs": ["x"]}, b"", "the input is no JSON object"),
        ({"inputs": [entry(name=None)]}, b"", "has no 'name'"),
        ({"inputs": [entry(name="image")]}, b"", "no input 'image'"),
        ({"inputs": [entry(name=["images"])]}, b"", "no input ['images']"),
        ({"inputs": [entry(datatype="FP32")]}, b"", "datatype 'FP32', and the model takes UINT8"),
        ({"inputs": [entry(shape=6)]}, b"", "is no list"),
        ({"inputs": [entry(shape=[3, 2, 1])]}, b"", "shape [3, 2, 1], and the model takes [N, 3, 2, 1]"),
        ({"inputs": [entry(shape=[1, 1, 3, 2])]}, b"", "the model takes [N, 3, 2, 1]"),
        ({"inputs": [entry(shape=[True, 3, 2, 1])]}, b"", "the model takes [N, 3, 2, 1]"),
        ({"inputs": [entry(shape=[1.5, 3, 2, 1])]}, b"", "the model takes [N, 3, 2, 1]"),
        ({"inputs": [entry(shape=[])]}, b"", "the model takes [N, 3, 2, 1]"),
        ({"inputs": [entry(shape=[-1, 3, 2, 1])]}, b"", "has -1 pictures"),
        ({"inputs": [entry(shape=[0, 3, 2, 1], data=[])]}, b"", "has 0 pictures"),
        ({"inputs": [entry(shape=[6, 3, 2, 1], data=[1] * 36)]}, b"", "a request may have 1 to 5"),
        ({"inputs": [entry(shape=[10**30, 3, 2, 1])]}, b"", "a request may have 1 to 5"),
        ({"inputs": [entry(shape=[2**64 + 1, 3, 2, 1])]}, b"", "a request may have 1 to 5"),
        ({"inputs": [entry(shape=[1] * 10_000)]}, b"", "the model takes [N, 3, 2, 1]"),
        ({"inputs": [entry(data=None)]}, b"", "neither data nor"),
        ({"inputs": [entry(data="AAAA")]}, b"", "is no list"),
        ({"inputs": [entry(data=[])]}, b"", "has 0 values, and its shape needs 6"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5])]}, b"", "has 5 values"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, 256])]}, b"", "has 256, and UINT8 holds 0 to 255"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, -1])]}, b"", "has -1, and"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, 10**400])]}, b"", "has a very large number"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, 0.5])]}, b"", "holds whole numbers"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, True])]}, b"", "are not all numbers"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, None])]}, b"", "are not all numbers"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, "6"])]}, b"", "are not all numbers"),
        ({"inputs": [entry(data=[1, 2, 3, 4, 5, [6]])]}, b"", "are not all numbers"),
        ({"inputs": [entry(data=[[1, 2], [3, 4], [5, 6]])]}, b"", "are not nested as its shape"),
        ({"inputs": [entry(data=[[[[1], [2]], [[3], [4]], [[5], 6]]])]}, b"", "are not nested as its shape"),
        ({"inputs": [entry(data=[[[[1], [2]], [[3], [4]], [[5, 6]]]])]}, b"", "are not nested as its shape"),
        ({"inputs": [entry(data=[[[[[1]], [[2]]], [[[3]], [[4]]], [[[5]], [[6]]]]])]}, b"", "are not all numbers"),
        ({"inputs": [entry(parameters=[])]}, b"", "are no JSON object"),
        ({"inputs": [entry(parameters={"shared_memory_region": "x"})]}, b"", "'shared_memory_region'"),
        ({"inputs": [entry(parameters={"content_type": "np"})]}, b"", "'content_type', and this server knows"),
        ({"inputs": [entry(parameters=RAW)]}, b"abcdef", "has data and the parameter"),
        ({"inputs": [entry()]}, b"abcdef", "has no binary_data_size"),
        ({"inputs": [entry(data=None, parameters=RAW)]}, b"", "and 0 are there"),
        ({"inputs": [entry(data=None, parameters=RAW)]}, b"abcde", "and 5 are there"),
        ({"inputs": [entry(data=None, parameters=RAW)]}, b"abcdefg", "and 7 are there"),
        ({"inputs": [entry(data=None, parameters={"binary_data_size": 7})]}, b"abcdefg", "its shape needs 6"),
        ({"inputs": [entry(data=None, parameters={"binary_data_size": -6})]}, b"abcdef", "its shape needs 6"),
        ({"inputs": [entry(data=None, parameters={"binary_data_size": "6"})]}, b"abcdef", "its shape needs 6"),
        ({"inputs": [entry()], "outputs": "logits"}, b"", "outputs is no list"),
        ({"inputs": [entry()], "outputs": ["logits"]}, b"", "an output is no JSON object"),
        ({"inputs": [entry()], "outputs": [{"name": "scores"}]}, b"", "no output 'scores': the model gives"),
        ({"inputs": [entry()], "outputs": [{"name": ["logits"]}]}, b"", "no output ['logits']"),
        ({"inputs": [entry()], "outputs": [{"name": "logits"}] * 2}, b"", "'logits' is asked for twice"),
        ({"inputs": [entry()], "outputs": [{"name": "logits", "data": 1}]}, b"", "'data', which means nothing"),
        (
            {"inputs": [entry()], "outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]},
            b"",
            "binary_data is neither true nor false but 1",
        ),
        (
            {"inputs": [entry()], "outputs": [{"name": "logits", "parameters": {"classification": 0}}]},
            b"",
            "classification 0, which",
        ),
        (
            {"inputs": [entry()], "outputs": [{"name": "logits", "parameters": {"classification": True}}]},
            b"",
            "classification True, which",
        ),
        ({"inputs": [entry()], "parameters": {"binary_data_output": "yes"}}, b"", "neither true nor false but 'yes'"),
        ({"inputs": [entry()], "parameters": {"priority": 1}}, b"", "'priority', and this server knows"),
        ({"inputs": [entry()], "parameters": {"sequence_id": 1}}, b"", "'sequence_id'"),
        ({"inputs": [entry()], "parameters": {"timeout": -1}}, b"", "timeout is no whole number"),
        ({"inputs": [entry()], "parameters": {"timeout": 0.5}}, b"", "timeout is no whole number"),
        ({"inputs": [entry()], "parameters": {"timeout": None}}, b"", "timeout is no whole number"),
        ({"inputs": [entry()], "outputs": None}, b"", "outputs is no list"),
        (
            {"inputs": [entry()], "outputs": [{"name": "logits", "parameters": {"classification": None}}]},
            b"",
            "classification None, which",
        ),
        ({"inputs": [entry()], "parameters": {"timeout": 10**15}}, b"", "timeout is no whole number"),
        (b"", b"", "the body is no JSON"),
        (b"\x00\xff", b"", "the body is no JSON"),
        (b'{"inputs": [', b"", "the body is no JSON"),
        (b'{"inputs": []}{}', b"", "the body is no JSON"),
        (b'{"inputs": "\xff"}', b"", "the body is no JSON"),
        (b'{"inputs": NaN}', b"", "the body is no JSON"),
        (b'{"inputs": ' + b"[" * 10_000, b"", "the JSON is too deep"),
        (b'{"inputs": ' + b'{"a":' * 3_000, b"", "the JSON is too deep"),
        (b'{"inputs": ' + b"1" * 50_000 + b"}", b"", "the body is no JSON"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(request_: Any, raw: bytes, words: str) -> None:
    assert words in refused(request_, raw)


def test_numbers_that_json_cannot_hold() -> None:
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"):
        text = json.dumps({"inputs": [entry(data=[1, 2, 3, 4, 5, 77])]}).encode().replace(b"77", number)
        refused(text)


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "", " 5", "5 ", "٥", "1_0", "9" * 30, "1000"])
def test_a_header_that_is_no_length(length: str) -> None:
    with pytest.raises(Refused, match="Inference-Header-Content-Length"):
        read_question(json.dumps({"inputs": [entry()]}).encode(), length, ENDS, Limits())


def test_json_cannot_write_what_is_not_finite_and_raw_bytes_can() -> None:
    logits = np.array([[np.nan, np.inf, 1.0]], np.float32)
    with pytest.raises(Refused, match="binary_data") as caught:
        write_answer(Question(np.zeros((1, 3, 2, 1), np.uint8), (Wanted("logits"),)), logits, logits, ENDS)
    assert caught.value.status == 500
    answer = write_answer(Question(np.zeros((1, 3, 2, 1), np.uint8), (Wanted("logits", True),)), logits, logits, ENDS)
    assert answer.content[answer.json_length :] == logits.tobytes()


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size", "x"]), inner, max_size=4
    )), st.sampled_from(["inputs", "outputs", "parameters", "id", "data", "shape"]))  # fmt: skip
def test_any_json_in_any_place_is_read_or_refused(value: Any, place: str) -> None:
    request: dict[str, Any] = {"inputs": [entry()]}
    if place in ("data", "shape"):
        request["inputs"][0][place] = value
    else:
        request[place] = value
    try:
        question = read(request)
    except Refused as error:
        assert "\n" not in error.what and len(error.what) < 400
    else:
        assert question.images.shape == (1, 3, 2, 1)
