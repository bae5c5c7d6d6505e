"""The names that `striate.` exports, as a person uses them: nets pasted from articles, arrays, runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

import striate
from striate import api
from striate.data.builtin import load_named
from striate.data.dataset import Dataset, Parts
from striate.errors import DataError, StriateError, UsageError
from striate.training import material

DIGITS = load_named("digits").train
SHORT = {"epochs": 2, "lr": 0.01, "schedule": "constant", "batch_size": 32, "quiet": True}


def pictures(size: int, channels: int = 1, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Digits enlarged to `size`, as (N, H, W) or (N, H, W, C)."""
    images = DIGITS.images[:count, :, :, 0].repeat(-(-size // 8), 1).repeat(-(-size // 8), 2)[:, :size, :size]
    return (images if channels == 1 else np.stack([images] * channels, 3)), DIGITS.labels[:count]


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)  # nets that are handed over as modules draw their weights from it
    for variable in ("STRIATE_DATA", "STRIATE_EPOCHS", "STRIATE_DEVICE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Draw nothing, which takes most of a short run's time; returns the names of what would have been drawn."""
    drawn: list[str] = []
    for name in ("sample_grid", "curves", "confusion_matrix", "mistakes"):
        monkeypatch.setattr(api.plots, name, lambda path, *_, **__: drawn.append(Path(path).name))
    return drawn


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> striate.Run:
    out = tmp_path_factory.mktemp("run") / "digits"
    return striate.train("digits", epochs=2, device="cpu", quiet=True, out=out)


# nets as the articles write them


class Classifier(nn.Module):
    """The first article's, with its own `train`, a View layer for one picture and a sigmoid at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 10, kernel_size=5, stride=2),
            nn.LeakyReLU(0.02),
            nn.BatchNorm2d(10),
            nn.Conv2d(10, 10, kernel_size=3, stride=2),
            nn.LeakyReLU(0.02),
            nn.BatchNorm2d(10),
            nn.Flatten(),
            nn.Linear(250, 10),
            nn.Sigmoid(),
        )
        self.loss_function = nn.BCELoss()
        self.optimiser = torch.optim.Adam(self.parameters())
        self.counter = 0
        self.progress: list[float] = []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)

    def train(self, inputs: Tensor, targets: Tensor) -> None:  # type: ignore[override]
        outputs = self.forward(inputs)
        loss = self.loss_function(outputs, targets)
        self.counter += 1
        if self.counter % 10 == 0:
            self.progress.append(loss.item())
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


def lenet() -> nn.Sequential:
    """The second article's: a plain Sequential."""
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5, padding=2), nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5), nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2), nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120), nn.Sigmoid(),
        nn.Linear(120, 84), nn.Sigmoid(),
        nn.Linear(84, 10),
    )  # fmt: skip


class SimpleCNN(nn.Module):
    """The third article's: `view(-1, n)` before the linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 18, kernel_size=3, stride=1, padding=1)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2, padding=0)
        self.fc1 = nn.Linear(18 * 16 * 16, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv1(x))
        x = self.pool(x)
        x = x.view(-1, 18 * 16 * 16)
        x = functional.relu(self.fc1(x))
        return self.fc2(x)


class AlexNet(nn.Module):
    """The fourth article's, with fewer channels; its first layers are the same."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, kernel_size=11, stride=4, padding=2), nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(8, 16, kernel_size=5, padding=2), nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(16, 16, kernel_size=3, padding=1), nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(16 * 6 * 6, 64), nn.ReLU(), nn.Linear(64, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class CNN(nn.Module):
    """The fifth article's: three convolutions and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.conv3 = nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU())
        self.out = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(x)))
        x = x.view(x.size(0), -1)
        return self.out(x)


def trained(model: Any, size: int, channels: int = 1, **settings: Any) -> striate.Run:
    return striate.train(pictures(size, channels), model=model, device="cpu", **{**SHORT, **settings})


def test_the_first_article(undrawn: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(Classifier(), 28, loss="binary-cross-entropy", epochs=3, quiet=False)
    assert run.evaluation["top1"]["value"] > 0.6
    assert "nn.Sigmoid, was taken away" in capsys.readouterr().out
    answers = run.predict(list(pictures(28)[0][:20]))
    sums = [sum(answer.probabilities.values()) for answer in answers]
    assert max(abs(total - 1) for total in sums) > 1e-3, "sigmoids need not sum to one"
    loaded = striate.load(run.folder, model=Classifier(), device="cpu")
    again = loaded.predict(list(pictures(28)[0][:20]))
    first, second = (np.array([list(answer.probabilities.values()) for answer in each]) for each in (answers, again))
    assert np.abs(first - second).max() < 1e-6


def test_the_second_article(undrawn: list[str]) -> None:
    run = trained(lenet(), 28, epochs=1)
    assert run.evaluation["samples"] == 60 and (run.folder / "weights" / "best.safetensors").is_file()
    assert json.loads((run.folder / "model.json").read_text())["model"]["class"] == "Sequential"


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "floats", "tensor"])
def test_the_third_article_and_every_layout(undrawn: list[str], layout: str) -> None:
    images, labels = pictures(32, 3, count=200)
    forms: dict[str, Any] = {
        "NHWC": images,
        "NCHW": images.transpose(0, 3, 1, 2),
        "floats": images.astype(np.float32) / 255,
        "tensor": torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
    }
    torch.manual_seed(0)
    run = striate.train((forms[layout], labels), model=SimpleCNN(), device="cpu", **{**SHORT, "epochs": 1})
    torch.manual_seed(0)
    plain = striate.train((images, labels), model=SimpleCNN(), device="cpu", **{**SHORT, "epochs": 1})
    assert (run.folder / "steps.csv").read_bytes() == (plain.folder / "steps.csv").read_bytes()


def test_the_fourth_article_and_pictures_too_small_for_it(undrawn: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        trained(AlexNet(), 32, 3)
    assert "features" in str(caught.value) and not Path("runs").exists()
    assert trained(AlexNet, 64, 3, epochs=1).evaluation["samples"] == 60


def test_the_fifth_article(undrawn: list[str]) -> None:
    run = trained(CNN, 28, epochs=3)
    assert run.evaluation["top1"]["value"] > 0.6 and run.folder == Path("runs/arrays-cnn-1")


def test_a_net_for_another_size_is_refused_with_the_number_to_write() -> None:
    """`view(-1, …)` would turn a picture of 64 × 64 into four samples."""
    with pytest.raises(UsageError) as caught:
        trained(SimpleCNN(), 64, 3)
    assert "view" in str(caught.value) and not Path("runs").exists()
    with pytest.raises(UsageError) as caught:
        trained(CNN(), 32)
    assert "2048" in str(caught.value) and "1568" in str(caught.value)


# settings and data


def test_a_net_of_ones_own_gets_the_general_recipe_not_that_of_the_data(undrawn: list[str]) -> None:
    run = striate.train("digits", model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), epochs=1, quiet=True)
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["recipe"] == "generic" and config["model"] == "own:Sequential"


def test_arrays_without_a_net() -> None:
    with pytest.raises(UsageError, match="no net is named for arrays") as caught:
        striate.train(pictures(8), quiet=True)
    assert "model=" in caught.value.fix


@pytest.mark.parametrize(
    ("data", "settings", "kind", "words"),
    [
        ("mnst", {}, UsageError, "unknown data set 'mnst'"),
        ("digits", {"model": "lenet6"}, UsageError, "unknown model 'lenet6'"),
        ("digits", {"recipe": "digit"}, UsageError, "unknown recipe 'digit'"),
        ("digits", {"epochs": 0}, UsageError, "epochs"),
        ("digits", {"device": "cuda:77"}, UsageError, "cuda:77 is not there"),
        ("digits", {"lr": float("nan")}, UsageError, "lr"),
        ("digits", {"momentum": 0.5, "optimizer": "adam"}, UsageError, "no effect"),
        (None, {}, DataError, "cannot train on a NoneType"),
        ((np.zeros((5, 8, 8), np.uint8), [0, 1]), {}, DataError, "5 pictures but 2 labels"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(
    data: Any, settings: dict[str, Any], kind: type[StriateError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        striate.train(data, quiet=True, **settings)
    assert list(Path().iterdir()) == []


def test_what_a_run_prints(undrawn: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = striate.train("digits", epochs=3, device="cpu")
    out, err = capsys.readouterr()
    lines = [*out.splitlines(), *err.splitlines()]
    rows = [line for line in lines if line.lstrip()[:3] in ("1/3", "2/3", "3/3")]
    assert len(rows) == 3 and len(lines) - len(rows) <= 25
    for words in (
        "1,374 train, 153 validation, 270 test",
        "parameters",
        "95 % interval",
        "pictures/s",
        str(run.folder),
    ):
        assert words in out, words
    assert undrawn[0] == "samples.png" and set(undrawn[1:-2]) == {"curves.png"}
    assert undrawn[-2:] == ["confusion_matrix.png", "mistakes.png"]


# a run and what can be asked of it


def test_the_folder_holds_what_the_format_says(run: striate.Run) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {
        *("config.yaml", "command.txt", "env.json", "data.json", "split.json", "steps.csv", "results.csv", "weights"),
        *("model.json", "checkpoints", "evaluation.json", "predictions.csv", "samples.png", "curves.png"),
        *("confusion_matrix.png", "mistakes.png", "status.json"),
    }
    assert not list(run.folder.rglob("*.tmp"))
    for path in run.folder.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["format"] == 1, path.name


def test_evaluate_is_the_test_at_the_end_of_training(run: striate.Run, tmp_path: Path) -> None:
    assert run.evaluate() == run.evaluation
    assert striate.evaluate(run.folder, device="cpu") == run.evaluation
    assert not (tmp_path / "evaluation.json").exists()
    striate.evaluate(run.folder, device="cpu", out=tmp_path / "numbers.json")
    assert json.loads((tmp_path / "numbers.json").read_text()) == run.evaluation
    counts = {split: run.evaluate(split)["samples"] for split in ("train", "validation", "test")}
    assert counts == {"train": 1374, "validation": 153, "test": 270}
    with pytest.raises(UsageError, match="unknown split 'tset'"):
        run.evaluate("tset")


def test_results_and_curves(run: striate.Run) -> None:
    assert [row["epoch"] for row in run.results] == [1, 2]
    assert run.results[1]["val_accuracy"] > 0.5 and run.results[1]["images_per_second"] > 0


def test_the_very_same_data_by_another_way_keep_their_split(run: striate.Run) -> None:
    """Pictures that trained must not come into the test because the data were handed over as arrays."""
    arrays = Dataset("copy", DIGITS.images.copy(), DIGITS.labels.copy(), DIGITS.classes)
    for data in (arrays, (DIGITS.images[..., 0], DIGITS.labels), Parts("copy", arrays)):
        found = striate.evaluate(run.folder, data=data, device="cpu")
        assert found["samples"] == 270 and found["top1"] == run.evaluation["top1"]


def test_other_data_are_counted_whole(run: striate.Run) -> None:
    few = (DIGITS.images[:50], DIGITS.labels[:50])
    found = striate.evaluate(run.folder, data=few, device="cpu")
    assert found["samples"] == 50
    answers = striate.load(run.folder, device="cpu").predict(list(few[0]))
    right = [answer.label == DIGITS.classes[label] for answer, label in zip(answers, few[1], strict=True)]
    assert found["top1"]["value"] == np.mean(right)
    large = np.repeat(np.repeat(few[0], 2, 1), 2, 2)
    assert striate.evaluate(run.folder, data=(large, few[1]), device="cpu")["samples"] == 50
    with pytest.raises(DataError, match="classes"):
        striate.evaluate(run.folder, data=(few[0], few[1] % 3), device="cpu")


def test_data_that_changed_since_are_not_evaluated(run: striate.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = DIGITS.images.copy()
    images[0, 0, 0, 0] ^= 1
    changed = Parts("digits", Dataset("digits", images, DIGITS.labels, DIGITS.classes))
    monkeypatch.setattr(material, "load_named", lambda *_, **__: changed)
    with pytest.raises(DataError, match="digits changed since the run began"):
        striate.evaluate(run.folder, device="cpu")


def test_compare_puts_runs_side_by_side(run: striate.Run, undrawn: list[str]) -> None:
    other = trained(CNN, 28, epochs=1, validation=0)
    rows = striate.compare([run.folder, other.folder])
    assert [row["data"] for row in rows] == ["digits", "arrays"] and rows[1]["model"] == "CNN"
    for row, done in zip(rows, (run, other), strict=True):
        assert row["top1"] == done.evaluation["top1"] and set(row["top1"]) == {"value", "low", "high"}
        assert row["epochs"] == len(done.results) and row["seconds"] == done.results[-1]["seconds"]
        assert row["images_per_second"] > 0 and row["peak_memory_mb"] > 0 and row["macs"] > 0
    assert rows[1]["parameters"] == sum(parameter.numel() for parameter in CNN().parameters()) == 21_578
    with pytest.raises(UsageError, match="unknown run"):
        striate.compare([run.folder, "runs/nothing"])


def test_load_names_the_class_that_it_needs(undrawn: list[str], run: striate.Run) -> None:
    own = trained(CNN, 28, epochs=1)
    with pytest.raises(UsageError) as caught:
        striate.load(own.folder)
    assert "your own class CNN" in caught.value.what and "model=CNN()" in caught.value.fix
    assert striate.load(own.folder, model=CNN).predict(pictures(28)[0][0]).label in DIGITS.classes
    with pytest.raises(DataError, match="does not fit the net"):
        striate.load(own.folder, model=lenet())
    with pytest.raises(UsageError, match="it needs no model"):
        striate.load(run.folder, model=CNN())
    with pytest.raises(UsageError, match="trained on arrays"):
        striate.evaluate(own.folder, model=CNN())


def test_an_interrupted_run_of_arrays_is_resumed(undrawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures(28)
    torch.manual_seed(1)
    whole = striate.train(data, model=CNN, device="cpu", out="whole", **SHORT)

    def stop(path: Any, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(api.plots, "curves", stop)  # at the end of the first epoch
        with pytest.raises(KeyboardInterrupt):
            striate.train(data, model=CNN, device="cpu", out="stopped", **SHORT)
    with pytest.raises(UsageError, match="trained on arrays"):
        striate.resume("stopped", model=CNN, quiet=True)
    resumed = striate.resume("stopped", data=data, model=CNN, quiet=True)
    assert resumed.evaluation == whole.evaluation
    for name in ("steps.csv", "weights/best.safetensors", "weights/last.safetensors"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    with pytest.raises(UsageError, match="is finished"):
        striate.resume("stopped", data=data, model=CNN, quiet=True)


def test_importing_striate_imports_no_torch() -> None:
    code = "import sys, striate; dir(striate); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    for name in striate.__all__:
        assert getattr(striate, name) is not None
    with pytest.raises(AttributeError, match="trian"):
        striate.trian  # noqa: B018
