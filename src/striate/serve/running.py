"""Runs the server in this process."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI


def run_server(app: FastAPI, *, host: str, port: int) -> None:
    """Serve until a signal ends it."""
    uvicorn.run(app, host=host, port=port, log_config=None, access_log=False)
