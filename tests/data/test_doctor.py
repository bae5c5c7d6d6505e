"""The data doctor: planted faults are found, each and no other; a clean folder has none."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from striate.data.cache import Cache
from striate.data.doctor import Checkup, check_up, examine
from striate.data.findings import KINDS, RANKS, Finding, must_be_decided
from striate.data.sources import open_source
from striate.errors import DataError


def load_planted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted", Path(__file__).with_name("planted.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


planted = load_planted()


def check(target: Path, **options: object) -> Checkup:
    with open_source(target) as source:
        return check_up(source, threads=1, **options)  # type: ignore[arg-type]


def summary(findings: list[Finding]) -> dict[str, set[str]]:
    """Return {code: sources, or copies as `one = other`}."""
    return {one.code: {" = ".join(group) for group in one.groups} or set(one.sources) for one in findings}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")
def test_planted_faults_are_found_and_nothing_else(tmp_path: Path) -> None:
    expected = planted.planted_folder(tmp_path / "set")
    assert len(expected) >= 25
    checkup = check(tmp_path / "set")
    assert summary(checkup.findings) == expected
    for one in checkup.findings:
        assert one.count == len(expected[one.code]), one.code
        assert one.rank == KINDS[one.code].rank and one.what and one.fix and one.examples
    ranks = [RANKS.index(one.rank) for one in checkup.findings]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("",)], ids=["split", "flat"])
def test_a_clean_folder_has_no_finding(tmp_path: Path, splits: tuple[str, ...]) -> None:
    assert check(planted.clean_folder(tmp_path / "set", splits)).findings == []


def test_hymenoptera_has_nothing_to_decide_but_its_not_found_picture_is_pointed_at(data_root: Path) -> None:
    checkup = check(data_root / "hymenoptera", size=(64, 64))
    found = summary(checkup.findings)
    assert found["odd-format"] == {"train/ants/imageNotFound.gif"}
    assert set(found) == {"odd-format", "odd-size", "odd-shape"}
    assert checkup.duplicates.groups.tolist() == list(range(398))


def test_the_header_pass_chooses_and_given_values_win(tmp_path: Path) -> None:
    folder = planted.clean_folder(tmp_path / "set", ("",))
    checkup = check(folder)
    assert checkup.loaded.images.shape == (36, 64, 64, 3) and checkup.geometry.fit == "stretch"
    checkup = check(folder, size=(32, 48), fit="pad", channels=1)
    assert checkup.loaded.images.shape == (36, 32, 48, 1) and checkup.geometry.fit == "pad"


def test_what_was_decoded_is_in_the_cache_for_training(tmp_path: Path) -> None:
    folder = planted.clean_folder(tmp_path / "set", ("",))
    cache = Cache(tmp_path / "cache")
    first, second = check(folder, cache=cache), check(folder, cache=cache)
    assert (first.loaded.cached, second.loaded.cached) == (0, 36)
    assert np.array_equal(first.loaded.images, second.loaded.images)


def test_progress_counts_headers_and_pictures(tmp_path: Path) -> None:
    folder = planted.clean_folder(tmp_path / "set", ("",))
    headers: list[tuple[int, int]] = []
    pictures: list[tuple[int, int]] = []
    check(
        folder,
        header_progress=lambda *done: headers.append(done),
        decode_progress=lambda *done: pictures.append(done),
    )
    assert headers[-1] == pictures[-1] == (36, 36)


def test_labels_and_splits_may_be_given_as_training_has_them(tmp_path: Path) -> None:
    folder = planted.Folder(tmp_path / "set")
    for name in ("cat", "dog"):
        folder.fill(name, 12)
    folder.write("cat/copy.jpg", (folder.root / "cat" / "00.jpg").read_bytes())
    with open_source(folder.root) as source:
        checkup = check_up(source, threads=1)
        labels = [record.label for record in source.records]
        splits = ["test" if record.source == "cat/copy.jpg" else "train" for record in source.records]
        findings = examine(source, checkup.headers, checkup.loaded, checkup.duplicates, labels, splits)
    assert summary(checkup.findings) == {"duplicates": {"cat/00.jpg = cat/copy.jpg"}}
    assert summary(findings)["leak"] == {"cat/00.jpg = cat/copy.jpg"}
    assert [one.code for one in must_be_decided(findings)] == ["leak"]


def test_a_near_copy_of_a_leaked_picture_is_told_of_each_of_its_splits(tmp_path: Path) -> None:
    """One picture stands for its exact copies; its near copies must still be compared with all their splits."""
    folder = planted.Folder(tmp_path / "set")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder.fill(f"{split}/{name}", 12)
    image = folder.image()
    folder.write("train/cat/a.jpg", planted.jpeg(image))
    folder.write("val/cat/a.jpg", planted.jpeg(image))
    folder.write("train/cat/b.jpg", planted.jpeg(image.resize((80, 60)), 70))
    found = summary(check(folder.root).findings)
    assert found == {
        "leak": {"train/cat/a.jpg = val/cat/a.jpg"},
        "near-leak": {"train/cat/b.jpg = val/cat/a.jpg"},
        "near-duplicates": {"train/cat/a.jpg = train/cat/b.jpg"},
    }


def test_misspelt_splits_without_a_right_one(tmp_path: Path) -> None:
    folder = planted.Folder(tmp_path / "set")
    for split in ("trian", "vaild"):
        for name in ("cat", "dog"):
            folder.fill(f"{split}/{name}", 10)
    folder.fill("brain", 10)  # a class, whatever it sounds like: no class folders are in it
    found = check(folder.root).findings
    assert summary(found) == {"split-name": {"trian", "vaild"}}
    assert found[0].examples == ("trian: is train meant?", "vaild: is valid meant?")


def test_one_class_is_none(tmp_path: Path) -> None:
    planted.Folder(tmp_path / "set").fill("cat", 12)
    assert summary(check(tmp_path / "set").findings) == {"single-class": {"cat"}}


def test_tables_and_their_faults(tmp_path: Path) -> None:
    folder = planted.Folder(tmp_path)
    files = [*folder.fill("a", 12), *folder.fill("b", 12)]
    rows = [f"{file},{'cat' if file < 'b' else 'dog'}" for file in files[1:]]
    rows += ["gone.jpg,cat", f"{files[1]},cat", f"{files[2]},dog", f"{files[3]},"]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    found = summary(check(tmp_path / "table.csv").findings)
    assert found["missing-file"] == {"gone.jpg"}
    assert found["duplicate-row"] == {files[1]}
    assert found["conflicting-rows"] == {files[2]}
    assert len(found["no-label"]) == 1
    assert set(found) == {"missing-file", "duplicate-row", "conflicting-rows", "no-label"}


def test_hostile_names_are_found_and_told_on_one_line(tmp_path: Path) -> None:
    root = tmp_path / "set"
    folder = planted.clean_folder(root, ("",))
    content = b"<html></html>"
    names = ["-rf.jpg", "猫😀.jpg", "\u202egpj.exe.jpg", "two\nlines\x1b[31m.jpg", "n" * 251 + ".jpg"]
    for name in names:
        (folder / "cat" / name).write_bytes(content)
    try:
        with open(os.fsencode(folder / "cat") + b"/\xff\xfe.jpg", "wb") as stream:
            stream.write(content)
        names.append("\\xff\\xfe.jpg")
    except OSError:
        pass  # a file system that wants UTF-8
    (one,) = check(root).findings
    assert one.code == "not-a-picture" and set(one.sources) == {f"cat/{name}" for name in names}
    for source in one.sources:
        source.encode("utf-8")


def test_a_folder_in_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(20))
    with pytest.raises(DataError, match="no picture can be read"):
        check(tmp_path)


def test_headers_that_promise_more_than_the_files_hold(tmp_path: Path) -> None:
    folder = planted.Folder(tmp_path)
    whole = planted.jpeg(folder.image())
    names = [folder.write(f"{name}/a.jpg", whole[:900]) for name in ("cat", "dog")]
    checkup = check(tmp_path)
    assert summary(checkup.findings) == {"unreadable": set(names), "tiny-class": {"cat", "dog"}}
    assert len(checkup.loaded.images) == 0


def test_an_unknown_code_of_a_source_is_not_lost(tmp_path: Path) -> None:
    folder = planted.clean_folder(tmp_path / "set", ("",))
    with open_source(folder) as source:
        checkup = check_up(source, threads=1)
        (folder / "cat" / "notes.txt").write_bytes(b"text")
    with open_source(folder) as source:
        strange = replace(source, left_out=tuple(replace(left, code="new-code") for left in source.left_out))
        findings = examine(strange, checkup.headers, checkup.loaded, checkup.duplicates)
    assert summary(findings) == {"left-out": {"cat/notes.txt"}}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read, outside pytest's own, which only its owner may."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_read(open_folder: Path) -> None:
    folder = planted.Folder(open_folder / "set")
    for name in ("cat", "dog", "owl"):
        folder.fill(name, 12)
    (open_folder / "set" / "cat" / "00.jpg").chmod(0)
    (open_folder / "set" / "owl").chmod(0)
    program = (
        "import os, sys; from striate.data.sources import open_source; from striate.data.doctor import check_up\n"
        "os.setuid(65534)  # only now, as another user may not be allowed to read this Python\n"
        "with open_source(sys.argv[1]) as source: checkup = check_up(source, threads=1)\n"
        "print([(one.code, sorted(one.sources)) for one in checkup.findings])"
    )
    command = [sys.executable, "-c", program, str(open_folder / "set")]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
    assert done.stdout.strip() == "[('no-permission', ['cat/00.jpg', 'owl'])]", done.stderr
