"""Precedence: defaults < recipe < config file < environment < flags; and settings that do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.errors import UsageError
from striate.settings.layers import resolve_train
from striate.settings.recipes import load_recipe
from striate.settings.train import TrainSettings
from striate.settings.values import environment_layers, from_text, parse_options
from striate.settings.verbs import FROM_ENVIRONMENT, EvalSettings

FIELDS = {
    "epochs": st.integers(1, 99),
    "batch_size": st.integers(1, 999),
    "seed": st.integers(0, 9),
    "lr": st.just(0.5),
}
layer = st.fixed_dictionaries({}, optional=FIELDS)


@settings(max_examples=60, deadline=None)
@given(recipe=st.sampled_from([None, "digits", "tutorial-simple-cnn"]), config=layer, environment=layer, flags=layer)
def test_the_strongest_layer_wins(
    tmp_path_factory: pytest.TempPathFactory,
    recipe: str | None,
    config: dict[str, Any],
    environment: dict[str, Any],
    flags: dict[str, Any],
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    environ = {f"STRIATE_{name.upper()}": str(value) for name, value in environment.items()}
    named = {"recipe": recipe} if recipe else {"model": "lenet5", "data": "digits"}
    resolved, origins, name = resolve_train({**named, **flags}, config=path, environ=environ)
    from_recipe = load_recipe(name)
    for field in FIELDS:
        if field in flags:
            expected, origin = flags[field], "flag"
        elif field in environment:
            expected, origin = environment[field], f"environment STRIATE_{field.upper()}"
        elif field in config:
            expected, origin = config[field], f"config {path}"
        elif field in from_recipe:
            expected, origin = from_recipe[field], f"recipe {name}"
        else:
            expected, origin = TrainSettings.model_fields[field].default, "default"
        assert (getattr(resolved, field), origins[field]) == (expected, origin)


def test_every_setting_has_an_origin() -> None:
    _, origins, _ = resolve_train({"data": "digits"}, environ={})
    assert set(origins) == set(TrainSettings.model_fields)


def test_recipe_setting_that_does_nothing_goes_back_to_its_default() -> None:
    resolved, origins, _ = resolve_train({"recipe": "tutorial-lenet5", "optimizer": "adam"}, environ={})
    assert (resolved.momentum, origins["momentum"]) == (0.9, "default")
    resolved, origins, _ = resolve_train({"recipe": "tutorial-alexnet", "weight_decay": 0}, environ={})
    assert (resolved.weight_decay_mode, origins["weight_decay_mode"]) == ("auto", "default")


def test_recipe_setting_with_an_effect_stays() -> None:
    resolved, origins, _ = resolve_train({"recipe": "tutorial-lenet5", "lr": 0.1}, environ={})
    assert (resolved.momentum, origins["momentum"]) == (0.0, "recipe tutorial-lenet5")


@pytest.mark.parametrize(
    ("given_flags", "flag", "need"),
    [
        ({"momentum": 0.5, "optimizer": "adam"}, "--momentum", "optimizer sgd"),
        ({"momentum": 0.9, "optimizer": "adam"}, "--momentum", "optimizer sgd"),  # equal to the default, and typed
        ({"betas": "0.9,0.99", "optimizer": "sgd"}, "--betas", "adam"),
        ({"step_epochs": 3, "schedule": "cosine"}, "--step-epochs", "schedule step"),
        ({"early_stop": 3, "validation": 0}, "--early-stop", "validation"),
        ({"label_smoothing": 0.1, "loss": "mean-squared-error"}, "--label-smoothing", "cross-entropy"),
        ({"weight_decay_mode": "coupled", "weight_decay": 0}, "--weight-decay-mode", "weight_decay"),
    ],
)
def test_flag_without_effect_is_an_error(given_flags: dict[str, Any], flag: str, need: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_train({"data": "digits", **given_flags}, environ={})
    assert caught.value.what.startswith(flag) and need in caught.value.cause


def test_setting_without_effect_from_environment_and_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="environment STRIATE_MOMENTUM"):
        resolve_train({"optimizer": "adam"}, environ={"STRIATE_MOMENTUM": "0.5"})
    path = tmp_path / "config.yaml"
    path.write_text("momentum: 0.5\noptimizer: adam\n", encoding="utf-8")
    with pytest.raises(UsageError, match="config"):
        resolve_train({}, config=path, environ={})


def test_complete_config_of_a_run_is_accepted(tmp_path: Path) -> None:
    resolved, _, _ = resolve_train({"recipe": "tutorial-simple-cnn", "out": tmp_path / "run"}, environ={})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(resolved.model_dump(mode="json")), encoding="utf-8")
    again, origins, _ = resolve_train({}, config=path, environ={})
    assert again == resolved
    assert set(origins.values()) == {f"config {path}"}


@pytest.mark.parametrize(("name", "near"), [("epoch", "epochs"), ("batchsize", "batch_size")])
def test_unknown_setting_has_near_names(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_train({name: 1}, environ={})
    assert near in caught.value.cause


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", "0", ["epochs", "flag", "greater than or equal to 1"]),
        ("lr", "nan", ["lr", "finite"]),
        ("optimizer", "adamm", ["optimizer", "'adamw'"]),
        ("size", "12y", ["size", "96x128"]),
        ("train_range", "5:2", ["train_range", "empty"]),
    ],
)
def test_value_out_of_range_is_named(name: str, value: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_train({name: value}, environ={})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_none_takes_back_what_a_recipe_says() -> None:
    resolved, _, _ = resolve_train({"recipe": "tutorial-alexnet", "size": "none"}, environ={})
    assert resolved.size is None
    resolved, _, _ = resolve_train({"recipe": "mnist", "augment": "none"}, environ={})
    assert resolved.augment == "none"  # a word of its own there


def test_absent_names_do_not_hide_the_recipes() -> None:
    resolved, _, name = resolve_train({"data": "digits", "model": None, "recipe": None}, environ={}, origin="argument")
    assert (name, resolved.model) == ("digits", "three-conv")


def test_options_of_the_same_net_are_joined() -> None:
    resolved, origins, _ = resolve_train({"recipe": "tutorial-lenet5", "model_option": ["pool=max"]}, environ={})
    assert resolved.model_option == {"activation": "sigmoid", "pool": "max", "head": "fc"}
    assert origins["model_option"] == "recipe tutorial-lenet5 + flag"


def test_options_of_another_net_are_left_out() -> None:
    resolved, _, _ = resolve_train({"recipe": "tutorial-lenet5", "model": "mlp"}, environ={})
    assert resolved.model_option == {}
    resolved, _, _ = resolve_train(
        {"recipe": "tutorial-lenet5", "model": "mlp", "model_option": ["activation=sigmoid"]}, environ={}
    )
    assert resolved.model_option == {"activation": "sigmoid"}
    resolved, _, _ = resolve_train({"recipe": "tutorial-lenet5", "model": "lenet5"}, environ={})
    assert resolved.model_option["activation"] == "sigmoid"


def test_environment_names_the_recipe_net_and_options() -> None:
    environ = {"STRIATE_MODEL": "lenet5", "STRIATE_MODEL_OPTION": "activation=relu;pool=max", "STRIATE_DATA": "/d"}
    resolved, origins, name = resolve_train({"data": "mnist"}, environ=environ)
    assert name == "generic" and resolved.model_option == {"activation": "relu", "pool": "max"}
    assert origins["model"] == "environment STRIATE_MODEL"
    # STRIATE_DATA is the folder, never the name; the look-up reads it, so no run records a machine's path.
    assert (resolved.data, resolved.data_root) == ("mnist", None)


def test_empty_and_foreign_variables_do_nothing() -> None:
    assert environment_layers(TrainSettings, {"STRIATE_EPOCHS": "", "STRIATE_DEBUG": "1", "EPOCHS": "3"}) == []


def test_other_verbs_read_only_the_device() -> None:
    environ = {"STRIATE_DATA": "/d", "STRIATE_DEVICE": "cpu", "STRIATE_OUT": "x", "STRIATE_MODEL": "lenet5"}
    read = environment_layers(EvalSettings, environ, only=FROM_ENVIRONMENT)
    assert {name for _, values in read for name in values} == {"device"}


def test_file_names_that_are_not_utf8_become_paths() -> None:
    assert from_text(TrainSettings, {"out": "r\udcff"}) == {"out": Path("r\udcff")}
    assert resolve_train({"out": "r\udcff"}, environ={})[0].out == Path("r\udcff")


@given(st.dictionaries(st.sampled_from(["hidden", "pool", "kernel"]), st.integers() | st.booleans()))
def test_options_survive_being_typed(options: dict[str, Any]) -> None:
    assert parse_options([f"{name}={value}" for name, value in options.items()]) == options


def test_options_become_numbers_lists_and_text() -> None:
    texts = ["hidden=4096,4096", "rate=0.5", "bias=no", "head=gap", "leaky-slope=1e-2", "name=a=b"]
    assert parse_options(texts) == {
        "hidden": [4096, 4096],
        "rate": 0.5,
        "bias": False,
        "head": "gap",
        "leaky_slope": 0.01,
        "name": "a=b",
    }
    for wrong in ("relu", "=relu"):
        with pytest.raises(UsageError, match="not an option"):
            parse_options([wrong])
