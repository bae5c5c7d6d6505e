"""How a connection is guarded: who is silent, slow to send or slow to read is let go, and so is one too many.

uvicorn closes none of these; only between two requests does it let a silent client go. Its httptools protocol is taken
and not the one on h11: a small request costs it less than half the processor time, and HTTP is a good part of what a
small net's answer costs. httptools itself has no limit on the head of a request, so that one stands here. Other
servers were not tried.

No request pays for a timer. About once a second the server looks at each of its connections: what it is waiting for,
since when, and how many bytes have moved (`Guarded.overdue`).

What is used of uvicorn beyond its documents is told by the tests (tests/serve/test_protocol.py), and pyproject.toml
names the versions that have it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# SO_LINGER, on, 0 seconds.
_RESET = struct.pack("ii" if os.name == "posix" else "hh", 1, 0)
# A browser sends some 1 kB, and no proxy lets more than 32 kB through.
_MOST_HEAD_BYTES = 32 * 1024
# Of one client that sends requests without waiting for answers; browsers and libraries do not.
_MOST_AHEAD = 16
# Connections beyond the limit that are told so; those beyond are closed at once.
_MOST_TOLD = 1_000


@dataclass(frozen=True)
class Patience:
    """How long a client may keep a connection waiting, in seconds.

    `head`: for the first request to begin, and for each head to come as a whole; `idle`: silence between requests;
    `window` and `rate`: in any such time a body, or an answer that waits to be read, moves by `window * rate` bytes;
    `body`: for a whole body; `told`: to take a refusal of the connection. `look`: between two looks at a connection.
    """

    head: float = 10.0
    idle: float = 15.0
    window: float = 10.0
    rate: float = 1024.0
    body: float = 120.0
    told: float = 2.0
    look: float = 1.0


@dataclass
class Guard:
    """What the connections of one process share: limits, and what became of them.

    `connections`: as many are served; `stopping`: each answer is its connection's last; `counts`: connections let go,
    by reason, of which each also goes to `told`; `served` and `refused`: how many connections there are at present.
    """

    patience: Patience = field(default_factory=Patience)
    connections: int = 2_000
    stopping: bool = False
    told: Callable[[str], None] = lambda reason: None
    counts: Counter[str] = field(default_factory=Counter)
    served: int = 0
    refused: int = 0

    def count(self, reason: str) -> None:
        """Count a connection that is let go; reasons are a few words of ours."""
        self.counts[reason] += 1
        self.told(reason)


class _Joining:
    """A transport that sends the head of an answer with the first of its body: one call, one packet, one reader woken.

    uvicorn writes them one after the other. Whatever else is asked of it, the transport itself does.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Guarded) -> None:
        self._transport, self._protocol = transport, protocol
        self._head = b""
        self._answered: object = None  # whose head was written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send bytes, or keep them for the next ones if they are a head."""
        cycle = self._protocol.cycle
        if cycle is not None and cycle.response_started and cycle is not self._answered:
            self._answered = cycle
            self._head = data
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what was kept, and close."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()


class Guarded(HttpToolsProtocol):
    """One connection. `overdue` is to be called every `look` seconds."""

    def __init__(self, *arguments: Any, guard: Guard, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.guard = guard
        self.begun = self.loop.time()
        self.received = 0  # bytes, of all requests
        self.heads = 0  # heads begun
        self.in_head = False
        self.head_bytes = 0
        self.refused = False
        self._told = False
        self._fault = 400  # what a request that cannot be read is answered with
        # What was waited for when it was last looked at, since when, and the bytes that had moved when a window began.
        self._stage: tuple[Any, ...] = ()
        self._since = self._window_began = self.begun
        self._moved = 0
        self._drained = 0  # times that a full buffer of answers was read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Joining(transport, self))  # type: ignore[arg-type]
        guard = self.guard
        self.refused = guard.served >= guard.connections
        if not self.refused:
            guard.served += 1
            return
        guard.refused += 1
        guard.count("too-many-connections")
        if guard.refused > _MOST_TOLD:
            self._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.refused:
            self.guard.refused -= 1
        else:
            self.guard.served -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.refused:
            self._tell_refusal()
            return
        super().data_received(data)
        if self.in_head:
            self.head_bytes += len(data)  # of which some may belong to a request before: the limit is a round number
            if self.head_bytes > _MOST_HEAD_BYTES:
                self._fault = 431
                self.send_400_response("")

    def on_message_begin(self) -> None:
        self.heads += 1
        self.in_head = True
        self.head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > _MOST_HEAD_BYTES:
            self._fault = 431
            raise ValueError("the head of the request is too large")  # the parser stops, as at what is no HTTP
        if len(self.pipeline) >= _MOST_AHEAD:
            self._fault = 429
            raise ValueError("too many requests before an answer")
        super().on_headers_complete()
        if self.guard.stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, and close; in the form of our other errors."""
        self.guard.count("unreadable")
        self._answer_and_close(self._fault)

    def resume_writing(self) -> None:
        self._drained += 1
        super().resume_writing()

    def eof_received(self) -> None:
        if self.refused:
            self.transport.close()
        super().eof_received()

    def shutdown(self) -> None:
        """Stop: close between requests, after the answer within one; a request on its way may still come."""
        patience = self.guard.patience
        is_new = self.heads == 0 and self.loop.time() - self.begun < patience.told
        if (is_new or self.in_head) and not self.refused:
            self.loop.call_later(patience.told, super().shutdown)
        else:
            super().shutdown()

    def overdue(self, now: float) -> None:
        """Let the client go if it has kept the connection waiting for too long."""
        stage = self._waits_for()
        moved = self._bytes_moved(stage[0])
        patience = self.guard.patience
        if stage != self._stage:
            self._stage, self._since = stage, now
            self._window_began, self._moved = now, moved
            return
        waited = now - self._since
        match stage[0]:
            case "first" if waited >= patience.head:
                self._let_go("silent")
            case "head" if waited >= patience.head:
                self._time_out("slow-head")
            case "idle" if waited >= patience.idle:
                self._let_go("idle")
            case "rest" if waited >= patience.head:
                self._let_go("slow-body", abort=True)
            case "refused" if waited >= patience.told:
                self._drop()
            case "reader" if moved > self._moved:  # more is to be read than was
                self._moved = moved
            case "body" | "reader" if now - self._window_began >= patience.window:
                if abs(moved - self._moved) < patience.window * patience.rate:
                    self._let_go("slow-reader", abort=True) if stage[0] == "reader" else self._time_out("slow-body")
                elif stage[0] == "body" and waited >= patience.body:
                    self._time_out("slow-body")
                else:
                    self._window_began, self._moved = now, moved

    def _waits_for(self) -> tuple[Any, ...]:
        """Return what the connection waits for, with what changes when there was progress."""
        if self.refused:
            return ("refused",)
        if self.transport.get_write_buffer_size() > 0:
            return "reader", self._drained
        cycle = self.cycle
        if self.in_head:
            return "head", self.heads
        if cycle is None:
            return ("first",)
        if not cycle.more_body:
            return ("idle", self.heads) if cycle.response_complete else ("server", self.heads)
        if cycle.response_complete:  # the answer did not wait for the body
            return "rest", self.heads
        if self.flow.read_paused or cycle.waiting_for_100_continue:
            return "server", self.heads
        return "body", self.heads

    def _bytes_moved(self, stage: str) -> int:
        return self.transport.get_write_buffer_size() if stage == "reader" else self.received

    def _time_out(self, reason: str) -> None:
        """Answer 408 if no answer has begun, and close."""
        self.guard.count(reason)
        if self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started:
            self._drop()
        else:
            self._answer_and_close(408)

    def _let_go(self, reason: str, *, abort: bool = False) -> None:
        self.guard.count(reason)
        if abort:
            self._drop()
        else:
            self.transport.close()

    def _drop(self) -> None:
        """Close with a reset: else the system would go on holding what the client does not read."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _tell_refusal(self) -> None:
        """Answer 503 at the first bytes. The rest is read until the client closes: it would lose the answer else."""
        if not self._told:
            self._told = True
            self.transport.write(_answer(503))
            self.transport.write_eof()

    def _answer_and_close(self, status: int) -> None:
        if not self.transport.is_closing():
            self.transport.write(_answer(status))
            self.transport.close()


_TOLD = {
    400: ("bad-request", "the request is no HTTP/1.1"),
    408: ("timeout", "the request came too slowly"),
    429: ("busy", "too many requests were sent before their answers were read"),
    431: ("too-large", "the head of the request is too large"),
    503: ("unavailable", "the server has too many connections"),
}


def _answer(status: int) -> bytes:
    """Return a whole answer in bytes, as the application would tell an error."""
    code, what = _TOLD[status]
    body = json.dumps({"error": {"code": code, "what": what, "cause": "", "fix": ""}})
    retry = "retry-after: 1\r\n" if status in (429, 503) else ""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n{retry}\r\n{body}"
    ).encode()
