"""Pictures inside zip and tar archives, found and read in place, member by member; nothing is unpacked.

Members that are links or devices, or whose names lead out of the archive, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from striate.data.folders import TABLE_ENDINGS, Gathered, Parts, hidden, is_run_folder, no_picture
from striate.data.opening import printable, reason
from striate.data.packed import DAMAGED, GET_AGAIN, Archive, Member
from striate.data.records import MOST_FILE_BYTES, SPLITS
from striate.errors import DataError

_HEAD = 32  # bytes that tell a picture


@dataclass(frozen=True, slots=True)
class MemberPlace:
    """A picture inside an archive."""

    archive: Archive
    member: Member

    @property
    def path(self) -> None:
        """There is no file of its own."""
        return None

    def read(self) -> bytes:
        """Return the member's bytes. Raises DataError naming it where it is damaged or too large."""
        size = self.member.size
        if size > MOST_FILE_BYTES:
            raise DataError(f"{self} has {size:,} bytes", "no picture file is that large", "leave it out")
        try:
            with self.archive.open(self.member) as stream:
                content = stream.read(size + 1)
        except DAMAGED as error:
            raise DataError(f"{self} cannot be read", reason(error), GET_AGAIN) from error
        if len(content) != size:
            raise DataError(f"{self} holds {len(content):,} bytes", f"the archive announces {size:,}", GET_AGAIN)
        return content

    def open(self) -> BinaryIO:
        """Return a stream of the member. Raises DataError where it cannot be opened."""
        try:
            return self.archive.open(self.member)
        except DAMAGED as error:
            raise DataError(f"{self} cannot be read", reason(error), GET_AGAIN) from error

    def __str__(self) -> str:
        return printable(f"{self.archive.path.name}!{'/'.join(self.member.parts)}")


def gather_members(archive: Archive) -> Gathered:
    """Find the pictures in an archive, told by content. Where all lies in one folder, paths count from that one.

    Of members of one name the last counts, as it would for who unpacks them. Raises DataError above the limits.
    """
    found = Gathered(prefix=f"{archive.path.name}!")
    told: set[Parts] = set()
    files: dict[Parts, Member] = {}
    entries: dict[Parts, set[str]] = {}  # what lies in each folder
    for member in archive.members():
        parts = member.parts
        if member.problem is not None:
            found.leave(parts, *member.problem)
            continue
        if _is_hidden(parts, found, told):
            continue
        for depth in range(len(parts)):
            entries.setdefault(parts[:depth], set()).add(parts[depth])
        if member.key is None:
            entries.setdefault(parts, set())
        else:
            if parts in files:
                found.leave(parts, "duplicate-member", "a later member has the same name")
            files[parts] = member
    found.folders = {parts: len(names) for parts, names in entries.items()}
    found.runs = [parts for parts, names in entries.items() if parts and is_run_folder(names)]
    runs = set(found.runs)
    for parts, member in files.items():
        if not any(parts[:depth] in runs for depth in range(len(parts))):
            _sort_out(archive, member, found)
    return _from_the_top(found)


def _is_hidden(parts: Parts, found: Gathered, told: set[Parts]) -> bool:
    """Say whether a member is hidden, or lies in a hidden folder; that one is then left out, once."""
    for depth, name in enumerate(parts, 1):
        if why := hidden(name):
            if parts[:depth] not in told:
                told.add(parts[:depth])
                found.leave(parts[:depth], "hidden", why)
            return True
    return False


def _sort_out(archive: Archive, member: Member, found: Gathered) -> None:
    """Put a member among the pictures or the tables, or leave it out."""
    name = member.parts[-1]
    place = MemberPlace(archive, member)
    try:
        with place.open() as stream:
            problem = no_picture(stream.read(_HEAD), name)
    except (DataError, *DAMAGED):
        problem = None  # it is damaged, which is told when it is read
    if problem is None:
        found.pictures.append((member.parts, place))
        return
    if name.lower().endswith(TABLE_ENDINGS):
        found.tables.append((member.parts, place))
    found.leave(member.parts, *problem)


def _from_the_top(found: Gathered) -> Gathered:
    """Let paths count from the folder that holds all, where there is one, and keep only the tables at the top.

    It must not be a split or a class itself: it holds pictures in folders only, or a table.
    """
    files = [parts for parts, _ in found.pictures + found.tables]
    tops = {parts[0] if len(parts) > 1 else "" for parts in files}
    top = tops.pop() if len(tops) == 1 else ""
    direct = any(len(parts) == 2 for parts, _ in found.pictures)
    inside = any(len(parts) == 2 for parts, _ in found.tables)
    if not top or top.lower() in SPLITS or (direct and not inside):
        found.tables = [table for table in found.tables if len(table[0]) == 1]
        return found
    found.prefix += f"{top}/"
    found.pictures = [(parts[1:], place) for parts, place in found.pictures]
    found.tables = [(parts[1:], place) for parts, place in found.tables if len(parts) == 2]
    found.folders = {parts[1:]: count for parts, count in found.folders.items() if parts[:1] == (top,)}
    found.runs = [parts[1:] for parts in found.runs if parts[:1] == (top,)]
    return found
