"""`striate cache ls` and `cache clear`: the decoded pictures that are kept on disk."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from striate.cli.flags import given_values, make_command, settings_flags
from striate.cli.group import LazyGroup, Verbs, make_group
from striate.cli.output import hint, printable, say, say_json, say_table
from striate.settings.base import build
from striate.settings.verbs import CacheListSettings


class CacheGroup(LazyGroup):
    """The verbs of `striate cache`."""

    verbs: ClassVar[Verbs] = {
        "ls": ("striate.cli.cache:cache_ls", "List what is kept, for which size, and when it was last used"),
        "clear": ("striate.cli.cache:cache_clear", "Remove all of it; the next run decodes its pictures anew"),
    }


def _list(**flags: Any) -> None:
    settings, _ = build(CacheListSettings, [("flag", given_values(flags))])
    from striate.data.cache import Cache

    cache = Cache()
    shelves = cache.describe()
    total = sum(shelf["bytes"] for shelf in shelves)
    if settings.as_json:
        say_json(
            {"format": 1, "folder": str(cache.folder), "bytes": total, "limit": cache.limit, "shelves": shelves},
        )
        return
    if shelves:
        columns = ("size", "fit", "channels", "pictures", "MB", "last used")
        say_table(columns, [_row(shelf) for shelf in shelves], right=(2, 3, 4))
    hint(f"{megabytes(total)} of at most {megabytes(cache.limit)} MB in {printable(str(cache.folder))}")


def _row(shelf: dict[str, Any]) -> tuple[str, ...]:
    geometry = shelf["geometry"]
    return (
        "x".join(str(side) for side in geometry["size"]) if geometry else "damaged",
        str(geometry.get("fit", "")),
        str(geometry.get("channels", "")),
        f"{shelf['pictures']:,}",
        megabytes(shelf["bytes"]),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(shelf["used"])),
    )


def _clear() -> None:
    from striate.data.cache import Cache

    cache = Cache()
    packs, size = cache.clear()
    say(f"removed {packs:,} {'file' if packs == 1 else 'files'}, {megabytes(size)} MB")
    hint(f"from {printable(str(cache.folder))}")


def megabytes(size: int) -> str:
    """Return bytes in megabytes of 2^20, with one decimal below 100."""
    number = size / 2**20
    return f"{number:,.0f}" if number >= 100 or number == 0 else f"{number:.1f}"


cache_ls = make_command(
    "ls",
    _list,
    settings_flags(CacheListSettings),
    "List the decoded pictures that are kept, for which size, and when they were last used.",
)
cache_clear = make_command(
    "clear", _clear, [], "Remove all decoded pictures that are kept; the next run decodes its pictures anew."
)

cache = make_group(CacheGroup, "List or remove the decoded pictures that are kept on disk.")
