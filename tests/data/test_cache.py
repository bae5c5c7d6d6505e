"""The cache: with it or without it, whole or damaged, the pictures are the same to the last bit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.data import cache as module
from striate.data import loading, packs
from striate.data.cache import Cache, address
from striate.data.disk import claim
from striate.data.loading import Loaded, load_pictures
from striate.data.packs import HEAD, read_pack
from striate.data.preprocess import Preprocess
from striate.data.records import FilePlace, Record
from striate.errors import LockHeld, StriateError
from striate.files import Lock

SMALL = Preprocess((12, 10), "crop", 3)
ROW = 12 * 10 * 3
UNIX = pytest.mark.skipif(os.name == "nt", reason="owners and permissions of Unix")


def encoded(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (20 + seed % 5, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG" if seed % 4 else "JPEG", exif=exif())
    return buffer.getvalue()


def exif() -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = 6
    return block


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Twenty pictures, one of them broken, two with the same bytes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    contents = [encoded(seed) for seed in range(18)]
    contents += [contents[3], b"no picture"]
    for number, content in enumerate(contents):
        (folder / f"{number:02}.png").write_bytes(content)
    return [Record(path.name, "cat", FilePlace(path)) for path in sorted(folder.iterdir())]


@pytest.fixture
def plain(records: list[Record]) -> Loaded:
    """What loading gives without a cache."""
    return load_pictures(records, SMALL)


class Kept:
    """A cache in an empty folder, with what it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []

    def load(self, records: list[Record], preprocess: Preprocess = SMALL, **options: Any) -> Loaded:
        """Load with the cache as a new process would."""
        limit = {"limit": options.pop("limit")} if "limit" in options else {}
        cache = Cache(self.folder, report=self.told.append, **limit)
        return load_pictures(records, preprocess, cache=cache, **options)

    def packs(self) -> list[Path]:
        return sorted(self.folder.rglob("*.pack"))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "cache")


def same(one: Loaded, other: Loaded) -> bool:
    return (
        np.array_equal(one.images, other.images)
        and one.good.tolist() == other.good.tolist()
        and one.digests == other.digests
        and one.notes == other.notes
        and {i: str(error) for i, error in one.failures.items()} == {i: str(e) for i, e in other.failures.items()}
    )


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Count what is decoded; broken pictures are, each time."""
    decoded: list[str] = []
    decode = loading.decode_fitted

    def counted(source: Any, preprocess: Preprocess, **options: Any) -> Any:
        decoded.append(options["name"])
        return decode(source, preprocess, **options)

    monkeypatch.setattr(loading, "decode_fitted", counted)
    yield decoded


# --- what it keeps -------------------------------------------------------------------------------------------------


def test_the_second_run_decodes_nothing_and_sees_the_same(
    records: list[Record], plain: Loaded, kept: Kept, no_decoding: list[str]
) -> None:
    assert same(kept.load(records), plain)
    assert len(no_decoding) == 20
    no_decoding.clear()
    again = kept.load(records)
    assert same(again, plain) and again.cached == 19 and no_decoding == ["19.png"]
    assert ("turned upright (EXIF orientation 6)",) in again.notes
    assert kept.told == [] and len(kept.packs()) == 1
    index = read_pack(kept.packs()[0])
    assert index is not None and len(index.rows) == 18  # the same bytes lie there once


def test_it_goes_by_content_and_not_by_name_or_date(
    records: list[Record], kept: Kept, no_decoding: list[str], tmp_path: Path
) -> None:
    kept.load(records)
    no_decoding.clear()
    path = tmp_path / "pictures" / "05.png"
    before, content = path.stat(), path.read_bytes()
    path.rename(tmp_path / "moved.png")
    moved = Record("elsewhere.png", "dog", FilePlace(tmp_path / "moved.png"))
    assert kept.load([moved]).cached == 1 and no_decoding == []
    other = encoded(99)
    path.write_bytes(other + bytes(max(0, len(content) - len(other))))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = kept.load(records)
    assert same(changed, load_pictures(records, SMALL)) and "05.png" in no_decoding


def test_everything_that_makes_the_pixels_is_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    base = address(SMALL, 1000)
    others = [
        address(Preprocess((10, 12), "crop", 3), 1000),
        address(Preprocess((12, 10), "pad", 3), 1000),
        address(Preprocess((12, 10), "crop", 1), 1000),
        address(Preprocess((12, 10), "crop", 3, background=9), 1000),
        address(SMALL, 1001),
    ]
    for name, value in (("DECODER_VERSION", 999), ("FORMAT", 999)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            others.append(address(SMALL, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(module.PIL, "__version__", "0.0")
        others.append(address(SMALL, 1000))
    assert len({json.dumps(one, sort_keys=True) for one in [base, *others]}) == 9
    assert address(Preprocess((12, 10), "crop", 3, mean=(1, 2, 3), std=(4, 5, 6)), 1000) == base  # comes after it


def test_another_size_is_another_picture(records: list[Record], kept: Kept) -> None:
    kept.load(records)
    for preprocess in (
        Preprocess((10, 12), "crop", 3),
        Preprocess((12, 10), "crop", 1),
        Preprocess((12, 10), "pad", 3),
    ):
        loaded = kept.load(records, preprocess)
        assert loaded.cached == 0 and same(loaded, load_pictures(records, preprocess))
        assert kept.load(records, preprocess).cached == 19
    assert kept.load(records, max_pixels=400).cached == 0
    assert kept.told == []


def test_new_pictures_are_added_and_old_ones_stay(records: list[Record], plain: Loaded, kept: Kept) -> None:
    kept.load(records[:7])
    first = kept.packs()
    loaded = kept.load(records)
    assert same(loaded, plain) and loaded.cached == 8  # seven, and the twin of one of them
    assert len(kept.packs()) == 2 and set(first) < set(kept.packs())
    assert kept.load(records).cached == 19


def test_what_was_decoded_before_a_stop_is_kept(
    records: list[Record], plain: Loaded, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PACK_BYTES", 5 * ROW)
    monkeypatch.setattr(module, "PACK_BYTES", 5 * ROW)

    def stop(done: int, total: int) -> None:
        if done > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.load(records, progress=stop)
    assert len(kept.packs()) == 2
    loaded = kept.load(records)
    assert loaded.cached == 11 and same(loaded, plain) and len(kept.packs()) == 4 and kept.told == []  # ten and a twin


@UNIX
def test_the_folder_is_the_users_alone(kept: Kept, records: list[Record]) -> None:
    old = os.umask(0)
    try:
        kept.load(records)
    finally:
        os.umask(old)
    assert kept.folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.packs())


# --- what can go wrong: the same pictures, and one line ------------------------------------------------------------


def flip(pack: Path, place: int) -> None:
    data = bytearray(pack.read_bytes())
    data[place] ^= 1
    pack.write_bytes(data)


def rewrite_index(pack: Path, change: Callable[[Any], Any]) -> None:
    """Poison a pack: another index with its right digest."""
    data = pack.read_bytes()
    start = HEAD + int.from_bytes(data[HEAD - 40 : HEAD - 32], "little")
    body = json.dumps(change(json.loads(data[HEAD:start]))).encode()
    head = data[: HEAD - 40] + len(body).to_bytes(8, "little") + hashlib.sha256(body).digest()
    pack.write_bytes(head + body + data[start:])


def swap_rows(told: Any) -> Any:
    told["rows"][0][0], told["rows"][1][0] = told["rows"][1][0], told["rows"][0][0]
    return told


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit of a picture": lambda pack: flip(pack, -ROW // 2),
    "a bit of the last picture": lambda pack: flip(pack, -1),
    "a bit of the index": lambda pack: flip(pack, 100),
    "a bit of the index's digest": lambda pack: flip(pack, 30),
    "a bit of its length": lambda pack: flip(pack, 20),
    "an endless length": lambda pack: flip(pack, 26),
    "cut in the pixels": lambda pack: os.truncate(pack, pack.stat().st_size - 2 * ROW - 5),
    "cut in the index": lambda pack: os.truncate(pack, 200),
    "cut in the head": lambda pack: os.truncate(pack, 10),
    "empty": lambda pack: os.truncate(pack, 0),
    "zeros": lambda pack: pack.write_bytes(bytes(pack.stat().st_size)),
    "rows of other files": lambda pack: rewrite_index(pack, swap_rows),
    "an index that is a list": lambda pack: rewrite_index(pack, lambda told: [told]),
    "rows that are numbers": lambda pack: rewrite_index(pack, lambda told: {**told, "rows": [1, 2]}),
    "no rows": lambda pack: rewrite_index(pack, lambda told: {"address": told["address"]}),
    "another address": lambda pack: rewrite_index(pack, lambda told: {**told, "address": {"geometry": {}}}),
    "an address that is text": lambda pack: rewrite_index(pack, lambda told: {**told, "address": "here"}),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_or_poisoned_packs_change_nothing_and_are_mended(
    damage: str, records: list[Record], plain: Loaded, kept: Kept
) -> None:
    kept.load(records)
    DAMAGES[damage](kept.packs()[0])
    assert same(kept.load(records), plain)
    assert len(kept.told) == 1 and "is damaged" in kept.told[0] and "\n" not in kept.told[0]
    kept.told.clear()
    mended = kept.load(records)
    assert same(mended, plain) and mended.cached == 19 and kept.told == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damaged_bytes_change_nothing(
    changes: list[tuple[float, int]], records: list[Record], plain: Loaded, kept: Kept
) -> None:
    kept.load(records)
    kept.told.clear()
    pack = kept.packs()[0]
    data = bytearray(pack.read_bytes())
    whole = bytes(data)
    for place, value in changes:
        data[int(place * len(data))] = value
    pack.write_bytes(data)
    assert same(kept.load(records), plain)
    assert len(kept.told) == (bytes(data) != whole)


def test_a_folder_or_pipe_called_like_a_pack_is_passed_over(records: list[Record], plain: Loaded, kept: Kept) -> None:
    kept.load(records)
    shelf = kept.packs()[0].parent
    (shelf / "0.pack").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(shelf / "1.pack")
    loaded = kept.load(records)
    assert same(loaded, plain) and loaded.cached == 19 and kept.told == []


def test_packs_that_another_process_removes_are_no_trouble(
    records: list[Record], plain: Loaded, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.load(records)
    refresh = module.Shelf.refresh

    def then_removed(self: Any) -> None:
        refresh(self)
        for pack in kept.packs():
            pack.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(module.Shelf, "refresh", then_removed)
        assert same(kept.load(records), plain)
    assert kept.told == [] and kept.load(records).cached == 19


@pytest.fixture
def as_another_user() -> Iterator[Path]:
    """An empty folder of a user who is not root, and that user."""
    if not hasattr(os, "seteuid"):
        pytest.skip("users of Unix")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "own").mkdir()
        was_root = os.geteuid() == 0
        if was_root:
            os.chown(folder / "own", 65534, 65534)
            os.seteuid(65534)
        try:
            yield folder / "own"
        finally:
            if was_root:
                os.seteuid(0)
            for path in (folder / "own").rglob("*"):
                path.chmod(0o700)


def held(records: list[Record]) -> list[Record]:
    """The same pictures in memory, for a user who may not read the files."""

    class Bytes:
        path = None

        def __init__(self, content: bytes) -> None:
            self.read = lambda: content

    return [Record(record.source, record.label, Bytes(record.place.read())) for record in records]  # type: ignore[arg-type]


def test_read_only_and_unreadable(records: list[Record], plain: Loaded, request: pytest.FixtureRequest) -> None:
    pictures = held(records)
    kept = Kept(request.getfixturevalue("as_another_user") / "cache")
    kept.load(pictures[:5])
    shelf = kept.packs()[0].parent

    for path, mode in ((shelf, 0o500), (shelf, 0), (kept.folder, 0), (kept.packs()[0], 0)):
        before = path.stat().st_mode
        path.chmod(mode)
        kept.told.clear()
        loaded = kept.load(pictures)
        assert same(loaded, plain)
        assert len(kept.told) == 1 and "\n" not in kept.told[0], (path, mode, kept.told)
        assert loaded.cached == (6 if mode == 0o500 else 0)
        if path.exists():  # a pack that cannot be read is replaced
            path.chmod(before)
    kept.folder.parent.chmod(0o500)
    fresh = Kept(kept.folder.parent / "new")
    assert same(fresh.load(pictures), plain) and len(fresh.told) == 1 and "Permission denied" in fresh.told[0]


def test_a_read_only_cache_that_has_all_is_no_trouble(
    records: list[Record], plain: Loaded, request: pytest.FixtureRequest
) -> None:
    pictures = held(records)
    kept = Kept(request.getfixturevalue("as_another_user") / "cache")
    kept.load(pictures)
    for path in (kept.packs()[0], kept.packs()[0].parent, kept.folder):
        path.chmod(path.stat().st_mode & 0o555)
    loaded = kept.load(pictures)
    assert same(loaded, plain) and loaded.cached == 19 and kept.told == []


@UNIX
def test_a_folder_of_others_is_not_used(records: list[Record], plain: Loaded, kept: Kept) -> None:
    kept.load(records)
    kept.folder.chmod(0o777)
    loaded = kept.load(records)
    assert same(loaded, plain) and loaded.cached == 0
    assert len(kept.told) == 1 and "others may write in it" in kept.told[0]
    kept.folder.chmod(0o700)
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(kept.folder, 65534, 65534)
    kept.told.clear()
    loaded = kept.load(records)
    assert same(loaded, plain) and loaded.cached == 0
    assert len(kept.told) == 1 and "belongs to another user" in kept.told[0]


def test_a_file_where_the_folder_should_be(records: list[Record], plain: Loaded, kept: Kept) -> None:
    kept.folder.write_text("in the way")
    assert same(kept.load(records), plain) and len(kept.told) == 1
    assert kept.folder.read_text() == "in the way"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a device of Linux")
def test_a_full_disk(records: list[Record], plain: Loaded, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PACK_BYTES", 5 * ROW)
    made: list[Path] = []

    def full(suffix: str, dir: Path) -> tuple[int, str]:
        made.append(dir / f"0{suffix}")
        return os.open("/dev/full", os.O_WRONLY), str(made[-1])

    with monkeypatch.context() as patch:
        patch.setattr(packs.tempfile, "mkstemp", full)
        assert same(kept.load(records), plain)
    assert len(made) == 1  # tried once, not once a block
    assert len(kept.told) == 1 and "No space left on device" in kept.told[0]
    assert kept.packs() == [] and list(kept.folder.rglob("*.tmp")) == []


def test_a_write_that_was_cut_off_is_swept_up(records: list[Record], kept: Kept) -> None:
    kept.load(records[:4])
    left = kept.packs()[0].parent / "abc.tmp"
    left.write_bytes(b"half a pack")
    kept.load(records)
    assert not left.exists() and kept.told == []


# --- limit, two at once, listing -----------------------------------------------------------------------------------


def test_above_the_limit_what_was_used_longest_ago_goes(records: list[Record], kept: Kept) -> None:
    sizes = [Preprocess((side, side), "crop", 3) for side in (10, 11, 12)]
    for age, preprocess in enumerate(sizes):
        kept.load(records, preprocess)
        for pack in kept.packs():
            if pack.stat().st_mtime > time.time() - 1000:
                os.utime(pack, (1_000_000 + age, 1_000_000 + age))
    kept.load(records, sizes[0])  # used again: now 11 is the oldest
    total = sum(pack.stat().st_size for pack in kept.packs())
    kept.load(records, Preprocess((9, 9), "crop", 3), limit=total)
    assert kept.told == []
    sides = {shelf["geometry"]["size"][0] for shelf in Cache(kept.folder).describe()}
    assert sides == {9, 10, 12}


def test_a_set_above_the_limit_is_told_and_nothing_else_changes(
    records: list[Record], plain: Loaded, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in (loading, module):
        monkeypatch.setattr(target, "PACK_BYTES", 5 * ROW)
    kept.load(records)
    limit = int(0.6 * sum(pack.stat().st_size for pack in kept.packs()))
    Cache(kept.folder).clear()
    for _ in range(3):
        kept.told.clear()
        assert same(kept.load(records, limit=limit), plain)
        assert len(kept.told) == 1 and "it is full (limit " in kept.told[0]
        assert 0 < sum(pack.stat().st_size for pack in kept.packs()) <= limit
    assert kept.load(records, limit=limit).cached >= 10  # its beginning stays: it does not push itself out


def test_while_another_training_stores_it_waits_and_then_goes_on_without(
    records: list[Record], plain: Loaded, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    claim(kept.folder)
    with Lock(kept.folder):
        assert same(kept.load(records), plain)
    assert len(kept.told) == 1 and "is working in it" in kept.told[0] and kept.packs() == []
    kept.told.clear()
    monkeypatch.setattr(module, "_PATIENCE", 10.0)
    lock = Lock(kept.folder)
    lock.__enter__()
    threading.Timer(0.2, lock.__exit__).start()
    assert same(kept.load(records), plain) and kept.told == [] and len(kept.packs()) == 1


TRAINING = """
    import hashlib, sys
    from pathlib import Path
    from striate.data.cache import Cache
    from striate.data.loading import load_pictures
    from striate.data.preprocess import Preprocess
    from striate.data.records import FilePlace, Record

    records = [Record(path.name, "cat", FilePlace(path)) for path in sorted(Path(sys.argv[1]).iterdir())]
    sys.stdin.read(1)
    loaded = load_pictures(records, Preprocess((12, 10), "crop", 3), cache=Cache(Path(sys.argv[2]), report=print))
    print(hashlib.sha256(loaded.images).hexdigest())
"""


def test_two_trainings_at_once(records: list[Record], plain: Loaded, kept: Kept, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(TRAINING), str(tmp_path / "pictures"), str(kept.folder)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    expected = hashlib.sha256(plain.images.tobytes()).hexdigest()
    for process in both:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0].split() for process in both] == [[expected]] * 2
    rows = [read_pack(pack) for pack in kept.packs()]
    assert sum(len(index.rows) for index in rows if index is not None) == 18  # nothing is stored twice
    assert kept.load(records).cached == 19


def test_describe_and_clear(records: list[Record], kept: Kept) -> None:
    cache = Cache(kept.folder)
    assert cache.describe() == [] and cache.clear() == (0, 0)
    kept.load(records)
    kept.load(records, Preprocess((9, 9), "pad", 1))
    shelves = cache.describe()
    assert [(shelf["geometry"]["size"], shelf["pictures"]) for shelf in shelves] == [([9, 9], 18), ([12, 10], 18)]
    total = sum(pack.stat().st_size for pack in kept.packs())
    assert sum(shelf["bytes"] for shelf in shelves) == total
    with Lock(kept.folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PATIENCE", 0.1)
        with pytest.raises(LockHeld):
            cache.clear()
    assert cache.clear() == (2, total) and kept.packs() == [] and cache.describe() == []


@UNIX
def test_clear_touches_no_folder_of_others(kept: Kept) -> None:
    kept.folder.mkdir()
    (kept.folder / "thesis").mkdir()
    kept.folder.chmod(0o777)
    with pytest.raises(StriateError, match="others may write"):
        Cache(kept.folder).clear()
    assert (kept.folder / "thesis").is_dir()
