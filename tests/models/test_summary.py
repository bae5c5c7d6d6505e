"""The layer table and the check before the first epoch, on nets that the registry does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from striate.errors import UsageError
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
        ("fc1", "Linear", (10,), 15690),
    ]
    assert [row.macs for row in summary.rows] == [28 * 28 * 72, 0, 14 * 14 * 2304, 0, 15680]
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
