"""Fixtures shared by all tests: the data folder, sockets blocked but for loopback, quiet threads."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

# As the command does, before torch is imported: two test processes whose threads spin while they wait take turns
# at the cores, and the tests of training last five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that STRIATE_DATA names; tests that need it are skipped, saying so, without it."""
    folder = os.environ.get("STRIATE_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("STRIATE_DATA names no folder: tests on the public data sets need it")
    return Path(folder)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach the network."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> Any:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"the tests block the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
