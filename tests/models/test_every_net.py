"""What holds for every net in the registry; a new net is covered by being registered."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from tests.models.families import HEAVY, LIGHT, NAMES, all_logits, build, small_options, small_shape
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from striate.errors import UsageError
from striate.models import create_model, model_options
from striate.models.registry import option_choices
from striate.models.summary import check_fits, summarise


def least_side(name: str) -> int:
    """Find the least side by trial, which is another way than the net's own arithmetic."""
    for side in range(1, 100):
        try:
            build(name, 2, 1, (side, side))
        except UsageError:
            continue
        return side
    raise AssertionError(f"{name} takes no picture under 100 pixels")


@pytest.mark.parametrize("name", NAMES)
def test_a_net_gives_logits(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size).eval()
    with torch.no_grad():
        logits = net(torch.rand(3, channels, *size))
    assert logits.shape == (3, num_classes)
    assert logits.dtype == torch.float32
    # Not probabilities: neither all in [0, 1] nor summing to one.
    assert not torch.allclose(logits.sum(1), torch.ones(3), atol=1e-3)


@pytest.mark.parametrize("name", LIGHT)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_odd_sizes_channels_and_classes(name: str, data: st.DataObject) -> None:
    least = least_side(name)
    size = data.draw(st.tuples(st.integers(least, least + 37), st.integers(least, least + 37)), label="size")
    channels = data.draw(st.integers(1, 5), label="channels")
    classes = data.draw(st.integers(1, 13), label="classes")
    batch = data.draw(st.integers(2, 4), label="batch")
    trains_on(name, size, channels, classes, batch)


@pytest.mark.parametrize("name", HEAVY)
def test_odd_sizes_channels_and_classes_of_a_large_net(name: str) -> None:
    least = least_side(name)
    trains_on(name, (least, least + 3), channels=1, classes=1, batch=3)
    trains_on(name, (least + 6, least + 1), channels=5, classes=13, batch=2)


def trains_on(name: str, size: tuple[int, int], channels: int, classes: int, batch: int) -> None:
    net = build(name, classes, channels, size).train()
    answers = all_logits(net, torch.randn(batch, channels, *size))
    assert all(logits.shape == (batch, classes) for logits in answers)
    sum(logits.square().sum() for logits in answers).backward()
    for parameter_name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
    check_fits(net, (channels, *size), classes)


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_moves_the_output(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size).train()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    generator = torch.Generator().manual_seed(1)
    answers = all_logits(net, torch.randn(4, channels, *size, generator=generator))
    sum((logits * torch.randn(logits.shape, generator=generator)).sum() for logits in answers).backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), parameter_name
        if parameter.grad is not None:
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic_and_each_picture_stands_alone(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size).eval()
    pictures = torch.rand(3, channels, *size)
    with torch.no_grad():
        together = net(pictures)
        assert torch.equal(together, net(pictures))
        alone = torch.cat([net(picture[None]) for picture in pictures])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_gives_the_same_answer(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size).eval()
    pictures = torch.rand(2, channels, *size)
    with torch.no_grad():
        expected = net(pictures)
        actual = net.to(memory_format=torch.channels_last)(pictures.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trips_through_safetensors(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size)
    pictures = torch.rand(2, channels, *size)
    net.train()(pictures)  # moves the buffers away from their first values
    stored = load(save({key: value.contiguous() for key, value in net.state_dict().items()}))
    torch.manual_seed(99)
    other = create_model(name, num_classes, channels, size, **small_options(name))
    other.load_state_dict(stored)
    with torch.no_grad():
        assert torch.equal(net.eval()(pictures), other.eval()(pictures))


@pytest.mark.parametrize("name", NAMES)
def test_the_callers_seed_decides_the_weights(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    first, second = (build(name, num_classes, channels, size).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_does_not_fit_names_the_least(name: str) -> None:
    least = least_side(name)
    for size in ((least - 1, least), (least, least - 1), (1, 1)):
        if least == 1:
            break  # a net without windows takes any size
        with pytest.raises(UsageError, match="cannot take pictures of") as caught:
            build(name, 10, 3, size)
        assert "its layer " in caught.value.cause
        assert f"at least {least}x{least}" in caught.value.fix
    build(name, 10, 3, (least, least)).eval()(torch.rand(1, 3, least, least))


@pytest.mark.parametrize("name", NAMES)
def test_other_pictures_than_it_was_built_for_never_pass_silently(name: str) -> None:
    num_classes, channels, (height, width) = small_shape(name)
    net = build(name, num_classes, channels, (height, width)).eval()
    wrong = [
        torch.rand(2, channels + 1, height, width),
        torch.rand(channels, height, width),
        torch.rand(2, channels, 1, 1),
        torch.rand(2, 1, channels, height, width),
    ]
    for pictures in wrong:
        with pytest.raises(UsageError, match="got"):
            net(pictures)
    for size in ((2 * height, 2 * width), (height, width + 4)):
        try:
            with torch.no_grad():
                logits = net(torch.rand(2, channels, *size))
        except UsageError as error:
            assert f"{size[1]})" in error.what  # names the shape it got
        else:
            assert logits.shape == (2, num_classes)  # only a net with a global pool gets here


@pytest.mark.parametrize("name", NAMES)
def test_every_word_of_every_option_builds_and_runs(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    if "stem" in option_choices(name):
        size = (67, 67)  # the least that all of them take in the form for ImageNet
    for option, words in option_choices(name).items():
        if option in small_options(name):
            continue
        answers = []
        for word in words:
            if word == "auto":  # one of the others, as the size has it
                continue
            net = build(name, num_classes, channels, size, **{option: word}).eval()
            with torch.no_grad():
                answers.append(net(torch.linspace(-1, 1, channels * size[0] * size[1]).view(1, channels, *size)))
        for index, answer in enumerate(answers):
            assert all(not torch.equal(answer, other) for other in answers[:index]), f"{option} changes nothing"


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_modules_of_the_net_that_return_maps(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size).eval()
    stages = getattr(net, "stages", {})
    seen: dict[str, tuple[int, ...]] = {}
    for label, module in stages.items():
        assert any(module is own for own in net.modules()), label
        module.register_forward_hook(
            lambda _module, _inputs, output, label=label: seen.__setitem__(label, tuple(output.shape))
        )
    with torch.no_grad():
        net(torch.rand(1, channels, *size))
    assert list(seen) == list(stages)
    assert all(len(shape) == 4 for shape in seen.values())


@pytest.mark.parametrize("name", NAMES)
def test_macs_are_half_of_torchs_flops(name: str) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size).eval()
    summary = summarise(net, (channels, *size))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.rand(1, channels, *size))
    assert 2 * summary.macs == counter.get_total_flops()
    # An auxiliary head does not run in evaluation: its parameters stand in the sum only.
    idle = [child for label, child in net.named_children() if label.startswith("aux")]
    spared = sum(parameter.numel() for head in idle for parameter in head.parameters())
    assert bool(idle) == hasattr(net, "auxiliary_logits")
    assert summary.parameters == sum(row.parameters for row in summary.rows) + spared
    assert summary.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert summary.rows[-1].output_shape == (num_classes,)


@pytest.mark.parametrize("name", NAMES)
def test_a_net_is_a_module_only(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    num_classes, channels, size = small_shape(name)
    net = build(name, num_classes, channels, size)
    copy.deepcopy(net)  # EMA and export work on copies
    assert capsys.readouterr() == ("", "")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    side=st.integers(1, 70),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    name=st.sampled_from(["simple-cnn", "less-simple-cnn"]),
)
def test_kernel_stride_and_padding_follow_torchs_own_sizes(
    side: int, kernel: int, stride: int, padding: int, name: str
) -> None:
    assume(set(model_options(name)) >= {"kernel", "stride", "padding"})
    layers: list[nn.Module] = []
    for _ in range(1 if name == "simple-cnn" else 2):
        layers += [nn.LazyConv2d(18, kernel, stride, padding), nn.MaxPool2d(2)]
    picture = torch.rand(1, 1, side, side)
    try:
        expected = nn.Sequential(*layers)(picture).flatten(1).shape[1]
    except RuntimeError:
        with pytest.raises(UsageError, match="cannot take pictures"):
            build(name, 3, 1, (side, side), kernel=kernel, stride=stride, padding=padding)
        return
    net = build(name, 3, 1, (side, side), kernel=kernel, stride=stride, padding=padding)
    assert net.fc1.in_features == expected
    assert net(picture).shape == (1, 3)


@pytest.mark.parametrize(("option", "value"), [("kernel", 0), ("stride", 0), ("padding", -1)])
def test_windows_that_make_no_sense_are_refused(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"conv1 has .*{option} {value}"):
        build("simple-cnn", 10, 3, (32, 32), **{option: value})
