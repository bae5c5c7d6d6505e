"""A server on loopback that can misbehave, and writers of the data sets' formats."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest


@dataclass
class Served:
    """One path of the server: what it answers, and what is wrong with that."""

    content: bytes = b""
    status: int = 200
    location: str = ""
    ranges: str = "honoured"  # honoured, ignored, shifted, unsatisfiable
    etag: str = ""
    cut_after: int | None = None  # bytes, then the connection is closed
    cut_times: int = 1 << 30  # answers that are cut; later ones are whole
    drip: tuple[int, float] | None = None  # bytes, seconds between them
    no_length: bool = False
    endless: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Mirror:
    """The server: `serve` gives the address of a new path, `requests` holds what was asked for."""

    def __init__(self) -> None:
        self.paths: dict[str, Served] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, path: str, content: bytes = b"", **faults: object) -> str:
        self.paths[path] = Served(content, **faults)  # type: ignore[arg-type]
        return f"{self.address}/{path}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, {key.lower(): value for key, value in handler.headers.items()}))
        served = self.paths[handler.path.lstrip("/")]
        start, status = 0, served.status
        asked = handler.headers.get("Range")
        unchanged = handler.headers.get("If-Range", served.etag) == served.etag
        if asked and status == 200 and served.ranges != "ignored" and unchanged:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(served.content) and served.ranges != "unsatisfiable" else 416
        body = served.content[start:] if status in (200, 206) else b""
        handler.send_response(status)
        for key, value in served.headers.items():
            handler.send_header(key, value)
        if served.etag:
            handler.send_header("ETag", served.etag)
        if served.location:
            handler.send_header("Location", served.location)
        if status == 206:
            first = start + (7 if served.ranges == "shifted" else 0)
            handler.send_header("Content-Range", f"bytes {first}-{len(served.content) - 1}/{len(served.content)}")
        if status == 416:
            handler.send_header("Content-Range", f"bytes */{len(served.content)}")
        if not served.no_length and not served.endless:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        self.send_body(handler, served, body)

    def send_body(self, handler: http.server.BaseHTTPRequestHandler, served: Served, body: bytes) -> None:
        if served.cut_after is not None and served.cut_times > 0:
            served.cut_times -= 1
            body = body[: served.cut_after]
        size, pause = served.drip or (1 << 20, 0.0)
        try:
            while served.endless:
                handler.wfile.write(bytes(1 << 16))
            for at in range(0, len(body), size):
                self.sent += len(body[at : at + size])  # before the client can have it, and ask
                handler.wfile.write(body[at : at + size])
                if pause:
                    time.sleep(pause)
        except OSError:
            pass  # the client has had enough


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server on loopback; proxies of the machine are left out."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    mirror = Mirror()
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()


@pytest.fixture
def dead_address() -> str:
    """An address on loopback where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user's cache, and no STRIATE_DATA; returns the folder of the data sets in it."""
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.delenv("STRIATE_DATA", raising=False)
    return tmp_path / "cache" / "striate" / "data"


def idx_bytes(array: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def cifar_bytes(images: np.ndarray, labels: np.ndarray, coarse: np.ndarray | None = None) -> bytes:
    records = b""
    for number, image in enumerate(images):
        records += (b"" if coarse is None else bytes([coarse[number]])) + bytes([labels[number]])
        records += b"".join(image[:, :, channel].tobytes() for channel in range(3))
    return records


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], Path]:
    """Write an IDX file, gzipped where the name ends in .gz."""

    def write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = idx_bytes(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def write_cifar() -> Callable[..., bytes]:
    """Build the bytes of a CIFAR batch: images (N, 32, 32, 3), labels (N,), for CIFAR-100 also coarse labels."""
    return cifar_bytes


@pytest.fixture
def sha256() -> Callable[[bytes], str]:
    return lambda content: hashlib.sha256(content).hexdigest()
