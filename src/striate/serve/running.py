"""One process of the server: the socket it listens on, its signals, and how it stops."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from striate.errors import StriateError, UsageError
from striate.serve.protocol import Guard, Guarded

# Of connections that no process has taken yet. Linux has 4,096 as its own limit.
_BACKLOG = 4_096
# Connections taken in one turn: with several processes on one socket the first to wake would take them all.
_TAKEN_AT_ONCE, _TAKEN_AT_ONCE_SHARED = 100, 1
# File descriptors besides those of connections.
_OTHER_FILES = 200

# Threads that decode give the interpreter back to the event loop after that. It lets go of it at every read and write,
# and Python's own 5 ms are longer than an answer takes.
_SWITCH_SECONDS = 0.0005

DRAIN_SECONDS = 1.0
#: A stop takes no longer, whatever the requests do.
STOP_SECONDS = 9.5
_ANSWER_SECONDS = 7


class _Listening(socket.socket):
    """A socket whose queue of connections stays long, whatever number the event loop names."""

    def listen(self, backlog: int = _BACKLOG) -> None:
        super().listen(_BACKLOG)


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on each address of `host`; port 0 takes a free one.

    Raises UsageError for a host that is not known or not here, and StriateError for a port that is taken or forbidden.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"there is no host {host!r}", str(error), "use --host 127.0.0.1, or 0.0.0.0 for all") from None
    sockets: list[socket.socket] = []
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named; else each waits 40 ms.
        one = _Listening(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sockets.append(one)
        try:
            if os.name == "posix":  # elsewhere it would let two programs have one port
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], port or sockets[0].getsockname()[1], *address[2:]))
            one.listen()
        except OSError as error:
            for other in sockets:
                other.close()
            raise _not_listening(error, str(address[0]), port) from None
        one.set_inheritable(False)
    return sockets


def _not_listening(error: OSError, host: str, port: int) -> StriateError:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return StriateError(f"{place} is taken", "another program listens there", f"use --port {port + 1}, or --port 0")
    if error.errno == errno.EACCES:
        return StriateError(f"{place} is not allowed", "ports under 1024 are the system's own", "use --port 8000")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"{host} is no address of this machine", str(error.strerror), "use --host 127.0.0.1")
    return StriateError(f"cannot listen on {place}", error.strerror or str(error), "use another --host or --port")


def url_of(sockets: Sequence[socket.socket]) -> str:
    """Return the address to call, as one types it."""
    host, port = sockets[0].getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: Any,
    sockets: Sequence[socket.socket],
    *,
    guard: Guard | None = None,
    drain: float = DRAIN_SECONDS,
    shared: bool = False,
    told: Callable[[str], None] = lambda event: None,
) -> int:
    """Serve an ASGI application until a signal comes; return the exit code.

    At SIGTERM or SIGINT `app.state.ready` becomes False, if the application has a state, so that it can tell who asks
    whether it is ready; for `drain` seconds more connections are taken, and each answer is its connection's last. Then
    the socket is closed and what has been asked is answered. A second signal ends the process at once.
    With `shared` the process is one of several: who started it passes signals on, and forces. `told` gets "ready" and
    "stopping".
    """
    guard = guard or Guard()
    allow_files(guard.connections)
    sys.setswitchinterval(_SWITCH_SECONDS)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=partial(Guarded, guard=guard),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_TAKEN_AT_ONCE_SHARED if shared else _TAKEN_AT_ONCE,
        timeout_keep_alive=max(1, round(guard.patience.idle)),
        timeout_graceful_shutdown=_ANSWER_SECONDS,
    )
    server = _Server(config, guard, getattr(app, "state", None), drain, shared, told)
    server.run(list(sockets))
    return 0 if server.started else 1


def allow_files(connections: int) -> None:
    """Raise this process's limit on open files as far as that many connections need it and the system allows."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections * 2 + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """uvicorn's server with an eye on each connection, a stop in two steps, and exit code 0 after it."""

    def __init__(
        self,
        config: uvicorn.Config,
        guard: Guard,
        state: Any,
        drain: float,
        shared: bool,
        told: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self.guard, self.state, self.drain, self.shared, self.told = guard, state, drain, shared, told
        self._leave_at = float("inf")  # when the socket is closed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._watch = asyncio.get_running_loop().create_task(self._look())
        if not self.guard.stopping:
            self.told("ready")

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._leave_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def _look(self) -> None:
        """Look at each connection now and then."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.guard.patience.look)
            now = loop.time()
            for connection in list(self.server_state.connections):
                connection.overdue(now)  # type: ignore[union-attr]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal, at once at the second."""
        if self.shared and (sig == signal.SIGINT or self.guard.stopping):
            return  # Ctrl-C reaches all processes of a terminal, and the first of them tells the others
        if self.guard.stopping:
            os._exit(128 + sig)
        self.guard.stopping = True
        if self.state is not None:
            self.state.ready = False
        self.told("stopping")
        self._leave_at = time.monotonic() + (self.drain if self.started else 0.0)
        if not self.started:
            self.should_exit = True
        watchdog = threading.Timer(STOP_SECONDS, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
