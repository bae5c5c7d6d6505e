"""Nets as students write them, each with its slip, and the sentence that the command must answer with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.families import NAMES, build, small_shape
from torch import Tensor, nn
from torch.nn import functional

import striate
import striate.models.summary
from striate.cli.main import run
from striate.errors import UsageError
from striate.models.advice import advise, check_registered
from striate.models.summary import check_fits
from striate.models.user import instantiate, load_class

NETS = '''
import torch
from torch import nn
from torch.nn import functional as F


class View(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.view(*self.shape)


class Healthy(nn.Module):
    """The others are this net with a slip."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(64, 10)

    def features(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        return self.pool(F.relu(self.conv2(x)))

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


class Article(nn.Module):
    """The first article's class: its View drops the batch."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 10, kernel_size=5, stride=2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
            nn.Conv2d(10, 10, kernel_size=3, stride=2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
            View(250), nn.Linear(250, 10), nn.Sigmoid(),
        )

    def forward(self, inputs):
        return self.model(inputs)

    def train(self, inputs, targets):
        raise AssertionError("a training step, and no mode")


class OwnTrain(Healthy):
    def train(self, image, target):
        raise AssertionError("a training step, and no mode")


class FinalSigmoid(Article):
    def __init__(self):
        super().__init__()
        self.model[6] = nn.Flatten()


class SigmoidFunction(Healthy):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))


class Softmax(Healthy):
    def forward(self, x):
        return F.softmax(super().forward(x), dim=1)


class SoftmaxOfTheBatch(Healthy):
    def forward(self, x):
        return super().forward(x).softmax(0)


class SoftmaxByHand(Healthy):
    def forward(self, x):
        x = super().forward(x).exp()
        return x / x.sum(1, keepdim=True)


class LogSoftmax(Healthy):
    def forward(self, x):
        return F.log_softmax(super().forward(x), dim=1)


class Channels(Healthy):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 18, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 16, 3, padding=1)


class SeveralSamples(nn.Module):
    """view(-1, 4608) with pictures of twice the side."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 18, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(4608, 10)

    def forward(self, x):
        return self.fc(self.pool(self.conv(x)).view(-1, 4608))


class LargeKernel(Healthy):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 11)


class OneValue(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10))

    def forward(self, x):
        return self.body(x)


class NeverUsed(Healthy):
    def __init__(self):
        super().__init__()
        self.fc2 = nn.Linear(84, 10)


class Detached(Healthy):
    def forward(self, x):
        return self.fc(self.features(x).detach().flatten(1))


class CutOff(Healthy):
    def forward(self, x):
        return super().forward(x).data


class TwelveClasses(Healthy):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 12)


class ReturnsNone(Healthy):
    def forward(self, x):
        x = super().forward(x)


class ReturnsTwo(Healthy):
    def forward(self, x):
        features = self.features(x)
        return self.fc(features.flatten(1)), features


class NoSuper(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(x.flatten(1))


class NoForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)


class PlainList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(64, 32), nn.Linear(32, 10)]

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x)
        return x


class NoFlatten(Healthy):
    def forward(self, x):
        return self.fc(self.features(x))


class WrongNumber(Healthy):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1568, 10)


class LinearOnMap(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(x)


class Doubles(Healthy):
    def forward(self, x):
        return super().forward(x.double())


class AllDouble(Healthy):
    def __init__(self):
        super().__init__()
        self.double()


class NoWeights(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]


class FinalReLU(Healthy):
    def forward(self, x):
        return F.relu(super().forward(x))


class FinalTanh(Healthy):
    def forward(self, x):
        return torch.tanh(super().forward(x))


class FinalDropout(Healthy):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.5, self.training)


class AlwaysDropout(Healthy):
    def forward(self, x):
        return self.fc(F.dropout(self.features(x).flatten(1)))


class MixesPictures(Healthy):
    def forward(self, x):
        x = super().forward(x)
        return x - x.mean(0)


class InPlace(Healthy):
    def forward(self, x):
        x = torch.sigmoid(self.features(x))
        y = x * x
        x += 1
        return self.fc((x + y).flatten(1))


class Typo(Healthy):
    def forward(self, x):
        return self.fc1(self.features(x).flatten(1))


class Norm(Healthy):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def features(self, x):
        return self.pool(self.norm(super().features(x)))
'''

#: Net, further flags, and what the answer has to hold. The first word says where: in the error, its cause, its fix, the
#: table above it, or a note of a run that goes on.
REFUSED: list[tuple[str, str, dict[str, str]]] = [
    (
        "Article",
        "--size 28",
        {
            "error": "model.6 View() cannot bring a batch of shape (2, 10, 5, 5) into shape [250]",
            "cause": "2 pictures of 250",
            "fix": "x.flatten(1), or nn.Flatten(), in its place, which keeps the batch",
            "table": "⌊(28 − 5)/2⌋ + 1 = 12",
        },
    ),
    (
        "WrongNumber",
        "",
        {
            "error": "fc nn.Linear(in_features=1568, out_features=10, bias=True) got a batch of shape (2, 64)",
            "fix": "write nn.Linear(in_features=64, out_features=10)",
            "table": "16·2·2 = 64",
        },
    ),
    ("SigmoidFunction", "", {"error": "been through a sigmoid already", "fix": "before the sigmoid"}),
    ("SigmoidFunction", "--loss binary-cross-entropy", {"cause": "applies its own sigmoid: twice"}),
    ("SigmoidFunction", "--loss mean-squared-error", {"cause": "applies its own sigmoid: twice"}),
    ("Softmax", "", {"error": "softmax already: they sum to one", "cause": "its own softmax: twice"}),
    ("SoftmaxOfTheBatch", "", {"error": "not over the classes: softmax(dim=1)"}),
    ("SoftmaxByHand", "", {"error": "they sum to one"}),
    ("LogSoftmax", "--loss binary-cross-entropy", {"error": "been through a log_softmax already"}),
    (
        "Channels",
        "",
        {
            "error": "conv2 nn.Conv2d(3, 16, kernel_size=(3, 3)",
            "cause": "it gets 18 channels and was made for 3",
            "fix": "write nn.Conv2d(in_channels=18, out_channels=16",
            "table": "conv1  Conv2d",
        },
    ),
    (
        "SeveralSamples",
        "--size 64",
        {
            "error": "the output of SeveralSamples has shape (8, 10) instead of (2, 10)",
            "cause": "run together before it, as view(n) and view(-1, n) do",
            "fix": "in_features=18432",
        },
    ),
    (
        "LargeKernel",
        "",
        {"error": "got maps of 8x8 and wants at least 11x11", "cause": "its kernel spans 11x11", "fix": "--size"},
    ),
    ("OneValue", "--batch-size 1", {"error": "got one value for each channel", "fix": "batch size of at least 2"}),
    ("CutOff", "", {"error": "no gradient reaches any weight of CutOff", "cause": ".data"}),
    (
        "TwelveClasses",
        "",
        {
            "error": "shape (2, 12) instead of (2, 10)",
            "cause": "the data has 10 classes",
            "fix": "write out_features=10 in fc",
        },
    ),
    ("ReturnsNone", "", {"error": "ReturnsNone returns None", "fix": "end forward with `return x`"}),
    ("ReturnsTwo", "", {"error": "returns a tuple in training mode", "fix": "return the logits alone"}),
    ("NoSuper", "", {"error": "NoSuper could not be made", "fix": "super().__init__() as the first line"}),
    ("NoForward", "", {"error": "NoForward has no forward", "fix": "def forward(self, x)"}),
    (
        "PlainList",
        "",
        {"error": "PlainList's layers is a Python list of layers, whose 2,410 parameters", "fix": "nn.ModuleList"},
    ),
    (
        "NoFlatten",
        "",
        {"error": "(2, 16, 2, 2) and wants (2, 64)", "cause": "was not flattened", "fix": "put nn.Flatten() before it"},
    ),
    ("LinearOnMap", "", {"cause": "the last linear layer was put on each row of a map", "fix": "nn.Flatten()"}),
    ("Doubles", "", {"error": "conv1 nn.Conv2d(1, 8", "fix": "take .double(), .half(), .long()"}),
    ("AllDouble", "", {"error": "the net's weights are torch.float64", "fix": "net.float()"}),
    ("NoWeights", "", {"error": "the net has nothing to train"}),
    ("InPlace", "", {"error": "fails on the way back", "fix": "x = x + y in place of x += y"}),
    ("Typo", "", {"error": "Typo has no fc1", "fix": "write self.fc"}),
    ("Norm", "", {"error": "norm nn.BatchNorm2d(8", "fix": "write nn.BatchNorm2d(16)"}),
]

NOTED = [
    ("FinalSigmoid", "--size 28", "model.8 nn.Sigmoid, was taken away"),
    ("NeverUsed", "", "fc2 nn.Linear is never used: forward does not call it, and its 850 parameters"),
    ("Detached", "", "no gradient reaches conv1, conv2: "),
    ("FinalReLU", "", "ends in relu: its logits are never negative"),
    ("FinalTanh", "", "none can be given more than 45 %"),
    ("FinalDropout", "", "has a dropout after its last layer"),
    ("AlwaysDropout", "", "training=self.training"),
    ("MixesPictures", "", "hangs on the other pictures of its batch"),
]

HEALTHY = ["Healthy", "OwnTrain", "LogSoftmax"]


@pytest.fixture(scope="module")
def net_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "net.py"
    path.write_text(NETS, encoding="utf-8")
    return path


def train(net_file: Path, name: str, flags: str, data: str = "digits") -> int:
    if "--batch-size" not in flags:
        flags += " --batch-size 16"
    words = f"train {data} --model net.py:{name} --epochs 1 --train-range 0:64 --balance none {flags}"
    return run([*words.split(), "--device", "cpu", "--threads", "1"])


@pytest.fixture(autouse=True)
def beside_the_file(net_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(net_file.parent)
    monkeypatch.delenv("STRIATE_DATA", raising=False)


def test_there_are_at_least_twenty() -> None:
    assert len({name for name, *_ in REFUSED}) + len(NOTED) >= 20


@pytest.mark.parametrize(("name", "flags", "told"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_is_refused(
    net_file: Path, capfd: pytest.CaptureFixture[str], name: str, flags: str, told: dict[str, str]
) -> None:
    assert train(net_file, name, flags) == 2
    lines = capfd.readouterr().err.splitlines()
    table = [line for line in lines if not line.startswith(("error: ", "cause: ", "fix: "))]
    assert lines[len(table)].startswith("error: "), "the three lines come last"
    parts = {line.partition(": ")[0]: line for line in lines[len(table) :]}
    for word, text in told.items():
        assert text in ("\n".join(table) if word == "table" else parts[word])
    assert not (net_file.parent / "runs").exists() or not list((net_file.parent / "runs").glob(f"*{name.lower()}*"))


@pytest.mark.parametrize(("name", "flags", "told"), NOTED, ids=lambda value: str(value)[:30])
def test_what_is_noted(net_file: Path, capfd: pytest.CaptureFixture[str], name: str, flags: str, told: str) -> None:
    assert train(net_file, name, flags) == 0
    notes = [line for line in capfd.readouterr().out.splitlines() if line.startswith("note ")]
    assert len(notes) == 1 and told in notes[0], notes


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_healthy_gets_no_note(net_file: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    assert train(net_file, name, "") == 0
    assert "note " not in capfd.readouterr().out


def test_labels_from_one(net_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez(net_file.with_name("data.npz"), images=images, labels=np.arange(60) % 10 + 1)
    assert train(net_file, "Healthy", "", data="data.npz") == 3
    told = capfd.readouterr().err
    assert "labels run from 1 to 10" in told and "numbered from 0" in told and "subtract 1 from each label" in told
    with pytest.raises(striate.StriateError, match="subtract 1 from each label"):
        striate.Dataset.from_arrays(images, np.arange(60) % 10 + 1)
    with pytest.raises(striate.StriateError, match="labels that start at 1 need 1 subtracted"):
        striate.Dataset.from_arrays(images, np.arange(60) % 10 + 1, [str(i) for i in range(10)])


def test_a_gray_net_for_colour_pictures(net_file: Path) -> None:
    net = instantiate(load_class("net.py:Healthy"), 10, 3, 8)
    with pytest.raises(UsageError) as caught:
        striate.models.summary.check_fits(net, (3, 8, 8), 10)
    assert "it gets 3 channels and was made for 1" in caught.value.cause
    assert "in_channels=3" in caught.value.fix
    assert "the pictures are in colour" in caught.value.fix


def test_the_table_is_part_of_the_error_in_python(net_file: Path) -> None:
    net = instantiate(load_class("net.py:WrongNumber"), 10, 1, 8)
    with pytest.raises(UsageError) as caught:
        striate.models.summary.check_fits(net, (1, 8, 8), 10)
    text = str(caught.value)
    assert text.index("fix: write nn.Linear(in_features=64") < text.index("⌊(8 − 2)/2⌋ + 1 = 4")
    assert caught.value.detail[-1].split() == ["fc", "Linear", "fails"]


@pytest.mark.parametrize("name", NAMES)
def test_no_net_of_the_registry_gets_a_note(name: str) -> None:
    classes, channels, size = small_shape(name)
    net = build(name, classes, channels, size)
    check_registered(net)
    assert advise(net, (channels, *size), "cross-entropy") == []


class Teacher(nn.Module):
    """Layers in lists that are no slip: held as attributes too, or frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.order = [self.fc]
        self.frozen = [nn.Linear(64, 10).requires_grad_(False)]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.order[0](x) + self.frozen[0](x)


def test_lists_of_known_or_frozen_layers_are_no_slip() -> None:
    check_registered(Teacher())
    assert advise(Teacher(), (1, 8, 8), "cross-entropy") == []


def test_advice_leaves_no_trace() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    assert advise(net, (1, 8, 8), "cross-entropy") == []
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in net.parameters()) and net.training


class Does(nn.Module):
    """A net of the layers that it is given, whose forward is a function of them and the pictures."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.forward_of = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.forward_of(self, x)


def skips(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    return (x + net.b(x)).mean((2, 3))


def again(net: Any, x: Tensor) -> Any:
    return net(x)


def conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


@pytest.mark.parametrize(
    ("net", "what", "fix"),
    [
        (Does(skips, a=conv(1, 8), b=conv(8, 16)), "do not match: 8 channels and 16", "nn.Conv2d(8, 16, 1)"),
        (
            Does(skips, a=conv(1, 8), b=conv(8, 8, stride=2)),
            "do not match: 12 columns and 6",
            "same strides and paddings",
        ),
        (
            Does(lambda net, x: torch.cat([x, net.a(x)], 1).mean((2, 3)), a=conv(1, 9, stride=2)),
            "lays maps together whose sides differ: 12 and 6",
            "same strides and paddings",
        ),
        (
            Does(lambda net, x: functional.max_pool2d(x, 16).flatten(1)),
            "pools maps of 12x12, which are too small",
            "take a pool away",
        ),
        (
            Does(lambda net, x: net.a(x).mean((2, 3)), a=nn.ConvTranspose2d(3, 10, 2)),
            "a nn.ConvTranspose2d(3, 10, kernel_size=(2, 2), stride=(1, 1)) got maps of 1 channel and wants 3",
            "nn.ConvTranspose2d(1, 10, (2, 2), …)",
        ),
        (
            Does(lambda net, x: functional.conv2d(x, torch.rand(10, 3, 3, 3)).mean((2, 3))),
            "got maps of 1 channel and wants 3",
            "weight of shape (outputs, 1, height, width)",
        ),
        (Does(lambda net, x: net.a(x), a=nn.Conv1d(1, 10, 3)), "which holds maps", "write nn.Conv2d in its place"),
        (
            Does(lambda net, x: net.b(net.a(x.flatten(1))), a=nn.LayerNorm(100), b=nn.Linear(144, 10)),
            "got a batch of shape (2, 144) and wants it to end in 100",
            "write nn.LayerNorm(144)",
        ),
        (
            Does(lambda net, x: net.b(net.a(x)).mean((2, 3)), a=conv(1, 10), b=nn.GroupNorm(2, 8)),
            "got 10 channels and wants 8",
            "write nn.GroupNorm(2, 10)",
        ),
        (
            Does(lambda net, x: net.a(x.squeeze(1))[0][:, -1], a=nn.LSTM(32, 10, batch_first=True)),
            "got 12 numbers a step and wants 32",
            "write nn.LSTM(12, 10, …)",
        ),
        (Does(lambda net, x: net.a(x), a=nn.Embedding(9, 10)), "as if they were whole numbers", "with a convolution"),
        (Does(again), "calls itself without end", "and not self(x)"),
        (Does(lambda net, x: net.a(x.permute(0, 2, 3, 1)), a=conv(1, 10)), "wants (2, 1, …)", "take the permute"),
        (
            Does(lambda net, x: net.a(x.flatten(1)).argmax(1), a=nn.Linear(144, 10)),
            "torch.int64 numbers",
            "before argmax",
        ),
    ],
)
def test_what_torch_says_is_told_as_what_to_write(net: nn.Module, what: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_fits(net, (1, 12, 12), 10)
    assert what in caught.value.what and fix in caught.value.fix, (caught.value.what, caught.value.fix)


def test_a_device_that_forward_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any) -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.")

    monkeypatch.setattr(Tensor, "cuda", missing)
    with pytest.raises(UsageError, match="to a device of its own choice") as caught:
        check_fits(Does(lambda net, x: x.cuda()), (1, 12, 12), 10)
    assert "--device" in caught.value.fix


def test_faults_that_only_several_passes_show() -> None:
    def squeezes(net: Any, x: Tensor) -> Tensor:
        return net.a(x.flatten(1)).squeeze()

    def writes(net: Any, x: Tensor) -> Tensor:
        return net.a(x.flatten(1)) * net.a.bias.relu_()

    linear, shape = nn.Linear(144, 10), (1, 12, 12)
    notes = advise(Does(squeezes, a=linear), shape, "cross-entropy")
    assert any("write flatten(1) in place of squeeze()" in note for note in notes), notes
    for forward, what in ((writes, "cannot be trained"), (lambda net, x: net.a(x.flatten(1)) / 0 * 0, "not finite")):
        with pytest.raises(UsageError, match=what):
            advise(Does(forward, a=linear), shape, "cross-entropy")
