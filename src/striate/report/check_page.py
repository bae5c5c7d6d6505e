"""The page of `striate check`: one HTML file with findings and pictures that needs nothing else, in two languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from striate.data.doctor import Checkup
from striate.data.findings import KINDS, Finding
from striate.data.opening import printable
from striate.data.records import class_order
from striate.report.embed import data_address, embedded

TEMPLATE = Path(__file__).with_name("check.html")

MOST_GROUPS, MOST_IN_GROUP, MOST_PICTURES = 12, 6, 24


@dataclass(frozen=True)
class Shown:
    """One source on the page: its name, its class and split, and its picture as a data address, or "" without one."""

    name: str
    about: str
    picture: str


def check_page(checkup: Checkup, preview: bytes, notes: Sequence[str] = ()) -> str:
    """Return the page as HTML. `preview`: the preview sheet's PNG; `notes`: sentences to tell beside the findings."""
    album = _Album(checkup)
    source = checkup.source
    counts = Counter((record.label, record.split) for record in source.records)
    splits = [split for split in ("train", "validation", "test", None) if any(key[1] == split for key in counts)]
    classes = class_order({record.label for record in source.records if record.label is not None})
    data: dict[str, Any] = {
        "name": printable(source.name),
        "pictures": len(source.records),
        "readable": len(checkup.loaded.good),
        "classes": [(printable(name), [counts[name, split] for split in splits]) for name in classes],
        "splits": [split or "" for split in splits],
        "reasons": checkup.geometry.reasons,
        "notes": [printable(note) for note in notes],
        "preview": data_address(preview, "png"),
        "findings": [_section(one, album) for one in checkup.findings],
        "ranks": Counter(one.rank for one in checkup.findings),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(data)


class _Album:
    """Finds the picture of a source; each is encoded once."""

    def __init__(self, checkup: Checkup) -> None:
        rows = {int(record): row for row, record in enumerate(checkup.loaded.good)}
        self._images = checkup.loaded.images
        self._records = {record.source: (record, rows.get(i)) for i, record in enumerate(checkup.source.records)}
        self._shown: dict[str, Shown] = {}

    def show(self, source: str) -> Shown:
        if source not in self._shown:
            record, row = self._records.get(source, (None, None))
            about = " · ".join(part for part in (record.label, record.split) if part) if record else ""
            picture = embedded(self._images[row]) if row is not None else ""
            self._shown[source] = Shown(printable(source), printable(about), picture)
        return self._shown[source]


def _section(one: Finding, album: _Album) -> dict[str, Any]:
    kind = KINDS[one.code]
    groups = [[album.show(source) for source in group[:MOST_IN_GROUP]] for group in one.groups[:MOST_GROUPS]]
    singles = [] if one.groups else [album.show(source) for source in one.sources[:MOST_PICTURES]]
    return {
        "code": one.code,
        "rank": one.rank,
        "count": one.count,
        "what": (one.what, kind.what_zh),
        "fix": (one.fix, kind.fix_zh),
        "examples": [printable(example) for example in one.examples],
        "groups": [group for group in groups if any(shown.picture for shown in group)],
        "pictures": [shown for shown in singles if shown.picture],
        "more": one.count - len(groups or singles),
    }
