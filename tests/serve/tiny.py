"""A small ASGI application behind the server's own connections, signals and workers: `python tiny.py '{"port": 0}'`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

from striate.cli.errors import tell
from striate.errors import StriateError
from striate.serve.protocol import Guard, Patience
from striate.serve.running import listen, run, url_of

state = SimpleNamespace(ready=True)
BIG = b"x" * 30_000_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
    path, status = scope["path"], 200
    answer = json.dumps({"pid": os.getpid()}).encode()
    if path == "/early":  # answers before the body is there
        status, answer = 413, b"{}"
    else:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        if path == "/size":
            answer = json.dumps({"size": size}).encode()
    if path == "/ready":
        status = 200 if state.ready else 503
    elif path == "/wait":
        await asyncio.sleep(float(query["seconds"]))
    elif path == "/big":
        answer = BIG
    elif path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


app.state = state  # type: ignore[attr-defined]


def say(text: str) -> None:
    print(text, flush=True)


def work(sockets: Any, options: dict[str, Any], ready: Any) -> int:
    if "broken" in options and (options["broken"] == "" or os.path.exists(options["broken"])):
        raise StriateError("the model is broken", "somebody broke it", "mend it")
    guard = Guard(Patience(**options.get("patience", {})), options.get("connections", 2_000))
    return run(app, sockets, guard=guard, shared=True, told=lambda event: ready() if event == "ready" else None)


def main() -> int:
    options = json.loads(sys.argv[1])
    sockets = listen(options.get("host", "127.0.0.1"), options.get("port", 0))
    workers = options.get("workers", 1)
    if workers == 1:
        guard = Guard(Patience(**options.get("patience", {})), options.get("connections", 2_000))
        return run(
            app,
            sockets,
            guard=guard,
            drain=options.get("drain", 1.0),
            told=lambda event: say(f"{event} {url_of(sockets)} {dict(guard.counts)}"),
        )
    from striate.serve.workers import supervise

    url = url_of(sockets)
    return supervise(
        lambda ready: work(sockets, options, ready),
        workers,
        sockets,
        tell=tell,
        told=lambda event: say(f"{event} {url}"),
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StriateError as error:
        sys.exit(tell(error))
