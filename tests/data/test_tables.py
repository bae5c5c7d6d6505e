"""Tables of path and label: columns, rows with a fault, paths that lead elsewhere, encodings."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.data import tables
from striate.data.records import Source
from striate.data.sources import open_source
from striate.data.tables import read_table
from striate.errors import DataError, UsageError

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(40)


def write(root: Path, text: str | bytes, name: str = "t.csv", pictures: tuple[str, ...] = ("a.jpg", "b/b.jpg")) -> Path:
    for picture in pictures:
        path = root / picture
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(source: Source) -> list[tuple[str, str | None]]:
    return [(record.source, record.label) for record in source.records]


def codes(source: Source) -> list[tuple[str, str]]:
    return [(left.source, left.code) for left in source.left_out]


def test_path_and_label(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, "path,label\nb/b.jpg,dog\na.jpg,cat\n"))
    assert (source.kind, source.name, source.root) == ("table", "t", tmp_path)
    assert rows(source) == [("a.jpg", "cat"), ("b/b.jpg", "dog")] and source.classes == ("cat", "dog")
    assert source.records[0].place.read() == JPEG and source.left_out == ()
    assert source.notes == ("t.csv: path from column 'path', label from column 'label'",)


TEXTS = {
    "comma": "path,label\na.jpg,cat\nb/b.jpg,dog\n",
    "other-names": "Class,extra,FileName\ncat,1,a.jpg\ndog,2,b/b.jpg\n",
    "semicolon": "path;label\na.jpg;cat\nb/b.jpg;dog\n",
    "tab": "image\tcategory\na.jpg\tcat\nb/b.jpg\tdog\n",
    "crlf": "path,label\r\na.jpg,cat\r\nb/b.jpg,dog\r\n",
    "old-mac": "path,label\ra.jpg,cat\rb/b.jpg,dog\r",
    "mark": "\ufeffpath,label\na.jpg,cat\nb/b.jpg,dog\n",
    "quotes": '"path","label"\n"a.jpg","cat"\n"b/b.jpg","dog"',
    "spaces": "path, label\na.jpg, cat \nb/b.jpg,  dog\n\n , \n",
    "backslashes": "path,label\na.jpg,cat\nb\\b.jpg,dog\n",
    "dots": "path,label\n./a.jpg,cat\nb/../b//b.jpg,dog\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_ways_of_writing_it(tmp_path: Path, text: str) -> None:
    assert rows(open_source(write(tmp_path, text))) == [("a.jpg", "cat"), ("b/b.jpg", "dog")]


def test_utf16_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = write(tmp_path, "path\tlabel\na.jpg\t猫\nb/b.jpg\t狗\n".encode("utf-16"), "t.tsv")
    assert open_source(path).classes == ("狗", "猫")


def test_json_lines(tmp_path: Path) -> None:
    lines = [{"file": "a.jpg", "label": 10}, {"label": 2, "file": "b/b.jpg", "box": [1, 2], "split": None}]
    path = write(tmp_path, "\n\n".join(map(json.dumps, lines)), "t.jsonl")
    assert rows(open_source(path)) == [("a.jpg", "10"), ("b/b.jpg", "2")]
    assert open_source(path).classes == ("2", "10")


def test_split_group_and_weight(tmp_path: Path) -> None:
    text = "path,label,split,patient,weight\na.jpg,cat,Train,p1,0.5\nb/b.jpg,dog,VALID,p2,\nc.jpg,dog,,,2\n"
    records = open_source(write(tmp_path, text, pictures=("a.jpg", "b/b.jpg", "c.jpg"))).records
    assert [(r.split, r.group, r.weight) for r in records] == [
        ("train", "p1", 0.5),
        ("validation", "p2", 1.0),
        (None, None, 2.0),
    ]


def test_a_group_is_a_column_or_an_expression(tmp_path: Path) -> None:
    path = write(tmp_path, "path,label,burst,camera\na.jpg,cat,1,x\nb/b.jpg,dog,2,y\n")
    assert [record.group for record in open_source(path).records] == ["1", "2"]
    assert [record.group for record in open_source(path, group="camera").records] == ["x", "y"]
    assert [record.group for record in open_source(path, group=r"(\w)\.jpg").records] == ["a", "b"]
    assert [record.group for record in open_source(path, group="b/").records] == ["1", "b/"]
    with pytest.raises(UsageError, match="matches none of 2"):
        open_source(path, group="zebra")
    with pytest.raises(UsageError, match="no regular expression"):
        open_source(path, group="(")


def test_what_a_row_may_lack(tmp_path: Path) -> None:
    text = "path,label\na.jpg,cat\nb/b.jpg,\n,dog\ngone.jpg,cat\npage.jpg,cat\nb,cat\n"
    path = write(tmp_path, text)
    (tmp_path / "page.jpg").write_text("<html>")
    source = open_source(path)
    assert rows(source) == [("a.jpg", "cat")]
    assert codes(source) == [
        ("b", "special-file"),
        ("gone.jpg", "missing-file"),
        ("page.jpg", "not-a-picture"),
        ("t.csv, row 3", "no-label"),
        ("t.csv, row 4", "missing-file"),
    ]
    assert "(t.csv, row 5)" in source.left_out[1].reason


def test_rows_that_repeat_or_contradict(tmp_path: Path) -> None:
    text = "path,label,split\na.jpg,cat,\n./a.jpg,cat,\nb/b.jpg,cat,\nb/b.jpg,dog,\nc.jpg,cat,train\nc.jpg,cat,test\n"
    source = open_source(write(tmp_path, text, pictures=("a.jpg", "b/b.jpg", "c.jpg")))
    assert rows(source) == [("a.jpg", "cat")]
    assert codes(source) == [("a.jpg", "duplicate-row"), ("b/b.jpg", "conflicting-rows"), ("c.jpg", "conflicting-rows")]
    assert [left.reason for left in source.left_out] == [
        "row 3 says the same as row 2",
        "row 5 differs from row 4",
        "row 7 differs from row 6",
    ]


def test_paths_stay_in_the_tables_folder_unless_told(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.jpg"
    root.mkdir()
    outside.write_bytes(JPEG)
    inside = root / "a.jpg"
    text = f"path,label\n{inside},cat\n{outside},dog\n../outside.jpg,dog\nlink.jpg,dog\nlinked/outside.jpg,dog\n"
    path = write(root, text, pictures=("a.jpg",))
    os.symlink(outside, root / "link.jpg")
    os.symlink(tmp_path, root / "linked")
    source = open_source(path)
    assert rows(source) == [("a.jpg", "cat")] and {left.code for left in source.left_out} == {"outside-root"}
    followed = open_source(path, follow_links=True)
    assert {record.source for record in followed.records} == {
        "a.jpg",
        "link.jpg",
        "linked/outside.jpg",
        outside.as_posix(),
    }


def test_a_table_of_nothing_but_strangers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "path,label\nx/a.jpg,cat\nx/b.jpg,dog\n")
    with pytest.raises(DataError, match="none of its 2 rows") as caught:
        open_source(path)
    assert "x/a.jpg: there is no such file" in caught.value.cause and "--follow-links" in caught.value.fix


def test_pipes_in_a_table_do_not_hold_us_up(tmp_path: Path) -> None:
    path = write(tmp_path, "path,label\na.jpg,cat\npipe.jpg,dog\n/dev/zero,dog\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert codes(open_source(path, follow_links=True)) == [("/dev/zero", "special-file"), ("pipe.jpg", "special-file")]


BROKEN = {
    "no-path": ("a,label\n1,2\n", "no column for the path"),
    "no-label": ("path,b\n1,2\n", "no column for the label"),
    "no-rows": ("path,label\n", "no rows"),
    "empty": ("", "no column for the path"),
    "short-row": ("path,label\na.jpg,cat\nb/b.jpg\n", "row 3: 1 cells, the header has 2"),
    "long-row": ("path,label\na.jpg,cat,x\n", "row 2: 3 cells, the header has 2"),
    "open-quote": ('path,label\na.jpg,"cat\n', "row 2: the row cannot be read"),
    "after-quote": ('path,label\na.jpg,"c"at\n', "row 2: the row cannot be read"),
    "twice": ("path,label,label\na.jpg,cat,dog\n", "two columns called 'label'"),
    "split": ("path,label,split\na.jpg,cat,3\nb/b.jpg,cat,train\n", "row 2: split '3'"),
    "weight": ("path,label,weight\na.jpg,cat,heavy\nb/b.jpg,cat,-1\n", "row 2: weight 'heavy'; row 3: weight '-1'"),
    "nan": ("path,label,weight\na.jpg,cat,nan\n", "row 2: weight 'nan'"),
    "latin": ("path,label\na.jpg,gr\xfcn\n".encode("latin-1"), "not UTF-8 in line 2"),
    "chinese-windows": ("path,label\na.jpg,猫的照片\n".encode("gbk"), "not UTF-8 in line 2"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_tables_name_the_row(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(write(tmp_path, text))
    assert caught.value.what.startswith("t.csv") and said in caught.value.what


BROKEN_JSON = {
    "no-json": ('{"path": "a.jpg", "label": 1}\npath,label\n', "row 2 is no JSON"),
    "no-object": ("[1, 2]\n", "row 1 is no JSON object"),
    "deep": ("[" * 100_000 + "\n", "row 1 is no JSON"),
    "nothing": ("\n", "no column for the path"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN_JSON.values(), ids=BROKEN_JSON.keys())
def test_broken_json_names_the_row(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(write(tmp_path, text, "t.jsonl"))
    assert said in caught.value.what


def test_a_table_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_TABLE_BYTES", 20)
    with pytest.raises(DataError, match="a table may have 20"):
        open_source(write(tmp_path, TEXTS["comma"]))


NAMES = [
    "猫.jpg",
    "🐱.jpg",
    "חתול.jpg",
    "a\nb.jpg",
    "-rf.jpg",
    "a,b;c.jpg",
    'say "hi".jpg',
    " x.jpg",
    "y" * 251 + ".jpg",
]


def test_odd_names(tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("path", "label"), *((name, name) for name in NAMES)])
    source = open_source(write(tmp_path, text.getvalue(), pictures=tuple(NAMES)))
    assert sorted(record.source for record in source.records) == sorted(NAMES) and source.left_out == ()
    assert all(record.label == record.source.strip() and record.place.read() == JPEG for record in source.records)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    lines = [{"path": name, "label": "x"} for name in ("a.jpg", "nul\0.jpg", "\ud800.jpg", "z" * 300)]
    source = open_source(write(tmp_path, "\n".join(map(json.dumps, lines)), "t.jsonl"))
    assert rows(source) == [("a.jpg", "x")] and len(source.left_out) == 3
    assert all(left.source.encode() and left.code in ("unreadable", "missing-file") for left in source.left_out)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(["\r\n", "\n"]))
def test_what_csv_writes_is_read_back(cells: list[tuple[str, str, str]], end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("path", "label", "group"), *cells])
    kept = [row for row in cells if any(cell.strip() for cell in row)]
    if not kept:
        return
    table = read_table(text.getvalue().encode(), "t.csv")
    assert [tuple(found[key] for key in ("path", "label", "group")) for _, found in table.rows] == kept


@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.jsonl"]))
def test_garbage_is_refused_with_our_own_error(content: bytes, name: str) -> None:
    try:
        read_table(content, name)
    except DataError as error:
        assert error.what.startswith(name)
