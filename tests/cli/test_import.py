"""`striate import`: weights that the articles' own code saved become runs that answer as the articles' nets do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import striate as package
from striate.data.builtin import load_named
from striate.errors import DataError, UsageError
from striate.files import sha256_file
from striate.runs.model_file import read_card

DIGITS = load_named("digits").train


class CNN(nn.Module):
    """The fifth article's net, for pictures of `side` pixels."""

    def __init__(self, side: int = 28) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.conv3 = nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU())
        self.out = nn.Linear(32 * (side // 4) ** 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv3(self.conv2(self.conv1(x))).flatten(1))


class FlatCNN(nn.Module):
    """The same with each layer by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(i, 2 * max(i, 4), 3, padding=1) for i in (1, 8, 16))
        self.fc1 = nn.Linear(1568, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv1(x).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc1(self.conv3(x).relu().flatten(1))


def alexnet(classes: int = 10) -> nn.Module:
    """The fourth article's AlexNet: torchvision's with a smaller second hidden layer; here both are smaller."""
    net = torchvision.models.AlexNet(classes)
    net.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(9216, 48), nn.ReLU(inplace=True),
        nn.Dropout(), nn.Linear(48, 32), nn.ReLU(inplace=True), nn.Linear(32, classes),
    )  # fmt: skip
    return net


def lenet() -> nn.Module:
    """The second article's."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
        nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip


class Classifier(nn.Module):
    """The first article's, which ends in a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 10, 5, 2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
            nn.Conv2d(10, 10, 3, 2), nn.LeakyReLU(0.02), nn.BatchNorm2d(10),
            nn.Flatten(), nn.Linear(250, 10), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def logits_of(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """What the article's own code computes: pictures 0–1, as ToTensor makes them."""
    with torch.no_grad():
        return net.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()


@pytest.mark.parametrize(
    ("make", "model", "side", "channels", "flags"),
    [
        (CNN, "three-conv", 28, 1, []),
        (FlatCNN, "three-conv", 28, 1, []),
        (alexnet, "alexnet", 64, 3, ["--model-option", "hidden=48,32", "--input-size", "64"]),
        (lenet, "lenet5", 28, 1, []),
        (Classifier, "strided-cnn", 28, 1, ["--output", "sigmoid"]),
    ],
    ids=["three-conv", "three-conv-flat", "alexnet", "lenet5", "strided-cnn"],
)
def test_an_articles_file_answers_as_its_net(
    make: Any, model: str, side: int, channels: int, flags: list[str], striate: Any
) -> None:
    torch.manual_seed(1)
    net = make()
    torch.save(net.state_dict(), "article.model")
    outcome = striate("import", "article.model", "--model", model, *flags, "--out", "imported")
    assert outcome.code == 0, outcome.err
    images = np.random.default_rng(0).integers(0, 256, (6, side, side, channels)).astype(np.uint8)
    predictor = package.load("imported", device="cpu")
    wanted = logits_of(net, images)
    if model == "strided-cnn":
        assert predictor.output == "sigmoid"
        assert np.abs(predictor.probabilities(predictor.logits(images)) - wanted).max() < 1e-5
    else:
        np.testing.assert_allclose(predictor.logits(images), wanted, rtol=1e-4, atol=1e-5)
    renamed = "names changed by a known map" in outcome.err
    assert renamed is (model != "alexnet")


def test_an_imported_net_is_evaluated_asked_and_compared(striate: Any) -> None:
    torch.manual_seed(0)
    net = CNN(8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    pictures = torch.from_numpy(DIGITS.images).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(DIGITS.labels)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(pictures), labels).backward()
        optimizer.step()
    torch.save({"epoch": 30, "model": net.state_dict(), "optimizer": optimizer.state_dict()}, "digits.pth")
    outcome = striate("import", "digits.pth", "--model", "three-conv", "--input-size", "8", "--data", "digits")
    assert outcome.code == 0, outcome.err
    assert "runs/digits-three-conv-1" in outcome.out and "striate eval runs/digits-three-conv-1" in outcome.out
    told = striate("eval", "runs/latest", "--json")
    assert told.code == 0, told.err
    record = json.loads(told.out)
    accuracy = float((logits_of(net, DIGITS.images).argmax(1) == DIGITS.labels).mean())
    assert record["top1"]["value"] == pytest.approx(accuracy) and accuracy > 0.8
    digest = read_card(Path("runs/digits-three-conv-1")).weights["sha256"]
    asked = ["predict", "runs/latest", "--data", "digits", "--split", "train", "--index", "3", "--jsonl"]
    assert striate(*asked, "--expect-sha256", digest).code == 0
    refused = striate(*asked, "--expect-sha256", "0" * 64)
    assert refused.code == 3 and digest in refused.error_lines()["cause"]
    assert striate("eval", "runs/latest", "--expect-sha256", "0" * 64).code == 3
    assert striate("eval", "runs/latest", "--expect-sha256", "abc").code == 2
    assert striate("compare", "runs/latest", "runs/digits-three-conv-1", "--json").code == 0
    for verb in (["resume"], ["resume", "--epochs", "+1"], ["verify"]):
        refused = striate(*verb, "runs/latest")
        assert refused.code == 2 and "was imported" in refused.error_lines()["error"]


def test_what_stands_in_the_folder(striate: Any) -> None:
    save_file(dict(CNN(8).state_dict()), "three.safetensors")
    digest = sha256_file(Path("three.safetensors"))
    flags = ["--classes", "null,eins,zwei,drei,vier,fünf,sechs,sieben,acht,neun", "--input-size", "8", "--fit", "pad"]
    flags += ["--mean", "0.5", "--std", "0.25", "--expect-sha256", digest.upper(), "--out", "made"]
    outcome = striate("import", "three.safetensors", "--model", "three-conv", *flags)
    assert outcome.code == 0 and outcome.out == "saved  made\nnext   striate predict made picture.png\n", outcome.err
    card = read_card(Path("made"))
    assert (card.name, card.num_classes, card.in_channels, card.input_size) == ("three-conv", 10, 1, (8, 8))
    assert card.classes[5] == "fünf" and card.metrics == {"parameters": 7178, "macs": 42752}
    assert card.preprocess["mean"] == [127.5] and card.preprocess["std"] == [63.75] and card.preprocess["fit"] == "pad"
    data = json.loads(Path("made/data.json").read_text(encoding="utf-8"))
    assert data["imported"] == {"file": "three.safetensors", "sha256": digest}
    refused = striate("eval", "made")
    assert refused.code == 2 and "--data" in refused.error_lines()["fix"]
    assert striate("eval", "made", "--data", "digits").code == 3, "the classes have other names"


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ([], 2, "add --model"),
        (["--model", "resent"], 2, "unknown model"),
        (["--model", "three-conv", "--model-option", "depth=3"], 2, "unknown option"),
        (["--model", "three-conv", "--classes", "a,b", "--data", "digits"], 2, "leave one"),
        (["--model", "three-conv", "--classes", "a,,b"], 2, "none empty"),
        (["--model", "three-conv", "--classes", "a,a"], 2, "none twice"),
        (["--model", "three-conv", "--mean", "0.5"], 2, "given together"),
        (["--model", "three-conv", "--mean", "0.5,0.5", "--std", "1,1"], 2, "one number per channel"),
        (["--model", "three-conv", "--input-size", "9999"], 2, "4096"),
        (["--model", "three-conv", "--data", "minst"], 2, "unknown data set"),
        (["--model", "alexnet", "--model-option", "hidden=1000000000"], 2, "out of range"),
        (["--model", "three-conv", "--expect-sha256", "1"], 2, "64 digits"),
        (["--model", "three-conv", "--expect-sha256", "1" * 64], 3, "not the file that was expected"),
        (["--model", "three-conv", "--classes", "a,b"], 3, "out.weight (10, 128) instead of (2, 128)"),
        (["--model", "lenet5", "--input-size", "28"], 3, "missing: conv1.bias"),
    ],
)
def test_refusals(flags: list[str], code: int, words: str, striate: Any) -> None:
    torch.save(CNN(8).state_dict(), "three.pt")
    if flags and "--input-size" not in flags:
        flags = [*flags, "--input-size", "8"] if "alexnet" not in flags else flags
    outcome = striate("import", "three.pt", *flags)
    assert outcome.code == code
    lines = [line for line in outcome.err.splitlines() if line.startswith(("error", "cause", "fix"))]
    assert words.replace("out.weight", "fc.weight") in " ".join(lines)
    assert not Path("runs").exists()


def test_a_whole_module_is_refused_with_what_to_do(striate: Any) -> None:
    torch.save(torchvision.models.squeezenet1_0(), "whole.pt")
    outcome = striate("import", "whole.pt", "--model", "alexnet", "--mean", "0.5", "--std", "0.5", "--data", "cifar10")
    lines = outcome.error_lines()
    assert outcome.code == 3 and "a whole module" in lines["cause"]
    assert "torch.save(net.state_dict()" in lines["fix"]


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = CNN(8)
    torch.save({name: tensor.double() for name, tensor in net.state_dict().items()}, "three.pt")
    heard: list[str] = []
    folder = package.import_model("three.pt", model="three-conv", input_size=8, data="digits", report=heard.append)
    predictor = package.load(folder, device="cpu")
    np.testing.assert_allclose(predictor.logits(DIGITS.images[:5]), logits_of(net, DIGITS.images[:5]), atol=1e-5)
    assert predictor.classes == DIGITS.classes and len(heard) == 2
    with pytest.raises(UsageError, match="unknown setting 'size'"):
        package.import_model("three.pt", model="three-conv", size=8)
    with pytest.raises(DataError, match="no file"):
        package.import_model("gone.pt", model="three-conv")
