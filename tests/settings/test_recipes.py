"""Every recipe loads, is valid, names a known net and data set, and the articles' recipes say what the articles say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from striate.data.named import NAMED
from striate.errors import DataError, UsageError
from striate.settings.layers import resolve_train
from striate.settings.recipes import choose_recipe, get_recipe, list_recipes, load_recipe, parse_settings, read_config
from striate.settings.train import EFFECTS, TrainSettings

RECIPES = list_recipes()

ARTICLE: dict[str, Any] = {"precision": "fp32", "schedule": "constant", "augment": "none"}
ZERO_ONE: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)}
HALF: dict[str, Any] = {"mean": (0.5,), "std": (0.5,)}
FIRST: dict[str, Any] = {
    **ARTICLE,
    **ZERO_ONE,
    "data": "mnist",
    "validation": 0.0,
    "epochs": 3,
    "loss": "binary-cross-entropy",
    "optimizer": "adam",
    "lr": 0.001,
}
THIRD: dict[str, Any] = {
    **ARTICLE,
    **HALF,
    "data": "cifar10",
    "train_range": "0:20000",
    "validation_range": "20000:25000",
    "test_range": ":5000",
    "optimizer": "adam",
    "lr": 0.001,
    "batch_size": 32,
    "epochs": 5,
    "seed": 42,
    "loss": "cross-entropy",
}
ARTICLES: dict[str, dict[str, Any]] = {
    "tutorial-mlp": {**FIRST, "model": "mlp", "batch_size": 1},
    "tutorial-mlp-batched": {**FIRST, "model": "mlp", "batch_size": 64},
    "tutorial-strided-cnn": {**FIRST, "model": "strided-cnn", "batch_size": 1, "recompute_batchnorm": "on"},
    "tutorial-strided-cnn-batched": {**FIRST, "model": "strided-cnn", "batch_size": 64},
    "tutorial-lenet5": {
        **ARTICLE,
        **ZERO_ONE,
        "data": "fashion-mnist",
        "model": "lenet5",
        "model_option": {"activation": "sigmoid", "pool": "average", "head": "fc"},
        "validation": 0.0,
        "optimizer": "sgd",
        "lr": 0.9,
        "momentum": 0.0,
        "nesterov": False,
        "batch_size": 256,
        "epochs": 10,
        "init": "xavier-uniform",
        "loss": "cross-entropy",
    },
    "tutorial-simple-cnn": {**THIRD, "model": "simple-cnn"},
    "tutorial-less-simple-cnn": {**THIRD, "model": "less-simple-cnn"},
    "tutorial-alexnet": {
        **ARTICLE,
        **HALF,
        "data": "cifar10",
        "model": "alexnet",
        "size": (96, 96),
        "validation": 0.0,
        "optimizer": "adam",
        "lr": 0.001,
        "weight_decay": 0.0001,
        "weight_decay_mode": "coupled",
        "batch_size": 500,
        "epochs": 20,
        "loss": "cross-entropy",
    },
    "tutorial-three-conv": {
        **ARTICLE,
        **ZERO_ONE,
        "data": "mnist",
        "model": "three-conv",
        "validation": 0.0,
        "optimizer": "adam",
        "lr": 0.01,
        "batch_size": 64,
        "epochs": 10,
        "loss": "cross-entropy",
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_builds_valid_settings(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.description.endswith(".") and recipe.measured
    settings, origins, chosen = resolve_train({"recipe": name}, environ={})
    assert chosen == name and settings.recipe == name
    fields = TrainSettings.model_fields
    idle = [name for name, _, has_effect in EFFECTS if not has_effect(settings)]
    assert [name for name in idle if getattr(settings, name) != fields[name].default] == []
    assert {origins[setting] for setting in recipe.values} == {f"recipe {name}"}
    for setting, value in recipe.values.items():
        assert getattr(settings, setting) is not None, f"{setting} = {value!r}"


@pytest.mark.parametrize("name", RECIPES)
def test_names_known_data_and_net(name: str) -> None:
    import striate.models  # noqa: F401  (enters the nets into the registry)
    from striate.models.registry import convert_options, list_models

    values = RECIPES[name].values
    if not name.startswith(("generic", "pictures", "transfer")):
        assert values["data"] in NAMED and "model" in values
    if "model" in values:
        assert values["model"] in list_models()
        convert_options(values["model"], values.get("model_option", {}))
    if name.startswith("generic-"):
        assert "data" not in values
        meant = name.removeprefix("generic-")
        if "model" in values:
            assert values["model"] == meant
        else:
            assert [model for model in list_models() if model.rstrip("0123456789") == meant]


@pytest.mark.parametrize("name", ARTICLES)
def test_articles_settings(name: str) -> None:
    settings, _, _ = resolve_train({"recipe": name}, environ={})
    assert {setting: getattr(settings, setting) for setting in ARTICLES[name]} == ARTICLES[name]


def test_every_article_is_in_the_table() -> None:
    assert {name for name in RECIPES if name.startswith("tutorial-")} == set(ARTICLES)


@pytest.mark.parametrize("data", NAMED)
def test_every_named_data_set_has_a_default(data: str) -> None:
    assert choose_recipe(data, None, None) == data
    assert load_recipe(data)["data"] == data


@pytest.mark.parametrize(
    ("data", "model", "recipe", "chosen"),
    [
        ("mnist", "lenet5", "tutorial-three-conv", "tutorial-three-conv"),
        ("mnist", None, None, "mnist"),
        ("Fashion_MNIST", None, None, "fashion-mnist"),
        ("mnist", "lenet5", None, "generic"),
        ("mnist", "alexnet", None, "generic-alexnet"),
        ("cifar10", "alexnet-2012", None, "generic-alexnet-2012"),
        ("cifar10", "vgg16", None, "generic-vgg"),
        ("cifar10", "resnet18", None, "generic"),
        ("arrays", None, None, "generic"),
        ("generic-alexnet", None, None, "generic"),
        ("tutorial-lenet5", None, None, "generic"),
        (None, "net.py:MyNet", None, "generic"),
    ],
)
def test_rule_of_choice(data: str | None, model: str | None, recipe: str | None, chosen: str) -> None:
    assert choose_recipe(data, model, recipe) == chosen


def test_unknown_recipe_has_near_names() -> None:
    with pytest.raises(UsageError) as caught:
        get_recipe("tutorial-lenet")
    assert "tutorial-lenet5" in caught.value.cause


def test_config_reads_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("\ufeffepochs: 3\nlr: 1e-3\nmodel_option: {activation: relu}\n", encoding="utf-8")
    assert read_config(path) == {"epochs": 3, "lr": "1e-3", "model_option": {"activation": "relu"}}
    settings, origins, _ = resolve_train({"model": "lenet5"}, config=path, environ={})
    assert (settings.epochs, settings.lr, settings.model_option) == (3, 0.001, {"activation": "relu"})
    assert origins["lr"] == f"config {path}"


def test_empty_config_is_no_settings(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    assert read_config(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", ["epoch", "epochs", "my.yaml"]),
        ("- epochs", ["list", "my.yaml"]),
        ("epochs: 3\nlr: 1\nepochs: 4", ["line 3", "twice", "my.yaml"]),
        ("epochs: [3", ["YAML", "my.yaml"]),
        ("epochs: !!python/object/apply:os.getcwd []", ["YAML", "my.yaml"]),
        ("{a: 1}: 2", ["my.yaml"]),
        ("3: 4", ["3", "my.yaml"]),
    ],
)
def test_bad_config_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(text, "my.yaml")
    told = str(caught.value)
    assert all(word in told for word in words), told


def test_config_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        read_config(tmp_path / "nowhere.yaml")
    with pytest.raises(DataError):
        read_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_config(tmp_path / "binary.yaml")
