"""One process: it stops gracefully, tells that it is about to, and says what is wrong with an address."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.serve.hosts import Host, ask, connect, read_answer, request, tiny

from striate.errors import StriateError, UsageError
from striate.serve.running import listen, url_of


def ask_later(host: Host, path: str, found: list[Any]) -> threading.Thread:
    """Ask in a thread of its own; `found` gets the status."""
    thread = threading.Thread(target=lambda: found.append(ask(host, path)[0]))
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_answers_what_was_asked_and_ends_with_0(number: int) -> None:
    found: list[Any] = []
    with tiny() as host:
        asked = ask_later(host, "/wait?seconds=2", found)
        body = connect(host)
        body.sendall(request("/size", b"x" * 1000)[:-500])
        head = connect(host)
        head.sendall(request("/size")[:20])
        kept = connect(host)
        kept.sendall(request())
        assert "connection" not in read_answer(kept)[1]
        time.sleep(0.3)
        began = time.monotonic()
        host.send(number)
        host.wait_for("^stopping")
        assert ask(host, "/ready")[0] == 503
        kept.sendall(request())
        assert read_answer(kept)[1]["connection"] == "close"
        time.sleep(1.2)  # the socket is closed by now
        head.sendall(request("/size")[20:])
        assert json.loads(read_answer(head)[2]) == {"size": 0}
        body.sendall(b"x" * 500)
        assert json.loads(read_answer(body)[2]) == {"size": 1000}
        assert host.ended() == 0
        asked.join()
        assert found == [200]
        assert time.monotonic() - began < 10
        with pytest.raises(OSError):
            connect(host)


def test_requests_that_come_while_it_stops_are_answered_or_not_taken() -> None:
    """Clients that ask without a pause see an answer, or no connection: never one that is cut off."""
    outcomes: list[str] = []

    def come(host: Host) -> None:
        while True:
            try:
                client = connect(host)
            except OSError:
                return
            with client:
                closes = False
                while not closes:
                    try:
                        client.sendall(request())
                        closes = read_answer(client)[1].get("connection") == "close"
                        outcomes.append("answered")
                    except (EOFError, OSError) as error:
                        outcomes.append(repr(error))
                        return

    with tiny() as host:
        clients = [threading.Thread(target=come, args=(host,)) for _ in range(4)]
        for client in clients:
            client.start()
        time.sleep(0.5)
        host.send(signal.SIGTERM)
        assert host.ended() == 0
        for client in clients:
            client.join()
    # Who connects in the very moment in which the socket is closed is reset by the system.
    assert outcomes.count("answered") > 100
    assert len([one for one in outcomes if one != "answered"]) <= 4


def test_a_second_signal_ends_it_at_once() -> None:
    with tiny() as host:
        client = connect(host)
        client.sendall(request("/wait?seconds=30"))
        time.sleep(0.3)
        host.send(signal.SIGTERM)
        host.wait_for("^stopping")
        began = time.monotonic()
        host.send(signal.SIGINT)
        assert host.ended() == 128 + signal.SIGINT
        assert time.monotonic() - began < 5


@pytest.mark.slow
def test_a_stop_takes_no_longer_than_10_seconds() -> None:
    with tiny() as host:
        client = connect(host)
        client.sendall(request("/wait?seconds=60"))
        slow = connect(host)
        slow.sendall(b"POST / HTTP/1.1\r\n")
        time.sleep(0.3)
        began = time.monotonic()
        host.send(signal.SIGTERM)
        assert host.ended() == 0
        assert time.monotonic() - began < 10


def test_a_thousand_clients_at_once_are_all_answered() -> None:
    """All connect before the first is read: the queue of connections holds them, and so do the open files."""
    with tiny() as host:
        clients = []
        try:
            for _ in range(1_000):
                clients.append(connect(host))
            for client in clients:
                client.sendall(request("/size", b"x" * 300))
            assert {read_answer(client)[0] for client in clients} == {200}
        finally:
            for client in clients:
                client.close()


def test_a_port_that_is_taken_is_told() -> None:
    (first,) = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with first, pytest.raises(StriateError) as caught:
        listen("127.0.0.1", port)
    assert caught.value.what == f"127.0.0.1:{port} is taken"
    assert caught.value.cause and f"--port {port + 1}" in caught.value.fix


@pytest.mark.parametrize("host", ["no such host", "203.0.113.1", "x" * 300, "café.invalid"])
def test_a_host_that_is_not_here_is_told(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(name: Any, *arguments: Any, **keywords: Any) -> Any:
        if name == "203.0.113.1":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, 0))]
        raise socket.gaierror("not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(UsageError, match=r"there is no host|is no address of this machine"):
        listen(host, 0)


def test_localhost_is_all_its_addresses_on_one_port() -> None:
    sockets = listen("localhost", 0)
    try:
        assert len({one.getsockname()[1] for one in sockets}) == 1
        assert url_of(sockets).startswith("http://")
        for one in sockets:
            socket.create_connection(one.getsockname()[:2]).close()
    finally:
        for one in sockets:
            one.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="read from /proc")
def test_the_limit_on_open_files_is_raised() -> None:
    with tiny() as host:
        found = Path(f"/proc/{host.process.pid}/limits").read_text()
    line = next(line for line in found.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert int(soft) >= min(4_000, int(hard))


def test_small_answers_are_sent_at_once() -> None:
    sockets = listen("127.0.0.1", 0)
    with socket.create_connection(sockets[0].getsockname()[:2]):
        taken, _ = sockets[0].accept()
        # What asyncio asks of a connection before it sets TCP_NODELAY.
        assert taken.proto == socket.IPPROTO_TCP
        taken.close()
    sockets[0].close()
