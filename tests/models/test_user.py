"""Nets from the user's own file, their modes, and their last layer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.user import instantiate, load_class, set_mode, take_logits

SOURCE = """
from __future__ import annotations
import dataclasses
import torch
from torch import nn
from parts_of_mine import WIDTH

@dataclasses.dataclass
class Note:
    text: str

class MyNet(nn.Module):
    def __init__(self, num_classes, input_size=28, width: int = WIDTH):
        super().__init__()
        self.size = input_size
        self.fc = nn.Linear(input_size[0] * input_size[1], num_classes)
        self.width = width

    def forward(self, x):
        return self.fc(x.flatten(1))

class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

class Greedy(nn.Module):
    def __init__(self, depth, /, *, num_classes, breadth):
        super().__init__()

class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        nn.Linear(10)

def make():
    return MyNet(10)

if __name__ == "__main__":
    raise SystemExit("must not run")
"""


@pytest.fixture
def net_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "net.py"
    path.write_text(SOURCE, encoding="utf-8")
    (tmp_path / "parts_of_mine.py").write_text("WIDTH = 7\n", encoding="utf-8")
    yield path
    sys.modules.pop("parts_of_mine", None)


def test_a_class_is_loaded_and_made_with_what_its_signature_names(net_file: Path) -> None:
    search_path = list(sys.path)
    net = instantiate(load_class(f"{net_file}:MyNet"), num_classes=4, in_channels=1, input_size=(20, 30))
    assert net(torch.rand(2, 1, 20, 30)).shape == (2, 4)
    assert net.size == (20, 30) and net.width == 7
    assert sys.path == search_path
    assert "net" not in sys.modules


def test_a_constructor_without_arguments_is_called_without(net_file: Path) -> None:
    assert instantiate(load_class(f"{net_file}:Bare"), 10, 1, 28).fc.in_features == 784


def test_options_are_converted_and_unknown_ones_refused(net_file: Path) -> None:
    own = load_class(f"{net_file}:MyNet")
    assert instantiate(own, 10, 1, 28, width="12").width == 12
    with pytest.raises(UsageError, match="whole number"):
        instantiate(own, 10, 1, 28, width="wide")
    with pytest.raises(UsageError, match="unknown option of MyNet 'widht'") as caught:
        instantiate(own, 10, 1, 28, widht=3)
    assert "width" in caught.value.cause


def test_arguments_that_nobody_gives_are_named(net_file: Path) -> None:
    with pytest.raises(UsageError, match="Greedy cannot be made without breadth"):
        instantiate(load_class(f"{net_file}:Greedy"), 10, 1, 28)


def test_a_constructor_that_raises_is_named_with_its_line(net_file: Path) -> None:
    with pytest.raises(UsageError, match="Failing could not be made: TypeError") as caught:
        instantiate(load_class(f"{net_file}:Failing"), 10, 1, 28)
    assert "net.py:" in caught.value.cause and "nn.Linear(10)" in caught.value.cause


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    classes = []
    for folder, width in (("a", 3), ("b", 5)):
        path = tmp_path / folder / "net.py"
        path.parent.mkdir()
        path.write_text(f"from torch import nn\nclass Net(nn.Module):\n    width = {width}\n")
        classes.append(load_class(f"{path}:Net"))
    assert [own.width for own in classes] == [3, 5]
    assert classes[0].__module__ != classes[1].__module__


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\nclass Net(nn.Module):\n    width = 3\n")
    load_class(f"{path}:Net")
    path.write_text("from torch import nn\nclass Net(nn.Module):\n    width = 4444\n")
    assert load_class(f"{path}:Net").width == 4444


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("net.py", "file.py:ClassName"),
        ("net.py:", "file.py:ClassName"),
        ("net.txt:Net", "file.py:ClassName"),
        ("nowhere/net.py:Net", "there is no file nowhere/net.py"),
    ],
)
def test_a_target_that_names_nothing(target: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_class(target)
    assert sentence in str(caught.value)


def test_a_missing_class_lists_the_near_ones_of_the_file(net_file: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown class of .*net\.py 'MyNett'") as caught:
        load_class(f"{net_file}:MyNett")
    assert "MyNet" in caught.value.cause


@pytest.mark.parametrize("name", ["Note", "make", "WIDTH"])
def test_what_is_no_module_is_refused(net_file: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} in .* is not a torch.nn.Module"):
        load_class(f"{net_file}:{name}")


@pytest.mark.parametrize(
    ("source", "sentence", "line"),
    [
        ("import no_such_module_at_all\n", "ModuleNotFoundError", "net.py:1: import no_such"),
        ("class Net(:\n", "SyntaxError", ""),
        ("x = 1\nraise SystemExit(3)\n", "SystemExit", "net.py:2:"),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError", "net.py:2: y = x / 0"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path: Path, source: str, sentence: str, line: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(source)
    before = set(sys.modules)
    with pytest.raises(UsageError, match=f"could not be imported: {sentence}") as caught:
        load_class(f"{path}:Net")
    assert line in caught.value.cause
    assert not [name for name in set(sys.modules) - before if "striate_user" in name]


class Step(nn.Module):
    """`train` is a training step here, as in the first article."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def train(self, inputs: Any, targets: Any) -> None:  # type: ignore[override]
        raise AssertionError("called as a mode")


class Frozen(nn.Module):
    """Keeps its BatchNorm in evaluation mode, in the way that torch means it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self


def test_set_mode_passes_over_a_train_of_another_meaning() -> None:
    net = nn.Sequential(Step(), nn.Dropout())
    for mode in (False, True):
        set_mode(net, mode)
        assert all(module.training is mode for module in net.modules())


def test_set_mode_calls_an_override_of_torchs_meaning() -> None:
    net = nn.Sequential(Frozen(), nn.Dropout())
    set_mode(net, True)
    assert net[0].training and net[1].training and not net[0].norm.training
    set_mode(net, False)
    assert not any(module.training for module in net.modules())


class Ends(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.parametrize(("last", "word"), [(nn.Sigmoid(), "sigmoid"), (nn.Softmax(dim=1), "softmax")])
def test_a_last_squashing_layer_is_taken_away_and_told(last: nn.Module, word: str) -> None:
    net = Ends(last).eval()
    pictures = torch.rand(2, 1, 4, 4)
    with torch.no_grad():
        squashed = net(pictures)
        note = take_logits(net, (1, 4, 4))
        logits = net(pictures)
    assert torch.equal(last(logits), squashed)
    assert note is not None and "body.4" in note and word in note
    assert take_logits(net, (1, 4, 4)) is None
    assert not net.training


@pytest.mark.parametrize("last", [nn.Linear(3, 3), nn.ReLU(), nn.LogSoftmax(dim=1), nn.Identity()])
def test_other_last_layers_stay(last: nn.Module) -> None:
    net = Ends(last)
    assert take_logits(net, (1, 4, 4)) is None
    assert net.body[4] is last


def test_a_sigmoid_whose_output_is_not_the_nets_stays() -> None:
    class Scaled(Ends):
        def forward(self, x: Tensor) -> Tensor:
            return 5 * super().forward(x)

    net = Scaled(nn.Sigmoid())
    assert take_logits(net, (1, 4, 4)) is None
    assert isinstance(net.body[4], nn.Sigmoid)


def test_a_sigmoid_that_also_runs_earlier_is_refused() -> None:
    sigmoid = nn.Sigmoid()
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), sigmoid, nn.Linear(6, 3), sigmoid)
    with pytest.raises(UsageError, match="also runs earlier"):
        take_logits(net, (1, 4, 4))
    assert net[2] is sigmoid


def test_take_logits_of_a_net_that_does_not_fit_names_the_layer() -> None:
    with pytest.raises(UsageError, match=r"body\.1 nn\.Linear"):
        take_logits(Ends(nn.Sigmoid()), (1, 5, 5))
