"""Downloads against servers that misbehave."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from striate.data.digests import Digests
from striate.data.download import Patience, copy_into, fetch
from striate.errors import DataError, LockHeld, StriateError
from striate.files import Lock

CONTENT = np.random.default_rng(7).bytes(300_000)
HALF = len(CONTENT) // 2
QUICK = Patience(connect=1.0, read=0.5, slowest=1000.0, window=0.2, resumptions=2, lock=10.0)


@pytest.fixture
def good(sha256: Callable[[bytes], str]) -> Digests:
    return Digests(sha256=sha256(CONTENT))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.gz"


def get(urls: list[str], target: Path, digests: Digests, **options: Any) -> list[str]:
    """Fetch and check what is there afterwards; return the lines reported."""
    lines: list[str] = []
    options.setdefault("patience", QUICK)
    assert fetch(urls, target, digests, len(CONTENT), report=lines.append, **options) == target
    assert {path.name for path in target.parent.iterdir()} - {".lock"} == {target.name}
    return lines


def refused(urls: list[str], target: Path, digests: Digests, **options: Any) -> str:
    options.setdefault("patience", QUICK)
    with pytest.raises(DataError) as caught:
        fetch(urls, target, digests, len(CONTENT), **options)
    assert not target.exists()
    return str(caught.value)


def leave_part(target: Path, content: bytes, **notes: Any) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_bytes(content)
    if notes:
        target.with_name(target.name + ".part.json").write_text(json.dumps(notes))
    return part


def test_a_file_comes_whole_and_once(mirror: Any, target: Path, good: Digests) -> None:
    url = mirror.serve("file", CONTENT)
    done: list[tuple[int, int | None]] = []
    assert get([url], target, good, progress=lambda now, total: done.append((now, total))) == []
    assert target.read_bytes() == CONTENT
    assert done[-1] == (len(CONTENT), len(CONTENT)) and done == sorted(done)
    get([url], target, good)
    assert len(mirror.requests) == 1, "a file that is there and good is not asked for again"


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"status": 404}, "404"),
        ({"status": 500}, "500"),
        ({"status": 403, "content": b"<html>log in</html>"}, "403"),
        ({"content": b"other bytes"}, "SHA-256"),
        ({"content": CONTENT[:-1]}, "SHA-256"),
        ({"content": CONTENT, "cut_after": 1000}, "closed"),
        ({"content": b""}, "SHA-256"),
        ({"content": CONTENT, "drip": (1, 0.7)}, "within 0.5 s"),
        ({"content": CONTENT, "drip": (10, 0.05)}, "bytes/s"),
        ({"content": bytes(3 * len(CONTENT) + (1 << 20))}, "announces"),
        ({"endless": True}, "sends more than"),
        ({"status": 206, "content": CONTENT}, "206"),
        ({"status": 204}, "204"),
        ({"status": 302, "location": "file:///etc/passwd"}, "protocol"),
        ({"status": 302, "location": "ftp://127.0.0.1/file"}, "protocol"),
        ({"status": 302, "location": "http://[broken/"}, ""),
        ({"status": 302, "location": "/bad"}, "redirects"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_bad_mirror_is_passed_over_with_one_line(
    mirror: Any, target: Path, good: Digests, fault: dict[str, Any], word: str
) -> None:
    bad, url = mirror.serve("bad", **fault), mirror.serve("file", CONTENT)
    lines = get([bad, url], target, good)
    assert target.read_bytes() == CONTENT
    assert len(lines) == 1 and "passed over" in lines[0] and word in lines[0]


def test_a_dead_mirror_is_passed_over(mirror: Any, target: Path, good: Digests, dead_address: str) -> None:
    lines = get([dead_address, "http://", mirror.serve("file", CONTENT)], target, good)
    assert len(lines) == 2 and dead_address.split("/")[2] in lines[0]


def test_when_none_will_do_every_address_is_named_with_its_reason(
    mirror: Any, target: Path, good: Digests, dead_address: str
) -> None:
    urls = [dead_address, mirror.serve("gone", status=404), mirror.serve("bad", b"no")]
    message = refused(urls, target, good)
    assert all(url in message for url in urls)
    assert "404" in message and "refused" in message and "SHA-256" in message
    assert "striate data add file.gz" in message
    assert "do this" in refused(urls, target, good, fix="do this")
    assert not target.with_name("file.gz.part").exists(), "bytes known to be wrong are not kept"


def test_redirects_are_followed(mirror: Any, target: Path, good: Digests) -> None:
    mirror.serve("file", CONTENT)
    get([mirror.serve("moved", status=302, location="/file")], target, good)
    assert target.read_bytes() == CONTENT


def test_a_slow_mirror_is_used_when_there_is_no_other(mirror: Any, target: Path, sha256: Any) -> None:
    content = CONTENT[:1500]
    url = mirror.serve("slow", content, drip=(50, 0.025))  # 2,000 bytes/s
    patience = Patience(connect=1.0, read=0.5, slowest=20_000.0, window=0.2)
    lines = get([url], target, Digests(sha256=sha256(content)), patience=patience)
    assert len(lines) == 1 and "bytes/s" in lines[0]
    assert "range" in mirror.requests[1][1], "what came slowly was kept"


def test_a_cut_connection_is_taken_up_again(mirror: Any, target: Path, good: Digests) -> None:
    url = mirror.serve("file", CONTENT, cut_after=100_000, cut_times=2, etag='"a"')
    assert get([url], target, good) == []
    assert target.read_bytes() == CONTENT and mirror.sent == len(CONTENT)
    assert [headers.get("range") for _, headers in mirror.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert mirror.requests[1][1]["if-range"] == '"a"'


def test_another_mirror_goes_on_where_one_broke_off(mirror: Any, target: Path, good: Digests) -> None:
    broken = mirror.serve("broken", CONTENT, cut_after=HALF, cut_times=1, etag='"a"')
    other = mirror.serve("file", CONTENT, etag='"b"')
    lines = get([broken, other], target, good, patience=Patience(resumptions=0))
    assert target.read_bytes() == CONTENT and len(lines) == 1
    assert mirror.sent == len(CONTENT)
    assert "if-range" not in mirror.requests[1][1], "an ETag belongs to its own address"


@pytest.mark.parametrize("ranges", ["ignored", "shifted", "unsatisfiable"])
def test_a_server_that_cannot_go_on_starts_again(mirror: Any, target: Path, good: Digests, ranges: str) -> None:
    leave_part(target, CONTENT[:HALF])
    assert get([mirror.serve("file", CONTENT, ranges=ranges)], target, good) == []
    assert target.read_bytes() == CONTENT and mirror.sent >= len(CONTENT)


def test_a_changed_file_starts_again(mirror: Any, target: Path, good: Digests) -> None:
    url = mirror.serve("file", CONTENT, etag='"new"')
    leave_part(target, b"old" * 1000, url=url, etag='"old"', total=len(CONTENT))
    assert get([url], target, good) == []
    assert len(mirror.requests) == 1 and target.read_bytes() == CONTENT


def test_a_part_of_another_length_in_all_starts_again(mirror: Any, target: Path, good: Digests) -> None:
    url = mirror.serve("file", CONTENT)
    leave_part(target, b"x" * 1000, url="http://elsewhere/", etag="", total=99)
    done: list[int] = []
    assert get([url], target, good, progress=lambda now, total: done.append(now)) == []
    assert done == sorted(done), "nothing was appended to it"
    assert [headers.get("range") for _, headers in mirror.requests] == ["bytes=1000-", None]


def test_a_wrong_part_is_found_by_the_digest(mirror: Any, target: Path, good: Digests) -> None:
    leave_part(target, b"x" * HALF)
    assert get([mirror.serve("file", CONTENT)], target, good) == []
    assert len(mirror.requests) == 2 and target.read_bytes() == CONTENT


@pytest.mark.parametrize("notes", ["", "[1]", "{", '{"etag": 3, "url": 4, "total": "x"}'])
def test_a_whole_part_with_any_notes_only_needs_its_name(mirror: Any, target: Path, good: Digests, notes: str) -> None:
    leave_part(target, CONTENT)
    target.with_name(target.name + ".part.json").write_text(notes)
    assert get([mirror.serve("file", CONTENT)], target, good) == []
    assert mirror.sent == 0


def test_a_part_that_is_too_long_starts_again(mirror: Any, target: Path, good: Digests) -> None:
    leave_part(target, CONTENT + b"more")
    assert get([mirror.serve("file", CONTENT)], target, good) == []
    assert target.read_bytes() == CONTENT


def test_a_server_that_breaks_off_and_corrupts_comes_to_an_end(mirror: Any, target: Path, good: Digests) -> None:
    url = mirror.serve("file", CONTENT[:-1] + b"?", cut_after=HALF)
    assert "SHA-256" in refused([url], target, good)
    assert len(mirror.requests) < 10


def test_a_body_without_a_length_is_judged_by_its_digest(mirror: Any, target: Path, good: Digests) -> None:
    cut = mirror.serve("cut", CONTENT, no_length=True, cut_after=1000)
    lines = get([cut, mirror.serve("file", CONTENT, no_length=True)], target, good)
    assert target.read_bytes() == CONTENT and len(lines) == 1


def test_a_gz_file_marked_as_compressed_for_the_journey_is_not_unpacked(mirror: Any, target: Path, sha256: Any) -> None:
    packed = gzip.compress(CONTENT)
    url = mirror.serve("file", packed, headers={"Content-Encoding": "gzip"})
    get([url], target, Digests(sha256=sha256(packed)))
    assert target.read_bytes() == packed
    assert mirror.requests[0][1]["accept-encoding"] == "identity"


def test_digests_say_what_is_good(tmp_path: Path, sha256: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(CONTENT, 1))
    other_wrapper = sha256(gzip.compress(CONTENT, 9))
    assert Digests(sha256=other_wrapper, content_sha256=sha256(CONTENT)).problem(path) == ""
    assert "expected" in Digests(sha256=other_wrapper).problem(path)
    assert "unpacked" in Digests(content_sha256=sha256(b"other")).problem(path)
    path.write_bytes(CONTENT)
    assert Digests(content_sha256=sha256(CONTENT)).problem(path) == "", "a mirror may serve it unpacked"
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert Digests(md5=md5).problem(path) == ""
    assert "MD5" in Digests(md5="0" * 32).problem(path)
    assert Digests(md5=md5, sha256="0" * 64).problem(path), "an MD5 does not outweigh a SHA-256"
    path.write_bytes(gzip.compress(CONTENT)[:-9])
    assert "not to be had" in Digests(content_sha256=sha256(CONTENT)).problem(path)
    with pytest.raises(ValueError):
        Digests().problem(path)


def test_a_wrong_file_under_the_final_name_is_replaced(mirror: Any, target: Path, good: Digests) -> None:
    target.parent.mkdir()
    target.write_bytes(b"half a download of another tool")
    lines = get([mirror.serve("file", CONTENT)], target, good)
    assert target.read_bytes() == CONTENT and len(lines) == 1 and str(target) in lines[0]


SCRIPT = """
import sys
from pathlib import Path
from striate.data.digests import Digests
from striate.data.download import Patience, fetch
if len(sys.argv) > 4:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    fetch([sys.argv[1]] * 2, Path(sys.argv[2]), Digests(sha256=sys.argv[3]), 300_000)
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(9)
"""


def start_process(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_download_is_taken_up_again(mirror: Any, target: Path, good: Digests) -> None:
    url = mirror.serve("file", CONTENT, drip=(20_000, 0.1))
    part = target.with_name(target.name + ".part")
    process = start_process(url, str(target), good.sha256)
    wait_for(lambda: part.is_file() and part.stat().st_size > 40_000)
    process.kill()
    process.wait()
    left = part.stat().st_size
    assert not target.exists() and 0 < left < len(CONTENT) and CONTENT.startswith(part.read_bytes())
    mirror.paths["file"].drip = None
    get([url], target, good)
    assert target.read_bytes() == CONTENT
    assert mirror.requests[-1][1]["range"] == f"bytes={left}-"


def test_two_processes_and_two_threads_download_it_once(mirror: Any, target: Path, good: Digests) -> None:
    url = mirror.serve("file", CONTENT, drip=(30_000, 0.1))
    processes = [start_process(url, str(target), good.sha256) for _ in range(2)]
    results: list[Path] = []
    lines: list[str] = []

    def work() -> None:
        wait_for(lambda: bool(mirror.requests))
        results.append(fetch([url], target, good, len(CONTENT), report=lines.append, patience=QUICK))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0] and results == [target, target]
    assert len(mirror.requests) == 1 and target.read_bytes() == CONTENT
    assert len(lines) == 2 and all("waiting" in line for line in lines)


def test_waiting_for_another_process_ends(mirror: Any, target: Path, good: Digests) -> None:
    target.parent.mkdir()
    with Lock(target.parent), pytest.raises(LockHeld):
        fetch([mirror.serve("file", CONTENT)], target, good, len(CONTENT), patience=Patience(lock=0.0))
    assert not mirror.requests


@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX")
def test_a_full_disk_is_said_and_no_other_mirror_is_blamed(mirror: Any, target: Path, good: Digests) -> None:
    process = start_process(mirror.serve("file", CONTENT), str(target), good.sha256, "100000")
    output, _ = process.communicate()
    assert process.returncode == 9 and output.startswith("StriateError could not write") and str(target) in output
    assert not target.exists() and len(mirror.requests) == 1


def test_a_folder_that_cannot_be_made_is_said(mirror: Any, tmp_path: Path, good: Digests) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StriateError, match="could not write"):
        fetch([mirror.serve("file", CONTENT)], tmp_path / "file" / "x.gz", good, len(CONTENT))


def test_proxy_settings_that_do_not_work_are_said(
    mirror: Any, target: Path, good: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:1")
    assert "HTTP_PROXY" in refused([mirror.serve("file", CONTENT)], target, good)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_where_there_is_a_terminal(
    mirror: Any, target: Path, good: Digests, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    get([mirror.serve("file", CONTENT)], target, good)
    assert ("file.gz" in screen.getvalue()) == terminal


def test_copy_into(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    copy_into(tmp_path / "a", tmp_path / "new" / "b")
    assert (tmp_path / "new" / "b").read_bytes() == CONTENT
    (tmp_path / "folder" / "b").mkdir(parents=True)
    with pytest.raises(StriateError):
        copy_into(tmp_path / "a", tmp_path / "folder" / "b")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["b"], "nothing half-written is left"
