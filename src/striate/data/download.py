"""Downloads that end well or say why: several addresses in turn, resumed, limited, checked, written atomically.

The bytes go to NAME.part; NAME appears only when the digest is right. NAME.part stays when a download breaks off, and
the next one goes on from there, from any address: what was put together wrongly fails the digest and is fetched anew.
Connections use httpx, which takes proxies from the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from striate.data.digests import Digests
from striate.errors import DataError, StriateError
from striate.files import sync_directory, waited_lock

Report = Callable[[str], None]
Progress = Callable[[int, int | None], None]

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True)
class Patience:
    """How long a download waits: seconds for a connection, seconds without a byte, least bytes a second over `window`
    seconds, resumptions at one address, seconds for another process that downloads into the same folder.

    When every other address has failed, the slow ones are tried once more at a twentieth of `slowest`.
    """

    connect: float = 10.0
    read: float = 20.0
    slowest: float = 20_000.0
    window: float = 15.0
    resumptions: int = 3
    lock: float = 3600.0


class _PassOver(Exception):
    """This address will not do; the text says why."""


class _TooSlow(_PassOver):
    """It sends, but slowly; what it sent is kept."""


class _BrokeOff(_PassOver):
    """The connection ended; what it sent is kept."""


class _DoesNotFit(Exception):
    """What is here is not the beginning of what this address has."""


def fetch(
    urls: Sequence[str],
    destination: Path,
    digests: Digests,
    size: int,
    *,
    report: Report | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
    fix: str = "",
) -> Path:
    """Download a file of about `size` bytes to `destination` and return its path.

    `report` gets a line for each address passed over. `progress` gets the bytes done and in all; without it a bar is
    drawn on stderr where that is a terminal. More than 2 · `size` + 1 MiB is not taken from any address.
    Raises DataError with every address and its reason where none will do; StriateError where the disk will not.
    """
    destination = Path(destination)
    report = report or (lambda line: None)
    patience = patience or Patience()
    with _writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
    with waited_lock(destination.parent, patience.lock, lambda cause: report(f"{destination.name}: waiting, {cause}")):
        # Another process may have brought it while this one waited.
        if destination.is_file():
            problem = digests.problem(destination)
            if not problem:
                return destination
            report(f"{destination} is not what it should be and is downloaded anew: {problem}")
        with _shown(progress, destination.name) as shown:
            _Download(destination, digests, size, patience, report, shown).run(list(urls), fix)
    return destination


def copy_into(source: Path, destination: Path) -> None:
    """Copy a file so that it is there whole or not at all. Raises StriateError where the disk will not."""
    with _writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{destination.name}.", suffix=".tmp", dir=destination.parent)
        try:
            with os.fdopen(descriptor, "wb") as target, open(source, "rb") as content:
                shutil.copyfileobj(content, target, 1 << 20)
                target.flush()
                os.fsync(target.fileno())
            # mkstemp's files are private; this one gets the rights that a new folder shows the user wants.
            os.chmod(temporary, destination.parent.stat().st_mode & 0o666)
            os.replace(temporary, destination)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    sync_directory(destination.parent)


class _Download:
    """One file being fetched: NAME.part, and beside it NAME.part.json with what is known of where it came from."""

    def __init__(
        self, destination: Path, digests: Digests, size: int, patience: Patience, report: Report, progress: Progress
    ) -> None:
        self.destination, self.digests, self.patience = destination, digests, patience
        self.report, self.progress = report, progress
        self.most = 2 * size + (1 << 20)
        self.part = destination.with_name(destination.name + ".part")
        self.notes = destination.with_name(destination.name + ".part.json")

    def run(self, urls: list[str], fix: str) -> None:
        """Try the addresses in turn until the file is there. Raises DataError when none is left."""
        reasons: dict[str, str] = {}
        slow: list[str] = []
        with _client(self.patience, self.destination.name) as client:
            for slowest, candidates in ((self.patience.slowest, urls), (self.patience.slowest / 20, slow)):
                for url in tuple(candidates):
                    try:
                        self._bring(client, url, slowest)
                        return
                    except _PassOver as error:
                        reasons[url] = str(error)
                        if isinstance(error, _TooSlow):
                            slow.append(url)
                        self.report(f"{self.destination.name}: {urlsplit(url).netloc} passed over: {error}")
        raise DataError(
            f"could not download {self.destination.name}",
            "tried " + "; ".join(f"{url} ({reason})" for url, reason in reasons.items()),
            fix or f"get it from one of these addresses in another way and: striate data add {self.destination.name}",
        )

    def _bring(self, client: Any, url: str, slowest: float) -> None:
        """Bring the whole file from one address, resuming where it breaks off. Raises _PassOver."""
        resumptions, second_chance = 0, True
        while True:
            start = self._bytes_here()
            try:
                self._receive(client, url, start, slowest)
            except _DoesNotFit:
                self._forget()  # so that the next request, from 0, cannot end here again
                continue
            except _BrokeOff:
                if resumptions == self.patience.resumptions or self._bytes_here() <= start:
                    raise
                resumptions += 1
                continue
            problem = self.digests.problem(self.part)
            if not problem:
                self._finish()
                return
            self._forget()
            # Bytes from an earlier attempt may be to blame: the address may send everything once more.
            if not start or not second_chance:
                raise _PassOver(f"it sent other bytes: {problem}")
            second_chance = False

    def _receive(self, client: Any, url: str, start: int, slowest: float) -> None:
        """Make one request and append what it answers to the .part. Raises _PassOver or _DoesNotFit."""
        import httpx

        notes = self._read_notes()
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and notes.get("url") == url and notes.get("etag"):
            headers["If-Range"] = str(notes["etag"])
        try:
            with client.stream("GET", url, headers=headers) as response:
                offset = _offset(response, start, notes.get("total"))
                if offset is None:
                    return
                total = _total(response, offset)
                if total is not None and total > self.most:
                    raise _PassOver(f"it announces {total:,} bytes, expected at most {self.most:,}")
                etag = response.headers.get("ETag", "")
                # A weak tag (W/…) may not be used with If-Range: RFC 9110, 13.1.5.
                self._write_notes({"url": url, "etag": "" if etag.startswith("W/") else etag, "total": total})
                self._append(response, offset, total, slowest)
        except httpx.TimeoutException as error:
            connecting = isinstance(error, httpx.ConnectTimeout)
            seconds = self.patience.connect if connecting else self.patience.read
            raise _BrokeOff(f"no {'connection' if connecting else 'byte'} within {seconds:g} s") from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise _BrokeOff(str(error) or type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _PassOver(str(error) or type(error).__name__) from error

    def _append(self, response: Any, offset: int, total: int | None, slowest: float) -> None:
        window_start, window_bytes, done = time.monotonic(), 0, offset
        with _opened(self.part, "r+b" if offset else "wb") as stream:
            with _writing(self.part):
                stream.seek(offset)
            # Raw: a server that marks a .gz file as compressed for the journey must not have it unpacked here.
            # Without a chunk size, which would hold back what comes slowly until there is a chunk of it.
            for piece in response.iter_raw():
                with _writing(self.part):
                    stream.write(piece)
                done += len(piece)
                window_bytes += len(piece)
                self.progress(done, total)
                if done > self.most:
                    self._forget()
                    raise _PassOver(f"it sends more than {self.most:,} bytes")
                seconds = time.monotonic() - window_start
                if seconds >= self.patience.window:
                    if window_bytes < slowest * seconds:
                        raise _TooSlow(f"{window_bytes / seconds:,.0f} bytes/s, expected at least {slowest:,.0f}")
                    window_start, window_bytes = time.monotonic(), 0

    def _finish(self) -> None:
        with _writing(self.destination):
            with open(self.part, "r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(self.part, self.destination)
        self._forget()
        sync_directory(self.destination.parent)

    def _bytes_here(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _forget(self) -> None:
        with _writing(self.part):
            self.part.unlink(missing_ok=True)
            self.notes.unlink(missing_ok=True)

    def _read_notes(self) -> dict[str, Any]:
        # Notes that cannot be read only cost the check of the ETag: the digest is what decides.
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _write_notes(self, notes: dict[str, Any]) -> None:
        with _writing(self.notes):
            self.notes.write_text(json.dumps(notes), encoding="utf-8")


def _offset(response: Any, start: int, known_total: int | None) -> int | None:
    """Return where the body belongs in the file, None where all of it is here. Raises _PassOver or _DoesNotFit."""
    status = response.status_code
    if status == 200:
        return 0  # also from a server that does not know ranges, or whose file has changed since
    if not start or status not in (206, 416):
        raise _PassOver(f"HTTP {status} {response.reason_phrase}".strip())
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    first, total = match.groups() if match else (None, None)
    if status == 416 and total == str(start):
        return None
    if status == 206 and first == str(start) and (known_total is None or total in ("*", str(known_total))):
        return start
    raise _DoesNotFit


def _total(response: Any, offset: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return offset + int(length) if length.isdigit() else None


def _client(patience: Patience, name: str) -> Any:
    import httpx

    # identity: the file as it is, so that lengths and ranges count its own bytes.
    headers = {"User-Agent": "striate", "Accept-Encoding": "identity"}
    timeout = httpx.Timeout(patience.read, connect=patience.connect)
    try:
        return httpx.Client(follow_redirects=True, max_redirects=5, timeout=timeout, headers=headers)
    except (ImportError, ValueError) as error:
        fix = "mend HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or unset them"
        raise DataError(f"could not download {name}", f"the proxy settings do not work: {error}", fix) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StriateError(
            f"could not write {path}",
            error.strerror or str(error),
            "make room, or mend the rights, and run again: what is there already is kept",
        ) from error


def _opened(path: Path, mode: str) -> IO[bytes]:
    with _writing(path):
        return open(path, mode)


@contextmanager
def _shown(progress: Progress | None, name: str) -> Iterator[Progress]:
    if progress is not None:
        yield progress
    elif sys.stderr is None or not sys.stderr.isatty():  # None: a Windows program without a console
        yield lambda done, total: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(name, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
