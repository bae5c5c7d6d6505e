"""`striate check`."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import cell_width, hint, printable, say, say_json
from striate.errors import UsageError
from striate.settings.base import build
from striate.settings.values import from_text, parse_bytes
from striate.settings.verbs import CheckSettings

if TYPE_CHECKING:
    from striate.data.doctor import Checkup
    from striate.data.findings import Finding
    from striate.data.records import Source

LINES = 24  # a screenful
MUST_DECIDE = 3  # exit code


def _check(target: str, **flags: Any) -> None:
    settings, _ = build(CheckSettings, [("flag", from_text(CheckSettings, given_values(flags)))])
    from striate.data.cache import Cache
    from striate.data.doctor import check_up
    from striate.data.findings import must_be_decided
    from striate.data.fixes import propose_fixes, write_fixes
    from striate.data.sources import looks_like_pictures, open_source
    from striate.report.progress import Progress

    if not looks_like_pictures(target):
        raise UsageError(
            f"{target!r} is no folder of pictures",
            "check looks at a folder, table, archive, parquet or .npz file; a named data set was checked by its digest",
            f"write ./{target} for a folder of that name",
        )
    allowance = None if settings.memory is None else parse_bytes(settings.memory)
    opened = open_source(target, follow_links=settings.follow_links, allowance=allowance, report=hint)
    with opened as source, Progress() as progress:
        source, notes = _with_fixes(source, settings.fixes)
        checkup = check_up(
            source,
            size=settings.size,
            fit=None if settings.fit == "auto" else settings.fit,
            max_pixels=settings.max_pixels,
            threads=settings.threads,
            cache=Cache(report=hint) if settings.cache else None,
            allowance=allowance,
            report=hint,
            header_progress=progress.stage("reading headers"),
            decode_progress=progress.stage("decoding"),
        )
        _draw(checkup, settings, notes)
    if settings.write_fixes is not None:
        proposed = propose_fixes(checkup.findings, checkup.source.records)
        write_fixes(settings.write_fixes, proposed)
        hint(f"{len(proposed):,} fixes proposed: {printable(str(settings.write_fixes))}; read them before you use them")
    if settings.as_json:
        say_json(as_json(checkup, notes))
    else:
        say_checkup(checkup, notes)
    if must_be_decided(checkup.findings):
        raise typer.Exit(MUST_DECIDE)


def _with_fixes(source: Source, given: Path | None) -> tuple[Source, list[str]]:
    from striate.data.fixes import apply_fixes, find_fixes, read_fixes

    path = given or find_fixes(source)
    if path is None:
        return source, list(source.notes)
    source, told = apply_fixes(source, read_fixes(path))
    return source, [*source.notes, *(f"{path.name}: {line}" for line in told)]


def _draw(checkup: Checkup, settings: CheckSettings, notes: list[str]) -> None:
    """Write the page and the preview sheet that were asked for."""
    if settings.html is None and settings.preview is None:
        return
    from striate.files import write_bytes, write_text
    from striate.report.check_page import check_page
    from striate.report.preview import preview_png

    sheet = preview_png(checkup, settings.max_pixels)
    if settings.preview is not None:
        write_bytes(settings.preview, sheet)
        hint(f"drawn: {printable(str(settings.preview))}")
    if settings.html is not None:
        write_text(settings.html, check_page(checkup, sheet, notes))
        hint(f"written: {printable(str(settings.html))}")


def as_json(checkup: Checkup, notes: list[str]) -> dict[str, Any]:
    """Return what `--json` prints."""
    from striate.data.findings import must_be_decided

    source, geometry = checkup.source, checkup.geometry
    counts = Counter((record.label, record.split or "all") for record in source.records)
    splits = sorted({split for _, split in counts})
    return {
        "format": 1,
        "source": source.name,
        "kind": source.kind,
        "pictures": len(source.records),
        "readable": len(checkup.loaded.good),
        "classes": {name: {split: counts[name, split] for split in splits} for name in source.classes},
        "geometry": {
            "size": list(geometry.size),
            "fit": geometry.fit,
            "channels": geometry.channels,
            "reasons": list(geometry.reasons),
        },
        "notes": notes,
        "must_be_decided": len(must_be_decided(checkup.findings)),
        "findings": [finding.to_json() for finding in checkup.findings],
    }


def say_checkup(checkup: Checkup, notes: list[str]) -> None:
    """Print a screenful: what the source is, size and fit, and the findings, the worst with examples and a fix."""
    source = checkup.source
    width = shutil.get_terminal_size((100, LINES)).columns
    sizes = Counter(record.label for record in source.records)
    named = ", ".join(f"{name} {sizes[name]:,}" for name in source.classes)
    splits = Counter(record.split for record in source.records if record.split is not None)
    stated = "".join(f"; {split} {count:,}" for split, count in splits.items())
    head = [f"{source.name}: {len(source.records):,} pictures, {len(source.classes)} classes{stated}: {named}"]
    head += [*checkup.geometry.reasons, *notes[:2]]
    lines = [*head, *finding_lines(checkup.findings, LINES - len(head) - 1)]
    for line in lines:
        say(shorten(printable(line), width))
    found = Counter(finding.rank for finding in checkup.findings)
    say(
        f"{found['error']} to decide, {found['warning']} warnings, {found['note']} notes"
        if checkup.findings
        else "nothing was found"
    )


def finding_lines(findings: list[Finding], most: int) -> list[str]:
    """Return about so many lines: errors first, as many as can be with an example and a fix, then the lesser ranks.

    What has no room for a line of its own is named in one line for all of its rank.
    """
    ranked = [[finding for finding in findings if finding.rank == rank] for rank in ("error", "warning", "note")]
    lines: list[str] = []
    for place, group in enumerate(ranked):
        room = most - len(lines) - sum(map(bool, ranked[place + 1 :]))  # a line is kept for each lesser rank
        shown = len(group) if len(group) <= room else max(0, room - 1)
        spare = room - len(group)
        for finding in group[:shown]:
            about = [f"e.g. {example}" for example in finding.examples[:1]]
            about += [f"fix: {finding.fix}"] if finding.rank != "note" and spare >= 2 * shown else []
            about = about[: max(0, spare)]
            spare -= len(about)
            lines += [_headline(finding), *(f"{'':16}{line}" for line in about)]
        if shown < len(group):
            lines.append(f"{group[0].rank}s: {', '.join(f'{one.code} {one.count:,}' for one in group[shown:])}")
    return lines


def _headline(finding: Finding) -> str:
    return f"{finding.rank:<8} {finding.count:>5,}  {finding.code}: {finding.what}"


def shorten(line: str, width: int) -> str:
    """Cut a line to the columns of a terminal."""
    if cell_width(line) <= width:
        return line
    while cell_width(line) >= width:
        line = line[:-1]
    return line + "…"


check = make_command(
    "check",
    _check,
    [
        argument("target", "DIR", "A folder, table, archive, parquet or .npz file of pictures."),
        *settings_flags(CheckSettings),
    ],
    "Look at every picture: what cannot be read, is there twice, leaks into the test or has two classes.",
    "Ends with 3 where a person must decide something. No picture is changed.",
)
