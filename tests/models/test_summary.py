"""The layer table and the check before the first epoch, on nets that the registry does not know."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import striate
from striate.errors import UsageError
from striate.models.sizes import output_size
from striate.models.summary import check_fits, summarise


class View(nn.Module):
    """The first article's layer: it drops the batch axis if it is written View(250)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.view(*self.shape)


class ThreeLayers(nn.Module):
    """Two convolutions and a linear layer; how it goes from the map to the linear layer is given."""

    def __init__(
        self,
        flatten: Callable[[Tensor], Tensor] = lambda x: x.flatten(1),
        in_channels: int = 1,
        middle: int = 8,
        features: int = 1568,
        outputs: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(middle, 32, 3, padding=1)
        self.fc1 = nn.Linear(features, outputs)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu())
        return self.fc1(self.flatten(x))


class FirstArticle(nn.Module):
    """The shape of the first article's class: its `train` is a training step, not torch's mode."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 10, 5, stride=2), nn.BatchNorm2d(10), nn.Conv2d(10, 10, 3, stride=2), view, nn.Linear(250, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def train(self, inputs: Any, targets: Any) -> None:  # type: ignore[override]
        raise AssertionError("this is no mode")


def refusal(
    net: nn.Module, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, smallest: int = 2
) -> UsageError:
    with pytest.raises(UsageError) as caught:
        check_fits(net, shape, classes, smallest)
    return caught.value


def test_nets_that_fit_pass() -> None:
    check_fits(ThreeLayers(), (1, 28, 28), 10)
    check_fits(ThreeLayers(lambda x: x.view(-1, 1568)), (1, 28, 28), 10, smallest_batch=1)
    check_fits(FirstArticle(View(-1, 250)), (1, 28, 28), 10, smallest_batch=1)
    check_fits(torchvision.models.squeezenet1_1(num_classes=4), (3, 40, 48), 4)


def test_a_linear_layer_made_for_another_size_gets_the_number_to_write() -> None:
    error = refusal(ThreeLayers(), (1, 32, 32))
    assert error.what.startswith("fc1 nn.Linear(in_features=1568, out_features=10")
    assert "got a batch of shape (2, 2048) and wants (2, 1568)" in error.what
    assert error.fix == "write nn.Linear(in_features=2048, out_features=10)"
    check_fits(ThreeLayers(features=2048), (1, 32, 32), 10)  # what was advised works
    assert "test_summary.py" in error.cause and "self.fc1(" in error.cause


def test_channels_that_do_not_meet() -> None:
    error = refusal(ThreeLayers(), (3, 28, 28))
    assert error.what.startswith("conv1 nn.Conv2d(1, 8,") and "(2, 3, 28, 28)" in error.what
    assert "in_channels=3, out_channels=8" in error.fix
    error = refusal(ThreeLayers(middle=3))
    assert error.what.startswith("conv2 nn.Conv2d(3, 32,") and "it gets 8 channels" in error.cause
    assert "in_channels=8" in error.fix


def test_a_kernel_larger_than_its_map_and_the_padding_that_helps() -> None:
    def net(padding: int) -> nn.Module:
        last = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
        return nn.Sequential(nn.Conv2d(1, 4, 7), nn.Conv2d(4, 4, (5, 3), padding=padding), *last)

    error = refusal(net(0), (1, 8, 8))
    assert error.what.startswith("layer 1 nn.Conv2d(4, 4, kernel_size=(5, 3)")
    assert "got maps of 2x2 and wants at least 5x3" in error.what
    assert "padding=2" in error.fix
    check_fits(net(2), (1, 8, 8), 10)
    refusal(net(1), (1, 8, 8))


def test_a_pool_larger_than_its_map() -> None:
    error = refusal(nn.Sequential(nn.Conv2d(1, 4, 7), nn.MaxPool2d(3)), (1, 8, 8))
    assert "layer 1 nn.MaxPool2d(" in error.what and "got maps of 2x2 and wants at least 3x3" in error.what


def test_view_that_drops_the_batch() -> None:
    error = refusal(FirstArticle(View(250)))
    assert error.what == "model.3 View() cannot bring a batch of shape (2, 10, 5, 5) into shape [250]"
    assert "2 pictures of 250" in error.cause
    assert "nn.Flatten()" in error.fix and "in_features=250" in error.fix
    check_fits(FirstArticle(nn.Flatten()), (1, 28, 28), 10)


def test_view_that_turns_one_picture_into_several_samples() -> None:
    # 56 pixels give maps of 32x14x14 = 4 x 1568 numbers: torch says nothing.
    error = refusal(ThreeLayers(lambda x: x.view(-1, 1568)), (1, 56, 56))
    assert error.what == "the output of ThreeLayers has shape (8, 10) instead of (2, 10)"
    assert "fc1 nn.Linear(" in error.cause and "(8, 1568) from 2 pictures" in error.cause
    assert "flatten(1)" in error.fix and "in_features=6272" in error.fix
    check_fits(ThreeLayers(features=6272), (1, 56, 56), 10)


def test_view_whose_numbers_do_not_divide() -> None:
    error = refusal(ThreeLayers(lambda x: x.view(-1, 1568)), (1, 64, 64))
    assert error.what == "ThreeLayers.forward cannot bring a batch of shape (2, 32, 16, 16) into shape [-1, 1568]"
    assert "in_features=8192" in error.fix


def test_maps_that_were_not_flattened() -> None:
    error = refusal(ThreeLayers(lambda x: x))
    assert "fc1 nn.Linear(" in error.what and "(2, 32, 7, 7) and wants (2, 1568)" in error.what
    assert error.fix == "put nn.Flatten() before it"
    assert "in_features=8192" in refusal(ThreeLayers(lambda x: x), (1, 64, 64)).fix


def test_a_batch_run_together_by_flatten() -> None:
    error = refusal(ThreeLayers(lambda x: x.flatten()))
    assert "got a batch of shape (3136,)" in error.what
    assert "flatten(1)" in error.fix


def test_the_wrong_number_of_classes() -> None:
    error = refusal(ThreeLayers(outputs=12))
    assert error.what == "the output of ThreeLayers has shape (2, 12) instead of (2, 10)"
    assert error.cause == "the net gives 12 numbers a picture, the data has 10 classes"
    assert error.fix.startswith("write out_features=10 in fc1 nn.Linear(")


@pytest.mark.parametrize(
    ("net", "classes", "what", "fix"),
    [
        (nn.Conv2d(1, 10, 28), 10, "shape (2, 10, 1, 1)", ".flatten(1)"),
        (nn.Conv2d(1, 10, 3), 10, "shape (2, 10, 26, 26)", "nn.AdaptiveAvgPool2d(1)"),
        (nn.Linear(28, 10), 10, "shape (2, 1, 28, 10)", "nn.Flatten()"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Flatten(0)), 2, "shape (2,)", "out_features=2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Flatten(0)), 10, "shape (20,)", "return it as it is"),
    ],
)
def test_outputs_of_another_shape(net: nn.Module, classes: int, what: str, fix: str) -> None:
    error = refusal(net, classes=classes)
    assert what in error.what
    assert fix in error.fix


def test_outputs_that_are_no_logits() -> None:
    class Two(ThreeLayers):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x

    class Largest(ThreeLayers):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).long()

    assert "returns a tuple in training mode" in refusal(Two()).what
    assert "torch.int64" in refusal(Largest()).what


def test_outputs_that_differ_between_the_modes() -> None:
    class OnlyInTraining(ThreeLayers):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return logits if self.training else (logits, x)

    assert "returns a tuple in evaluation mode" in refusal(OnlyInTraining()).what


def test_batch_norm_on_one_value_is_refused_where_a_batch_of_one_will_come() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.BatchNorm1d(5), nn.Linear(5, 10))
    check_fits(net, (1, 28, 28), 10)
    error = refusal(net, smallest=1)
    assert error.what.startswith("layer 2 nn.BatchNorm1d(5")
    assert "one value" in error.what and "batch size of at least 2" in error.fix


def test_batch_norm_with_other_channels_or_axes() -> None:
    error = refusal(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(5)))
    assert "wants 5 channels" in error.what and error.fix == "write nn.BatchNorm2d(4)"
    assert refusal(nn.Sequential(nn.Flatten(), nn.BatchNorm2d(5))).fix == "write nn.BatchNorm1d(784)"


def test_any_other_failure_names_the_layer_and_what_ran_before_it() -> None:
    error = refusal(nn.Sequential(nn.Flatten(), nn.LayerNorm(7)))
    assert error.what.startswith("layer 1 nn.LayerNorm((7,)") and "(2, 784)" in error.what
    assert "normalized_shape" in error.cause

    class Odd(ThreeLayers):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv1(x) @ torch.ones(3, 3)

    error = refusal(Odd())
    assert error.what.startswith("Odd.forward could not take")
    assert "torch.ones(3, 3)" in error.cause  # the line of the user's code
    assert "after conv1" in error.fix


def everything(net: nn.Module) -> tuple[dict[str, Tensor], list[bool], Tensor]:
    state = {key: value.clone() for key, value in net.state_dict().items()}
    return state, [module.training for module in net.modules()], torch.get_rng_state()


class Restless(nn.Module):
    """Everything a run can disturb: statistics, dropout, a buffer that it replaces, a part kept in another mode."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
        self.fc = nn.Linear(4 * 26 * 26, 10)
        self.frozen = nn.BatchNorm1d(10).eval()
        self.register_buffer("runs", torch.zeros(()))
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        self.runs = self.runs + 1
        x = self.frozen(self.fc(self.body(x))) + torch.rand(1)
        if self.fails:
            raise ValueError("no")
        return x


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("call", ["check", "summary"])
def test_state_is_given_back_bit_for_bit(fails: bool, call: str) -> None:
    torch.manual_seed(1)
    net = Restless(fails)
    buffer = net.runs
    before = everything(net)
    try:
        if call == "check":
            check_fits(net, (1, 28, 28), 10)
        else:
            summarise(net, (1, 28, 28))
    except UsageError:
        assert fails
    after = everything(net)
    assert all(torch.equal(after[0][key], value) for key, value in before[0].items())
    assert after[1] == before[1]
    assert torch.equal(after[2], before[2])
    assert net.runs is buffer
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_summary_rows_are_the_layers_in_the_order_they_run() -> None:
    net = ThreeLayers()
    summary = summarise(net, (1, 28, 28))
    rows = [(row.name, row.kind, row.output_shape, row.parameters) for row in summary.rows]
    assert rows == [
        ("conv1", "Conv2d", (8, 28, 28), 80),
        ("pool", "MaxPool2d", (8, 14, 14), 0),
        ("conv2", "Conv2d", (32, 14, 14), 2336),
        ("pool", "MaxPool2d", (32, 7, 7), 0),
        ("flatten", "function", (1568,), 0),
        ("fc1", "Linear", (10,), 15690),
    ]
    assert [row.macs for row in summary.rows] == [28 * 28 * 72, 0, 14 * 14 * 2304, 0, 0, 15680]
    assert [row.memory for row in summary.rows] == [4 * 8 * 784, 4 * 8 * 196, 4 * 32 * 196, 4 * 32 * 49, 0, 40]
    assert sum(row.share for row in summary.rows) == pytest.approx(1)
    assert summary.parameters == summary.trainable == 80 + 2336 + 15690


def test_summary_counts_shared_parameters_once_and_frozen_ones_apart() -> None:
    shared = nn.Linear(6, 6)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), shared, nn.ReLU(), shared)
    net[1].weight.requires_grad_(False)
    summary = summarise(net, (1, 2, 2))
    assert [row.parameters for row in summary.rows] == [0, 30, 42, 0, 0]
    assert [row.macs for row in summary.rows] == [0, 24, 36, 0, 36]
    assert (summary.parameters, summary.trainable) == (72, 48)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_macs_of_nets_with_groups_and_strides_are_half_of_torchs_flops(name: str) -> None:
    net = torchvision.models.get_model(name, weights=None).eval()
    summary = summarise(net, (3, 64, 48))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.rand(1, 3, 64, 48))
    assert 2 * summary.macs == counter.get_total_flops()
    assert summary.parameters == sum(row.parameters for row in summary.rows)


class InFunctions(nn.Module):
    """Nothing but functions and parameters: no layer that a hook could see."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.rand(4, 1, 3, 3))
        self.weights = nn.Parameter(torch.rand(10, 144))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.conv2d(x, self.kernels, padding=1), 2, ceil_mode=True)
        x = torch.cat([x, x * 2], 1)[:, :4]
        return functional.linear(functional.pad(x, (1, 0, 1, 0)).flatten(1), self.weights)


def test_functions_have_rows_and_multiply_adds() -> None:
    net = InFunctions()
    summary = summarise(net, (1, 9, 9))
    rows = [(row.name, row.kind, row.output_shape, row.size_sums) for row in summary.rows]
    assert rows == [
        ("conv", "function", (4, 9, 9), ("⌊(9 + 2·1 − 3)/1⌋ + 1 = 9",)),
        ("max_pool2d", "function", (4, 5, 5), ("⌈(9 − 2)/2⌉ + 1 = 5",)),
        ("cat", "function", (8, 5, 5), ("4 + 4 = 8",)),
        ("slice", "function", (4, 5, 5), ()),
        ("pad", "function", (4, 6, 6), ()),
        ("flatten", "function", (144,), ("4·6·6 = 144",)),
        ("matmul", "function", (10,), ("144 → 10",)),
        ("InFunctions", "InFunctions", (10,), ()),
    ]
    assert summary.rows[-1].parameters == 36 + 1440 and summary.rows[-1].parameter_sum == "4·1·3·3 + 10·144"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.rand(1, 1, 9, 9))
    assert 2 * summary.macs == 2 * sum(row.macs for row in summary.rows) == counter.get_total_flops()


class Recurrent(nn.Module):
    """Reads a picture row by row."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rows = kind(8, 16, batch_first=True, **options)
        self.fc = nn.Linear(16 * (1 + options.get("bidirectional", False)), 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rows(x.squeeze(1))[0][:, -1])


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_multiply_every_weight_at_every_step(kind: type[nn.RNNBase], gates: int) -> None:
    one = 12 * gates * 16 * (8 + 16)
    assert summarise(Recurrent(kind), (1, 12, 8)).macs == one + 160
    assert summarise(Recurrent(kind, bidirectional=True), (1, 12, 8)).macs == 2 * one + 320
    two = summarise(Recurrent(kind, num_layers=2), (1, 12, 8))
    assert two.macs == one + 12 * gates * 16 * 32 + 160 and two.macs_known


def test_attention_is_counted_however_torch_runs_it() -> None:
    class Attends(nn.Module):
        def __init__(self, weights: bool) -> None:
            super().__init__()
            self.attention, self.fc, self.weights = (
                nn.MultiheadAttention(8, 2, batch_first=True),
                nn.Linear(8, 10),
                weights,
            )

        def forward(self, x: Tensor) -> Tensor:
            x = x.squeeze(1)
            return self.fc(self.attention(x, x, x, need_weights=self.weights)[0].mean(1))

    for weights in (True, False):
        summary = summarise(Attends(weights), (1, 12, 8))
        assert summary.macs_known and summary.macs == 12 * 8 * (4 * 8 + 2 * 12) + 80


class Fourier(nn.Module):
    """Has an operation of which nothing is known."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x).abs()


def test_what_an_unknown_operation_multiplies_is_not_said_to_be_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Fourier(), nn.Flatten(), nn.Linear(2 * 8 * 5, 10))
    summary = summarise(net, (1, 8, 8))
    assert [row.macs for row in summary.rows] == [1152, None, 0, 800]
    assert {row.share for row in summary.rows} == {None}
    assert not summary.macs_known and summary.macs == 1952
    assert summary.sizes == {"parameters": 20 + 810}

    class InForward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.cdist(x.squeeze(1), x.squeeze(1)).flatten(1))

    rows = [(row.name, row.macs) for row in summarise(InForward(), (1, 8, 8)).rows]
    assert rows[0][1] is None and "cdist" in rows[0][0] and rows[-1] == ("fc", 640)


def test_what_only_moves_and_compares_numbers_costs_nothing() -> None:
    class Sorts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.unfold(x, 2, stride=2).flatten(1).sort(1).values.cumsum(1)
            return self.fc(x.gather(1, x.topk(16, 1).indices)) * (x.argmax(1, keepdim=True) > 3)

    summary = summarise(Sorts(), (1, 8, 8))
    assert summary.macs_known and summary.macs == 160


@pytest.mark.parametrize(
    ("layer", "before", "sums", "parameters"),
    [
        (nn.Conv2d(1, 6, 5, stride=2), (1, 28, 28), ("⌊(28 − 5)/2⌋ + 1 = 12",), "(5·5·1 + 1)·6"),
        (
            nn.Conv2d(4, 6, (5, 3), padding=(2, 0), groups=2, bias=False),
            (4, 28, 20),
            ("⌊(28 + 2·2 − 5)/1⌋ + 1 = 28", "⌊(20 − 3)/1⌋ + 1 = 18"),
            "5·3·2·6",
        ),
        (nn.Conv2d(1, 2, 3, dilation=2), (1, 9, 9), ("⌊(9 − (2·(3 − 1) + 1))/1⌋ + 1 = 5",), "(3·3·1 + 1)·2"),
        (nn.Conv2d(1, 2, 4, padding="same"), (1, 9, 9), ("⌊(9 + 1 + 2 − 4)/1⌋ + 1 = 9",), "(4·4·1 + 1)·2"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), (1, 8, 8), ("⌈(8 − 3)/2⌉ + 1 = 4",), ""),
        (nn.MaxPool2d(2, 2, 1, ceil_mode=True), (1, 5, 5), ("⌈(5 + 2·1 − 2)/2⌉ + 1 − 1 = 3",), ""),
        (nn.AvgPool2d((2, 1)), (1, 8, 8), ("⌊(8 − 2)/2⌋ + 1 = 4", "⌊(8 − 1)/1⌋ + 1 = 8"), ""),
        (nn.AdaptiveAvgPool2d(2), (1, 8, 8), ("8/2 = 4 each → 2",), ""),
        (nn.AdaptiveMaxPool2d(3), (1, 8, 8), ("⌊i·8/3⌋ to ⌈(i+1)·8/3⌉ → 3",), ""),
        (
            nn.ConvTranspose2d(4, 6, 4, 2, 1, output_padding=1),
            (4, 7, 7),
            ("(7 − 1)·2 − 2·1 + 4 + 1 = 15",),
            "4·4·4·6 + 6",
        ),
        (nn.Upsample(scale_factor=2), (1, 7, 7), ("⌊7·2⌋ = 14",), ""),
        (nn.Flatten(), (2, 3, 4), ("2·3·4 = 24",), ""),
        (nn.Linear(5, 3), (1, 1, 5), ("5 → 3",), "(5 + 1)·3"),
        (nn.Linear(5, 3, bias=False), (1, 1, 5), ("5 → 3",), "5·3"),
        (nn.BatchNorm2d(4), (4, 3, 3), (), "2·4"),
        (nn.PReLU(), (4, 3, 3), (), "1"),
        (nn.ReLU(), (4, 3, 3), (), ""),
    ],
)
def test_the_sums_of_a_layer(
    layer: nn.Module, before: tuple[int, int, int], sums: tuple[str, ...], parameters: str
) -> None:
    (row,) = summarise(layer, before).rows
    assert (row.size_sums, row.parameter_sum) == (sums, parameters)


def value_of(text: str) -> int:
    """Work out a sum as it is written."""
    for sign, word in zip("⌊⌋⌈⌉·−", ("math.floor(", ")", "math.ceil(", ")", "*", "-"), strict=True):
        text = text.replace(sign, word)
    return int(eval(text, {"math": math}))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.booleans())
def test_every_sum_gives_the_size_that_torch_gives(
    length: int, kernel: int, stride: int, padding: int, dilation: int, pools: bool
) -> None:
    reach = dilation * (kernel - 1) + 1
    if reach > length + 2 * padding:
        with pytest.raises(UsageError, match="larger than an input"):
            output_size(length, kernel, stride, padding, dilation)
        return
    padding = min(padding, kernel // 2) if pools else padding
    assume(reach <= length + 2 * padding)
    layer: nn.Module = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
    if pools:
        layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True)
    (row,) = summarise(layer, (1, length, length)).rows
    (told,) = row.size_sums
    told, _, result = told.partition(" = ")
    assert value_of(told) == int(result) == row.output_shape[1]
    if not pools:
        assert output_size(length, kernel, stride, padding, dilation) == row.output_shape[1]


def test_output_size() -> None:
    assert striate.output_size is output_size
    assert output_size(28, 5, 2) == 12
    assert output_size(227, 11, 4) == 55 and output_size(224, 11, 4) == 54
    assert output_size((28, 32), 5, stride=(2, 1), padding=(0, 2)) == (12, 32)
    assert output_size(5, (3, 1)) == (3, 5)
    with pytest.raises(UsageError) as caught:
        output_size(4, 7, padding=1)
    assert caught.value.what == "a kernel of 7 is larger than an input of 4 with a padding of 1 on each side"
    assert caught.value.fix == "use an input of at least 5, or a padding of at least 2"
    assert output_size(5, 7, padding=1) == output_size(4, 7, padding=2) - 1 == 1
    with pytest.raises(UsageError, match="a dilation of 3 spans 7 pixels"):
        output_size(6, 3, dilation=3)
    for wrong in ({"stride": 0}, {"padding": -1}, {"kernel": 0}, {"in_size": 2.5}, {"kernel": True}, {"stride": (1,)}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            output_size(**{"in_size": 9, "kernel": 3, **wrong})  # type: ignore[arg-type]


def test_summary_of_a_net_that_overrides_train() -> None:
    net = FirstArticle(nn.Flatten())
    summary = summarise(net, (1, 28, 28))
    assert summary.parameters == 3700
    assert all(module.training for module in net.modules())


def test_summary_of_a_single_layer_is_called_by_its_class() -> None:
    summary = summarise(nn.Linear(4, 3), (1, 1, 4))
    assert [row.name for row in summary.rows] == ["Linear"]


def test_summary_of_a_net_that_does_not_fit_says_so() -> None:
    with pytest.raises(UsageError, match=r"fc1 nn\.Linear\(in_features=1568"):
        summarise(ThreeLayers(), (1, 40, 40))
