"""The lesson `conv`: every number by hand, by torch or by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from torch import nn
from torch.nn.functional import conv2d

from striate.errors import UsageError
from striate.lessons.catalogue import lesson
from striate.lessons.kernels import NAMED, apply_kernel, named_kernel, read_picture, visible
from striate.lessons.windows import Sliding, convolve

NINE = np.arange(9.0).reshape(3, 3)


def test_the_default_by_hand() -> None:
    made = lesson("conv")
    assert made.part("worked").numbers["output"].tolist() == [[[19, 25], [37, 43]]]
    steps = [frame.sums for frame in made.part("worked").scene.frames if frame.ends]
    assert steps == [
        "0·0 + 1·1 + 3·2 + 4·3 = 19",
        "1·0 + 2·1 + 4·2 + 5·3 = 25",
        "3·0 + 4·1 + 6·2 + 7·3 = 37",
        "4·0 + 5·1 + 7·2 + 8·3 = 43",
    ]
    assert made.part("flipped").numbers["convolution"].tolist() == [[[5, 11], [23, 29]]]
    assert "5, 11; 23, 29" in made.part("flipped").says[1].en and "5, 11; 23, 29" in made.part("flipped").says[1].zh
    assert np.array_equal(convolve2d(NINE, [[0, 1], [2, 3]], mode="valid"), [[5, 11], [23, 29]])


def test_eight_by_eight_by_three_and_five_kernels() -> None:
    made = lesson("conv")
    assert made.part("channels").numbers["output_size"] == [6, 6, 5]
    counted = made.part("parameters").numbers
    assert counted["shared"] == 140 == sum(p.numel() for p in nn.Conv2d(3, 5, 3).parameters())
    assert counted["dense"] == 34_740 == sum(p.numel() for p in nn.Linear(8 * 8 * 3, 6 * 6 * 5).parameters())
    # unshared: 6·6·5 outputs, each with weights and a bias of its own
    assert counted["unshared"] == 5_040 == 6 * 6 * sum(p.numel() for p in nn.Linear(3 * 3 * 3, 5).parameters())
    own = lesson("conv", input="8x8x3", kernel="3x3", kernels=5)
    assert own.part("parameters").numbers == counted
    assert np.array_equal(own.part("worked").numbers["output"], made.part("channels").numbers["output"])


def test_an_output_sees_nine_cells() -> None:
    seen = lesson("conv").part("sees").numbers
    row, column = seen["output_cell"]
    assert seen["cells"] == [[row + i, column + j] for i in range(3) for j in range(3)]
    assert seen["two_layers"] == "5×5"
    padded = lesson("conv", input="2x2", kernel="3x3", padding=1).part("sees")
    assert padded.numbers["cells"] == [[0, 0], [0, 1], [1, 0], [1, 1]] and "5 zeros of the padding" in padded.says[0].en
    spread = lesson("conv", input="9x9", kernel="3x3", dilation=2, stride=2).part("sees").numbers
    assert len(spread["cells"]) == 9 and spread["two_layers"] == "13×13"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_convolution_equals_torch(data: st.DataObject) -> None:
    size = st.integers(1, 7)
    channels, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    height, width, tall, wide = (data.draw(size) for _ in range(4))
    stride, dilation, padding = (data.draw(st.integers(low, 3)) for low in (1, 1, 0))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    cells = generator.integers(-9, 10, (channels, height, width)).astype(float)
    kernels = generator.integers(-9, 10, (count, channels, tall, wide)).astype(float)
    given_settings = {"stride": stride, "padding": padding, "dilation": dilation}
    try:
        expected = conv2d(torch.from_numpy(cells)[None], torch.from_numpy(kernels), **given_settings)[0].numpy()
    except RuntimeError:  # torch refuses a kernel larger than the padded input, and so do we
        with pytest.raises(UsageError, match="does not fit"):
            lesson("conv", input=cells, kernel=kernels, **given_settings)
        return
    made = lesson("conv", input=cells, kernel=kernels, **given_settings)
    assert np.array_equal(made.part("worked").numbers["output"], expected)
    assert list(made.part("worked").numbers["output_size"]) == list(expected.shape[1:])
    last = [frame for frame in made.part("worked").scene.frames if frame.ends][-1]
    assert last.sums.endswith(f"= {int(expected[-1, -1, -1])}".replace("-", "−"))
    assert last.filled["output"] == expected.size


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_equals_torch(kernel: int, dilation: int) -> None:
    cells = np.arange(36.0).reshape(1, 6, 6)
    weights = np.arange(float(kernel**2)).reshape(1, 1, kernel, kernel)
    made = lesson("conv", input=cells, kernel=weights, padding="same", dilation=dilation)
    expected = conv2d(torch.from_numpy(cells)[None], torch.from_numpy(weights), padding="same", dilation=dilation)
    assert np.array_equal(made.part("worked").numbers["output"], expected[0])


def test_same_padding_does_not_go_with_a_stride() -> None:
    with pytest.raises(UsageError) as caught:
        lesson("conv", padding="same", stride=2)
    assert "--stride 2" in caught.value.what and "--stride 1" in caught.value.fix


def test_the_flipped_kernel_is_scipys_convolution() -> None:
    generator = np.random.default_rng(0)
    cells, weights = generator.integers(-5, 6, (5, 6)).astype(float), generator.integers(-5, 6, (3, 2)).astype(float)
    made = lesson("conv", input=cells, kernel=weights)
    assert np.array_equal(made.part("flipped").numbers["convolution"][0], convolve2d(cells, weights, mode="valid"))


def test_a_symmetric_kernel_has_one_answer() -> None:
    assert lesson("conv", kernel="1,1;1,1").part("flipped").says[-1].en == "Here both are the same."
    assert lesson("conv").part("flipped").says[-1].en != "Here both are the same."


@pytest.mark.parametrize(
    ("window", "formula", "count"),
    [
        (Sliding((28, 28), (5, 5), 2), "⌊(28 − 5)/2⌋ + 1 = 12", 12),
        (Sliding((224, 224), (11, 11), 4), "⌊(224 − 11)/4⌋ + 1 = 54", 54),
        (Sliding((227, 227), (11, 11), 4), "⌊(227 − 11)/4⌋ + 1 = 55", 55),
        (Sliding((5, 5), (3, 3), 1, (1, 1, 1, 1)), "⌊(5 + 2·1 − 3)/1⌋ + 1 = 5", 5),
        (Sliding((7, 7), (3, 3), 1, (2, 2, 2, 2), 2), "⌊(7 + 2·2 − (2·(3 − 1) + 1))/1⌋ + 1 = 7", 7),
        (Sliding((6, 6), (4, 4), 1, (1, 2, 1, 2)), "⌊(6 + 1 + 2 − 4)/1⌋ + 1 = 6", 6),
    ],
)
def test_the_formula_and_its_floor(window: Sliding, formula: str, count: int) -> None:
    assert window.formula() == formula and window.lengths == (count, count)


def test_strides_and_what_they_leave_unread() -> None:
    part = lesson("conv").part("stride")
    assert [row[-1] for row in part.table.rows] == ["0", "0", "1", "0", "0", "0", "1"]
    for name, length in part.numbers.items():
        kernel, stride, padding, dilation = (int(piece.split()[-1]) for piece in name.split(","))
        made = nn.Conv2d(1, 1, kernel, stride, padding, dilation)(torch.zeros(1, 1, 7, 7))
        assert made.shape[-1] == length, name


def test_padding_of_one() -> None:
    output = lesson("conv").part("same").numbers["output"]
    expected = conv2d(torch.from_numpy(NINE)[None, None], torch.ones(1, 1, 3, 3).double(), padding=1)[0]
    assert np.array_equal(output, expected) and output[0, 1, 1] == 36 and output[0, 0, 0] == 0 + 1 + 3 + 4


def test_one_by_one_up_and_down() -> None:
    part = lesson("conv").part("one-by-one")
    assert part.numbers["up"].shape == (5, 2, 2) and part.numbers["down"].shape == (2, 2, 2)
    assert part.numbers["down"][0, 0, 0] == 0 * 0 + 4 * 1 + 8 * 2
    assert part.numbers["direct"] == 120_422_400 and part.numbers["reduced"] == 12_443_648
    assert "= 20 parameters" in part.says[1].en and "= 8 (below)" in part.says[1].en
    assert part.says[0].en.endswith("difference is 0.")


def test_small_scenes_show_each_multiply_add_and_large_ones_each_cell() -> None:
    small, large = (lesson("conv").part(key).scene.frames for key in ("worked", "channels"))
    assert len(small) == 1 + 4 * 4 and small[1].sums == "0·0 = 0 …" and small[2].sums == "0·0 + 1·1 = 1 …"
    assert small[2].at["input"] == [(0, 0, 1)] and small[2].filled == {"output": 0}
    assert len(large) == 1 + 6 * 6 * 5 and all(frame.ends for frame in large[1:])


def test_steps_beyond_four_hundred_are_counted() -> None:
    scene = lesson("conv", input="30x30", kernel="3x3").part("worked").scene
    assert len(scene.frames) == 401 and scene.left_out == 28 * 28 - 400


@pytest.mark.parametrize("name", NAMED)
def test_named_kernels_on_a_digit_equal_torch(name: str) -> None:
    digit = read_picture(None)
    assert digit.shape == (32, 32, 1)
    made = apply_kernel(digit, named_kernel(name))
    pixels, weights = torch.from_numpy(digit[..., 0].astype(float)), torch.from_numpy(named_kernel(name))
    assert np.allclose(made[..., 0], conv2d(pixels[None, None], weights[None, None])[0, 0])
    shown = visible(made, named_kernel(name))
    if name == "identity":
        assert np.array_equal(shown, digit[1:-1, 1:-1])
    if abs(named_kernel(name).sum()) < 0.5:
        assert shown.max() == 255 and (visible(np.zeros((2, 2, 1)), named_kernel(name)) == 0).all()


def test_a_named_kernel_is_a_kernel() -> None:
    made = lesson("conv", input="5x5x2", kernel="edge").part("worked").numbers["output"]
    cells = lesson("conv", input="5x5x2", kernel="edge").part("worked").scene.grids[0].cells
    twice = np.stack([named_kernel("edge")] * 2)[None]
    assert np.array_equal(made, convolve(cells, twice, Sliding((5, 5), (3, 3))))


@pytest.mark.parametrize(
    ("given_settings", "what", "fix"),
    [
        ({"kernel": "5x5"}, "does not fit into 3×3", "--padding"),
        ({"kernel": "0,1,2,3"}, "a kernel of 1×4 does not fit into 3×3", "--kernel '0,1;2,3'"),
        ({"input": "0,1;2"}, "--input is '0,1;2'", "0,1,2;3,4,5"),
        ({"input": "0,a"}, "--input is '0,a'", "0,1,2;3,4,5"),
        ({"input": "0,nan"}, "--input is '0,nan'", "0,1,2;3,4,5"),
        ({"input": "1000x1000"}, "--input has 1,000,000 cells", "smaller"),
        ({"input": "0x4"}, "--input is '0x4'", "3x3x5"),
        ({"input": "0,1;2,3", "channels": 3}, "--input has 1 channels and --channels says 3", "after a |"),
        ({"input": "8x8x3", "channels": 2}, "--input has 3 channels and --channels says 2", "--channels"),
        ({"input": "8x8x3", "kernel": "3x3x2"}, "--kernel has 2 channels and the input 3", "3x3"),
        ({"kernel": "0,1;2,3", "kernels": 2}, "--kernel has 1 kernels and --kernels says 2", "after a /"),
        ({"kernel": "1,2/1,2,3"}, "--kernel has kernels of two sizes", "0,1,2;3,4,5"),
        ({"kernel": "sharpe"}, "unknown kernel 'sharpe'", ""),
        ({"dilation": 3}, "reaches over 4×4", "--padding"),
    ],
)
def test_what_cannot_be_is_refused(given_settings: dict[str, object], what: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        lesson("conv", **given_settings)
    assert what in caught.value.what and fix in caught.value.fix


def test_channels_and_kernels_are_typed() -> None:
    made = lesson("conv", input="1,2;3,4|5,6;7,8", kernel="1,0;0,1|0,1;1,0/1,1;1,1")
    assert made.part("worked").numbers["output"].ravel().tolist() == [1 + 4 + 6 + 7, 36]
    assert lesson("conv", input="4x4", channels=2).part("worked").scene.grids[0].cells.shape == (2, 4, 4)
