"""Flags are made of the settings' fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from striate.cli.compare import compare
from striate.cli.data import data_add, data_ls, data_show
from striate.cli.evaluate import evaluate
from striate.cli.flags import flag_name, given_values, metavar_of
from striate.cli.lesson import lesson
from striate.cli.models import models
from striate.cli.predict import predict
from striate.cli.recipes import recipes
from striate.cli.train import resume, train
from striate.cli.verify import verify
from striate.settings import verbs
from striate.settings.base import Settings
from striate.settings.lesson import LessonSettings
from striate.settings.train import TrainSettings

COMMANDS = [
    (train, TrainSettings),
    (resume, verbs.ResumeSettings),
    (verify, verbs.VerifySettings),
    (evaluate, verbs.EvalSettings),
    (predict, verbs.PredictSettings),
    (compare, verbs.CompareSettings),
    (lesson, LessonSettings),
    (models, verbs.ModelsSettings),
    (recipes, verbs.RecipesSettings),
    (data_ls, verbs.DataListSettings),
    (data_show, verbs.DataShowSettings),
    (data_add, verbs.DataAddSettings),
]


@pytest.mark.parametrize(("command", "model"), COMMANDS, ids=[command.name for command, _ in COMMANDS])
def test_every_field_is_a_flag_with_its_description(command: Any, model: type[Settings]) -> None:
    flags = {name: parameter for parameter in command.params for name in parameter.opts}
    for name, field in model.model_fields.items():
        assert field.description, name
        flag = flags[flag_name(name)]
        assert flag.help.startswith(field.description)


@pytest.mark.parametrize(
    ("annotation", "metavar"),
    [
        (int, "INT"),
        (float | None, "NUMBER"),
        (Path | None, "PATH"),
        (str, "TEXT"),
        (Literal["sgd", "adam"], "sgd|adam"),
        (dict[str, Any], "NAME=VALUE"),
        (tuple[int, int] | None, "H[xW]"),
        (tuple[float, ...] | None, "X[,X]"),
        (tuple[int, int, int] | None, "CxHxW"),
    ],
)
def test_metavar(annotation: Any, metavar: str) -> None:
    assert metavar_of(annotation) == metavar


def test_names() -> None:
    assert flag_name("batch_size") == "--batch-size"
    assert flag_name("as_json") == "--json"


def test_given_values_are_those_given() -> None:
    assert given_values({"a": None, "b": [], "c": False, "d": 0, "e": "", "f": ()}) == {"c": False, "d": 0, "e": ""}


def test_booleans_can_be_taken_back(striate: Any) -> None:
    shown = striate("train", "digits", "--no-download", "--optimizer", "sgd", "--nesterov", "--show-config").out
    values = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert values["download"] == ["no", "flag"] and values["nesterov"] == ["yes", "flag"]


def test_repeated_options_and_origins(striate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_EPOCHS", "4")
    Path("my.yaml").write_text("batch_size: 8\nseed: 3\n", encoding="utf-8")
    arguments = ["train", "--recipe", "tutorial-lenet5", "--model-option", "pool=max", "--model-option", "head=gap"]
    outcome = striate(*arguments, "--config", "my.yaml", "--seed", "5", "--show-config")
    assert outcome.code == 0 and outcome.err == ""
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in outcome.out.splitlines()}
    assert rows["model_option"] == "activation=sigmoid pool=max head=gap recipe tutorial-lenet5 + flag"
    assert rows["epochs"] == "4 environment STRIATE_EPOCHS"
    assert rows["batch_size"] == "8 config my.yaml"
    assert rows["seed"] == "5 flag"
    assert rows["data"] == "fashion-mnist recipe tutorial-lenet5"
    assert rows["fit"] == "auto default"
    assert set(rows) == {"setting", *TrainSettings.model_fields}


def test_negative_numbers_are_values_not_flags(striate: Any) -> None:
    told = striate("train", "digits", "--lr", "-1").error_lines()
    assert "lr = '-1'" in told["error"]
