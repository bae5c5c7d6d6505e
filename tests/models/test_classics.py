"""What the papers of the classic nets say of their layers, and what our forms of them for small pictures do."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from striate.errors import UsageError
from striate.models import create_model, list_models
from striate.models.lenet_1998 import TABLE, LeNet51998, make_codes
from striate.models.registry import native_shape
from striate.models.resnet_cifar import Shortcut


def sides(net: nn.Module, side: int, channels: int, kinds: tuple[type[nn.Module], ...]) -> list[int]:
    """Return the side of the map that leaves each layer of these kinds."""
    found: list[int] = []
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _module, _inputs, output: found.append(output.shape[-1]))
    with torch.no_grad():
        net.eval()(torch.rand(1, channels, side, side))
    return found


def test_alexnet_2012_has_the_papers_maps_and_224_does_not_give_them() -> None:
    kinds = (nn.Conv2d, nn.MaxPool2d)
    net = create_model("alexnet-2012", 10, 3, 227, units=8)
    assert sides(net, 227, 3, kinds) == [55, 27, 27, 13, 13, 13, 13, 6]
    assert net.fc6.in_features == 9216
    assert sides(create_model("alexnet-2012", 10, 3, 224, units=8), 224, 3, kinds)[0] == 54


def test_alexnet_2012s_towers_hear_of_each_other_in_conv3_only() -> None:
    net = create_model("alexnet-2012", 10, 3, 96, units=8, lrn=False).eval()
    maps: list[torch.Tensor] = []
    net.conv2.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    read = [net.get_submodule(f"conv{number}").weight.shape[1] for number in range(2, 6)]
    assert read == [48, 256, 192, 192]
    # The gradient of one tower's maps of conv2 reaches one tower's kernels of conv1 alone.
    net(torch.rand(1, 3, 96, 96))
    (gradient,) = torch.autograd.grad(maps[0][:, :128].sum(), net.conv1.weight)
    assert gradient[:48].abs().max() > 0 and gradient[48:].abs().max() == 0


def test_response_normalisation_is_the_papers() -> None:
    norm = create_model("alexnet-2012", 10, 3, 96, units=8).norm1.double()
    x = torch.randn(2, 96, 3, 3, dtype=torch.float64) * 100
    wanted = torch.empty_like(x)
    for channel in range(96):
        around = x[:, max(0, channel - 2) : channel + 3]
        wanted[:, channel] = x[:, channel] / (2 + 1e-4 * around.square().sum(1)) ** 0.75
    torch.testing.assert_close(norm(x), wanted)


@pytest.mark.parametrize(
    ("name", "stem", "least"),
    [
        *(("alexnet-2012", "imagenet", 67), ("alexnet-2012", "cifar", 15)),
        *(("vgg11", "imagenet", 32), ("vgg11", "cifar", 32)),
        *(("resnet18", "imagenet", 17), ("resnet18", "cifar", 5), ("resnet20", None, 3)),
        *(("googlenet", "imagenet", 15), ("googlenet", "cifar", 4)),
        *(("densenet121", "imagenet", 29), ("densenet121", "cifar", 8), ("densenet-cifar", None, 4)),
        ("lenet5-1998", None, 28),
    ],
)
def test_the_least_size_is_the_stated_one(name: str, stem: str | None, least: int) -> None:
    options = {"stem": stem} if stem else {}
    with torch.device("meta"):
        create_model(name, 2, 3, least, **options)
        with pytest.raises(UsageError, match=f"cannot take pictures of {least - 1}x{least}") as caught:
            create_model(name, 2, 3, (least - 1, least), **options)
    assert "its layer " in caught.value.cause and f"--size {least}" in caught.value.fix


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "vgg11", "alexnet-2012"])
def test_the_stem_goes_by_the_size(name: str) -> None:
    def shapes(side: Any, stem: str) -> dict[str, torch.Size]:
        with torch.device("meta"):
            net = create_model(name, 10, 3, side, stem=stem)
        return {key: tensor.shape for key, tensor in net.state_dict().items()}

    large = 67 if name == "alexnet-2012" else 64
    assert shapes(large, "auto") == shapes(large, "imagenet") != shapes(large, "cifar")
    assert shapes(large - 1, "auto") == shapes(large - 1, "cifar")
    if name != "alexnet-2012":  # which cannot take 66 pixels with the other
        assert shapes(63, "auto") != shapes(63, "imagenet")
    assert shapes((large - 1, 200), "auto") == shapes((large - 1, 200), "cifar")


def test_small_pictures_keep_their_pixels_longer() -> None:
    with torch.no_grad():
        for name, side in (
            ("resnet18", 4),
            ("densenet121", 4),
            ("googlenet", 4),
            ("resnet20", 8),
            ("densenet-cifar", 8),
        ):
            net = create_model(name, 10, 3, 32).eval()
            stages: list[nn.Module] = list(net.stages.values())  # type: ignore[operator, union-attr]
            shape: dict[str, tuple[int, ...]] = {}
            stages[-1].register_forward_hook(lambda _m, _i, output, shape=shape: shape.update(last=output.shape[2:]))
            net(torch.rand(1, 3, 32, 32))
            assert shape["last"] == (side, side), name


def test_a_shortcut_of_option_a_has_no_parameters_and_adds_empty_maps() -> None:
    x = torch.rand(2, 16, 5, 7)
    found = Shortcut(2, 16)(x)
    assert found.shape == (2, 32, 3, 4)
    assert torch.equal(found[:, :16], x[:, :, ::2, ::2]) and not found[:, 16:].any()
    assert [layer for layer in create_model("resnet20", 10, 3, 32).modules() if isinstance(layer, Shortcut)]


@pytest.mark.parametrize("depth", [5, 41, 0])
def test_a_depth_that_densenet_cannot_have_is_refused(depth: int) -> None:
    with pytest.raises(UsageError, match="depth"):
        create_model("densenet-cifar", 10, 3, 32, depth=depth)


def test_lenet_1998_has_the_papers_parameters_layer_by_layer() -> None:
    net = LeNet51998()
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in net.named_children()}
    told = {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}
    assert {name: count for name, count in counts.items() if count} == told
    assert sides(LeNet51998(), 32, 1, (nn.Conv2d,)) == [28, 10, 10, 10, 1]
    assert sides(LeNet51998(10, 1, 28), 28, 1, (nn.Conv2d,)) == [28, 10, 10, 10, 1]


def test_lenet_1998s_table_is_the_papers_table_i() -> None:
    rows = [row for rows in TABLE.values() for row in rows]
    assert len(rows) == len({tuple(sorted(row)) for row in rows}) == 16
    assert all(len(row) == len(set(row)) == count for count, rows in TABLE.items() for row in rows)
    # Each map of S2 is read by ten of C3: the crosses in a row of the table.
    assert [sum(place in row for row in rows) for place in range(6)] == [10] * 6
    # A map of C3 changes with the maps of S2 that its row names, and with no other.
    layer = LeNet51998().c3
    x = torch.rand(1, 6, 5, 5, requires_grad=True)
    answer = layer(x).flatten()
    for place, row in enumerate(rows):
        (gradient,) = torch.autograd.grad(answer[place], x, retain_graph=True)
        assert set(gradient.abs().sum((0, 2, 3)).nonzero().flatten().tolist()) == set(row)


def test_lenet_1998_answers_with_distances_to_drawn_digits() -> None:
    net = LeNet51998()
    codes = net.output.codes
    assert codes.shape == (10, 84) and set(codes.unique().tolist()) == {-1.0, 1.0}
    assert all((first != second).sum() >= 8 for first, second in itertools.combinations(codes, 2))
    assert torch.equal(net.output(codes).diagonal(), torch.zeros(10))
    x = torch.randn(3, 84)
    torch.testing.assert_close(net.output(x), -torch.cdist(x, codes).square(), rtol=1e-4, atol=1e-4)
    assert "output.codes" in net.state_dict() and not net.output.codes.requires_grad
    torch.testing.assert_close(net.tanh1(torch.tensor([1.0, -1.0])), torch.tensor([1.0, -1.0]), rtol=0, atol=1e-4)


def test_codes_beyond_ten_classes_are_by_chance_and_always_the_same() -> None:
    torch.manual_seed(1)
    first = make_codes(47)
    torch.manual_seed(2)
    assert torch.equal(first, make_codes(47)) and set(first.unique().tolist()) == {-1.0, 1.0}
    assert len({tuple(code.tolist()) for code in first}) == 47
    assert torch.equal(make_codes(3), make_codes(10)[:3])


def test_lenet_1998_frames_a_small_picture_with_its_edge() -> None:
    net = LeNet51998(10, 1, 28).eval()
    large = LeNet51998(10, 1, 32).eval()
    large.load_state_dict(net.state_dict())
    digit = torch.full((1, 1, 28, 28), -0.4)
    digit[:, :, 5:20, 5:20] = 2.0
    framed = torch.full((1, 1, 32, 32), -0.4)
    framed[:, :, 2:30, 2:30] = digit
    with torch.no_grad():
        assert torch.equal(net(digit), large(framed))


def test_subsampling_adds_four_neighbours() -> None:
    layer = LeNet51998().s2
    x = torch.rand(1, 6, 4, 4)
    wanted = x.view(1, 6, 2, 2, 2, 2).sum((3, 5)) * layer.weight.view(1, 6, 1, 1) + layer.bias.view(1, 6, 1, 1)
    torch.testing.assert_close(layer(x), wanted)


def test_googlenets_heads_are_asked_once_and_only_in_training() -> None:
    net = create_model("googlenet", 7, 3, 32).train()
    assert net.auxiliary_logits() == ()
    pictures = torch.rand(3, 3, 32, 32)
    net(pictures)
    copy.deepcopy(net)  # the maps that wait are no part of a copy
    assert [logits.shape for logits in net.auxiliary_logits()] == [(3, 7), (3, 7)]
    assert net.auxiliary_logits() == ()
    with torch.no_grad():
        net(pictures)
    assert net.auxiliary_logits() == ()
    net.eval()(pictures)
    assert net.auxiliary_logits() == ()
    bare = create_model("googlenet", 7, 3, 32, auxiliary=False).train()
    bare(pictures)
    assert bare.auxiliary_logits() == () and not [key for key in bare.state_dict() if key.startswith("aux")]


def test_docs_nets_md_lists_every_net_with_its_parameters_and_least_side() -> None:
    text = (Path(__file__).parents[2] / "docs" / "nets.md").read_text(encoding="utf-8")
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = (
                int(cells[2].replace(",", "")),
                [int(number) for number in re.findall(r"\d+", cells[4])],
            )
    assert sorted(rows) == list_models()
    for name, (parameters, least) in rows.items():
        with torch.device("meta"):
            net = create_model(name, *native_shape(name))
            assert sum(parameter.numel() for parameter in net.parameters()) == parameters, name
            for stem, side in zip(("imagenet", "cifar"), least):
                options = {"stem": stem} if len(least) == 2 else {}
                create_model(name, 2, 1, side, **options)
                if side > 1:
                    with pytest.raises(UsageError, match="cannot take"):
                        create_model(name, 2, 1, side - 1, **options)
