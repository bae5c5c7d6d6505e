"""torchvision's nets as oracles of ours: names, answers from the same weights, files; and the published sizes."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from striate.models import create_model
from striate.models.registry import native_shape
from striate.predictor.predictor import load_predictor
from striate.runs.model_file import read_card
from striate.settings.verbs import ImportSettings
from striate.training.importing import import_weights

slow = pytest.mark.slow
#: Ours, options, theirs, a side in pixels that is quick.
CASES = [
    pytest.param("resnet18", {}, "resnet18", 224),
    pytest.param("resnet34", {}, "resnet34", 96, marks=slow),
    pytest.param("resnet50", {}, "resnet50", 97),
    pytest.param("resnet101", {}, "resnet101", 64, marks=slow),
    pytest.param("resnet152", {}, "resnet152", 64, marks=slow),
    pytest.param("vgg11", {}, "vgg11", 64, marks=slow),
    pytest.param("vgg11", {"batch_norm": True}, "vgg11_bn", 224, marks=slow),
    pytest.param("vgg13", {}, "vgg13", 64, marks=slow),
    pytest.param("vgg13", {"batch_norm": True}, "vgg13_bn", 70, marks=slow),
    pytest.param("vgg16", {}, "vgg16", 224, marks=slow),
    pytest.param("vgg16", {"batch_norm": True}, "vgg16_bn", 64, marks=slow),
    pytest.param("vgg19", {}, "vgg19", 64, marks=slow),
    pytest.param("vgg19", {"batch_norm": True}, "vgg19_bn", 64, marks=slow),
    pytest.param("googlenet", {}, "googlenet", 224),
    pytest.param("densenet121", {}, "densenet121", 224),
    pytest.param("densenet169", {}, "densenet169", 64, marks=slow),
    pytest.param("densenet201", {}, "densenet201", 64, marks=slow),
    pytest.param("densenet161", {}, "densenet161", 65, marks=slow),
]


def theirs_as_trained(name: str, classes: int) -> nn.Module:
    """Build torchvision's net with random weights whose maps neither fade nor grow, as after a training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet announces another initialisation
        net = torchvision.models.get_model(name, weights=None, num_classes=classes)
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data.normal_(std=math.sqrt(2.0 / module.weight[0].numel()), generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(std=0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.3, 0.8, generator=generator)
            module.bias.data.normal_(std=0.1, generator=generator)
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.detach().std() > 1e-3  # the answers differ: a net that fades to nothing would agree with any other
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.detach().abs().max().clamp(min=1.0)))


@pytest.mark.parametrize(("name", "options", "their_name", "side"), CASES)
def test_the_same_names_and_answers(name: str, options: dict[str, Any], their_name: str, side: int) -> None:
    theirs = theirs_as_trained(their_name, 13)
    with torch.device("meta"):
        ours = create_model(name, 13, 3, side, stem="imagenet", **options).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        pictures = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
        close(ours(pictures), theirs(pictures))


def test_googlenets_heads_say_what_torchvisions_say() -> None:
    theirs = theirs_as_trained("googlenet", 5).train()
    ours = create_model("googlenet", 5, 3, 64, stem="imagenet").train()
    ours.load_state_dict(theirs.state_dict())
    for net in (ours, theirs):
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    pictures = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = theirs(pictures)
    close(ours(pictures), wanted.logits)
    first, second = ours.auxiliary_logits()  # type: ignore[operator]
    close(first, wanted.aux_logits1)
    close(second, wanted.aux_logits2)


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        *(("alexnet-2012", 60_965_224, options) for options in ({}, {"lrn": False})),
        *(
            ("vgg11", 132_863_336, {}),
            ("vgg13", 133_047_848, {}),
            ("vgg16", 138_357_544, {}),
            ("vgg19", 143_667_240, {}),
        ),
        *(("vgg11", 132_868_840, {"batch_norm": True}), ("vgg13", 133_053_736, {"batch_norm": True})),
        *(("vgg16", 138_365_992, {"batch_norm": True}), ("vgg19", 143_678_248, {"batch_norm": True})),
        *(("resnet18", 11_689_512, {}), ("resnet34", 21_797_672, {}), ("resnet50", 25_557_032, {})),
        *(("resnet101", 44_549_160, {}), ("resnet152", 60_192_808, {})),
        *(("googlenet", 6_624_904, {"auxiliary": False}), ("googlenet", 13_004_888, {})),
        *(("densenet121", 7_978_856, {}), ("densenet169", 14_149_480, {}), ("densenet201", 20_013_928, {})),
        ("densenet161", 28_681_000, {}),
        ("lenet5-1998", 60_000, {}),
    ],
)
def test_parameter_counts_as_published(name: str, count: int, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        net = create_model(name, *native_shape(name), **options)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize(
    ("name", "options", "millions", "digits"),
    [
        ("resnet20", {}, 0.27, 2),
        ("resnet32", {}, 0.46, 2),
        ("resnet44", {}, 0.66, 2),
        ("resnet56", {}, 0.85, 2),
        ("resnet110", {}, 1.7, 1),
        ("densenet-cifar", {}, 0.8, 1),
        ("densenet-cifar", {"depth": 250, "growth": 24}, 15.3, 1),
        ("densenet-cifar", {"depth": 190, "growth": 40}, 25.6, 1),
    ],
)
def test_parameter_counts_as_the_papers_round_them(
    name: str, options: dict[str, Any], millions: float, digits: int
) -> None:
    with torch.device("meta"):
        net = create_model(name, *native_shape(name), **options)
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, digits) == millions


@pytest.mark.parametrize(
    "name", ["densenet121", pytest.param("resnet18", marks=slow), pytest.param("vgg11", marks=slow)]
)
def test_a_published_file_is_imported(name: str, tmp_path: Path) -> None:
    """As the files are that torchvision fetches: from before BatchNorm counted batches, DenseNet's with older names."""
    theirs = theirs_as_trained(name, 1000)
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): tensor
        for key, tensor in theirs.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert name != "densenet121" or "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "published.pth")
    told: list[str] = []
    settings = ImportSettings(model=name, out=tmp_path / "run", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    folder = import_weights(tmp_path / "published.pth", settings, told.append)
    card = read_card(folder.path)
    assert (card.num_classes, card.input_size) == (1000, (224, 224))
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        wanted = theirs(normalise(torch.from_numpy(images).permute(0, 3, 1, 2) / 255))
    close(torch.from_numpy(load_predictor(folder.path).logits(images)), wanted)
