"""Several processes on one socket: dead ones are replaced, none is left behind, and no storm of failing ones."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.serve.hosts import Host, ask, connect, read_answer, request, tiny, until

from striate.errors import StriateError
from striate.serve.workers import elsewhere, share_of_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="several workers need fork")


def answering(host: Host, times: int = 40) -> set[int]:
    """Return the processes that answer requests, each over a connection of its own and all open at once."""
    clients = [connect(host) for _ in range(times)]
    for client in clients:
        client.sendall(request())
    found = {json.loads(read_answer(client)[2])["pid"] for client in clients}
    for client in clients:
        client.close()
    return found


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a dead one whose parent has not looked yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self").exists()


def test_workers_share_the_socket_and_a_dead_one_is_replaced() -> None:
    with tiny(workers=2) as host:
        before = until(lambda: found if len(found := answering(host)) == 2 else None)
        assert host.process.pid not in before
        dead = min(before)
        began = time.monotonic()
        os.kill(dead, signal.SIGKILL)
        host.wait_for(f"worker {dead} ended with signal 9")
        after = until(lambda: found if len(found := answering(host)) == 2 and dead not in found else None)
        assert time.monotonic() - began < 5
        assert len(after - before) == 1
        host.send(signal.SIGTERM)
        assert host.ended() == 0
        assert not any(lives(pid) for pid in before | after)


def test_a_stop_answers_what_was_asked_of_every_worker() -> None:
    found = []
    with tiny(workers=2) as host:
        clients = [connect(host) for _ in range(12)]
        for client in clients:
            client.sendall(request("/wait?seconds=1.5"))
        time.sleep(0.5)
        began = time.monotonic()
        os.killpg(host.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal: all processes get it
        for client in clients:
            status, _, body = read_answer(client)
            found.append((status, json.loads(body)["pid"]))
        assert host.ended() == 0
        assert time.monotonic() - began < 10
    assert {status for status, _ in found} == {200} and len({pid for _, pid in found}) == 2


def test_a_second_signal_kills_the_workers() -> None:
    with tiny(workers=2) as host:
        pids = until(lambda: found if len(found := answering(host)) == 2 else None)
        client = connect(host)
        client.sendall(request("/wait?seconds=30"))
        time.sleep(0.2)
        host.send(signal.SIGTERM)
        host.wait_for("^stopping")
        host.send(signal.SIGTERM)
        assert host.ended() == 128 + signal.SIGTERM
        assert not any(lives(pid) for pid in pids)


def test_no_worker_outlives_its_parent() -> None:
    with tiny(workers=2) as host:
        pids = until(lambda: found if len(found := answering(host)) == 2 else None)
        host.send(signal.SIGKILL)
        assert host.ended() == -signal.SIGKILL
        until(lambda: not any(lives(pid) for pid in pids))


def test_a_fault_of_all_workers_is_told_once() -> None:
    with tiny(workers=3, broken="", fails=True) as host:
        assert host.ended() == 1
        assert host.lines == ["error: the model is broken", "cause: somebody broke it", "fix: mend it"]


def test_workers_that_die_again_and_again_end_in_an_error(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    with tiny(workers=2, broken=str(flag)) as host:
        pids = until(lambda: found if len(found := answering(host)) == 2 else None)
        flag.touch()
        os.kill(min(pids), signal.SIGKILL)
        assert host.ended() == 1
        deaths = [line for line in host.lines if line.startswith("worker ")]
        assert len(deaths) == 4  # the one that was killed, and three that could not start
        assert "error: the workers die before they can answer" in host.lines
        assert not any(lives(pid) for pid in pids)


def test_a_request_that_kills_its_worker_does_not_kill_the_server() -> None:
    with tiny(workers=2) as host:
        for _ in range(2):
            with pytest.raises((EOFError, ConnectionError)):
                ask(host, "/die")
        assert len(until(lambda: found if len(found := answering(host)) == 2 else None)) == 2
        assert host.process.poll() is None


def test_connections_are_spread_over_the_workers() -> None:
    with tiny(workers=2) as host:
        until(lambda: len(answering(host)) == 2)
        clients = [connect(host) for _ in range(64)]
        pids = []
        for client in clients:
            client.sendall(request("/wait?seconds=0.05"))
        for client in clients:
            pids.append(json.loads(read_answer(client)[2])["pid"])
        shares = [pids.count(pid) for pid in set(pids)]
        assert len(shares) == 2 and min(shares) >= 4


def test_the_parent_has_no_threads_and_no_model() -> None:
    with tiny(workers=2) as host:
        if Path("/proc/self/task").exists():
            assert len(os.listdir(f"/proc/{host.process.pid}/task")) == 1


def test_what_is_made_elsewhere_comes_back() -> None:
    assert elsewhere(lambda: b"x" * 3_000_000, lambda error: 1) == b"x" * 3_000_000


def test_a_fault_elsewhere_is_told_there_and_its_code_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> bytes:
        raise StriateError("broken")

    def tell(error: BaseException) -> int:
        sys.stderr.write(f"told: {error}\n")
        return 3

    with pytest.raises(SystemExit) as caught:
        elsewhere(fail, tell)
    assert caught.value.code == 3
    assert capfd.readouterr().err == "told: broken\n"


@pytest.mark.parametrize(("workers", "cores", "threads"), [(1, 2, 2), (2, 2, 1), (3, 8, 2), (8, 2, 1), (2, 1, 1)])
def test_cores_are_divided(workers: int, cores: int, threads: int) -> None:
    assert share_of_cores(workers, cores) == threads
