"""Targets: what is a path and what a name, tables beside folders, groups, classes matched by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.data.records import class_name, class_order, match_classes, storable
from striate.data.sources import looks_like_pictures, open_source
from striate.errors import DataError, UsageError

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(40)


def put(root: Path, *names: str, content: bytes = JPEG) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_the_name_of_a_data_set_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(put(tmp_path, "mnist/a/1.jpg", "photos/a/1.jpg"))
    for name in ("mnist", "MNIST", "fashion_mnist", "cifar10", "no-such-thing"):
        assert not looks_like_pictures(name)
    for path in ("./mnist", "mnist/", str(tmp_path / "mnist"), "photos", "~/photos", "../x", "gone/photos", "gone.zip",
                 "gone.csv", "hf://owner/name", "."):  # fmt: skip
        assert looks_like_pictures(path)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    put(tmp_path, "one.jpg")
    put(tmp_path, "text.txt", content=b"some text")
    put(tmp_path, "empty.zip", content=b"")
    for name, said in (("one.jpg", "is one picture"), ("text.txt", "is no data set"), ("empty.zip", "is no data set"),
                       ("gone", "does not exist"), ("nul\0", "cannot be opened")):  # fmt: skip
        with pytest.raises(DataError, match=said):
            open_source(tmp_path / name)
    os.symlink("gone", tmp_path / "link")
    with pytest.raises(DataError, match="link to nothing"):
        open_source(tmp_path / "link")


def test_relative_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(put(tmp_path, "photos/a/1.jpg", "photos/b/1.jpg"))
    assert open_source("photos").root == tmp_path / "photos"
    assert open_source("photos/").name == "photos" and open_source(Path("photos")).name == "photos"
    monkeypatch.chdir("photos")
    assert open_source(".").name == "photos"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_source("~/photos").records) == 2


def test_a_table_counts_where_there_are_no_class_folders(tmp_path: Path) -> None:
    put(tmp_path / "a", "images/1.jpg", "images/2.jpg", "3.jpg")
    put(tmp_path / "a", "labels.csv", content=b"path,label\nimages/1.jpg,cat\nimages/2.jpg,dog\n")
    source = open_source(tmp_path / "a")
    assert (source.kind, source.name, source.classes) == ("folder", "a", ("cat", "dog"))
    assert source.notes[0] == "there are no class folders: labels are read from labels.csv"
    assert [(left.source, left.code) for left in source.left_out] == [("3.jpg", "not-in-table")]
    # With class folders a table is just a file.
    put(tmp_path / "a", "dogs/2.jpg")
    source = open_source(tmp_path / "a")
    assert source.classes == ("dogs", "images") and ("labels.csv", "other-file") in [
        (left.source, left.code) for left in source.left_out
    ]
    # Of several none is guessed.
    put(tmp_path / "b", "images/1.jpg")
    put(tmp_path / "b", "x.csv", "y.csv", content=b"path,label\nimages/1.jpg,cat\n")
    with pytest.raises(DataError, match=r"several tables: x\.csv, y\.csv"):
        open_source(tmp_path / "b")
    put(tmp_path / "c", "1.jpg")
    put(tmp_path / "c", "x.csv", content=b"name,label\n1.jpg,cat\n")
    with pytest.raises(DataError, match="no column for the path"):
        open_source(tmp_path / "c")


def test_groups_of_file_names(tmp_path: Path) -> None:
    put(tmp_path, "cat/p1_a.jpg", "cat/p1_b.jpg", "dog/p2_a.jpg", "dog/x.jpg")
    groups = [record.group for record in open_source(tmp_path, group=r"(p\d+)_").records]
    assert groups == ["p1", "p1", "p2", None]
    assert [record.group for record in open_source(tmp_path, group=r"p\d+_|x").records] == ["p1_", "p1_", "p2_", "x"]
    with pytest.raises(UsageError, match="matches none of 4"):
        open_source(tmp_path, group="patient")


def test_classes_of_a_model_are_matched_by_name() -> None:
    indices, told = match_classes(("ant", "wasp", "café"), ("bee", "cafe\u0301", "ant"))
    assert indices == {"ant": 2, "café": 1}
    assert told == ["the model does not know wasp: these pictures are not counted", "no picture of bee is here"]
    assert match_classes(("a", "b"), ("b", "a")) == ({"a": 1, "b": 0}, [])


@given(st.lists(st.text(max_size=4)))
def test_the_order_of_classes(names: list[str]) -> None:
    order = class_order(names)
    assert class_order(reversed(names)) == order and sorted(order) == sorted(set(names))
    if not all(name.isascii() and name.isdigit() for name in names):
        assert list(order) == sorted(set(names))


@given(st.binary(min_size=1, max_size=20))
def test_any_name_of_a_file_can_be_stored(name: bytes) -> None:
    text = storable(os.fsdecode(name))
    text.encode()
    assert class_name(class_name(os.fsdecode(name))) == class_name(os.fsdecode(name))
    try:
        assert text == name.decode()
    except UnicodeDecodeError:
        assert "\\x" in text
