"""The fixes file: read exactly, applied from top to bottom, proposed so that findings are settled."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.doctor import check_up
from striate.data.findings import must_be_decided
from striate.data.fixes import Fix, apply_fixes, find_fixes, propose_fixes, read_fixes, write_fixes
from striate.data.records import FilePlace, LeftOut, Record, Source
from striate.data.sources import open_source
from striate.errors import DataError, StriateError


def load_planted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted", Path(__file__).with_name("planted.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


planted = load_planted()


def source_of(*labelled: tuple[str, str]) -> Source:
    records = tuple(Record(name, label, FilePlace(Path(name))) for name, label in labelled)
    left_out = (LeftOut("cats/page.jpg", "not-a-picture", "it is a web page"),)
    return Source("set", Path("/set"), "folder", records, tuple(sorted({label for _, label in labelled})), left_out)


def labels(source: Source) -> dict[str, str | None]:
    return {record.source: record.label for record in source.records}


SET = source_of(("a.jpg", "cat"), ("b.jpg", "Cat"), ("c.jpg", "dog"), ("d, e\n.jpg", "dog"))


def test_each_action_does_what_it_says() -> None:
    fixed, told = apply_fixes(
        SET,
        [
            Fix("drop", "c.jpg"),
            Fix("drop", "cats/page.jpg"),
            Fix("relabel", "d, e\n.jpg", "owl"),
            Fix("merge", "Cat", "cat"),
            Fix("decide", "a.jpg"),
            Fix("drop", "gone.jpg"),
            Fix("merge", "horse", "cat"),
        ],
    )
    assert labels(fixed) == {"a.jpg": "cat", "b.jpg": "cat", "d, e\n.jpg": "owl"}
    assert fixed.classes == ("cat", "owl") and fixed.left_out == ()
    assert told == [
        "fixes applied: 2 drop, 1 relabel, 1 merge",
        "1 rows of the fixes still say decide",
        "2 rows of the fixes name nothing that is here: gone.jpg, horse",
        "the fixes make new classes: owl",
    ]
    assert labels(SET)["b.jpg"] == "Cat"


def test_rows_apply_from_top_to_bottom() -> None:
    merges = [Fix("merge", "cat", "dog"), Fix("merge", "dog", "animal")]
    assert set(labels(apply_fixes(SET, merges)[0]).values()) == {"animal", "Cat"}
    assert set(labels(apply_fixes(SET, merges[::-1])[0]).values()) == {"dog", "animal", "Cat"}


def test_dropping_everything_is_refused() -> None:
    with pytest.raises(DataError, match="drop every picture"):
        apply_fixes(SET, [Fix("drop", record.source) for record in SET.records])


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.builds(Fix, st.sampled_from(["drop", "decide"]), names, names, names), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, fixes: list[Fix]) -> None:
    path = tmp_path_factory.mktemp("fixes") / "striate.fixes.csv"
    write_fixes(path, fixes)
    assert read_fixes(path) == fixes


def test_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "fixes.csv"
    path.write_bytes("\ufeffAction,What,To\r\nMerge ,Cats ,cats\r\n\r\ndrop,猫/1.jpg,\r\n".encode())
    assert read_fixes(path) == [Fix("merge", "Cats ", "cats"), Fix("drop", "猫/1.jpg")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no fixes file"),
        (b"path,label\na,b\n", "no fixes file"),
        (b"action,what\ndorp,a.jpg\n", "row 2: action 'dorp', did you mean drop?"),
        (b"action,what,to\nrelabel,a.jpg, \n", "row 2: relabel needs a class"),
        (b"action,what\ndrop,\n", "row 2: the column what is empty"),
        (b"action,what\ndrop,\xff\n", "is no table"),
        (b'action,what\ndrop,"a\n', "is no table"),
        (b"action,what\ndrop\n", "row 2: the column what is empty"),
    ],
)
def test_wrong_files_are_refused_with_the_row(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "fixes.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_fixes(path)
    assert told in str(refused.value) and str(path) in refused.value.what


def test_a_fixes_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StriateError, match=r"missing\.csv"):
        read_fixes(tmp_path / "missing.csv")


def test_the_file_in_the_folder_is_found_and_is_no_finding(tmp_path: Path) -> None:
    root = planted.clean_folder(tmp_path / "set", ("",))
    write_fixes(root / "striate.fixes.csv", [Fix("drop", "cat/00.jpg")])
    with open_source(root) as source:
        path = find_fixes(source)
        assert path == root / "striate.fixes.csv"
        fixed, _ = apply_fixes(source, read_fixes(path))
        assert check_up(fixed, threads=1).findings == []
    (root / "striate.fixes.csv").unlink()
    with open_source(root) as source:
        assert find_fixes(source) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")
def test_proposed_fixes_settle_what_needs_no_person(tmp_path: Path) -> None:
    planted.planted_folder(tmp_path / "set")
    with open_source(tmp_path / "set") as source:
        before = check_up(source, threads=1)
        fixes = propose_fixes(before.findings, source.records)
        write_fixes(tmp_path / "fixes.csv", fixes)
        fixed, _ = apply_fixes(source, read_fixes(tmp_path / "fixes.csv"))
        after = check_up(fixed, threads=1)
    left = {one.code for one in must_be_decided(after.findings)}
    assert left == {"label-conflict", "near-label-conflict", "beside-split", "untrained-class"}
    assert not {"duplicates", "unreadable", "leak", "near-leak"} & {one.code for one in after.findings}
    dropped = {fix.what for fix in fixes if fix.action == "drop"}
    assert not any(name.startswith(("test/", "val/")) for name in dropped), "the copy in train goes, the test stays"
    undecided = {fix.what for fix in fixes if fix.action == "decide"}
    assert {"train/dog/03.jpg", "train/horse/was_a_dog.jpg", "train/horse/blank.jpg"} <= undecided
    assert Fix("merge", "Cat", "cat", "similar-classes") in fixes
