"""The articles' names for their layers lead to ours, and to nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from striate.models import create_model
from striate.models.key_maps import KEY_MAPS, rename
from striate.models.registry import native_shape


def own_names(net: str) -> list[str]:
    with torch.device("meta"):
        return list(create_model(net, *native_shape(net)).state_dict())


@pytest.mark.parametrize("net", sorted(KEY_MAPS))
def test_every_map_leads_to_every_layer_of_its_net(net: str) -> None:
    own = own_names(net)
    for names in KEY_MAPS[net]:
        assert set(names.values()) == {name.rpartition(".")[0] for name in own}
        back = {ours: theirs for theirs, ours in names.items()}
        found = [back[name.rpartition(".")[0]] + "." + name.rpartition(".")[2] for name in own]
        assert [rename(net, found, own)[name] for name in found] == own


def test_names_stay_where_no_map_gives_all() -> None:
    own = own_names("three-conv")
    for found in (own, [*own, "more.weight"], own[1:], ["out.weight", "out.bias"], []):
        assert rename("three-conv", found, own) == {name: name for name in found}
    assert rename("alexnet", ["a"], own_names("alexnet")) == {"a": "a"}


def test_the_first_articles_plain_net_with_its_layers_in_a_sequential() -> None:
    article = nn.Module()
    article.model = nn.Sequential(nn.Linear(784, 200), nn.LeakyReLU(0.02), nn.Linear(200, 10), nn.Sigmoid())
    own = own_names("mlp")
    assert list(rename("mlp", article.state_dict(), own).values()) == own
