"""An ONNX file answers as its numbers say; one that is damaged, foreign or could do more is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import striate
from striate.cli.main import run as command
from striate.data.builtin import load_named
from striate.errors import DataError, MissingExtra, UsageError
from striate.predictor import onnx_backend, onnx_file
from striate.predictor.onnx_file import CARD_KEY, DIGEST_KEY, graph_digest, read_onnx
from striate.predictor.probabilities import probabilities

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

DIGITS = load_named("digits").train
FORBIDDEN = ("torch", "matplotlib", "sklearn", "pandas", "onnx", "httpx", "jinja2")


def weight_of(path: Path) -> np.ndarray:
    graph = onnx.load(str(path)).graph
    return numpy_helper.to_array(next(tensor for tensor in graph.initializer if tensor.name == "weight"))


def test_it_answers_as_its_numbers_say(make_onnx: Any) -> None:
    path = make_onnx()
    predictor = striate.load(path)
    images = DIGITS.images[:300]
    wanted = (images.reshape(300, -1) / 255.0) @ weight_of(path)
    assert np.abs(predictor.logits(images) - wanted).max() < 1e-5
    answers = predictor.predict(list(images))
    rows = np.array([list(answer.probabilities.values()) for answer in answers])
    assert np.abs(rows - probabilities(wanted, "softmax", 1.5)).max() < 1e-6
    assert predictor.name == "model.onnx" and predictor.classes == tuple(DIGITS.classes)
    asked = predictor.backend.session.run(["probabilities"], {"images": images})[0]
    assert np.abs(asked - rows).max() < 1e-5, "the graph's own probabilities are the predictor's"
    assert predictor.logits(images[:0]).shape == (0, 10)


def test_the_table_of_fields_is_that_of_onnx() -> None:
    names = {
        "model": "ModelProto", "graph": "GraphProto", "training": "TrainingInfoProto", "function": "FunctionProto",
        "node": "NodeProto", "attribute": "AttributeProto", "sparse": "SparseTensorProto", "tensor": "TensorProto",
    }  # fmt: skip
    kinds = {name: kind for kind, name in names.items()}
    for kind, name in names.items():
        found = {}
        for field in getattr(onnx, name).DESCRIPTOR.fields:
            inner = kinds.get(field.message_type.name) if field.message_type else None
            if inner is not None:
                found[field.number] = "subgraph" if (kind, inner) == ("attribute", "graph") else inner
            elif field.name in ("external_data", "data_location"):
                found[field.number] = field.name.removesuffix("_data").removeprefix("data_")
            elif (kind, field.name) == ("model", "metadata_props"):
                found[field.number] = "entry"
        assert onnx_file._INSIDE[kind] == found


# --- what is refused -------------------------------------------------------------------------------------------------


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    tensor.ClearField("raw_data")


def external_in_a_node(model: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "x")
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["spare"], value=tensor))


def loop(model: Any) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["z"], body=body))


def without_metadata(model: Any) -> None:
    model.ClearField("metadata_props")


def changed_card(model: Any) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"temperature": 1.5', '"temperature": 1.25')


def no_card(model: Any) -> None:
    model.metadata_props[0].value = "[]"


def other_input(model: Any) -> None:
    for axis, pixels in ((1, 16), (2, 4)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = pixels


def fixed_batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def two_inputs(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def without_logits(model: Any) -> None:
    del model.graph.output[1]


def more_classes(model: Any) -> None:
    card = json.loads(model.metadata_props[0].value)
    card["classes"].append("ten")
    card["model"]["num_classes"] = 11
    del card["sha256"]
    model.metadata_props[0].value = json.dumps(card)


def unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Frobnicate"


def other_domain(model: Any) -> None:
    model.graph.node[0].domain = "com.example"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (external, "keeps weights in other files"),
        (external_in_a_node, "keeps weights in other files"),
        (loop, "holds loops or branches"),
        (without_metadata, "was not exported by striate"),
        (changed_card, "is damaged, or someone changed it"),
        (no_card, "is not a model card"),
        (other_input, "takes images"),
        (fixed_batch, "takes images"),
        (two_inputs, "takes images"),
        (without_logits, "gives probabilities"),
        (more_classes, "gives "),
        (unknown_operator, "cannot be run"),
        (other_domain, "cannot be run"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(make_onnx: Any, edit: Any, told: str) -> None:
    path = make_onnx(edit=edit)
    with pytest.raises(DataError) as caught:
        striate.load(path)
    assert told in caught.value.what and str(path) in caught.value.what
    assert caught.value.fix or caught.value.cause


def test_external_data_are_refused_before_a_session_is_made(make_onnx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_backend, "_open_session", lambda *_: pytest.fail("a session was made"))
    for edit in (external, external_in_a_node, loop, without_metadata, changed_card):
        with pytest.raises(DataError):
            striate.load(make_onnx(edit=edit))


def test_a_file_cut_off_anywhere(make_onnx: Any) -> None:
    content = make_onnx().read_bytes()
    path = make_onnx("cut.onnx")
    for length in [0, 1, 2, 7, *range(11, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError) as caught:
            striate.load(path)
        assert str(path) in caught.value.what


def test_a_bit_that_flips_is_found_where_the_writer_gave_a_digest(make_onnx: Any) -> None:
    def with_digest(model: Any) -> None:
        model.metadata_props.add(key=DIGEST_KEY, value=graph_digest(model.SerializeToString()))

    path = make_onnx(edit=with_digest)
    content = path.read_bytes()
    before = striate.load(path).predict(DIGITS.images[0]).probabilities
    rng = np.random.default_rng(0)
    changed = 0
    for place in rng.choice(len(content), 150, replace=False):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            answer = striate.load(path).predict(DIGITS.images[0])
        except DataError:
            changed += 1
        else:  # in what surrounds graph and card: versions, the name of the producer
            assert answer.probabilities == before
    assert changed > 130


def test_nonsense_with_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (b"hello, this is text", bytes(5000), b"\xff" * 5000, b"\x0a" * 3000, b"{}"):
        path.write_bytes(content)
        with pytest.raises(DataError):
            striate.load(path)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        striate.load(path)
    path.mkdir()
    with pytest.raises(DataError, match="is a folder"):
        striate.load(path)


def test_limits(make_onnx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_onnx()
    monkeypatch.setattr(onnx_file, "MOST_FIELDS", 20)
    with pytest.raises(DataError) as caught:
        striate.load(path)
    assert "more than 20 entries" in caught.value.cause
    monkeypatch.setattr(onnx_file, "MOST_FILE_BYTES", 100)
    with pytest.raises(DataError, match="too large"):
        striate.load(path)


def test_messages_inside_each_other_without_end() -> None:
    content = b""
    for _ in range(400):  # a sparse tensor whose values … : only kinds that hold themselves can go on
        length = len(content)
        size = bytes([length & 127 | 128, length >> 7]) if length > 127 else bytes([length])
        content = b"\x32" + size + content
    assert list(onnx_file._walk(memoryview(content), "model")) == []


def test_what_an_onnx_file_cannot_do(make_onnx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_onnx()
    for options, told in (
        ({"precision": "bf16"}, "bf16 is not for an ONNX file"),
        ({"device": "cuda"}, "device cuda is not for an ONNX file"),
        ({"model": "net.py:Net"}, "holds its net"),
    ):
        with pytest.raises(UsageError, match=told):
            striate.load(path, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no torch net"):
        _ = striate.load(path).net
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra) as caught:
        striate.load(path)
    assert caught.value.exit_code == 4 and "pip install" in caught.value.fix


def test_the_digest_of_the_file(make_onnx: Any) -> None:
    import hashlib

    path = make_onnx()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    striate.load(path, expect_sha256=digest.upper())
    with pytest.raises(DataError, match="not the file that was expected"):
        striate.load(path, expect_sha256="0" * 64)


def test_threads_are_bounded(make_onnx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    predictor = striate.load(make_onnx())
    assert predictor.backend.threads == 1
    assert predictor.backend.session.get_session_options().intra_op_num_threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert onnx_backend.available_cores() >= 1


def test_metadata_are_read_without_onnxruntime(make_onnx: Any) -> None:
    card = json.loads(read_onnx(make_onnx()).metadata[CARD_KEY])
    assert card["classes"] == list(DIGITS.classes)


def test_pictures_of_a_data_set(make_onnx: Any, capfd: pytest.CaptureFixture[str]) -> None:
    path = make_onnx()
    assert command(["predict", str(path), "--data", "digits", "--split", "train", "--index", "3:5", "--json"]) == 0
    results = json.loads(capfd.readouterr().out)["results"]
    wanted = striate.load(path).predict(list(DIGITS.images[3:5]))
    assert [result["probabilities"] for result in results] == [answer.probabilities for answer in wanted]
    for flags in (["--split", "test"], ["--data", str(path.parent)]):
        assert command(["predict", str(path), "--data", "digits", "--index", "0", *flags]) in (2, 3)
        assert "Traceback" not in capfd.readouterr().err


# --- without torch ---------------------------------------------------------------------------------------------------

BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from striate.cli.main import run
code = run(sys.argv[1:])
loaded = [name for name in {forbidden!r} if name in sys.modules]
sys.stderr.write("loaded: " + " ".join(loaded) + "\\n")
sys.exit(code)
"""


def run_without(forbidden: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    program = BLOCKED.format(forbidden=forbidden)
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("flags", [(), ("--json",), ("--jsonl",), ("--csv",)])
def test_a_command_that_answers_without_torch(make_onnx: Any, tmp_path: Path, flags: tuple[str, ...]) -> None:
    path = make_onnx()
    for suffix in ("png", "jpg", "bmp", "gif", "webp", "tif"):
        Image.fromarray(DIGITS.images[3][..., 0]).resize((40, 30)).save(tmp_path / f"three.{suffix}")
    (tmp_path / "bad.png").write_bytes(b"hello")
    ended = run_without(FORBIDDEN, "predict", str(path), str(tmp_path), *flags)
    assert ended.returncode == 3, ended.stderr
    assert "loaded: \n" in ended.stderr
    assert len([line for line in ended.stdout.splitlines() if "three." in line and "," in line]) >= 6 or not flags
