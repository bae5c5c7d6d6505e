"""Clients that are silent, slow to send or slow to read are let go, one that is not goes on undisturbed."""

from __future__ import annotations

import inspect
import json
import re
import socket
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.serve.hosts import Host, ask, closed_after, connect, read_answer, request, tiny
from uvicorn.protocols.http import httptools_impl

from striate.serve.protocol import Guarded, Patience, _Joining

QUICK = {"head": 0.8, "idle": 1.0, "window": 0.8, "body": 2.0, "told": 1.0, "look": 0.2}
HEAD = b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
#: Before the server has closed a connection: its patience, a second until it looks, and what a busy machine adds.
SLACK = 15.0


@pytest.fixture(scope="module")
def quick() -> Iterator[Host]:
    """A server with little patience."""
    with tiny(patience=QUICK) as host:
        yield host


def drip_head(client: socket.socket) -> float:
    return closed_after(client, HEAD)


def drip_second_head(client: socket.socket) -> float:
    client.sendall(request())
    read_answer(client)
    return closed_after(client, HEAD)


def drip_body(client: socket.socket) -> float:
    client.sendall(HEAD)
    return closed_after(client, b"x" * 1000)


def silent(client: socket.socket) -> float:
    return closed_after(client)


def silent_after_an_answer(client: socket.socket) -> float:
    client.sendall(request())
    read_answer(client)
    return closed_after(client)


def drip_after_an_early_answer(client: socket.socket) -> float:
    client.sendall(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx")
    assert read_answer(client)[0] == 413
    return closed_after(client, b"x" * 1000)


def reads_nothing(client: socket.socket) -> float:
    client.sendall(request("/big"))
    return closed_after(client, read=False)


SLOW = [
    drip_head,
    drip_second_head,
    drip_body,
    silent,
    silent_after_an_answer,
    drip_after_an_early_answer,
    reads_nothing,
]


def ask_on(host: Host, stop: threading.Event, found: list[Any]) -> None:
    """Ask over one connection, again and again, now and then with a pause."""
    with connect(host) as client:
        while not stop.is_set():
            client.sendall(request("/size", b"x" * 200))
            found.append(json.loads(read_answer(client)[2])["size"])
            time.sleep(0.05)


def hold_off(host: Host, within: float) -> None:
    """Let every kind of slow client come at once; each has to be closed in time, and a normal one answered."""
    stop, found, times = threading.Event(), [], {}
    normal = threading.Thread(target=ask_on, args=(host, stop, found))
    normal.start()

    def come(kind: Any) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            client.connect(host.address)
            times[kind.__name__] = kind(client)

    clients = [threading.Thread(target=come, args=(kind,)) for kind in SLOW]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    stop.set()
    normal.join()
    assert sorted(times) == sorted(kind.__name__ for kind in SLOW)
    assert max(times.values()) < within, times
    assert len(found) > 10 and set(found) == {200}


def test_slow_clients_are_closed_and_a_normal_one_is_not(quick: Host) -> None:
    hold_off(quick, QUICK["idle"] + SLACK)


@pytest.mark.slow
def test_slow_clients_are_closed_within_20_seconds() -> None:
    with tiny() as host:
        hold_off(host, 20.0)


def test_a_slow_request_is_told_why(quick: Host) -> None:
    for sent in (HEAD[:20], HEAD):
        with connect(quick) as client:
            client.sendall(sent)
            status, headers, body = read_answer(client)
            assert (status, headers["connection"]) == (408, "close")
            assert json.loads(body)["error"]["code"] == "timeout"
            assert client.recv(1) == b""


def test_a_body_that_comes_steadily_is_taken(quick: Host) -> None:
    """It takes longer than the window, and more than the rate."""
    with connect(quick) as client:
        client.sendall(b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        for _ in range(10):
            client.sendall(b"x" * 10_000)
            time.sleep(0.15)
        assert json.loads(read_answer(client)[2]) == {"size": 100_000}


def test_a_body_that_never_ends_is_not(quick: Host) -> None:
    with connect(quick) as client:
        client.sendall(b"POST /size HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        client.settimeout(0.3)
        content, began = b"", time.monotonic()
        while b"408" not in content:
            assert time.monotonic() - began < QUICK["body"] + SLACK
            try:
                client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
                content += client.recv(1000)
            except TimeoutError:
                continue
            except OSError:  # what it was told is lost where more was under way
                break
        assert time.monotonic() - began > QUICK["body"] - QUICK["look"]


def test_a_reader_that_reads_steadily_gets_all(quick: Host) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(quick.address)
        client.sendall(request("/big"))
        size = 0
        while size < 30_000_000:
            part = client.recv(250_000)
            assert part, "cut off"
            size += len(part)
            time.sleep(0.002)


def test_a_server_that_takes_long_is_not_the_clients_fault(quick: Host) -> None:
    assert ask(quick, "/wait?seconds=1.5")[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"no http at all\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, 431),
        (request("/wait?seconds=1") * 40, 429),
    ],
)
def test_what_is_no_request_is_told_so(quick: Host, sent: bytes, status: int) -> None:
    with connect(quick) as client:
        client.sendall(sent)
        found, headers, body = read_answer(client)
        assert found == status
        assert json.loads(body)["error"]["what"]
        assert headers["connection"] == "close"


def test_requests_sent_ahead_are_answered_in_order(quick: Host) -> None:
    with connect(quick) as client:
        client.sendall(b"".join(request("/size", b"x" * size) for size in range(10)))
        content = b""
        while content.count(b"size") < 10:
            content += client.recv(65536)
        assert [int(size) for size in re.findall(rb'"size": (\d+)', content)] == list(range(10))


def test_one_connection_too_many_is_told_so_without_a_reset() -> None:
    with tiny(connections=20) as host:
        clients = [connect(host) for _ in range(60)]
        for client in clients:
            client.sendall(request("/size", b"x" * 200_000))
        answers = [read_answer(client) for client in clients]
        statuses = [status for status, _, _ in answers]
        assert statuses == [200] * 20 + [503] * 40
        assert {headers["retry-after"] for status, headers, _ in answers if status == 503} == {"1"}
        for client in clients:
            client.close()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and ask(host)[0] != 200:
            time.sleep(0.1)
        assert ask(host)[0] == 200  # there is room again


def test_uvicorn_is_as_it_was_when_this_was_written() -> None:
    """What `Guarded` and `_Server` use of uvicorn beyond its documents."""
    for name in ("connection_made", "connection_lost", "data_received", "eof_received", "shutdown", "resume_writing",
                 "on_message_begin", "on_headers_complete", "send_400_response"):  # fmt: skip
        assert inspect.signature(getattr(httptools_impl.HttpToolsProtocol, name)) == (
            inspect.signature(getattr(Guarded, name))
        ), name
    made = inspect.getsource(httptools_impl.HttpToolsProtocol.__init__)
    for name in ("loop", "connections", "transport", "flow", "headers", "cycle", "pipeline"):
        assert f"self.{name} = " in made or f"self.{name}: " in made, name
    cycle = inspect.getsource(httptools_impl.RequestResponseCycle.__init__)
    for name in ("keep_alive", "waiting_for_100_continue", "more_body", "response_started", "response_complete"):
        assert f"self.{name} = " in cycle, name
    sent = inspect.getsource(httptools_impl.RequestResponseCycle.send)
    assert "if not self.keep_alive and not has_connection_close" in sent  # a stopping server tells its last answers
    server = uvicorn.Server(uvicorn.Config("no:app"))
    assert list(inspect.signature(server.startup).parameters) == ["sockets"]
    assert list(inspect.signature(server.on_tick).parameters) == ["counter"]
    assert list(inspect.signature(server.handle_exit).parameters) == ["sig", "frame"]
    assert (server.started, server.should_exit, server.server_state.connections) == (False, False, set())


def test_pyproject_names_the_uvicorn_that_this_is_written_for() -> None:
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as stream:
        wanted = tomllib.load(stream)["project"]["optional-dependencies"]["serve"]
    (range_,) = [one for one in wanted if one.startswith("uvicorn")]
    low, high = re.findall(r"0\.(\d+)", range_)
    assert int(low) <= int(uvicorn.__version__.split(".")[1]) < int(high)


def test_patience_ends_before_20_seconds() -> None:
    """Two looks at a connection, each a second after the last, belong to it."""
    patience = Patience()
    assert max(patience.head, patience.idle, patience.window) + 2 * patience.look < 18


def test_a_head_is_sent_with_what_follows_it() -> None:
    class Transport:
        def __init__(self) -> None:
            self.sent: list[bytes] = []
            self.closed = False

        def write(self, data: bytes) -> None:
            self.sent.append(data)

        def close(self) -> None:
            self.closed = True

        def is_closing(self) -> bool:
            return self.closed

    class Cycle:
        response_started = False

    class Protocol:
        cycle: Cycle | None = None

    protocol, transport = Protocol(), Transport()
    joining = _Joining(transport, protocol)  # type: ignore[arg-type]
    joining.write(b"before any request")
    protocol.cycle = Cycle()
    joining.write(b"100 Continue")
    protocol.cycle.response_started = True
    for data in (b"head ", b"first ", b"second "):
        joining.write(data)
    assert transport.sent == [b"before any request", b"100 Continue", b"head first ", b"second "]
    protocol.cycle = Cycle()
    protocol.cycle.response_started = True
    joining.write(b"head alone")
    assert transport.sent[-1] == b"second " and not joining.is_closing()
    joining.close()
    assert transport.sent[-1] == b"head alone" and joining.is_closing()
