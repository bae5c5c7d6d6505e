"""Servers in processes of their own, and clients that speak bytes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TINY = Path(__file__).with_name("tiny.py")
#: Against hanging, many times what anything here takes.
PATIENCE = 60.0


class Host:
    """A server that runs; `lines` is what it wrote so far."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, pattern: str) -> str:
        """Return the first line that has the pattern."""
        return until(lambda: next((line for line in self.lines if re.search(pattern, line)), None), self)

    @property
    def address(self) -> tuple[str, int]:
        found = re.search(r"http://\[?([^\]/]+?)\]?:(\d+)", self.wait_for("http://"))
        assert found is not None
        return found[1], int(found[2])

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        """Kill whatever is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def tiny(**options: Any) -> Iterator[Host]:
    """Start the small application, and wait until it can answer."""
    host = Host([sys.executable, str(TINY), json.dumps(options)])
    try:
        if not options.get("fails"):
            host.wait_for("^ready ")
        yield host
    finally:
        host.close()


def until(ask: Callable[[], Any], host: Host | None = None) -> Any:
    """Ask until the answer is true, and return it."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        found = ask()
        if found:
            return found
        if host is not None and host.process.poll() is not None:
            host._reader.join(PATIENCE)
            found = ask()
            assert found, host.lines
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing came: {host.lines if host else ''}")


def connect(host: Host) -> socket.socket:
    client = socket.create_connection(host.address, timeout=PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def request(path: str = "/", body: bytes = b"", method: str = "POST", headers: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def read_answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers, body. Raises EOFError where the server closed before."""
    content = b""
    while b"\r\n\r\n" not in content:
        part = client.recv(65536)
        if not part:
            raise EOFError(content)
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    while len(body) < int(headers.get("content-length", "0")):
        part = client.recv(65536)
        if not part:
            raise EOFError(body)
        body += part
    return int(first.split()[1]), headers, body


def ask(host: Host, path: str = "/", body: bytes = b"", method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    """Ask once, over a connection of its own."""
    with connect(host) as client:
        client.sendall(request(path, body, method))
        return read_answer(client)


def closed_after(client: socket.socket, drip: bytes = b"", *, read: bool = True) -> float:
    """Send `drip` byte by byte, one a second, until the server closes; return the seconds that took."""
    began = time.monotonic()
    client.settimeout(1.0)
    for number in range(int(PATIENCE)):
        try:
            if number < len(drip):
                client.sendall(drip[number : number + 1])
            if read and not client.recv(65536):
                return time.monotonic() - began
            if not read:
                time.sleep(1.0)
                if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return time.monotonic() - began
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - began
    raise AssertionError("the server did not close")
