"""Preprocess against Pillow, torchvision and numpy: the same bytes one by one and together, exact constants."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from striate.data.preprocess import FITS, Preprocess, measure, over_white, to_channels
from striate.errors import DataError, UsageError

sides = st.integers(1, 40)


def pictures(count: int, height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([1, 3]), st.integers(0, 99))
def test_stretch_is_what_pillow_gives(
    height: int, width: int, goal_h: int, goal_w: int, channels: int, seed: int
) -> None:
    image = pictures(1, height, width, channels, seed)[0]
    got = Preprocess((goal_h, goal_w), "stretch", channels).geometry(image)
    plain = Image.fromarray(image if channels == 3 else image[..., 0])
    theirs = np.asarray(plain.resize((goal_w, goal_h), Image.Resampling.BILINEAR)).reshape(goal_h, goal_w, channels)
    assert np.abs(got.astype(int) - theirs).max() <= 1
    if goal_h * width == goal_w * height:  # else Pillow may scale along columns first, by its version
        assert np.array_equal(got, theirs)
    in_two = plain.resize((goal_w, height), Image.Resampling.BILINEAR).resize(
        (goal_w, goal_h), Image.Resampling.BILINEAR
    )
    assert np.array_equal(got, np.asarray(in_two).reshape(got.shape))


@pytest.mark.parametrize(("side", "goal"), [(32, 96), (28, 224), (96, 32), (33, 20), (8, 28)])
def test_square_pictures_are_one_call_of_pillow(side: int, goal: int) -> None:
    images = pictures(5, side, side, 3)
    got = Preprocess((goal, goal), "stretch", 3).geometry_all(images)
    theirs = [np.asarray(Image.fromarray(image).resize((goal, goal), Image.Resampling.BILINEAR)) for image in images]
    assert np.array_equal(got, np.stack(theirs))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(FITS), sides, sides, sides, sides, st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 3]),
    st.integers(1, 50), st.integers(1, 3),
)  # fmt: skip
def test_all_together_give_the_bytes_of_one_by_one(
    fit: str, height: int, width: int, goal_h: int, goal_w: int, found: int, channels: int, count: int, threads: int
) -> None:
    images = pictures(count, height, width, found, seed=count)
    preprocess = Preprocess((goal_h, goal_w), fit, channels, background=7)
    together = preprocess.geometry_all(images, threads)
    assert together.shape == (count, goal_h, goal_w, channels)
    assert np.array_equal(together, np.stack([preprocess.geometry(image) for image in images]))


def test_many_pictures_are_split_among_threads_and_keep_their_order() -> None:
    images = pictures(700, 32, 32, 3)
    preprocess = Preprocess((48, 40), "stretch", 3)
    together = preprocess.geometry_all(images, 2)
    for index in (0, 1, 349, 350, 699):
        assert np.array_equal(together[index], preprocess.geometry(images[index]))


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (96, 96), (32, 32)])
def test_crop_agrees_with_torchvision_where_the_sizes_divide(shape: tuple[int, int]) -> None:
    image = pictures(1, *shape, 3)[0]
    got = Preprocess((16, 16), "crop", 3).geometry(image)
    theirs = v2.CenterCrop(16)(v2.Resize(16)(Image.fromarray(image)))
    assert np.abs(got.astype(int) - np.asarray(theirs)).max() <= 1


def test_crop_keeps_the_middle_and_pad_keeps_all() -> None:
    image = np.zeros((10, 30, 1), np.uint8)
    image[:, 10:20] = 200
    assert (Preprocess((10, 10), "crop", 1).geometry(image) == 200).all()
    padded = Preprocess((15, 15), "pad", 1, background=50).geometry(image)
    assert (padded[:5] == 50).all() and (padded[10:] == 50).all()
    assert (padded[5:10, 0] == 0).all() and (padded[5:10, 7] == 200).all()


def test_crop_of_an_odd_shape_agrees_with_scaling_first() -> None:
    smooth = np.add.outer(np.arange(97), np.arange(55)).astype(np.uint8)[..., None]
    got = Preprocess((20, 30), "crop", 1).geometry(smooth)
    scaled = Image.fromarray(smooth[..., 0]).resize((30, round(97 * 30 / 55)), Image.Resampling.BILINEAR)
    top = (scaled.height - 20) / 2
    theirs = np.asarray(scaled)[int(top) : int(top) + 20].astype(int)
    assert np.abs(got[..., 0].astype(int) - theirs).max() <= 3  # half a pixel of a slope of 3.7 a pixel


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_picture_that_fits_is_the_same_object(fit: str, channels: int) -> None:
    images = pictures(3, 9, 7, channels)
    preprocess = Preprocess((9, 7), fit, channels)
    assert preprocess.geometry(images[1]).base is images
    assert preprocess.geometry_all(images) is images


def test_any_number_of_channels_is_scaled_plane_by_plane() -> None:
    images = pictures(4, 12, 9, 5)
    got = Preprocess((6, 20), "stretch", 5).geometry_all(images)
    for channel in range(5):
        alone = Preprocess((6, 20), "stretch", 1).geometry_all(images[..., channel : channel + 1])
        assert np.array_equal(got[..., channel : channel + 1], alone)


def test_gray_is_pillows_luma_and_gray_is_repeated() -> None:
    images = pictures(2, 31, 17, 3)
    theirs = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[..., None]
    assert np.array_equal(to_channels(images, 1), theirs)
    red, green, blue = (images[..., i].astype(np.int64) for i in range(3))
    stated = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    assert np.array_equal(theirs[..., 0], stated)
    assert np.array_equal(to_channels(theirs, 3), np.concatenate([theirs] * 3, axis=-1))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_laid_over_white_to_the_nearest_value(channels: int) -> None:
    images = pictures(3, 20, 20, channels)
    alpha = images[..., -1:].astype(np.float64) / 255.0
    exact = images[..., :-1] * alpha + 255.0 * (1.0 - alpha)
    assert np.abs(over_white(images) - exact).max() <= 0.5 + 1e-9
    opaque = images.copy()
    opaque[..., -1] = 255
    assert np.array_equal(over_white(opaque), images[..., :-1])
    assert np.array_equal(to_channels(images, channels - 1), over_white(images))


@pytest.mark.parametrize(("found", "channels"), [(5, 3), (3, 5), (1, 4), (6, 1)])
def test_other_channels_are_refused(found: int, channels: int) -> None:
    with pytest.raises(DataError, match=f"{found} channels and the net takes {channels}"):
        Preprocess((8, 8), "stretch", channels).geometry(pictures(1, 8, 8, found)[0])


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)],
    ids=["two axes", "floats", "no pixel"],
)
def test_what_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError):
        Preprocess((8, 8)).geometry(array)


def test_no_pictures_give_no_pictures() -> None:
    assert Preprocess((8, 8)).geometry_all(np.zeros((0, 4, 4, 1), np.uint8)).shape == (0, 8, 8, 3)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.tuples(st.floats(0, 255), st.floats(0.01, 300)), min_size=1, max_size=4),
    st.booleans(),
)
def test_normalise_is_the_contracted_arithmetic(
    count: int, height: int, width: int, constants: list[tuple[float, float]], floats: bool
) -> None:
    channels = len(constants)
    mean, std = (tuple(values) for values in zip(*constants))
    preprocess = Preprocess((height, width), "stretch", channels, mean, std)
    batch = torch.from_numpy(pictures(count, height, width, channels))
    batch = batch.float() if floats else batch
    kept = batch.clone()
    subtract, scale = (torch.from_numpy(values).view(1, -1, 1, 1) for values in preprocess.constants())
    expected = (batch.permute(0, 3, 1, 2).float() - subtract) * scale
    got = preprocess.normalise(batch)
    assert got.dtype == torch.float32 and torch.equal(got, expected)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, kept), "the batch given must not be changed"


def test_normalise_agrees_with_torchvision() -> None:
    image = pictures(1, 32, 32, 3)
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
    ours = Preprocess((32, 32), "stretch", 3, tuple(255 * m for m in mean), tuple(255 * s for s in std))
    steps = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    torch.testing.assert_close(ours.normalise(torch.from_numpy(image))[0], steps(image[0]), rtol=1e-5, atol=1e-6)


def test_normalise_from_0_to_1_is_within_a_bit_of_division_by_255() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    got = Preprocess((16, 16), "stretch", 1).normalise(values).flatten()
    divided = values.flatten().float() / 255
    assert int((got != divided).sum()) == 126  # the docstring says so
    assert float((got - divided).abs().max()) <= 6e-8
    assert float(got[0]) == 0.0 and float(got[255]) == 1.0


def test_normalise_carries_gradients_and_outlives_inference_mode() -> None:
    preprocess = Preprocess((4, 4), "stretch", 3, (1.0, 2.0, 3.0), (4.0, 5.0, 6.5))
    with torch.inference_mode():
        preprocess.normalise(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
    batch = torch.full((1, 4, 4, 3), 9.0, requires_grad=True)
    preprocess.normalise(batch).sum().backward()
    assert batch.grad is not None
    assert torch.allclose(batch.grad[0, 0, 0], torch.tensor([1 / 4, 1 / 5, 1 / 6.5]))


def test_normalise_takes_a_batch_with_foreign_strides() -> None:
    batch = torch.from_numpy(pictures(6, 8, 8, 3))
    preprocess = Preprocess((8, 8), "stretch", 3, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    for view in (batch.flip(2), batch[::2], batch.permute(0, 2, 1, 3)):
        assert torch.equal(preprocess.normalise(view), preprocess.normalise(view.contiguous()))


def test_normalise_exports_to_a_graph_with_the_same_bits() -> None:
    preprocess = Preprocess((8, 8), "stretch", 3, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))

    class Net(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return preprocess.normalise(batch)

    batch = torch.from_numpy(pictures(2, 8, 8, 3))
    program = torch.export.export(Net(), (batch,), strict=False)
    assert torch.equal(program.module()(batch), preprocess.normalise(batch))


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (8, 8, 3), (2, 3, 8, 8)])
def test_normalise_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected"):
        Preprocess((8, 8)).normalise(torch.zeros(shape, dtype=torch.uint8))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), sides, sides, st.integers(1, 5), st.integers(0, 9))
def test_measure_is_exact(count: int, height: int, width: int, channels: int, seed: int) -> None:
    images = pictures(count, height, width, channels, seed)
    mean, std = measure(images)
    exact = images.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, np.maximum(1.0, exact.std(axis=(0, 1, 2))), rtol=1e-9)


def test_measure_counts_more_than_one_piece() -> None:
    images = pictures(400, 30, 35, 3)  # 1.26 million bytes, a piece is 0.79 million
    mean, std = measure(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-9)
    assert measure(images[:, ::2, ::-1]) == measure(np.ascontiguousarray(images[:, ::2, ::-1]))


def test_measure_gives_a_constant_channel_a_deviation_of_one() -> None:
    assert measure(np.full((3, 4, 4, 1), 77, np.uint8)) == ((77.0,), (1.0,))
    with pytest.raises(DataError, match="no picture"):
        measure(np.zeros((0, 4, 4, 1), np.uint8))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 999), st.integers(1, 999)),
    st.sampled_from(FITS),
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)), min_size=1, max_size=4),
    st.integers(0, 255),
)
def test_json_round_trip_is_exact(
    size: tuple[int, int], fit: str, constants: list[tuple[float, float]], background: int
) -> None:
    mean, std = (tuple(values) for values in zip(*constants))
    preprocess = Preprocess(size, fit, len(constants), mean, std, background=background)
    again = Preprocess.from_json(json.loads(json.dumps(preprocess.to_json())))
    assert again == preprocess and hash(again) == hash(preprocess)


def test_json_has_the_fields_of_the_format() -> None:
    data = Preprocess((28, 28), "pad", 1).to_json()
    assert data == {
        "size": [28, 28], "fit": "pad", "channels": 1, "mean": [0.0], "std": [255.0], "drawing": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"size": [28]}, {"size": [0, 28]}, {"size": "28"}, {"size": [2.5, 28]}, {"size": [float("inf"), 1]},
        {"fit": "croop"}, {"fit": None}, {"channels": 0}, {"channels": "1"}, {"channels": True},
        {"mean": [0.0, 1.0]}, {"mean": ["x"]}, {"mean": [float("nan")]}, {"mean": [None]}, {"mean": 0.0},
        {"std": [0.0]}, {"std": [-1.0]}, {"std": [1e-300]}, {"drawing": {"invert": True}}, {"background": 256},
        {"background": 1.5}, {"colour": 1},
    ],
    ids=str,
)  # fmt: skip
def test_json_that_is_wrong_is_refused(change: dict[str, Any]) -> None:
    data = Preprocess((28, 28), "pad", 1).to_json() | change
    with pytest.raises(DataError, match="preprocess"):
        Preprocess.from_json(data)


def test_json_that_misses_a_field_is_refused() -> None:
    for name in ("size", "fit", "channels", "mean", "std", "drawing"):
        data = Preprocess((28, 28), "pad", 1).to_json()
        del data[name]
        with pytest.raises(DataError, match=name):
            Preprocess.from_json(data)
    with pytest.raises(DataError, match="list"):
        Preprocess.from_json([1, 2])  # type: ignore[arg-type]


def test_a_near_name_of_a_fit_is_told() -> None:
    with pytest.raises(UsageError, match="did you mean crop"):
        Preprocess((8, 8), "croop")


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, striate.data.preprocess; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
