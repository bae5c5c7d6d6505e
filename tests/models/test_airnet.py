"""airnet: whitening against numpy's own statistics, and its start."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from striate.errors import UsageError
from striate.models import create_model
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


def test_gray_pictures_in_three_channels_carry_no_rounding_errors() -> None:
    """Two of three colour directions have no variance: BatchNorm must not blow up what is left of them."""
    torch.manual_seed(0)
    net = AirNet(10, 3, 24, widths=(16, 16, 16))
    pictures = blurred_noise(40, 1, 24).expand(-1, 3, -1, -1)
    net.fit_whitening(pictures)
    with torch.no_grad():
        for _ in range(30):
            net.train()(pictures)
        answers = net.eval()(pictures)
        exact = copy.deepcopy(net).double()(pictures.double())
    torch.testing.assert_close(answers.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("widths", "convs", "names"),
    [
        ((8,), (1,), ["conv1"]),
        ((8, 16), (3,), ["conv1", "conv2", "conv3", "conv1", "conv2", "conv3"]),
        ((4, 8, 8, 16), (1, 2, 1, 1), ["conv1", "conv1", "conv2", "conv1", "conv1"]),
    ],
)
def test_any_number_of_groups_and_convolutions(
    widths: tuple[int, ...], convs: tuple[int, ...], names: list[str]
) -> None:
    net = AirNet(5, 1, 40, widths=widths, convs=convs)
    assert [name.split(".")[1] for name, _ in net.named_parameters() if ".conv" in name] == names
    assert net(torch.rand(2, 1, 40, 40)).shape == (2, 5)
    assert list(net.stages) == ["whiten", *(f"group{number + 1}" for number in range(len(widths)))]
    sides = [net.activation(net.whiten(torch.rand(1, 1, 40, 40))).shape[-1]]
    maps = torch.rand(1, 8, 39, 39)
    for name in net.group_names:
        maps = getattr(net, name)(maps)
        sides.append(maps.shape[-1])
    assert sides == [39, 19, 9, 4, 2][: len(widths) + 1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"widths": ()}, "at least one width"),
        ({"widths": (8, 8), "convs": (1, 2, 3)}, "2 widths and 3 numbers"),
        ({"convs": (0,)}, "airnet's convs is 0"),
        ({"whitening_width": 7}, "whitening_width is 7"),
        ({"whitening_width": 10}, "1x2x2 patches have 4 directions"),
        ({"norm_momentum": 0.0}, "norm_momentum is 0.0"),
        ({"head_scale": -1.0}, "head_scale -1.0"),
        ({"patch": 0}, "kernel 0"),
    ],
)
def test_options_that_make_no_net_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        AirNet(10, 1, 28, **options)


def test_fewer_kernels_are_those_of_the_largest_variance() -> None:
    images = blurred_noise(100, 3, 28)
    whole, some = (AirNet(10, 3, 28, widths=(8,), whitening_width=width) for width in (0, 8))
    for net in (whole, some):
        net.fit_whitening(images)
    half = whole.whiten.weight[:12]
    assert torch.equal(some.whiten.weight, torch.cat((half[:4], -half[:4])))
    answers = torch.nn.functional.conv2d(images, half / half.flatten(1).norm(dim=1)[:, None, None, None])
    variances = answers.square().mean((0, 2, 3))
    assert torch.equal(variances.argsort(descending=True), torch.arange(12))


@pytest.mark.parametrize(("patch", "stride", "kernels", "side"), [(2, 2, 8, 14), (3, 1, 18, 26), (3, 3, 18, 9)])
def test_patches_of_another_size_and_stride(patch: int, stride: int, kernels: int, side: int) -> None:
    net = AirNet(10, 1, 28, widths=(8,), patch=patch, patch_stride=stride)
    net.fit_whitening(blurred_noise(50, 1, 28))
    maps = net.whiten(blurred_noise(50, 1, 28))
    assert maps.shape == (50, kernels, side, side)
    if stride == 1:  # then its answers are of all patches that it was fitted on
        moments = torch.einsum("nahw,nbhw->ab", maps, maps)[: kernels // 2, : kernels // 2] / (50 * side**2)
        assert (moments - moments.diag().diag()).abs().max() < 1e-3 and moments.diag().min() > 0.9


def test_head_scale_is_airbenchs() -> None:
    """Weights of standard deviation 1, and logits multiplied by head_scale / width."""
    torch.manual_seed(0)
    net = AirNet(10, 1, 28, widths=(8, 32), head_scale=2.0).eval()
    assert net.fc.weight.std().item() == pytest.approx(1.0, rel=1e-5)
    pictures = torch.rand(3, 1, 28, 28)
    maps = net.group2(net.group1(net.activation(net.whiten(pictures))))
    torch.testing.assert_close(net(pictures), net.fc(maps.amax((2, 3))) * 2.0 / 32)
    torch.manual_seed(0)
    plain = AirNet(10, 1, 28, widths=(8, 32)).eval()
    torch.testing.assert_close(plain(pictures), plain.fc(maps.amax((2, 3))) / 9)


@pytest.mark.parametrize("name", ["gelu", "gelu-tanh", "relu", "silu"])
def test_the_activation_is_everywhere(name: Any) -> None:
    net = AirNet(10, 1, 28, widths=(8, 8), activation=name)
    wanted = {
        "gelu": torch.nn.functional.gelu,
        "gelu-tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "relu": torch.nn.functional.relu,
        "silu": torch.nn.functional.silu,
    }[name]
    line = torch.linspace(-4, 4, 50)
    layers = [net.activation, *(m for n, m in net.named_modules() if ".activation" in n)]
    assert len(layers) == 5 and all(torch.equal(layer(line), wanted(line)) for layer in layers)


def test_options_come_as_text_from_the_command_line() -> None:
    net = create_model(
        "airnet",
        10,
        3,
        32,
        widths="8,16",
        convs="3",
        patch_stride="2",
        norm_momentum="0.2",
        head_scale="1",
        activation="SILU",
    )
    assert isinstance(net, AirNet) and net.group_names == ("group1", "group2")
    assert isinstance(net.activation, torch.nn.SiLU) and net.divisor == 16.0
    assert {layer.momentum for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.2}
