"""Splits: disjoint, stratified, a function of the seed, and refused in a sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from striate.data.dataset import Dataset, Parts
from striate.data.split import Split, make_split
from striate.errors import DataError, UsageError


def dataset(labels: Any, name: str = "some/train") -> Dataset:
    numbers = np.asarray(labels, dtype=np.int64)
    images = np.zeros((len(numbers), 1, 1, 1), np.uint8)
    return Dataset(name, images, numbers, tuple("abcdef"))


def parts(count: int = 100, *, validation: int | None = None, test: int | None = None) -> Parts:
    def make(number: int | None) -> Dataset | None:
        return None if number is None else dataset(np.arange(number) % 4)

    train = make(count)
    assert train is not None
    return Parts("some", train, make(validation), make(test))


labels_lists = st.lists(st.integers(0, 5), min_size=8, max_size=80)
shares = st.floats(0.05, 0.6)


@settings(deadline=None)
@given(labels_lists, shares, shares, st.integers(0, 2**40))
def test_disjoint_complete_stratified_and_a_function_of_the_seed(
    labels: list[int], validation: float, test: float, seed: int
) -> None:
    whole = Parts("some", dataset(labels))
    try:
        split = make_split(whole, validation=validation, test=test, seed=seed)
    except UsageError as error:
        assert "leaves a split empty" in error.what
        return
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(len(labels)))
    for indices in (split.train, split.validation, split.test):
        assert indices.dtype == np.int64 and (np.diff(indices) > 0).all()
    numbers = np.array(labels)
    pool = np.arange(len(labels))
    for share, indices in ((test, split.test), (validation, split.validation)):
        wanted = round(share * len(pool))
        for label in set(labels):
            there, taken = (numbers[pool] == label).sum(), (numbers[indices] == label).sum()
            assert abs(taken - there * wanted / len(pool)) < 1 + 1e-9
        assert len(indices) <= wanted
        pool = np.setdiff1d(pool, indices)
    assert set(numbers[split.train]) == set(labels), "a class has nothing left to train on"
    again = make_split(whole, validation=validation, test=test, seed=seed)
    for name in ("train", "validation", "test"):
        assert np.array_equal(getattr(split, name), getattr(again, name))


def test_exact_numbers_where_every_class_has_enough() -> None:
    split = make_split(parts(400), validation=0.1, test=0.25)
    assert (len(split.train), len(split.validation), len(split.test)) == (270, 30, 100)
    assert np.bincount(parts(400).train.labels[split.test]).tolist() == [25] * 4
    split = make_split(parts(400), validation=37, test=20)
    assert (len(split.train), len(split.validation), len(split.test)) == (343, 37, 20)


def test_another_seed_another_split() -> None:
    first, second = (make_split(parts(), seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.test, second.test) and not np.array_equal(first.validation, second.validation)


def test_the_test_pictures_do_not_depend_on_the_validation_share() -> None:
    assert np.array_equal(make_split(parts(), validation=0).test, make_split(parts(), validation=0.3).test)


def test_a_class_of_one_picture_trains() -> None:
    labels = [0] * 20 + [1] * 20 + [2]
    for seed in range(20):
        split = make_split(Parts("some", dataset(labels)), validation=0.3, test=0.3, seed=seed)
        assert 40 in split.train


def test_one_picture_of_each_class_cannot_be_shared_out() -> None:
    with pytest.raises(UsageError) as caught:
        make_split(Parts("some", dataset([0, 1, 2, 3, 4])), validation=0, test=0.4)
    assert "leaves a split empty" in caught.value.what and "one picture" in caught.value.cause


def test_the_official_test_set_is_used_as_it_is() -> None:
    split = make_split(parts(100, test=30), validation=0.1, test=0.15)
    assert split.test_of == "test" and split.test.tolist() == list(range(30))
    assert len(split.train) == 90 and split.validation_of == "train"


def test_validation_zero_trains_on_everything() -> None:
    split = make_split(parts(100, test=30), validation=0)
    assert split.train.tolist() == list(range(100)) and len(split.validation) == 0


def test_given_validation_without_test() -> None:
    split = make_split(parts(100, validation=20), validation=0.1, test=0.15)
    assert split.validation_of == "validation" and split.validation.tolist() == list(range(20))
    assert split.test_of == "train" and len(split.test) == 15 and len(split.train) == 85


def test_all_three_given() -> None:
    split = make_split(parts(100, validation=20, test=10))
    assert (len(split.train), len(split.validation), len(split.test)) == (100, 20, 10)
    assert (split.validation_of, split.test_of) == ("validation", "test")


def test_the_ranges_of_the_simple_cnn_article() -> None:
    split = make_split(
        parts(50_000, test=10_000),
        train_range=slice(0, 20_000),
        validation_range=slice(20_000, 25_000),
        test_range=slice(0, 5_000),
    )
    assert split.train.tolist() == list(range(20_000))
    assert split.validation.tolist() == list(range(20_000, 25_000)) and split.validation_of == "train"
    assert split.test.tolist() == list(range(5_000)) and split.test_of == "test"


def test_a_validation_range_leaves_the_rest_to_train() -> None:
    split = make_split(parts(100, test=30), validation_range=slice(90, None))
    assert split.validation.tolist() == list(range(90, 100)) and split.train.tolist() == list(range(90))


def test_what_is_cut_at_random_keeps_clear_of_the_ranges() -> None:
    for seed in range(5):
        split = make_split(parts(), validation_range=slice(0, 50), test=0.2, seed=seed)
        assert split.validation.tolist() == list(range(50))
        assert len(split.test) == 10 and split.test.min() >= 50
        split = make_split(parts(), train_range=slice(0, 60), validation_range=slice(80, 90), test=0.1, seed=seed)
        assert sorted([*split.train, *split.test]) == list(range(60))
        split = make_split(parts(), test_range=slice(0, 50), validation=0.2, seed=seed)
        assert split.test.tolist() == list(range(50)) and split.test_of == "train" and split.validation.min() >= 50


def test_a_range_without_a_beginning() -> None:
    assert len(make_split(parts(100, test=30), test_range=slice(None, 5)).test) == 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"train_range": slice(0, 101)}, "the train range 0:101 leaves the data"),
        ({"train_range": slice(100, None)}, "the train range 100: leaves the data"),
        ({"validation_range": slice(90, 200)}, "the validation range 90:200 leaves the data"),
        ({"train_range": slice(0, 60), "validation_range": slice(59, 70)}, "the train and validation ranges overlap"),
        ({"train_range": slice(0, 60), "test_range": slice(0, 10)}, "the train and test ranges overlap"),
        ({"validation_range": slice(0, 60), "test_range": slice(0, 10)}, "the test and validation ranges overlap"),
        ({"validation": 0.001}, "validation 0.001 of 85 pictures leaves a split empty"),
        ({"test": 0.999}, "test 0.999 of 100 pictures leaves a split empty"),
        ({"validation": 85}, "validation 85 of 85 pictures leaves a split empty"),
        ({"test": 500}, "test 500 of 100 pictures leaves a split empty"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_split(parts(), **options)
    assert sentence in caught.value.what and caught.value.cause and caught.value.fix


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(DataError, match="no picture is left to train on"):
        make_split(parts(100, test=10), validation_range=slice(0, 100))


@given(labels_lists)
def test_json_round_trip(labels: list[int]) -> None:
    assume(len(labels) > 10)
    try:
        split = make_split(Parts("some", dataset(labels)), seed=5)
    except UsageError:
        return
    back = Split.from_json(json.loads(json.dumps(split.to_json())))
    assert np.array_equal(back.train, split.train) and np.array_equal(back.validation, split.validation)
    assert np.array_equal(back.test, split.test) and back.test.dtype == np.int64
    assert (back.validation_of, back.test_of, back.seed) == (split.validation_of, split.test_of, 5)


@pytest.mark.parametrize("damage", [{}, {"train": 3}, {"train": {"indices": ["x"]}}])
def test_a_damaged_file_is_an_error_of_the_data(damage: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="split"):
        Split.from_json(damage)


def test_of_names_part_and_indices() -> None:
    whole = parts(100, test=30)
    split = make_split(whole, validation=0)
    part, indices = split.of(whole, "test")
    assert part is whole.test and len(indices) == 30
    assert split.of(whole, "train")[0] is whole.train
    with pytest.raises(DataError, match="the validation split of some is empty"):
        split.of(whole, "validation")
    with pytest.raises(UsageError, match="unknown split 'tests'"):
        split.of(whole, "tests")
