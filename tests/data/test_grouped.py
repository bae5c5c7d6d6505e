"""The split by content: groups stay whole, old pictures stay where they are, small classes are served."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.data.dataset import Dataset, Parts
from striate.data.grouped import cut_by_content
from striate.data.split import make_split
from striate.errors import UsageError

SHARES = {"test": 0.15, "validation": 0.15}


def digests_of(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{number}".encode()).hexdigest() for number in range(count)]


def cut(
    labels: list[int], groups: list[int], *, seed: int = 0, digests: list[str] | None = None
) -> dict[str, set[int]]:
    names = digests if digests is not None else digests_of(len(labels))
    pool = np.arange(len(labels))
    found = cut_by_content(np.array(labels), names, np.array(groups), pool, SHARES, seed)
    return {name: set(indices.tolist()) for name, indices in found.items()}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=80), st.integers(0, 5))
def test_every_picture_is_in_one_split_and_no_group_is_divided(pictures: list[tuple[int, int]], seed: int) -> None:
    labels, groups = [label for label, _ in pictures], [group for _, group in pictures]
    splits = cut(labels, groups, seed=seed)
    assert sorted(index for indices in splits.values() for index in indices) == list(range(len(pictures)))
    for number in set(groups):
        holders = {name for name, indices in splits.items() if any(groups[i] == number for i in indices)}
        assert len(holders) == 1
    assert {labels[i] for i in splits["train"]} == set(labels), "a class has nothing to train on"


@given(st.integers(30, 200), st.integers(1, 60), st.integers(0, 3))
def test_added_pictures_move_no_old_one(old: int, new: int, seed: int) -> None:
    digests = digests_of(old + new)
    before = cut([0] * old, list(range(old)), seed=seed, digests=digests[:old])
    after = cut([0] * (old + new), list(range(old + new)), seed=seed, digests=digests)
    for name, indices in before.items():
        assert indices <= after[name]


def test_the_order_of_the_pictures_does_not_matter() -> None:
    digests = digests_of(120)
    labels, groups = [i % 3 for i in range(120)], [i // 2 for i in range(120)]
    turned = np.random.Generator(np.random.PCG64(1)).permutation(120)
    first = cut(labels, groups, digests=digests)
    second = cut([labels[i] for i in turned], [groups[i] for i in turned], digests=[digests[i] for i in turned])
    for name in first:
        assert first[name] == {int(turned[i]) for i in second[name]}


def test_shares_are_met_on_average_and_per_class() -> None:
    labels = [i % 4 for i in range(8_000)]
    splits = cut(labels, list(range(8_000)))
    for label in range(4):
        for name in SHARES:
            share = sum(labels[i] == label for i in splits[name]) / 2_000
            assert share == pytest.approx(0.15, abs=0.03)  # four standard deviations


def test_small_classes_keep_a_picture_to_train_on_and_three_groups_reach_every_split() -> None:
    for seed in range(30):
        splits = cut([0, 1, 1, 2, 2, 2], list(range(6)), seed=seed)
        assert {0, *splits["train"]} == splits["train"]  # the one picture of class 0 trains
        assert any(i in splits["train"] for i in (1, 2))
        for name in ("train", "validation", "test"):
            assert any(i in splits[name] for i in (3, 4, 5)), (seed, name)


def test_another_seed_another_split() -> None:
    labels, groups = [0] * 100, list(range(100))
    assert cut(labels, groups, seed=1) != cut(labels, groups, seed=2)


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(UsageError, match="leave none to train on"):
        cut_by_content(
            np.zeros(10, dtype=np.int64),
            digests_of(10),
            np.arange(10),
            np.arange(10),
            {"test": 0.5, "validation": 5},
            0,
        )


def test_make_split_uses_it_where_digests_are_known() -> None:
    digests = tuple(digests_of(60))
    groups = np.arange(60) // 3
    images = np.zeros((60, 4, 4, 1), np.uint8)
    train = Dataset("own", images, np.arange(60) % 2, ("a", "b"), None, digests, groups)
    split = make_split(Parts("own", train), validation=0.15, test=0.15)
    expected = cut_by_content(train.labels, digests, groups, np.arange(60), SHARES, 0)
    assert split.test.tolist() == expected["test"].tolist()
    assert split.validation.tolist() == expected["validation"].tolist()
    assert split.train.tolist() == expected["train"].tolist()
    assert split.test_of == split.validation_of == "train"
    given_test = make_split(Parts("own", train, test=train), validation=0.2)
    assert len(given_test.test) == 60 and given_test.test_of == "test" and len(given_test.validation) > 0


def test_taking_some_keeps_what_belongs_to_them() -> None:
    digests = tuple(digests_of(5))
    images = np.zeros((5, 2, 2, 1), np.uint8)
    whole = Dataset("own", images, np.zeros(5, np.int64), ("a",), tuple("vwxyz"), digests, np.array([0, 0, 1, 2, 2]))
    some = whole.take(np.array([4, 1]))
    assert some.sources == ("z", "w") and some.digests == (digests[4], digests[1])
    assert some.groups is not None and some.groups.tolist() == [2, 0]
