"""Class folders: what counts, what is left out and why, splits, links, odd names, rights."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.folders import no_picture
from striate.data.records import FilePlace, Source
from striate.data.sources import open_source
from striate.errors import DataError

# The first bytes of each format, as long as their magic is.
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(40)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
STARTS = {
    "jpg": JPEG,
    "png": PNG,
    "gif": b"GIF89a" + bytes(40),
    "webp": b"RIFF\0\0\0\0WEBPVP8 " + bytes(40),
    "bmp": b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(40),
    "tif": b"II*\0" + bytes(40),
    "tiff": b"MM\0*" + bytes(40),
}


def put(root: Path, *names: str, content: bytes = JPEG) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def sources(source: Source) -> list[str]:
    return [record.source for record in source.records]


def codes(source: Source) -> dict[str, str]:
    """What was left out, as {source: code}; nothing is listed twice."""
    assert len({left.source for left in source.left_out}) == len(source.left_out)
    return {left.source: left.code for left in source.left_out}


def test_a_flat_folder(tmp_path: Path) -> None:
    put(tmp_path, "dog/2.jpg", "cat/1.jpg", "cat/10.jpg")
    source = open_source(tmp_path)
    assert (source.kind, source.name, source.root) == ("folder", tmp_path.name, tmp_path)
    assert [(r.source, r.label, r.split) for r in source.records] == [
        ("cat/1.jpg", "cat", None),
        ("cat/10.jpg", "cat", None),
        ("dog/2.jpg", "dog", None),
    ]
    assert source.classes == ("cat", "dog") and source.left_out == () and source.notes == ()
    place = source.records[0].place
    assert place.path is not None and place.path.samefile(tmp_path / "cat/1.jpg") and place.read() == JPEG
    with place.open() as stream:
        stream.seek(2)
        assert stream.read(2) == JPEG[2:4]


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Valid", "VAL"])
def test_split_folders_in_any_case(tmp_path: Path, word: str) -> None:
    put(tmp_path, "Train/cat/1.jpg", "Train/dog/1.jpg", f"{word}/cat/2.jpg", "TEST/dog/3.jpg")
    source = open_source(tmp_path)
    found = {record.source: (record.split, record.label) for record in source.records}
    assert found["Train/cat/1.jpg"] == ("train", "cat")
    assert found[f"{word}/cat/2.jpg"] == ("validation", "cat")
    assert found["TEST/dog/3.jpg"] == ("test", "dog")
    assert source.classes == ("cat", "dog")


def test_only_a_test_folder_is_a_split_too(tmp_path: Path) -> None:
    source = open_source(put(tmp_path, "test/cat/1.jpg", "test/dog/2.jpg"))
    assert {record.split for record in source.records} == {"test"} and source.classes == ("cat", "dog")


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    put(tmp_path / "a", "cat/2019/summer/1.jpg", "cat/2.jpg", "dog/3.jpg")
    source = open_source(tmp_path / "a")
    assert [record.label for record in source.records] == ["cat", "cat", "dog"]
    assert source.notes == ("pictures in folders inside a class folder count to that class: cat",)
    put(tmp_path / "b", "train/cat/2019/1.jpg", "train/dog/3.jpg")
    assert [record.label for record in open_source(tmp_path / "b").records] == ["cat", "dog"]


def test_pictures_outside_class_folders_are_misplaced(tmp_path: Path) -> None:
    put(tmp_path / "a", "cat/1.jpg", "dog/1.jpg", "stray.jpg")
    assert codes(open_source(tmp_path / "a")) == {"stray.jpg": "misplaced"}
    put(tmp_path / "b", "train/cat/1.jpg", "train/dog/1.jpg", "train/stray.jpg", "stray.jpg")
    assert codes(open_source(tmp_path / "b")) == {"stray.jpg": "misplaced", "train/stray.jpg": "misplaced"}


def test_a_folder_beside_the_splits_is_told(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "vaild/cat/2.jpg", "vaild/dog/2.jpg")
    source = open_source(tmp_path)
    assert sources(source) == ["train/cat/1.jpg", "train/dog/1.jpg"]
    assert codes(source) == {"vaild": "beside-split"} and "2 pictures" in source.left_out[0].reason


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = open_source(put(tmp_path, "train/1.jpg", "bus/1.jpg", "car/1.jpg"))
    assert source.classes == ("bus", "car", "train") and {record.split for record in source.records} == {None}
    assert "taken as a class" in source.notes[0]


def test_a_test_folder_among_classes_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg", "test/cat/2.jpg")
    with pytest.raises(DataError, match="test next to cat, dog") as caught:
        open_source(tmp_path)
    assert "into a folder train" in caught.value.fix


def test_classes_that_differ_between_splits_are_matched_by_name_and_told(tmp_path: Path) -> None:
    put(tmp_path, "train/b/1.jpg", "train/c/1.jpg", "val/a/1.jpg", "val/b/1.jpg")
    source = open_source(tmp_path)
    assert source.classes == ("a", "b", "c")
    assert [note.split(";")[0] for note in source.notes] == [
        "only in validation, not in train: a (1 pictures)",
        "in train, not in validation: c",
    ]


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    put(tmp_path, "10/a.jpg", "2/a.jpg", "1/a.jpg")
    assert open_source(tmp_path).classes == ("1", "2", "10")
    put(tmp_path, "x/a.jpg")
    assert open_source(tmp_path).classes == ("1", "10", "2", "x")


def test_pictures_are_told_by_content(tmp_path: Path) -> None:
    for ending, start in STARTS.items():
        put(tmp_path, f"cat/a.{ending}", f"dog/a.{ending.upper()}", f"dog/{ending}.txt", content=start)
    put(tmp_path, "cat/page.jpg", content=b"<!DOCTYPE html><html>")
    put(tmp_path, "cat/BMW list.txt", content=b"BMW, Audi and more")
    put(tmp_path, "cat/empty.png", content=b"")
    put(tmp_path, "cat/phone.heic", content=b"\0\0\0\x18ftypheic" + bytes(20))
    put(tmp_path, "notes.md", content=b"# notes")
    source = open_source(tmp_path)
    assert len(source.records) == 3 * len(STARTS)
    assert codes(source) == {
        "cat/page.jpg": "not-a-picture",
        "cat/BMW list.txt": "other-file",
        "cat/empty.png": "not-a-picture",
        "cat/phone.heic": "not-a-picture",
        "notes.md": "other-file",
    }
    reasons = {left.source: left.reason for left in source.left_out}
    assert reasons["cat/page.jpg"] == "it is a web page" and reasons["cat/empty.png"] == "it is empty"
    assert "HEIC" in reasons["cat/phone.heic"]


@given(st.binary(max_size=40))
def test_no_start_of_a_file_makes_the_look_at_it_fail(start: bytes) -> None:
    problem = no_picture(start, "a.jpg")
    assert problem is None or (problem[0] == "not-a-picture" and problem[1].startswith("it "))


def test_what_systems_leave_behind(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    litter = ["cat/.ipynb_checkpoints/1-checkpoint.jpg", "__MACOSX/cat/1.jpg", "cat/.DS_Store", "cat/._1.jpg",
              "cat/Thumbs.db", "dog/desktop.ini", ".git/x.jpg", "dog/.hidden.jpg"]  # fmt: skip
    put(tmp_path, *litter)
    source = open_source(tmp_path)
    assert sources(source) == ["cat/1.jpg", "dog/1.jpg"] and source.classes == ("cat", "dog")
    assert codes(source) == dict.fromkeys(
        ("cat/.ipynb_checkpoints", "__MACOSX", "cat/.DS_Store", "cat/._1.jpg", "cat/Thumbs.db", "dog/desktop.ini",
         ".git", "dog/.hidden.jpg"), "hidden")  # fmt: skip


def test_empty_folders_the_uppermost_only(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    put(tmp_path, "bird/notes.txt", content=b"none yet")
    (tmp_path / "fish/red/small").mkdir(parents=True)
    (tmp_path / "cat/new").mkdir()
    source = open_source(tmp_path)
    assert codes(source) == {
        "bird": "empty-folder",
        "bird/notes.txt": "other-file",
        "fish": "empty-folder",
        "cat/new": "empty-folder",
    }
    reasons = {left.source: left.reason for left in source.left_out}
    assert reasons["bird"] == "it holds no picture" and reasons["cat/new"] == "it is empty"


@pytest.mark.parametrize("last", ["model.json", "status.json"])
def test_runs_among_the_data_are_left_out(tmp_path: Path, last: str) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg", "runs/cat-lenet5-1/samples.png", "runs/cat-lenet5-1/weights/x.png")
    for name in ("config.yaml", "command.txt", last):
        put(tmp_path, f"runs/cat-lenet5-1/{name}", content=b"x")
    source = open_source(tmp_path)
    assert sources(source) == ["cat/1.jpg", "dog/1.jpg"] and codes(source) == {"runs/cat-lenet5-1": "run-folder"}
    with pytest.raises(DataError, match="folder of a training run"):
        open_source(tmp_path / "runs/cat-lenet5-1")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot be listed") as caught:
        open_source(tmp_path)
    assert caught.value.cause == "permission is denied"


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        open_source(tmp_path)
    put(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match="2 pictures but no class folders"):
        open_source(tmp_path)


def test_pipes_sockets_and_devices_never_hold_us_up(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    os.symlink("pipe.jpg", tmp_path / "cat/link to pipe.jpg")
    here = os.getcwd()
    listening = socket.socket(socket.AF_UNIX)
    try:
        os.chdir(tmp_path / "dog")  # a socket's whole path may have 107 bytes only
        listening.bind("s.jpg")
    finally:
        os.chdir(here)
        listening.close()
    source = open_source(tmp_path)
    assert codes(source) == dict.fromkeys(("cat/pipe.jpg", "cat/link to pipe.jpg", "dog/s.jpg"), "special-file")
    with pytest.raises(DataError, match="pipe"):
        open_source(tmp_path / "cat/pipe.jpg")


def test_links(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside", "o.jpg", "more/p.jpg")
    root = put(tmp_path / "root", "cat/1.jpg", "dog/1.jpg")
    os.symlink("1.jpg", root / "cat/inside.jpg")
    os.symlink(outside / "o.jpg", root / "cat/out.jpg")
    os.symlink(outside, root / "dog/out")
    os.symlink("nowhere.jpg", root / "cat/dangling.jpg")
    os.symlink("b.jpg", root / "dog/a.jpg")
    os.symlink("a.jpg", root / "dog/b.jpg")
    os.symlink("..", root / "cat/up")
    os.symlink(".", root / "dog/self")
    loops = {"dog/a.jpg": "link-loop", "dog/b.jpg": "link-loop", "cat/up": "link-loop", "dog/self": "link-loop"}
    source = open_source(root)
    assert sources(source) == ["cat/1.jpg", "cat/inside.jpg", "dog/1.jpg"]
    out = {"cat/out.jpg": "outside-root", "dog/out": "outside-root"}
    assert codes(source) == {**loops, **out, "cat/dangling.jpg": "dangling-link"}
    followed = open_source(root, follow_links=True)
    more = ["cat/out.jpg", "dog/out/more/p.jpg", "dog/out/o.jpg"]
    assert sources(followed) == sorted(["cat/1.jpg", "cat/inside.jpg", "dog/1.jpg", *more])
    assert codes(followed) == {**loops, "cat/dangling.jpg": "dangling-link"}


def test_links_across_each_other_end(tmp_path: Path) -> None:
    """Each folder links to all others: followed blindly, the paths would be without number."""
    names = [f"c{i}" for i in range(8)]
    for name in names:
        put(tmp_path, f"{name}/1.jpg")
        for other in names:
            os.symlink(f"../{other}", tmp_path / name / f"to-{other}")
    source = open_source(tmp_path)
    assert len(source.records) <= 2 * len(names)  # each folder as itself, and through one link
    assert {left.code for left in source.left_out} == {"link-loop", "linked-twice"}


def test_a_root_that_is_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real", "cat/1.jpg", "dog/1.jpg")
    os.symlink("real", tmp_path / "named")
    source = open_source(tmp_path / "named")
    assert source.name == "named" and sources(source) == ["cat/1.jpg", "dog/1.jpg"]


ODD_NAMES = {
    "chinese": "猫的照片",
    "emoji": "🐱👩‍👩‍👧",
    "right-to-left": "חתול",
    "newline": "a\nb",
    "leading-dash": "-rf",
    "spaces": " a b ",
    "percent": "%s %d {x}",
    "quotes": "'\"`$(id)",
    "255-bytes": "x" * 251,
    "chinese-255-bytes": "猫" * 83,
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_odd_names(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/{name}.jpg", f"other/{name}.jpg")
    source = open_source(tmp_path)
    assert name in source.classes and source.left_out == ()
    record = next(record for record in source.records if record.label == name)
    assert record.source == f"{name}/{name}.jpg" and record.place.read() == JPEG
    assert json.loads(json.dumps(record.source).encode()) == record.source


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/gr\xfcn"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with open(folder + b"/\xff\xfe.jpg", "wb") as stream:
        stream.write(JPEG)
    put(tmp_path, "rot/1.jpg")
    record = open_source(tmp_path).records[0]
    assert (record.source, record.label) == (r"gr\xfcn/\xff\xfe.jpg", r"gr\xfcn")
    record.source.encode()  # it can be written to any file of ours
    assert record.place.read() == JPEG


def test_two_ways_of_writing_one_name_are_one_class(tmp_path: Path) -> None:
    composed, parted = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    put(tmp_path, f"train/{composed}/1.jpg", "train/tea/1.jpg", f"val/{parted}/2.jpg", "val/tea/2.jpg")
    source = open_source(tmp_path)
    assert source.classes == (composed, "tea")
    assert source.notes == ("the folders called café differ only in how Unicode writes them: they are one class",)


def test_case_makes_two_classes(tmp_path: Path) -> None:
    put(tmp_path, "Cat/1.jpg", "cat/2.jpg")
    assert open_source(tmp_path).classes == ("Cat", "cat")


def test_the_order_does_not_depend_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"c{i}/{j}/{k}.jpg" for i in range(3) for j in range(2) for k in range(3)))
    (tmp_path / "empty").mkdir()
    expected = open_source(tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            with scandir(path) as listing:
                self.entries = sorted(listing, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    got = open_source(tmp_path)
    assert got.records == expected.records and got.left_out == expected.left_out and got.notes == expected.notes


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "train", "val", "1.jpg", ".x"]), min_size=1, max_size=4), max_size=12)
)
def test_every_file_is_a_record_or_left_out(paths: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for parts in paths:
            path = root.joinpath(*parts, "p.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(JPEG)
        files = {path.relative_to(root).as_posix() for path in root.rglob("*.jpg") if path.is_file()}
        try:
            source = open_source(root)
        except DataError:
            return
        known = set(sources(source))
        gone = [left.source for left in source.left_out]
        assert known <= files and set(source.classes) == {record.label for record in source.records}
        for file in files - known:
            assert any(file == left or file.startswith(f"{left}/") for left in gone), file


def test_deep_folders_end(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    here = os.getcwd()
    try:
        os.chdir(tmp_path / "cat")
        for _ in range(50):  # 10,000 bytes: longer than a path may be
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    source = open_source(tmp_path)
    assert sources(source) == ["cat/1.jpg", "dog/1.jpg"]
    assert {left.code for left in source.left_out} == {"unreadable", "empty-folder"}
    shutil.rmtree(tmp_path / "cat")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_read_is_named(open_folder: Path) -> None:
    put(open_folder, "cat/1.jpg", "cat/secret.jpg", "dog/1.jpg", "bird/1.jpg")
    (open_folder / "cat/secret.jpg").chmod(0)
    (open_folder / "bird").chmod(0)
    # Everything is imported first: another user may not be let into our packages.
    script = textwrap.dedent("""
        import os, sys
        from striate.data.sources import open_source
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        source = open_source(sys.argv[1])
        print([record.source for record in source.records])
        print([(left.source, left.code, left.reason) for left in source.left_out])
    """)
    command = [sys.executable, "-c", script, str(open_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    records, left_out = map(ast.literal_eval, done.stdout.splitlines())
    assert records == ["cat/1.jpg", "dog/1.jpg"]
    denied = "no-permission", "permission is denied"
    assert left_out == [("bird", *denied), ("cat/secret.jpg", *denied)]


def test_a_file_that_goes_or_changes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/1.jpg")
    places = [record.place for record in open_source(tmp_path).records]
    (tmp_path / "cat/1.jpg").unlink()
    with pytest.raises(DataError, match="does not exist"):
        places[0].read()
    (tmp_path / "cat/2.jpg").unlink()
    os.mkfifo(tmp_path / "cat/2.jpg")
    with pytest.raises(DataError, match="is a pipe"):
        places[1].read()
    # Grown between the first look and the last: half of it may be old.
    fstat, seen = os.fstat, []

    def growing(number: int) -> os.stat_result:
        seen.append(number)
        if len(seen) == 3:  # after opening (1), before (2) and after (3) reading
            with open(tmp_path / "cat/3.jpg", "ab") as stream:
                stream.write(b"more")
        return fstat(number)

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(DataError, match="changed while it was read"):
        places[2].read()


def test_twenty_thousand_files(tmp_path: Path) -> None:
    """A guard against work that grows with the square: it takes a second or two."""
    original = put(tmp_path, "c0/0.jpg") / "c0/0.jpg"
    for folder in range(20):
        (tmp_path / f"c{folder}").mkdir(exist_ok=True)
        for number in range(1000):
            if folder or number:
                os.link(original, tmp_path / f"c{folder}/{number}.jpg")
    source = open_source(tmp_path)
    assert len(source.records) == 20_000 and len(source.classes) == 20 and source.left_out == ()


def test_photographs(data_root: Path) -> None:
    source = open_source(data_root / "hymenoptera")
    splits = [record.split for record in source.records]
    assert (splits.count("train"), splits.count("validation")) == (245, 153)
    assert source.classes == ("ants", "bees") and source.left_out == () and source.notes == ()


def test_a_place_can_be_compared_and_shown(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg")
    assert FilePlace(tmp_path / "1.jpg") == FilePlace(tmp_path / "1.jpg")
    missing: Callable[[], bytes] = FilePlace(tmp_path / "a\nb.jpg").read
    with pytest.raises(DataError, match=r"a\\nb\.jpg does not exist"):
        missing()
