"""airnet: whitening against numpy's own statistics, and its start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from striate.errors import UsageError
from striate.models.airnet import WHITENING_FLOOR, AirNet, dirac_conv


def blurred_noise(count: int, channels: int, side: int) -> torch.Tensor:
    """Pictures whose neighbouring pixels are alike, as in real ones."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(count, channels, side + 2, side + 2, generator=generator)
    return torch.nn.functional.avg_pool2d(noise, 3, stride=1) * 2 + 0.3


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_makes_patches_uncorrelated(channels: int) -> None:
    net = AirNet(10, channels, 28, widths=(8, 8, 8))
    images = blurred_noise(400, channels, 28)
    net.fit_whitening(images)
    kernels = net.whiten.weight.detach().double().reshape(8 * channels, -1).numpy()
    half = 4 * channels
    assert np.array_equal(kernels[:half], -kernels[half:])
    windows = np.lib.stride_tricks.sliding_window_view(images.double().numpy(), (2, 2), axis=(2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, half)
    answers = patches @ kernels[:half].T
    moments = answers.T @ answers / len(answers)
    variances = np.sort(np.linalg.eigvalsh(patches.T @ patches / len(patches)))[::-1]
    # Each answer's mean square is v / (v + floor); different answers do not go together at all.
    assert np.allclose(moments, np.diag(variances / (variances + WHITENING_FLOOR)), atol=1e-4)


def test_whitening_kernels_are_frozen_and_their_bias_is_not() -> None:
    net = AirNet(10, 1, 28, widths=(8, 8, 8))
    assert not net.whiten.weight.requires_grad
    assert net.whiten.bias is not None and net.whiten.bias.requires_grad
    before = net.whiten.weight.clone()
    net.fit_whitening(blurred_noise(50, 1, 28))
    assert not torch.equal(before, net.whiten.weight)
    assert not net.whiten.weight.requires_grad


def test_whitening_of_flat_pictures_stays_finite() -> None:
    net = AirNet(10, 1, 28, widths=(8, 8, 8))
    net.fit_whitening(torch.zeros(4, 1, 28, 28))
    assert net.whiten.weight.isfinite().all()


def test_without_whitening_the_first_layer_is_trained() -> None:
    net = AirNet(10, 1, 28, widths=(8, 8, 8), whitening=False)
    assert net.whiten.weight.requires_grad
    with pytest.raises(UsageError, match="whitening=false"):
        net.fit_whitening(torch.rand(4, 1, 28, 28))


def test_whitening_refuses_what_it_cannot_use() -> None:
    net = AirNet(10, 3, 28, widths=(8, 8, 8))
    before = net.whiten.weight.clone()
    with pytest.raises(UsageError, match=r"got \(4, 1, 28, 28\)"):
        net.fit_whitening(torch.rand(4, 1, 28, 28))
    with pytest.raises(UsageError, match="got 2 pictures"):
        net.fit_whitening(torch.full((2, 3, 28, 28), torch.nan))
    with pytest.raises(UsageError, match="got 0 pictures"):
        net.fit_whitening(torch.rand(0, 3, 28, 28))
    assert torch.equal(before, net.whiten.weight)


def test_convolutions_start_by_passing_their_inputs_through() -> None:
    conv = dirac_conv(4, 6)
    pictures = torch.rand(2, 4, 5, 5)
    with torch.no_grad():
        assert torch.equal(conv(pictures)[:, :4], pictures)
    assert conv.weight[4:].abs().min() > 0


def test_the_last_pool_is_airbenchs_3x3_pool_at_28_and_32_pixels() -> None:
    for side in (28, 32):
        net = AirNet(10, 1, side, widths=(8, 8, 16)).eval()
        maps = net.group3(net.group2(net.group1(net.activation(net.whiten(torch.rand(2, 1, side, side))))))
        assert maps.shape == (2, 16, 3, 3)
        assert torch.equal(net.pool(maps), torch.nn.functional.max_pool2d(maps, 3))


def test_widths_have_to_be_three() -> None:
    with pytest.raises(UsageError, match="three groups"):
        AirNet(10, 1, 28, widths=(8, 8))
