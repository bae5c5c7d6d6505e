"""Occlusion and integrated gradients against captum, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, Occlusion
from tests.explain.nets import REGISTRY, Corner, registered, twisted
from torch import nn

from striate.errors import UsageError
from striate.explain.attribution import integrated_gradients, occlusion, window_of

TARGETS = [3, 7]


def small(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a net of the registry and its pictures, with captum's needs met: no in-place layers."""
    net, pictures = registered(name)
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return net, pictures


@pytest.mark.parametrize("name", REGISTRY)
def test_integrated_gradients_are_captums_and_complete(name: str) -> None:
    net, pictures = small(name)
    found = integrated_gradients(net, pictures, TARGETS, steps=16)
    theirs = IntegratedGradients(net).attribute(pictures, target=torch.tensor(TARGETS), n_steps=16)
    np.testing.assert_allclose(found.values, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        rise = (net(pictures) - net(torch.zeros_like(pictures)))[range(2), TARGETS].numpy()
    np.testing.assert_allclose(found.wanted, rise, atol=1e-4)
    np.testing.assert_allclose(found.values.sum((1, 2, 3)) + found.missing, rise, atol=1e-4)


def test_finer_steps_leave_less_over() -> None:
    net, pictures = twisted()
    missing = [np.abs(integrated_gradients(net, pictures, 1, steps=steps).missing).max() for steps in (4, 500)]
    assert missing[1] < missing[0] / 10, missing


@pytest.mark.parametrize("name", REGISTRY)
def test_occlusion_is_captums(name: str) -> None:
    net, pictures = small(name)
    channels, height, width = pictures.shape[1:]
    window, stride = (height // 3, width // 4), (height // 4, width // 5)
    found = occlusion(net, pictures, TARGETS, window, stride, baseline=0.3)
    with torch.no_grad():
        theirs = Occlusion(net).attribute(
            pictures,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *stride),
            baselines=0.3,
            target=torch.tensor(TARGETS),
        )
    np.testing.assert_allclose(found, theirs[:, 0].numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("window", "stride"), [((3, 3), (2, 2)), ((5, 2), (3, 1)), ((12, 14), (1, 1)), ((5, 6), (5, 4))]
)
def test_windows_that_do_not_divide_the_picture(window: tuple[int, int], stride: tuple[int, int]) -> None:
    net, pictures = twisted()
    with torch.no_grad():
        theirs = Occlusion(net).attribute(
            pictures, sliding_window_shapes=(1, *window), strides=(1, *stride), target=torch.tensor([0, 1, 2])
        )
    np.testing.assert_allclose(
        occlusion(net, pictures, [0, 1, 2], window, stride), theirs[:, 0].numpy(), rtol=1e-4, atol=1e-5
    )


def test_occlusion_finds_the_only_patch_that_counts() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12 * 12, 3, bias=False))
    with torch.no_grad():
        net[1].weight.zero_().view(3, 12, 12)[2, 3:6, 7:10] = 1.0
    found = occlusion(net, torch.ones(1, 1, 12, 12), 2, (3, 3), (1, 1))[0]
    assert found[4, 8] == pytest.approx((9 + 4 * 6 + 4 * 4) / 9)  # the mean over the nine windows on its middle
    outside = found.copy()
    outside[1:8, 5:12] = 0
    assert (outside == 0).all() and found.argmax() == 4 * 12 + 8
    assert (occlusion(net, torch.ones(1, 1, 12, 12), 0) == 0).all()


def test_what_a_linear_net_sees_is_its_weights_times_the_picture() -> None:
    net, picture = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 1, 3, 4)
    found = integrated_gradients(net, picture, 1, steps=1)
    by_hand = net[1].weight[1].view(1, 1, 3, 4) * picture
    np.testing.assert_allclose(found.values, by_hand.detach().numpy(), atol=1e-6)
    assert np.abs(found.missing).max() < 1e-5
    against = integrated_gradients(net, picture, 1, baseline=picture, steps=3)
    assert (against.values == 0).all() and np.abs(against.wanted).max() < 1e-6
    other = integrated_gradients(net, picture, 1, baseline=0.25, steps=3)
    np.testing.assert_allclose(other.values, (net[1].weight[1].view(1, 1, 3, 4) * (picture - 0.25)).detach(), atol=1e-6)


def test_pieces_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pictures = twisted()
    whole = integrated_gradients(net, pictures, [0, 1, 2]), occlusion(net, pictures, [0, 1, 2])
    monkeypatch.setattr("striate.explain.looking.PIXELS_AT_A_TIME", 3 * 12 * 14)
    parts = integrated_gradients(net, pictures, [0, 1, 2]), occlusion(net, pictures, [0, 1, 2])
    np.testing.assert_allclose(parts[0].values, whole[0].values, atol=1e-5)
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-5)


def test_first_layers_that_work_in_place_and_nets_in_training() -> None:
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)).train()
    picture = torch.randn(1, 1, 4, 4)
    kept = picture.clone()
    found = integrated_gradients(net, picture, 0)
    assert np.abs(found.missing).max() < 1e-4  # with dropout at work nothing would add up
    occlusion(net, picture, 0)
    assert torch.equal(picture, kept) and net.training and net[3].weight.grad is None


def test_windows_that_make_no_sense_are_refused() -> None:
    net, pictures = Corner(), torch.rand(1, 1, 16, 16)
    for window, stride in (((17, 2), (1, 1)), ((0, 2), (1, 1)), ((2, 2), (0, 1)), ((2, 2), (1, 3))):
        with pytest.raises(UsageError, match="covers no picture"):
            occlusion(net, pictures, 0, window, stride)
    with pytest.raises(UsageError, match="0 steps"):
        integrated_gradients(net, pictures, 0, steps=0)
    assert window_of((28, 28)) == ((4, 4), (2, 2)) and window_of((1, 224)) == ((1, 32), (1, 16))
