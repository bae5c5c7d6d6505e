"""Zip and tar archives of pictures: the same records as the folder, and nothing hostile gets through."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from striate.data import packed
from striate.data.records import Source
from striate.data.sources import open_source
from striate.errors import DataError, StriateError

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(200))
Content = dict[str, bytes]
Pack = Callable[[Path, Content], Path]


def pack_zip(path: Path, content: Content, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def pack_tar(path: Path, content: Content, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(data))
    return path


KINDS: dict[str, tuple[str, Pack]] = {
    "zip": ("set.zip", pack_zip),
    "zip-stored": ("set.zip", lambda path, content: pack_zip(path, content, zipfile.ZIP_STORED)),
    "zip-bzip2": ("set.zip", lambda path, content: pack_zip(path, content, zipfile.ZIP_BZIP2)),
    "tar": ("set.tar", pack_tar),
    "tar-gz": ("set.tar.gz", lambda path, content: pack_tar(path, content, "w:gz")),
    "tar-bz2": ("set.tar.bz2", lambda path, content: pack_tar(path, content, "w:bz2")),
    "tar-xz": ("set.tar.xz", lambda path, content: pack_tar(path, content, "w:xz")),
    "tgz": ("set.tgz", lambda path, content: pack_tar(path, content, "w:gz")),
    "wrong-ending": ("set.bin", pack_zip),
}
every_kind = pytest.mark.parametrize(("name", "pack"), KINDS.values(), ids=KINDS.keys())
both = pytest.mark.parametrize(("name", "pack"), [KINDS["zip"], KINDS["tar"]], ids=["zip", "tar"])


def unpacked(root: Path, content: Content) -> Path:
    for name, data in content.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def said(source: Source) -> list[tuple[object, ...]]:
    """All that a source says, without the archive's name."""
    records = [
        (r.source.split("!", 1)[-1], r.label, r.split, r.group, r.weight, r.place.read()) for r in source.records
    ]
    return records + [(left.source.split("!", 1)[-1], left.code, left.reason) for left in source.left_out]


TREE = {
    "train/cat/1.jpg": JPEG + b"1",
    "train/cat/old/2.jpg": JPEG + b"2",
    "train/狗/-3\n.jpg": JPEG + b"3",
    "train/stray.jpg": JPEG,
    "val/cat/4.jpg": JPEG + b"4",
    "vaild/cat/5.jpg": JPEG,
    "train/cat/page.jpg": b"<html>",
    "train/cat/notes.txt": b"text",
    "train/cat/.DS_Store": b"x",
    "__MACOSX/train/cat/._1.jpg": JPEG,
    "train/bird/": b"",
    "runs/a-1/config.yaml": b"x",
    "runs/a-1/command.txt": b"x",
    "runs/a-1/model.json": b"x",
    "runs/a-1/samples.png": b"\x89PNG\r\n\x1a\n" + bytes(9),
}


@every_kind
def test_an_archive_says_what_its_folder_says(tmp_path: Path, name: str, pack: Pack) -> None:
    folder = open_source(unpacked(tmp_path / "folder", TREE))
    with open_source(pack(tmp_path / name, TREE)) as source:
        assert (source.kind, source.name, source.root) == ("archive", name.split(".")[0] if "bin" not in name else name,
                                                           tmp_path)  # fmt: skip
        assert said(source) == said(folder) and source.classes == folder.classes and source.notes == folder.notes
        assert source.records[0].source == f"{name}!train/cat/1.jpg" and source.records[0].place.path is None


@every_kind
def test_headers_are_read_without_the_rest(tmp_path: Path, name: str, pack: Pack) -> None:
    path = pack(tmp_path / name, {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG[::-1] + JPEG})
    with open_source(path) as source, source.records[0].place.open() as stream:
        assert stream.read(3) == JPEG[:3]
        stream.seek(100)
        assert stream.read(7) == JPEG[100:107]
        stream.seek(0)
        assert stream.read() == JPEG
        assert stream.seek(-5, io.SEEK_END) == len(JPEG) - 5 and stream.read() == JPEG[-5:]


@both
def test_one_folder_around_everything(tmp_path: Path, name: str, pack: Pack) -> None:
    content = {"photos/cat/1.jpg": JPEG, "photos/dog/2.jpg": JPEG, "photos/README.md": b"x", "photos/stray.txt": b"x"}
    with open_source(pack(tmp_path / name, content)) as source:
        assert source.classes == ("cat", "dog")
        assert source.records[0].source == f"{name}!photos/cat/1.jpg"
        assert [left.source for left in source.left_out] == [f"{name}!photos/README.md", f"{name}!photos/stray.txt"]
    # But one class stays a class, and one split a split.
    with open_source(pack(tmp_path / name, {"cat/1.jpg": JPEG, "cat/2.jpg": JPEG})) as source:
        assert source.classes == ("cat",)
    with open_source(pack(tmp_path / name, {"train/cat/1.jpg": JPEG, "train/dog/2.jpg": JPEG})) as source:
        assert {record.split for record in source.records} == {"train"}


@both
@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_table_inside(tmp_path: Path, name: str, pack: Pack, top: str) -> None:
    table = b"path,label,split\nimages/1.jpg,cat,train\n./images\\2.jpg,dog,val\nimages/9.jpg,dog,\n../1.jpg,dog,\n"
    content = {f"{top}images/{i}.jpg": JPEG + bytes([i]) for i in (1, 2, 3)}
    with open_source(pack(tmp_path / name, {**content, f"{top}labels.csv": table})) as source:
        assert [(r.source, r.label, r.split, r.place.read()) for r in source.records] == [
            (f"{name}!{top}images/1.jpg", "cat", "train", JPEG + b"\1"),
            (f"{name}!{top}images/2.jpg", "dog", "validation", JPEG + b"\2"),
        ]
        assert [(left.source, left.code) for left in source.left_out] == [
            (f"{name}!{top}../1.jpg", "missing-file"),
            (f"{name}!{top}images/3.jpg", "not-in-table"),
            (f"{name}!{top}images/9.jpg", "missing-file"),
        ]
        assert source.notes[0] == f"there are no class folders: labels are read from {name}!{top}labels.csv"


NASTY = ["../up.jpg", "a/../../up.jpg", "/etc/up.jpg", "C:/up.jpg", "..\\up.jpg"]


def test_names_that_lead_out_of_a_zip(tmp_path: Path) -> None:
    content = dict.fromkeys([*NASTY, "cat/1.jpg", "dog/1.jpg"], JPEG)
    before = sorted(tmp_path.parent.rglob("*"))
    with open_source(pack_zip(tmp_path / "set.zip", content)) as source:
        assert [record.source for record in source.records] == ["set.zip!cat/1.jpg", "set.zip!dog/1.jpg"]
        assert {left.source: left.code for left in source.left_out} == dict.fromkeys(
            ("set.zip!../up.jpg", "set.zip!a/../../up.jpg", "set.zip!/etc/up.jpg", "set.zip!C:/up.jpg"), "path-escape"
        )
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*before, tmp_path / "set.zip"])


def test_links_and_devices_in_a_tar(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name in ("cat/1.jpg", "dog/1.jpg", *NASTY[:3]):
            info = tarfile.TarInfo(name)
            info.size = len(JPEG)
            archive.addfile(info, io.BytesIO(JPEG))
        for kind, name in ((tarfile.SYMTYPE, "cat/soft.jpg"), (tarfile.LNKTYPE, "cat/hard.jpg"),
                           (tarfile.CHRTYPE, "cat/char.jpg"), (tarfile.BLKTYPE, "cat/block.jpg"),
                           (tarfile.FIFOTYPE, "cat/pipe.jpg")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.jpg")
            archive.addfile(info)
    with open_source(tmp_path / "set.tar") as source:
        assert [record.source for record in source.records] == ["set.tar!cat/1.jpg", "set.tar!dog/1.jpg"]
        codes = {left.source.split("/")[-1]: left.code for left in source.left_out}
    assert codes == {
        "soft.jpg": "link", "hard.jpg": "link", "char.jpg": "special-file", "block.jpg": "special-file",
        "pipe.jpg": "special-file", "up.jpg": "path-escape",
    }  # fmt: skip


def test_links_and_devices_in_a_zip(tmp_path: Path) -> None:
    pack_zip(tmp_path / "set.zip", {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG})
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive:
        for name, kind in (
            ("cat/link.jpg", stat.S_IFLNK),
            ("cat/pipe.jpg", stat.S_IFIFO),
            ("cat/ok.jpg", stat.S_IFREG),
        ):
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, JPEG)
    with open_source(tmp_path / "set.zip") as source:
        assert {left.source: left.code for left in source.left_out} == {
            "set.zip!cat/link.jpg": "link",
            "set.zip!cat/pipe.jpg": "special-file",
        }
        assert len(source.records) == 3


@both
def test_the_last_member_of_a_name_counts(tmp_path: Path, name: str, pack: Pack) -> None:
    path = pack(tmp_path / name, {"cat/1.jpg": JPEG + b"old", "dog/1.jpg": JPEG})
    if name.endswith("zip"):
        with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as archive:
            archive.writestr("cat/1.jpg", JPEG + b"new")
    else:
        with tarfile.open(path, "a") as archive:
            info = tarfile.TarInfo("./cat/1.jpg")
            info.size = len(JPEG) + 3
            archive.addfile(info, io.BytesIO(JPEG + b"new"))
    with open_source(path) as source:
        assert source.records[0].place.read() == JPEG + b"new" and len(source.records) == 2
        assert [left.code for left in source.left_out] == ["duplicate-member"]


def test_names_in_other_encodings(tmp_path: Path) -> None:
    """Some packers write UTF-8 and do not say so."""
    path = pack_zip(tmp_path / "set.zip", {"猫/1.jpg": JPEG, "dog/1.jpg": JPEG})
    whole = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        whole[whole.index(magic) + at] &= ~0x08  # the flag "names are UTF-8"
    path.write_bytes(whole)
    with open_source(path) as source:
        assert source.classes == ("dog", "猫") and source.records[1].place.read() == JPEG
    with open_source(pack_tar(tmp_path / "set.tar", {"gr\udcfcn/1.jpg": JPEG, "dog/1.jpg": JPEG})) as source:
        assert source.classes == ("dog", r"gr\xfcn") and source.records[1].place.read() == JPEG


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "set.zip", {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG})
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="encrypted"):
        open_source(path)


def test_a_damaged_member_is_one_error_when_it_is_read(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(5000)
    path = pack_zip(tmp_path / "set.zip", {"cat/1.jpg": JPEG + noise, "dog/1.jpg": JPEG + noise[::-1]})
    whole = bytearray(path.read_bytes())
    whole[3000:3010] = bytes(10)
    path.write_bytes(whole)
    with open_source(path) as source:
        with pytest.raises(DataError, match=r"^set\.zip!cat/1\.jpg cannot be read"):
            source.records[0].place.read()
        assert source.records[1].place.read() == JPEG + noise[::-1]


def test_a_member_that_lies_about_its_size(tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "set.zip", {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG})
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\x01\x02") + 24
    whole[at : at + 4] = (len(JPEG) + 50).to_bytes(4, "little")
    path.write_bytes(whole)
    with open_source(path) as source, pytest.raises(DataError, match=r"set\.zip!cat/1\.jpg"):
        source.records[0].place.read()


@every_kind
def test_cut_short_anywhere_it_is_refused_or_read(tmp_path: Path, name: str, pack: Pack) -> None:
    whole = pack(tmp_path / name, TREE).read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:length])
        try:
            with open_source(tmp_path / name) as source:
                for record in source.records:
                    record.place.read()
        except DataError:
            continue
        # Of a plain tar nothing but the zeros at its end may be missing, and not all of them.
        assert name == "set.tar" and length >= len(whole.rstrip(b"\0")) + 512, length


@every_kind
def test_damage_anywhere_gives_our_own_error(tmp_path: Path, name: str, pack: Pack) -> None:
    whole = pack(tmp_path / name, TREE).read_bytes()
    generator = random.Random(1)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            with open_source(tmp_path / name) as source:
                for record in source.records:
                    try:
                        assert len(record.place.read()) > 0
                    except DataError as error:
                        assert error.what.startswith(f"{name}!")
        except DataError:
            pass


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG, "dog/2.jpg": JPEG + bytes(200_000)}
    paths = [pack(tmp_path / name, content) for name, pack in KINDS.values()]
    monkeypatch.setattr(packed, "MOST_MEMBERS", 2)
    for path in paths:
        with pytest.raises(DataError, match="more than 2 members"):
            open_source(path)
    monkeypatch.undo()
    monkeypatch.setattr(packed, "FREE_BYTES", 1000)
    monkeypatch.setattr(packed, "MOST_RATIO", 20)
    for name in ("set.zip", "set.tar.gz", "set.tar.bz2", "set.tar.xz"):
        pack = next(pack for known, pack in KINDS.values() if known == name)
        with pytest.raises(DataError, match="unpacks to"):
            open_source(pack(tmp_path / name, content))
    monkeypatch.undo()
    monkeypatch.setattr(packed, "MOST_UNPACKED_BYTES", 100_000)
    with pytest.raises(DataError, match="unpacks to"):
        open_source(pack_zip(tmp_path / "set.zip", content, zipfile.ZIP_STORED))


def test_a_header_that_announces_gigabytes(tmp_path: Path) -> None:
    """A member of a tar that names the next one may be of any size; it is not read into memory."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5 << 30
    path = tmp_path / "set.tar"
    with open(path, "wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        stream.truncate(6 << 30)  # a hole: it takes no room
    with pytest.raises(DataError, match="far too long"):
        open_source(path)


@pytest.mark.parametrize(
    ("start", "kind"), [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "RAR"), (b"\x28\xb5\x2f\xfd", "zstd")]
)
def test_other_archives_are_named(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "set.zip").write_bytes(start + bytes(500))
    with pytest.raises(DataError, match=f"is a {kind} archive"):
        open_source(tmp_path / "set.zip")


def test_a_packed_file_that_is_no_archive(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "a.gz").write_bytes(gzip.compress(b"no archive" * 100))
    with pytest.raises(DataError, match="cannot be read as an archive"):
        open_source(tmp_path / "a.gz")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    told: list[str] = []
    path = pack_tar(tmp_path / "set.tar.gz", TREE, "w:gz")
    source = open_source(path, report=told.append)
    assert told == ["unpacking set.tar.gz to a temporary file, which a compressed tar needs"]
    assert list(temporary.iterdir()) == []  # even while it is open
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    source.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(StriateError, match="no room to unpack") as caught:
        open_source(pack_tar(tmp_path / "set.tar.gz", TREE, "w:gz"))
    assert "TMPDIR" in caught.value.fix


@every_kind
def test_threads_read_at_once(tmp_path: Path, name: str, pack: Pack) -> None:
    generator = random.Random(2)
    content = {f"c{i % 3}/{i:02}.jpg": JPEG + generator.randbytes(3000 + i) for i in range(30)}
    with open_source(pack(tmp_path / name, content)) as source:
        started = threading.Barrier(4)

        def read_all(_: int) -> list[bytes]:
            started.wait()
            return [record.place.read() for record in source.records]

        with ThreadPoolExecutor(4) as pool:
            for read in pool.map(read_all, range(4)):
                assert read == [content[record.source.split("!")[1]] for record in source.records]


@every_kind
def test_a_closed_archive_says_so(tmp_path: Path, name: str, pack: Pack) -> None:
    with open_source(pack(tmp_path / name, TREE)) as source:
        place = source.records[0].place
    with pytest.raises(DataError, match="cannot be read"):
        place.read()
