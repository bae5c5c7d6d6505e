"""Arrays on disk: the same pixels as in memory, kept when their pages are let go, and gone through piece by piece."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from striate.data import disk
from striate.data.dataset import Dataset
from striate.data.disk import copied, in_pieces, is_on_disk, let_go, pieces, take
from striate.data.hashes import find_duplicates
from striate.data.preprocess import Preprocess, measure
from striate.data.rows import Rows

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 20, 30, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, elsewhere."""
    monkeypatch.setattr(disk, "default_folder", lambda: tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture
def stored() -> np.ndarray:
    """IMAGES on disk."""
    return copied(IMAGES, 0)


def test_on_disk_is_an_ordinary_array_without_a_name(stored: np.ndarray, folder: Path) -> None:
    assert type(stored) is np.ndarray and stored.flags.writeable and stored.flags.c_contiguous
    assert np.array_equal(stored, IMAGES) and list(folder.iterdir()) == []
    assert is_on_disk(stored) and is_on_disk(stored[5:9]) and is_on_disk(stored[3].reshape(-1))
    assert not is_on_disk(IMAGES) and not is_on_disk(stored[[1, 2]]) and not is_on_disk(copied(IMAGES, 1 << 30))


def test_what_is_let_go_is_still_there(stored: np.ndarray) -> None:
    stored[7] = 9
    let_go(stored[3:200])
    let_go(stored)
    assert (stored[7] == 9).all() and np.array_equal(stored[8:], IMAGES[8:])
    let_go(IMAGES)


def test_a_private_map_of_the_users_keeps_its_changes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    private = np.lib.format.open_memmap(tmp_path / "a.npy", mode="c")
    private[0] = 7
    let_go(private)
    assert is_on_disk(private) and (private[0] == 7).all()


def test_pieces_are_all_of_it_in_order(stored: np.ndarray) -> None:
    row = IMAGES[0].nbytes
    for images in (IMAGES, stored):
        found = list(pieces(images, 7 * row))
        assert [first for first, _ in found] == list(range(0, 300, 7))
        assert np.array_equal(np.concatenate([some for _, some in found]), IMAGES)
        rows = np.array([5, 5, 299, 0])
        assert np.array_equal(np.concatenate(list(in_pieces(images, rows, row))), IMAGES[rows])
    assert list(pieces(IMAGES[:0])) == []


def test_take_copies_to_where_the_pictures_are(stored: np.ndarray) -> None:
    for rows in (np.arange(20, 50), slice(20, 50)):
        assert take(stored, rows).base is not None and np.shares_memory(take(stored, rows), stored)
    rows = np.array([3, 1, 250])
    assert is_on_disk(take(stored, rows)) and not is_on_disk(take(IMAGES, rows))
    assert np.array_equal(take(stored, rows), IMAGES[rows]) and np.array_equal(take(IMAGES, rows), IMAGES[rows])
    assert len(take(stored, rows[:0])) == 0


def test_numbers_of_pictures_on_disk_are_those_of_pictures_in_memory(stored: np.ndarray) -> None:
    labels, chosen = np.arange(300) % 3, np.array([0, 5, 77, 299])
    memory, mapped = (Dataset("made", images, labels, ("a", "b", "c")) for images in (IMAGES, stored))
    assert memory.fingerprint == mapped.fingerprint
    assert measure(stored, chosen) == measure(IMAGES[chosen]) and measure(stored) == measure(IMAGES)
    here, there = (find_duplicates(images, [""] * 300) for images in (IMAGES, stored))
    assert np.array_equal(here.alike, there.alike) and np.array_equal(here.same, there.same)
    small = Preprocess((10, 12))
    assert np.array_equal(small.geometry_all(stored, 2, 0), small.geometry_all(IMAGES))
    assert is_on_disk(small.geometry_all(stored, 2, 0)) and not is_on_disk(small.geometry_all(stored, 2, 1 << 30))


def test_floats_and_other_axes_on_disk_become_a_dataset_on_disk() -> None:
    floats = copied(np.zeros((4, 20, 30, 3 * 4), np.uint8), 0).view(np.float32)  # (4, 20, 30, 3)
    floats[:] = IMAGES[:4] / 255
    turned = copied(np.ascontiguousarray(IMAGES[:4].transpose(0, 3, 1, 2)), 0)
    for images in (floats, turned):
        made = Dataset.from_arrays(images, [0, 1, 0, 1]).images
        assert is_on_disk(made) and np.array_equal(made, IMAGES[:4])


def test_rows_are_read_like_an_array(stored: np.ndarray) -> None:
    chosen = np.array([9, 2, 250, 2, 4])
    for preprocess in (None, Preprocess((20, 30)), Preprocess((10, 12))):
        wanted = IMAGES[chosen] if preprocess is None else preprocess.geometry_all(IMAGES[chosen])
        rows = Rows(stored, chosen, preprocess)
        assert len(rows) == 5 and rows.shape == wanted.shape
        assert np.array_equal(rows[1:4], wanted[1:4]) and np.array_equal(rows[2], wanted[2])
        assert np.array_equal(rows[np.array([4, 0])], wanted[[4, 0]]) and np.array_equal(np.asarray(rows), wanted)
        assert len(rows[5:9]) == 0


def test_the_allowance_is_a_quarter_of_what_any_control_group_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = disk.memory_allowance()
    groups = tmp_path / "groups"
    inner = tmp_path / "user.slice" / "job"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text(f"{400 << 20}\n")
    old = tmp_path / "memory" / "docker" / "x"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text(f"{200 << 20}\n")
    limits = disk._limits
    monkeypatch.setattr(disk, "_limits", lambda: limits(tmp_path, groups))
    assert disk.memory_allowance() >= machine  # no list of groups, no limit
    groups.write_text("0::/user.slice/job\n")
    assert disk.memory_allowance() == 100 << 20
    groups.write_text("4:cpu,memory:/docker/x\n0::/user.slice/job\n9:name=systemd:/\n")
    assert disk.memory_allowance() == 50 << 20
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert disk.memory_allowance() == 10 << 20


def test_a_folder_in_memory_is_no_disk(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\ntmpfs {tmp_path.resolve()} tmpfs rw 0 0\n")
    in_memory = disk._is_in_memory
    assert in_memory(folder, mounts) and not in_memory(tmp_path.parent, mounts)
    assert not in_memory(folder, tmp_path / "none")
    told: list[str] = []
    monkeypatch.setattr(disk, "_is_in_memory", lambda path: in_memory(path, mounts))
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(tmp_path.parent))
    assert disk._folder() == tmp_path.parent  # rather than the cache
    monkeypatch.setattr(disk, "_is_in_memory", lambda path: True)
    disk.room_for((2, 8, 8, 1), 0, told.append)
    assert disk._folder() == folder and "whose files are in memory" in told[0]


PASSES = """
    import sys
    from pathlib import Path
    import numpy as np
    from striate.data import disk
    disk.default_folder = lambda: Path(sys.argv[1])
    from striate.data.dataset import Dataset
    from striate.data.disk import take
    from striate.data.hashes import find_duplicates
    from striate.data.preprocess import Preprocess, measure

    def anonymous():
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) >> 10

    peak = 0
    def watch():
        global peak
        while True:
            peak = max(peak, anonymous())
            time.sleep(0.002)

    import threading, time
    count = 600
    images = disk.room_for((count, 224, 224, 1), 0)  # 29 MB
    random = np.random.default_rng(0)
    for i in range(count):
        images[i] = random.integers(0, 255, (224, 224, 1), dtype=np.uint8)
    np.linalg.norm(np.ones((64, 64)) @ np.ones((64, 64)))
    before = anonymous()
    threading.Thread(target=watch, daemon=True).start()
    data = Dataset("made", images, np.arange(count) % 5, tuple("abcde"))
    data.fingerprint
    measure(images, np.arange(0, count, 2))
    find_duplicates(images, [""] * count)
    take(images, random.permutation(count))
    Preprocess((448, 448), channels=1).geometry_all(images, 2, 0)
    print(images.nbytes >> 20, peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_no_pass_over_pictures_on_disk_holds_them_in_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PASSES), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    whole, grown = map(int, done.stdout.split())
    assert whole == 28 and grown < 3 * 28  # in memory they would take 28 + 28 + 115 MB and more
