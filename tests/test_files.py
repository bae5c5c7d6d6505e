"""Files: whole or not at all, digests, one process at a time."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from striate import files
from striate.errors import LockHeld, StriateError, WriteFailed

HOLDER = """
import sys, time
from pathlib import Path
from striate.files import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_write_and_replace(tmp_path: Path) -> None:
    target = tmp_path / "数字.bin"
    files.write_bytes(target, b"old")
    files.write_bytes(target, b"new")
    assert target.read_bytes() == b"new" and names(tmp_path) == ["数字.bin"]
    files.write_text(tmp_path / "text", "七 seven\n")
    assert (tmp_path / "text").read_bytes() == "七 seven\n".encode()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "file", b"")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027, "the umask was changed"
    finally:
        os.umask(before)


REASONS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO]


@pytest.mark.parametrize("number", REASONS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("function", ["open", "fdopen", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    target = tmp_path / "weights"
    files.write_bytes(target, b"old")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(files.os, function, fail)
        with pytest.raises(WriteFailed) as caught:
            files.write_bytes(target, b"new")
    assert str(target) in caught.value.what and caught.value.cause == os.strerror(number)
    assert caught.value.exit_code == 1
    assert target.read_bytes() == b"old" and names(tmp_path) == ["weights"]


def test_a_write_that_is_stopped_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            files.write_bytes(tmp_path / "weights", b"new")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows needs no sync of a folder")
def test_syncing_a_folder_tells_of_a_broken_disk_and_not_of_what_a_file_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watch(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", watch)
    monkeypatch.setattr(files.os, "replace", lambda *paths: (order.append("replace"), replace(*paths))[1])
    files.write_bytes(tmp_path / "a", b"a")
    assert order == ["file", "replace", "folder"]

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    number = errno.EINVAL
    files.write_bytes(tmp_path / "b", b"b")
    number = errno.EIO
    with pytest.raises(WriteFailed, match="b"):
        files.write_bytes(tmp_path / "b", b"c")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_writes_in_threads_all_get_the_mode_of_the_umask(tmp_path: Path) -> None:
    """The umask cannot be read without setting it, and it is the process's: so it is never touched."""
    before = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: files.write_bytes(tmp_path / str(number), b""), range(64)))
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_what_cut_off_writes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".weights.0a1b2c3d.tmp", ".x.tmp", "kept.tmp", ".lock", "file"):
        (tmp_path / name).touch()
    files.remove_temporaries(tmp_path)
    assert names(tmp_path) == [".lock", "file", "kept.tmp"]


def test_a_lock_that_is_dropped_lets_go(tmp_path: Path) -> None:
    held = files.Lock(tmp_path)
    held.__enter__()
    with pytest.raises(LockHeld), files.Lock(tmp_path):
        pytest.fail("two hold the lock")
    del held
    gc.collect()
    with files.Lock(tmp_path):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StriateError, match="could not write"):
        files.write_bytes(tmp_path / "no" / "file", b"")


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target, contents, seen, done = tmp_path / "f", (b"a" * 300_000, b"b" * 300_000), set(), threading.Event()
    files.write_bytes(target, contents[0])

    def read() -> None:
        while not done.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(20):
        files.write_bytes(target, contents[turn % 2])
    done.set()
    reader.join()
    assert seen and seen <= set(contents)


def test_json_is_readable_and_refuses_what_json_has_not(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"class": "七", "value": 0.1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "七" in text and text.endswith("\n") and json.loads(text) == {"class": "七", "value": 0.1}
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", {"value": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["value"] == 0.1


def test_digests(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    wanted = hashlib.sha256(content).hexdigest()
    assert files.sha256_file(tmp_path / "file") == files.sha256_bytes(content) == wanted
    assert files.sha256_bytes(memoryview(content)) == wanted


def test_the_lock_holds_against_another_process_and_ends_with_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockHeld) as caught, files.Lock(tmp_path):
            pytest.fail("two hold the lock")
        assert f"process {holder.pid} " in caught.value.cause and str(tmp_path) in caught.value.what
    finally:
        holder.kill()  # with no chance to clean up
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    with files.Lock(tmp_path):
        pass


def test_the_lock_is_free_again_and_cannot_be_held_twice(tmp_path: Path) -> None:
    for _ in range(2):
        with files.Lock(tmp_path), pytest.raises(LockHeld), files.Lock(tmp_path):
            pytest.fail("two hold the lock")
    with pytest.raises(ZeroDivisionError), files.Lock(tmp_path):
        raise ZeroDivisionError
    with files.Lock(tmp_path):
        pass


def test_a_lock_taken_while_another_ends_is_the_same_lock(tmp_path: Path) -> None:
    """Were the file removed at the end, the second holder would keep an unlinked one and the third make a new one."""
    first, second = files.Lock(tmp_path), files.Lock(tmp_path)
    first.__enter__()
    # The second process opens, and locks after the first ends.
    opened = open(tmp_path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
    first.__exit__()
    files._lock_stream(opened)
    with pytest.raises(LockHeld):
        second.__enter__()
    opened.close()


def test_a_lock_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StriateError, match="could not lock"), files.Lock(tmp_path / "no"):
        pass
