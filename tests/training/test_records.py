"""config.yaml and data.json: what they hold comes back as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from striate.data.dataset import Parts
from striate.errors import DataError
from striate.runs.folder import RunFolder
from striate.settings.layers import resolve_train
from striate.settings.recipes import list_recipes
from striate.settings.train import TrainSettings
from striate.training.job import Job
from striate.training.records import config_text, read_config

HARD: dict[str, Any] = {
    "data": "no",
    "data_root": Path("/a b/数字: x"),
    "model": "net.py:MyNet",
    "model_option": {"activation": "off", "hidden": [4, 5], "rate": 1e-7, "deep": True},
    "size": (96, 128),
    "mean": (0.1, 0.2, 1 / 3),
    "std": (1e-3, 1.0, 2.0),
    "train_range": "12:30",
    "validation_range": "1:20",
    "lr": 1e-05,
    "clip": 1e10,
    "save_every": "90s",
    "augment": "shift:2,flip",
    "seed": 2**62,
}


@pytest.mark.parametrize("settings", [{}, HARD])
def test_config_round_trip(tmp_path: Path, settings: dict[str, Any]) -> None:
    wanted = TrainSettings(**settings)
    text = config_text(wanted)
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert read_config(RunFolder(tmp_path)) == wanted
    assert set(yaml.safe_load(text)) == set(TrainSettings.model_fields) - {"out"}, "every setting in force"
    for name, field in TrainSettings.model_fields.items():
        assert name == "out" or f"# {field.description}\n{name}: " in text


@pytest.mark.parametrize("recipe", sorted(list_recipes()))
def test_a_config_gives_the_same_settings_again_and_a_folder_of_its_own(tmp_path: Path, recipe: str) -> None:
    settings, _, _ = resolve_train({"recipe": recipe, "out": tmp_path / "run"}, environ={})
    (tmp_path / "config.yaml").write_text(config_text(settings), encoding="utf-8")
    again, _, _ = resolve_train({}, config=tmp_path / "config.yaml", environ={})
    assert again == settings.model_copy(update={"out": None})


def test_a_config_of_ones_own_net_keeps_its_options(tmp_path: Path) -> None:
    settings = TrainSettings(model="own:MyNet", model_option={"width": 8})
    text = config_text(settings)
    assert text.splitlines()[0].endswith("striate train --config config.yaml --model net.py:MyNet")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    for model, wanted in (("net.py:MyNet", {"width": 8}), ("net.py:Other", {}), ("mlp", {})):
        again, _, _ = resolve_train({"model": model}, config=tmp_path / "config.yaml", environ={})
        assert again.model_option == wanted
    assert "striate.train(data, config=" in config_text(settings, given=True)


def test_a_relative_data_root_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert yaml.safe_load(config_text(TrainSettings(data_root=Path("data"))))["data_root"] == str(tmp_path / "data")


@pytest.mark.parametrize("text", ["", "- 1", "epochs: many", "lr: {", "no_such_setting: 1", "epochs: 0", "\x80"])
def test_a_damaged_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"config\.yaml cannot be read"):
        read_config(RunFolder(tmp_path))


def test_what_a_run_says_of_its_data(start: Callable[..., Job], parts: Parts) -> None:
    job = start("run", data=parts)
    record = job.folder.read_json("data.json")
    assert record["given"] is True and record["name"] == "made" and record["classes"] == ["a", "b", "c"]
    assert record["fingerprints"] == {"train": parts.train.fingerprint}
    assert sum(record["counts"].values()) == 240 and record["picture"] == {"size": [8, 8], "channels": 1}
    shown = parts.train.images[job.material.split.train]
    assert record["mean"] == [pytest.approx(shown.mean())] and record["std"] == [pytest.approx(shown.std())]
    assert job.folder.file("command.txt").is_file() and job.folder.read_json("env.json")["plan"]["precision"] == "fp32"
