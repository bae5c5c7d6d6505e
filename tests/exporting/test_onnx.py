"""The ONNX graph: every net of the registry and nets of one's own answer through onnxruntime as through torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from striate.data.preprocess import Preprocess
from striate.errors import UsageError
from striate.exporting import onnx as exporting
from striate.exporting.onnx import build_graph
from striate.exporting.parity import Answers, ask_session, compare, is_same, open_session, tolerances
from striate.models import create_model, list_models
from striate.models.registry import native_shape
from striate.predictor.probabilities import probabilities
from striate.runs.model_file import ModelCard, card_document, parse_card

#: Nets with more weights than this are written out only by the slow tests.
QUICK_BYTES = 400_000
#: Nets with more are written out once only, with the pictures of their paper.
MODEST_BYTES = 50_000_000


def card_of(net: nn.Module, classes: int, channels: int, size: tuple[int, int], **changed: Any) -> ModelCard:
    preprocess = Preprocess(size, "pad", channels, (110.0, 120.0, 130.0)[:channels], (60.0, 70.0, 80.0)[:channels])
    given: dict[str, Any] = {
        "name": None,
        "class_name": type(net).__name__,
        "options": {},
        "num_classes": classes,
        "in_channels": channels,
        "input_size": size,
        "classes": [f'类 {number}, "{number}"' for number in range(classes)],
        "preprocess": preprocess.to_json(),
        "output": "softmax",
        "temperature": 1.0,
        "weights": {"file": "weights/best.safetensors", "sha256": "0" * 64, "epoch": 3},
        "licence": "CC BY 4.0",
    }
    return ModelCard(**{**given, **changed})


def lived_in(net: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics as after a training, and put the net into evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net.eval()


def random_pictures(count: int, card: ModelCard) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *card.input_size, card.in_channels), dtype=np.uint8)


def by_torch(net: nn.Module, card: ModelCard, images: np.ndarray) -> Answers:
    pictures = Preprocess.from_json(card.preprocess).normalise(torch.from_numpy(images), channels_last=False)
    with torch.inference_mode():
        logits = net(pictures).numpy()
    return Answers(probabilities(logits, card.output, card.temperature), logits)


LARGEST_LOGIT = 10  # that a softmax is given: of a hundred, one more digit of a probability would be rounding


def check(net: nn.Module, card: ModelCard, counts: tuple[int, ...] = (1, 2, 7)) -> onnx.ModelProto:
    """Write a net as a graph, and compare its answers for so many pictures with the net's own.

    Untrained deep nets give logits of hundreds, and their rounding, which differs between processors, then shows in
    the probabilities: such a net gets the temperature that brings its logits to the size of a trained net's.
    """
    images = random_pictures(max(counts), card)
    largest = float(np.abs(by_torch(net, card, images).logits).max())
    card = replace(card, temperature=max(card.temperature, largest / LARGEST_LOGIT))
    model = build_graph(net, card, "a test")
    session = open_session(model.SerializeToString(), 1)
    wanted = by_torch(net, card, images)
    for count in counts:
        found = Answers(*session.run(["probabilities", "logits"], {"images": images[:count]}))
        some = Answers(wanted.probabilities[:count], wanted.logits[:count])
        assert found.probabilities.dtype == found.logits.dtype == np.float32
        compared = compare(some, found)
        assert is_same(compared, tolerances(wanted)), (count, compared)
        assert compared["largest_difference"]["probability"] <= 1e-5
    return model


def size_of(name: str) -> int:
    with torch.device("meta"):
        return sum(tensor.nbytes for tensor in create_model(name, *native_shape(name)).state_dict().values())


REGISTRY = [
    pytest.param(name, marks=[pytest.mark.slow] if size_of(name) > QUICK_BYTES else []) for name in list_models()
]


@pytest.mark.parametrize("name", REGISTRY)
def test_every_net_of_the_registry(name: str) -> None:
    torch.manual_seed(0)
    classes, channels, size = native_shape(name)
    net = lived_in(create_model(name, classes, channels, size).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    check(net, card_of(net, classes, channels, size, temperature=0.7))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if size_of(name) < MODEST_BYTES])
def test_every_net_with_the_other_number_of_channels(name: str) -> None:
    torch.manual_seed(0)
    _, channels, size = native_shape(name)
    net = lived_in(create_model(name, 5, 4 - channels, size))
    check(net, card_of(net, 5, 4 - channels, size, output="sigmoid", temperature=1.7))


def test_the_contract_of_the_file() -> None:
    torch.manual_seed(0)
    net = create_model("three-conv", 4, 3, (9, 12)).eval()
    card = card_of(net, 4, 3, (9, 12), name="three-conv", temperature=1.5)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    model = check(net, card)
    session = open_session(model.SerializeToString(), 1)
    given, returned = session.get_inputs(), session.get_outputs()
    assert [(entry.name, entry.type, entry.shape) for entry in given] == [("images", "tensor(uint8)", ["N", 9, 12, 3])]
    assert [(entry.name, entry.type, entry.shape) for entry in returned] == [
        ("probabilities", "tensor(float)", ["N", 4]),
        ("logits", "tensor(float)", ["N", 4]),
    ]
    told = session.get_modelmeta().custom_metadata_map
    assert set(told) == {"striate", "striate-graph-sha256", "classes", "licence", "preprocess", "source"}
    assert json.loads(told["striate"]) == card_document(card) and parse_card(told["striate"], Path("m")) == card
    assert json.loads(told["classes"]) == card.classes and told["licence"] == "CC BY 4.0" and told["source"] == "a test"
    assert json.loads(told["preprocess"]) == card.preprocess
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20}
    after = net.state_dict()
    assert not net.training and all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_file_is_the_same_every_time_whole_and_says_nothing_of_this_machine() -> None:
    net = create_model("lenet5", 3, 1, 28).eval()
    card = card_of(net, 3, 1, (28, 28))
    contents = [build_graph(net, card, "a test").SerializeToString() for _ in range(2)]
    assert contents[0] == contents[1]
    assert (
        b".py" not in contents[0]
        and str(Path.home()).encode() not in contents[0]
        and b"site-packages" not in contents[0]
    )
    model = onnx.load_from_string(contents[0])
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)


def test_a_net_too_large_for_one_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = create_model("lenet5", 3, 1, 28).eval()
    monkeypatch.setattr(exporting, "MOST_BYTES", 100_000)
    with pytest.raises(UsageError, match="bytes of weights") as caught:
        build_graph(net, card_of(net, 3, 1, (28, 28)), "")
    assert "--to striate" in caught.value.fix


def test_batchnorm_is_folded_where_it_follows_a_convolution() -> None:
    torch.manual_seed(0)
    net = lived_in(create_model("airnet", 10, 3, 32, widths=(8, 8, 8)))
    with torch.no_grad():
        net.get_submodule("fc").weight.mul_(20)  # type: ignore[union-attr, operator]
    model = check(net, card_of(net, 10, 3, (32, 32)))
    operators = [node.op_type for node in model.graph.node]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 6
    assert operators.count("BatchNormalization") == 3  # those behind a pool stay
    assert operators.count("Gelu") == 7


class Made(nn.Module):
    """A net of the user's own: layers, and what `way` does with them."""

    def __init__(self, way: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.pool = nn.AdaptiveAvgPool2d((3, 2))
        self.wide = nn.Linear(36, 4)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def looped(net: Any, x: Tensor) -> Tensor:
    for _ in range(3):
        x = x + x.mean((2, 3), keepdim=True)
    return net.head(net.conv(x).amax((2, 3)))


def seen_by_another(net: Any, x: Tensor) -> Tensor:
    """Nothing can be folded here."""
    x = net.conv(x)
    return net.head((net.norm(x) + x).mean((2, 3)))


def by_functions(net: Any, x: Tensor) -> Tensor:
    x = nn.functional.adaptive_max_pool2d(torch.relu(net.conv(x)), 1).squeeze(-1).squeeze(-1)
    return net.head(nn.functional.dropout(x, 0.5, net.training))


WRITTEN = {
    "view with the number of pictures": lambda net, x: net.wide(net.pool(net.norm(net.conv(x))).view(x.size(0), -1)),
    "seen by another": seen_by_another,
    "a loop": looped,
    "functions": by_functions,
    "more than float32": lambda net, x: net.head(net.conv(x).mean((2, 3)).double().exp().log().float()),
}
REFUSED = {
    "a way that hangs on the picture": lambda net, x: net.head(net.conv(x if x.mean() > 0 else -x).mean((2, 3))),
    "a batch of two alone": lambda net, x: net.head(net.conv(x).mean((2, 3)).reshape(2, 6)),
    "numpy": lambda net, x: net.head(torch.from_numpy(net.conv(x).mean((2, 3)).detach().numpy())),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_nets_of_ones_own(case: str) -> None:
    torch.manual_seed(0)
    net = lived_in(Made(WRITTEN[case]))
    check(net, card_of(net, 4, 3, (8, 9), output="sigmoid", temperature=0.5))


@pytest.mark.parametrize("case", REFUSED)
def test_nets_that_are_no_graph_are_refused_in_one_sentence(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    net = lived_in(Made(REFUSED[case]))
    with pytest.raises(UsageError, match="Made cannot be written as an ONNX graph") as caught:
        build_graph(net, card_of(net, 4, 3, (8, 9)), "")
    assert caught.value.cause and "\n" not in caught.value.cause and "forward" in caught.value.fix
    assert capfd.readouterr() == ("", "")


def test_a_net_in_training_is_written_as_it_answers_and_stays_in_training() -> None:
    torch.manual_seed(0)
    net = Made(by_functions).train()
    card = card_of(net, 4, 3, (8, 9))
    model = build_graph(net, card, "")
    assert net.training and net.norm.training
    images = random_pictures(5, card)
    found = ask_session(open_session(model.SerializeToString(), 1), images)
    assert is_same(compare(by_torch(net.eval(), card, images), found), {"probability": 1e-5, "logit": 1e-5})
