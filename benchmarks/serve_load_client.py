"""Clients that ask a server without a pause, in a process of their own; `serve_load.py` starts it and reads its JSON.

Each client has one connection, asks, waits for the answer and asks again. Told 429 or 503, it waits as long as
Retry-After says. A connection that the server closes with its answer is made anew; one that ends without an answer is
an error. Bytes are read as they come and an answer seen before is not read again, so that the client stays light.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

BUSY = (429, 503)


class Client(asyncio.Protocol):
    """One client; `load` counts for all."""

    def __init__(self, load: Load, number: int) -> None:
        self.load, self.number = load, number
        self.content = b""
        self.picture = number
        self.began = 0.0
        self.asked = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        if self.transport.is_closing():
            return
        self.picture = (self.picture + 7) % len(self.load.requests)
        self.asked, self.began = True, time.perf_counter()
        self.transport.write(self.load.requests[self.picture])

    def data_received(self, data: bytes) -> None:
        self.content += data
        end = self.content.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.content[:end].lower()
        at = head.find(b"content-length: ")
        size = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.content) < end + 4 + size:
            return
        status, body = int(head[9:12]), self.content[end + 4 :]
        self.content, self.asked = b"", False
        self.load.count(status, self.picture, body, time.perf_counter() - self.began)
        if status in BUSY:
            at = head.find(b"retry-after: ")
            self.load.loop.call_later(float(head[at + 13 :].split(b"\r\n", 1)[0]) if at >= 0 else 0.0, self.ask)
        else:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        if self.load.over:
            return
        if self.asked:
            self.load.errors[type(error).__name__ if error else "closed without an answer"] += 1
        self.load.loop.create_task(self.load.connect(self.number))


class Load:
    """All clients, and what became of their requests."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        head = (
            f"POST {task['path']} HTTP/1.1\r\nhost: {task['host']}\r\naccept: */*\r\n"
            f"content-type: {task['content_type']}\r\ncontent-length: "
        )
        bodies = [Path(name).read_bytes() for name in task["bodies"]]
        self.requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.times: list[float] = []
        self.right: dict[tuple[int, bytes], bool] = {}
        self.wrong = 0
        self.over = False
        self.counting = False

    def count(self, status: int, picture: int, body: bytes, seconds: float) -> None:
        right = True
        if status == 200:
            key = (picture, body)
            if key not in self.right:
                self.right[key] = self.is_right(picture, json.loads(body))
            right = self.right[key]
            self.wrong += not right
        if self.counting:
            self.statuses[status] += 1
            if status == 200 and right:
                self.times.append(seconds)

    def is_right(self, picture: int, answer: Any) -> bool:
        for step in self.task["answer"]:
            answer = answer[step]
        found = list(answer.values()) if isinstance(answer, dict) else answer
        wanted = self.task["expected"][picture]
        return len(found) == len(wanted) and all(abs(a - b) < 1e-5 for a, b in zip(found, wanted, strict=True))

    async def connect(self, number: int) -> None:
        while not self.over:
            try:
                await self.loop.create_connection(lambda: Client(self, number), self.task["host"], self.task["port"])
                return
            except OSError as error:
                self.errors[f"connect: {type(error).__name__}"] += 1
                await asyncio.sleep(0.2)

    async def run(self) -> dict[str, Any]:
        self.loop = asyncio.get_running_loop()
        await asyncio.gather(*(self.connect(number) for number in range(self.task["clients"])))
        await asyncio.sleep(self.task["warm"])
        self.counting, began, cpu = True, time.perf_counter(), time.process_time()
        await asyncio.sleep(self.task["seconds"])
        self.counting, seconds = False, time.perf_counter() - began
        busy = (time.process_time() - cpu) / seconds
        self.over = True
        times = sorted(self.times) or [float("nan")]
        return {
            "goodput": len(self.times) / seconds,
            "p50": times[len(times) // 2],
            "p99": times[min(len(times) - 1, len(times) * 99 // 100)],
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors),
            "wrong": self.wrong,
            "busy": busy,
        }


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192) if hard > 0 else 8_192, hard))
    json.dump(asyncio.run(Load(json.load(sys.stdin)).run()), sys.stdout)


if __name__ == "__main__":
    main()
