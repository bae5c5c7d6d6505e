"""BatchNorm folded into the layer before: the same answers on every net, and left alone where that cannot be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.models.families import NAMES, build, small_shape
from torch import Tensor, nn

from striate.models.registry import create_model
from striate.predictor.folding import fold_batchnorm


def lived_in(net: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and weights as after a training, and put the net into evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 3.0)
            if module.affine:
                nn.init.uniform_(module.weight, -2.0, 2.0)
                nn.init.normal_(module.bias)
    return net.eval()


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())


def largest_change(net: nn.Module, folded: nn.Module, pictures: Tensor) -> float:
    with torch.inference_mode():
        wanted, found = net(pictures), folded(pictures)
    assert wanted.shape == found.shape
    return float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1.0))


@pytest.mark.parametrize("name", NAMES)
def test_every_net_answers_the_same(name: str) -> None:
    torch.manual_seed(0)
    classes, channels, size = small_shape(name)
    net = lived_in(build(name, classes, channels, size))
    before = copy.deepcopy(net.state_dict())
    folded = fold_batchnorm(net)
    assert largest_change(net, folded, torch.randn(3, channels, *size)) < 1e-5
    after = net.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    if norms(net) == 0:
        assert folded is net


def test_airnet_loses_the_norms_that_follow_a_convolution_at_once() -> None:
    net = lived_in(create_model("airnet", 10, 3, 32, widths=(8, 8, 8)))
    assert (norms(net), norms(fold_batchnorm(net))) == (6, 3)


@pytest.mark.parametrize(
    ("name", "options", "before", "after"),
    [
        ("resnet18", {}, 20, 0),  # three of them stand in shortcuts
        ("resnet20", {}, 19, 0),
        ("vgg11", {"batch_norm": True}, 8, 0),
        ("googlenet", {}, 59, 2),  # the auxiliary heads take no part in an answer
        # A norm before its convolution stays: conv0's and one in each of the 58 layers follow theirs.
        ("densenet121", {}, 121, 121 - 59),
    ],
)
def test_norms_behind_their_convolution_go_also_beside_shortcuts(
    name: str, options: dict[str, Any], before: int, after: int
) -> None:
    net = lived_in(create_model(name, 10, 3, 32, **options))
    assert (norms(net), norms(fold_batchnorm(net))) == (before, after)


class Made(nn.Module):
    """A convolution, a BatchNorm and a linear layer, put together by `join`."""

    def __init__(self, join: Callable[[Any, Tensor], Tensor], **changed: nn.Module) -> None:
        super().__init__()
        self.conv = changed.get("conv", nn.Conv2d(2, 4, 3, padding=1, groups=2))
        self.norm = changed.get("norm", nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 3)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(self, x).mean((2, 3)))


def plain(net: Any, x: Tensor) -> Tensor:
    return net.norm(net.conv(x)).relu()


class DoubledConv(nn.Conv2d):
    """A convolution that does more than its name says."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


FOLDED = {
    "plain": Made(plain),
    "no bias": Made(plain, conv=nn.Conv2d(2, 4, 3, bias=False)),
    "no scale and shift": Made(plain, norm=nn.BatchNorm2d(4, affine=False)),
    "beside a shortcut": Made(lambda net, x: plain(net, x) + x.mean(1, keepdim=True)),
}
LEFT = {
    "seen by another": Made(lambda net, x: net.norm(y := net.conv(x)) + y),
    "an activation between": Made(lambda net, x: net.norm(net.conv(x).relu())),
    "called twice": Made(lambda net, x: net.norm(net.conv(x)) + net.norm(net.conv(x.flip(3)))),
    "statistics of the batch": Made(plain, norm=nn.BatchNorm2d(4, track_running_stats=False)),
    "a class of its own": Made(plain, conv=DoubledConv(2, 4, 3)),
    "a parametrized weight": Made(plain, conv=nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3))),
    "a way that hangs on the picture": Made(lambda net, x: plain(net, x) if x.mean() > 0 else plain(net, -x)),
}


@pytest.mark.parametrize("case", FOLDED)
def test_folded(case: str) -> None:
    net = lived_in(FOLDED[case])
    folded = fold_batchnorm(net)
    assert (norms(net), norms(folded)) == (1, 0)
    assert largest_change(net, folded, torch.randn(5, 2, 6, 6)) < 1e-5


@pytest.mark.parametrize("case", LEFT)
def test_left_as_it_is(case: str) -> None:
    net = lived_in(LEFT[case])
    assert fold_batchnorm(net) is net


def test_a_net_in_training_stays_in_training_and_its_copy_answers() -> None:
    net = lived_in(Made(plain))
    pictures = torch.randn(5, 2, 6, 6)
    with torch.inference_mode():
        wanted = net(pictures)
    net.train()
    folded = fold_batchnorm(net)
    assert net.training and net.get_submodule("norm").training and not folded.training
    with torch.inference_mode():
        assert torch.allclose(folded(pictures), wanted, atol=1e-5)


def test_linear_layers_and_the_layout_of_weights() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    folded = fold_batchnorm(lived_in(net))
    assert norms(folded) == 0 and largest_change(net, folded, torch.randn(5, 2, 2, 2)) < 1e-5
    conv = lived_in(Made(plain, conv=nn.Conv2d(2, 4, 3)).to(memory_format=torch.channels_last))
    assert fold_batchnorm(conv).get_submodule("conv").weight.stride() == conv.conv.weight.stride()  # type: ignore[union-attr, operator]
