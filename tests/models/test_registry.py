"""The registry: names, options, and options given as text."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from striate.errors import UsageError
from striate.models import create_model, describe_model, list_models, model_options, registry
from striate.models.registry import convert_options, list_families, native_shape, option_choices, register


def test_the_articles_nets_are_there() -> None:
    wanted = {"mlp", "strided-cnn", "lenet5", "simple-cnn", "less-simple-cnn", "alexnet", "three-conv", "airnet"}
    assert wanted <= set(list_models())
    assert list_models() == sorted(list_models())


@pytest.mark.parametrize("name", list_models())
def test_every_net_has_a_line_about_it_and_a_shape_of_its_own(name: str) -> None:
    assert 20 < len(describe_model(name)) < 120
    num_classes, in_channels, (height, width) = native_shape(name)
    assert min(num_classes, in_channels, height, width) >= 1


@pytest.mark.parametrize("name", list_models())
def test_defaults_may_be_given_in_words_and_are_the_same(name: str) -> None:
    options = model_options(name)
    as_text = {
        key: ",".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in options.items()
    }
    assert convert_options(name, as_text) == options


def test_a_name_taken_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_NETS", dict(registry._NETS))

    class Other(nn.Module):
        """A net."""

    register("other")(Other)
    assert registry.model_class("other") is Other
    with pytest.raises(ValueError, match=r"two nets are called 'lenet5': LeNet5 and .*Other"):
        register("lenet5")(Other)


def test_one_class_may_stand_for_several_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_NETS", dict(registry._NETS))

    class Deep(nn.Module):
        """Its own line."""

        def __init__(
            self, num_classes: int = 4, in_channels: int = 1, input_size: int = 9, *, depth: int, wide: bool = False
        ) -> None:
            super().__init__()
            self.made = (num_classes, in_channels, input_size, depth, wide)

    register("deep9", "Nine layers.", depth=9)(Deep)
    register("deep10", depth=10)(Deep)
    assert (describe_model("deep9"), describe_model("deep10")) == ("Nine layers.", "Its own line.")
    assert model_options("deep9") == {"wide": False} and native_shape("deep9") == (4, 1, (9, 9))
    assert create_model("deep9", 2, 3, 8, wide="yes").made == (2, 3, (8, 8), 9, True)
    assert create_model("deep10", 2, 3, 8).made == (2, 3, (8, 8), 10, False)
    with pytest.raises(UsageError, match="unknown option of deep9 'depth'"):
        create_model("deep9", 2, 3, 8, depth=3)
    assert ["deep9", "deep10"] in list_families()
    assert sorted(name for family in list_families() for name in family) == list_models()


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(UsageError, match="unknown model 'lenet'") as caught:
        create_model("lenet", 10, 1, 28)
    assert "lenet5" in caught.value.cause


def test_an_unknown_option_lists_the_near_ones() -> None:
    with pytest.raises(UsageError, match="unknown option of lenet5 'activaton'") as caught:
        create_model("lenet5", 10, 1, 28, activaton="relu")
    assert "activation" in caught.value.cause


@pytest.mark.parametrize(
    ("name", "key", "text", "value"),
    [
        ("alexnet", "hidden", "4096,4096", (4096, 4096)),
        ("alexnet", "hidden", "(64, 32)", (64, 32)),
        ("alexnet", "hidden", [64, "32"], (64, 32)),
        ("alexnet", "dropout", "1e-3", 1e-3),
        ("alexnet", "dropout", 0, 0.0),
        ("mlp", "hidden", "300", (300,)),
        ("mlp", "hidden", 300, (300,)),
        ("mlp", "hidden", "", ()),
        ("mlp", "activation", "Leaky_ReLU", "leaky-relu"),
        ("simple-cnn", "stride", "2", 2),
        ("airnet", "whitening", "no", False),
        ("airnet", "whitening", True, True),
    ],
)
def test_text_becomes_values(name: str, key: str, text: Any, value: Any) -> None:
    converted = convert_options(name, {key: text})[key]
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("name", "key", "text", "sentence"),
    [
        ("simple-cnn", "stride", "two", "whole number"),
        ("simple-cnn", "stride", 2.5, "whole number"),
        ("simple-cnn", "stride", True, "whole number"),
        ("alexnet", "hidden", "4096,many", "whole number"),
        ("alexnet", "dropout", "half", "a number"),
        ("lenet5", "activation", "swish", "one of sigmoid, tanh, relu, none"),
        ("lenet5", "pool", False, "one of average, max"),
        ("airnet", "whitening", "perhaps", "true or false"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_sentence(name: str, key: str, text: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=f"{name}'s option {key} is") as caught:
        convert_options(name, {key: text})
    assert sentence in caught.value.cause


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 1, 28), "num_classes is 0"),
        ((10, -1, 28), "in_channels is -1"),
        ((10, 1, 0), "input_size is 0"),
        ((10, 1, "28"), "input_size is '28'"),
        ((10, 1, (28, 28, 1)), "input_size is"),
        ((2.5, 1, 28), "num_classes is 2.5"),
    ],
)
def test_numbers_that_make_no_net_are_refused(arguments: tuple[Any, Any, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        create_model("lenet5", *arguments)


def test_choices_come_from_the_annotations() -> None:
    assert option_choices("lenet5")["head"] == ("fc", "gap")
    assert option_choices("three-conv") == {}
