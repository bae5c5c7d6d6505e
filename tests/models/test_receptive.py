"""Receptive fields against the true support of the gradient, published figures, and nets of random branches."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.models.families import NAMES
from torch import Tensor, nn
from torch.nn import functional

from striate.errors import UsageError
from striate.models import create_model, model_options
from striate.models.diagnose import run_explained
from striate.models.receptive import Field, field_of
from striate.models.registry import native_shape
from striate.models.summary import LayerRow, summarise

Shape = tuple[int, int, int]
#: Options by which any net that has them becomes small.
SMALL = {"hidden": (16, 8), "widths": (8, 16, 16)}


def small(name: str) -> dict[str, Any]:
    return {key: value for key, value in SMALL.items() if key in model_options(name)}


def positive(net: nn.Module) -> nn.Module:
    """Return a copy in float64 with small positive weights: nothing cancels, and no activation is cut off."""
    net = copy.deepcopy(net).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.rand_like(parameter).add_(0.5) / max(1, parameter[0].numel()))
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
            elif name.endswith("running_var"):
                buffer.fill_(1.0)
    return net


@contextlib.contextmanager
def average_pools() -> Iterator[None]:
    """Let every maximum over windows be their mean while the block runs."""

    def mean_pool(x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False,
                  return_indices: bool = False) -> Any:  # fmt: skip
        assert dilation in (1, (1, 1)) and not return_indices
        return functional.avg_pool2d(x, kernel, stride, padding, ceil_mode)

    def mean_adaptive(x: Any, size: Any, return_indices: bool = False) -> Any:
        return functional.adaptive_avg_pool2d(x, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "max_pool2d", mean_pool)
        patch.setattr(functional, "adaptive_max_pool2d", mean_adaptive)
        yield


def rows_by_name(net: nn.Module, shape: Shape) -> dict[str, LayerRow]:
    return {row.name: row for row in summarise(net, shape).rows}


def support(output: Tensor, picture: Tensor, index: tuple[Any, ...]) -> tuple[int, int]:
    """Return the rows and columns from the first to the last pixel on which the numbers at `index` depend."""
    (gradient,) = torch.autograd.grad(output[index].sum(), picture, retain_graph=True)
    touched = gradient.abs().amax((0, 1)) > 0
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    return int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)


def check_against_gradient(net: nn.Module, shape: Shape) -> int:
    """Compare what the number in the middle of every layer's output sees with its gradient; return how many."""
    net = positive(net)
    picture = torch.rand(1, *shape, dtype=torch.float64).requires_grad_()
    trace = run_explained(net, picture.detach(), training=False, watched=True)
    outputs: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for module in net.modules()
        if not list(module.children())
    ]
    with torch.enable_grad():
        net(picture)
    for handle in handles:
        handle.remove()
    layers = trace.layers
    assert len(outputs) == len(layers)
    compared = 0
    for call, output in zip(layers, outputs, strict=True):
        field = field_of(call.fields, shape[1:])
        assert field is not None, f"{call.title} is not known"
        if output.dim() == 4:
            index: tuple[Any, ...] = (0, slice(None), output.shape[2] // 2, output.shape[3] // 2)
        elif field.stride is None and isinstance(call.module, nn.Flatten):
            continue  # the entries of a row see different places
        else:
            index = (0,)
        if output.requires_grad:
            assert support(output, picture, index) == field.seen, f"{call.title}: {field}"
            compared += 1
    return compared


@pytest.fixture(autouse=True)
def no_maximum() -> Iterator[None]:
    """A maximum passes one pixel's gradient on, and all of them could be it: the mean shows them all."""
    with average_pools():
        yield


@pytest.mark.parametrize("name", NAMES)
def test_every_net_of_the_registry_sees_what_its_gradient_says(name: str) -> None:
    _, channels, _ = native_shape(name)
    for side in range(1, 100):
        try:
            net = create_model(name, 3, channels, (side + 3, side), **small(name))
        except UsageError:
            continue
        break
    assert check_against_gradient(net, (channels, side + 3, side)) >= 1


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_nets_of_torchvision_with_skips_groups_and_concatenations(name: str) -> None:
    net = torchvision.models.get_model(name, weights=None, num_classes=3)
    assert check_against_gradient(net, (3, 49, 42)) > 20


@pytest.mark.parametrize(
    ("name", "layer", "size", "stride", "padding"),
    [
        ("alexnet", "features.10", 163, 16, 65),
        ("alexnet", "features.12", 195, 32, 65),
        ("vgg16", "features.30", 212, 32, 90),
    ],
)
def test_published_figures(name: str, layer: str, size: int, stride: int, padding: int) -> None:
    """Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019, table 1
    (AlexNet there has no padding in its first layer, hence another padding)."""
    net = torchvision.models.get_model(name, weights=None)
    field = rows_by_name(net, (3, 224, 224))[layer].field
    assert field is not None
    assert field.size == (size, size) and field.stride == (stride, stride)
    if name == "vgg16":
        assert field.padding == (padding, padding)


class Branches(nn.Module):
    """A random chain in which a layer may stand beside a skip, another layer, a gate or a crop."""

    def __init__(self, plan: list[tuple[Any, ...]]) -> None:
        super().__init__()
        channels = 2
        self.plan = plan
        self.parts = nn.ModuleList()
        for kind, kernel, stride, dilation, padding in plan:
            if kind in ("pool", "blur"):
                pool = nn.MaxPool2d if kind == "pool" else nn.AvgPool2d
                self.parts.append(pool(kernel, stride, min(padding, kernel // 2), ceil_mode=dilation > 1))
            elif kind == "up":
                self.parts.append(nn.ConvTranspose2d(channels, channels, kernel, stride, min(padding, kernel - 1)))
            elif kind in ("skip", "cat", "gate"):
                same = nn.Conv2d(channels, channels, 2 * (kernel // 2) + 1, padding="same", dilation=dilation)
                self.parts.append(same)
                channels *= 1 + (kind == "cat")
            elif kind == "group":
                self.parts.append(
                    nn.Conv2d(channels, channels, (kernel, 1), stride, (padding, 0), dilation, groups=channels)
                )
            else:
                self.parts.append(nn.Conv2d(channels, channels, kernel, stride, padding, dilation))

    def forward(self, x: Tensor) -> Tensor:
        for (kind, *_), part in zip(self.plan, self.parts, strict=True):
            y = part(x)
            if kind == "skip":
                x = x + y
            elif kind == "cat":
                x = torch.cat([x, y], 1)
            elif kind == "gate":
                x = x * y.mean((2, 3), keepdim=True)
            elif kind == "crop":
                x = y[:, :, 1:, :-1] if min(y.shape[2:]) > 1 else y
            else:
                x = y
        return x


KINDS = ("conv", "pool", "blur", "up", "skip", "cat", "gate", "group", "crop")
LAYERS = st.tuples(st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plan=st.lists(LAYERS, min_size=1, max_size=6), height=st.integers(9, 30), width=st.integers(9, 30))
def test_random_chains_with_branches(plan: list[tuple[Any, ...]], height: int, width: int) -> None:
    net = Branches(plan)
    try:
        with torch.no_grad():
            net(torch.zeros(1, 2, height, width))
    except RuntimeError:
        return  # a map became too small
    check_against_gradient(net, (2, height, width))


def field(net: nn.Module, shape: Shape) -> Field | None:
    trace = run_explained(net, torch.rand(1, *shape), training=False, watched=True)
    return field_of(trace.ended[-1].fields, shape[1:])


class Function(nn.Module):
    """A net made of one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "size", "seen"),
    [
        (lambda x: functional.max_pool2d(x, 3), (3, 3), (3, 3)),
        (lambda x: functional.adaptive_avg_pool2d(x, 5), (4, 4), (4, 4)),
        (lambda x: x.flip(2), (1, 1), (1, 1)),
        (lambda x: x.roll(1, 3)[:, :, 2:], (1, 1), (1, 1)),
        (lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), (2, 2), (2, 2)),
        (lambda x: functional.pixel_shuffle(x.repeat(1, 4, 1, 1), 2), (1, 1), (1, 1)),
        (lambda x: functional.group_norm(x, 1), (16, 12), (16, 12)),
        (lambda x: functional.instance_norm(x), (16, 12), (16, 12)),
        (lambda x: functional.local_response_norm(x, 3), (1, 1), (1, 1)),
        (lambda x: x - x.mean(3, keepdim=True), (1, 12), (1, 12)),
        (lambda x: x.softmax(2), (16, 1), (16, 1)),
        (lambda x: x.flatten(2).reshape(1, 1, 16, 12).transpose(2, 3), (1, 1), (1, 1)),
        (lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect")[..., :5], (1, 1), (1, 1)),
        (lambda x: functional.conv2d(x, torch.ones(1, 1, 3, 3), dilation=2), (5, 5), (5, 5)),
    ],
)
def test_functions_are_followed_as_layers_are(function: Any, size: tuple[int, int], seen: tuple[int, int]) -> None:
    found = field(Function(function), (1, 16, 12))
    assert found is not None and (found.size, found.seen) == (size, seen)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sort(2).values,
        lambda x: torch.fft.fft2(x).real,
        lambda x: x + x.sort(3).values,
        lambda x: x.clone().flatten(2).cumsum(2),
    ],
)
def test_what_cannot_be_known_is_not_given(function: Any) -> None:
    assert field(Function(function), (1, 16, 12)) is None


def test_a_part_written_over_is_not_taken_for_the_whole() -> None:
    def add(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, :3] += x.mean()
        return x

    def fill(x: Tensor) -> Tensor:
        y = torch.zeros(1, 2, 16, 12)
        y[:, :1] = x
        return y * 2

    def add_beside(x: Tensor) -> Tensor:
        x = x.clone()
        row = x.flatten(1)
        x.add_(x.mean())
        return row

    for function in (add, fill, add_beside):
        assert field(Function(function), (1, 16, 12)) is None


def test_stride_and_padding_of_the_field() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 5, stride=2), nn.Conv2d(1, 1, 3, stride=2, padding=1))
    found = field(net, (1, 28, 28))
    assert found == Field((9, 9), (4.0, 4.0), (2, 2), (9, 9), False)
