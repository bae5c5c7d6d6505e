"""Class folders: one walk over a folder finds the pictures in it, and their place in the tree gives label and split.

A file is a picture by its first bytes, whatever its name. The walk never waits for a pipe, never follows a link out of
the root unless told to, and ends on loops. What it passes over is listed with a reason.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from striate.data.formats import guess, recognise
from striate.data.opening import printable
from striate.data.records import SPLITS, FilePlace, LeftOut, Place, Record, class_name, few, storable
from striate.errors import DataError

Parts = tuple[str, ...]

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
# What people take for pictures: a file with such a name that is none is worth telling, another is not.
_PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".jp2", ".svg", ".ico", ".psd",
)  # fmt: skip
_SYSTEM_NAMES = {
    ".ipynb_checkpoints": "a notebook's hidden copies",
    "__macosx": "macOS's notes in an archive",
    ".ds_store": "macOS's notes on a folder",
    "thumbs.db": "Windows' small pictures of a folder",
    "desktop.ini": "Windows' notes on a folder",
}
_RUN_FILES = frozenset({"config.yaml", "command.txt"})
_HEAD = 32  # bytes that tell a picture
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes


@dataclass
class Gathered:
    """What lies in a folder or an archive, each with the parts of its path from the top.

    `folders` has the number of entries in each; `tables` only those at the top; `runs` are folders of trainings.
    `prefix` is what people see before a path.
    """

    prefix: str = ""
    pictures: list[tuple[Parts, Place]] = field(default_factory=list)
    folders: dict[Parts, int] = field(default_factory=dict)
    runs: list[Parts] = field(default_factory=list)
    tables: list[tuple[Parts, Place]] = field(default_factory=list)
    parquet: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def shown(self, parts: Parts) -> str:
        """Return the path as records have it."""
        return storable(self.prefix + "/".join(parts)) or "."

    def leave(self, parts: Parts, code: str, reason: str) -> None:
        """Note something that is passed over."""
        self.left_out.append(LeftOut(self.shown(parts), code, reason))


def hidden(name: str) -> str | None:
    """Say why a file or folder of this name is passed over unseen, None where it is not."""
    if name.lower() in _SYSTEM_NAMES:
        return _SYSTEM_NAMES[name.lower()]
    if name.startswith("._"):
        return "macOS's notes on a file"
    return "its name begins with a dot" if name.startswith(".") else None


def is_run_folder(names: Iterable[str]) -> bool:
    """Say whether a folder with these entries is the folder of a training run."""
    names = set(names)
    return names >= _RUN_FILES and not names.isdisjoint({"model.json", "status.json"})


def no_picture(start: bytes, name: str) -> tuple[str, str] | None:
    """Return None for the first bytes of a picture, else a code and a reason."""
    form, named_so = recognise(start), name.lower().endswith(_PICTURE_ENDINGS)
    # Two letters begin a BMP, and many a text; the size of its second header tells them apart.
    if form == "BMP" and not named_so and int.from_bytes(start[14:18], "little") not in _BMP_HEADERS:
        form = None
    if form is not None:
        return None
    return "not-a-picture" if named_so else "other-file", f"it {guess(start)}" if start else "it is empty"


def probe(path: str) -> tuple[str, str] | None:
    """Look at a file's first bytes: None where they are a picture's, else a code and a reason. Never raises."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags)
        try:
            start = os.read(number, _HEAD)
        finally:
            os.close(number)
    except (OSError, ValueError) as error:
        return told(error)
    return no_picture(start, path)


def told(error: OSError | ValueError) -> tuple[str, str]:
    """Return the code and the reason of an error of the file system."""
    if isinstance(error, PermissionError):
        return "no-permission", "permission is denied"
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "missing-file", "there is no such file"
    return "unreadable", (getattr(error, "strerror", None) or str(error)).lower()


def special_kind(mode: int) -> str:
    """Name what is neither a file nor a folder."""
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def walk_folder(root: Path, follow_links: bool = False) -> Gathered:
    """Find all that lies under `root`, a folder. Raises DataError where `root` itself cannot be listed."""
    walk = _Walk(os.path.realpath(root), follow_links)
    walk.run()
    if walk.failure is not None:
        raise DataError(
            f"{printable(str(root))} cannot be listed", told(walk.failure)[1], "check the name and the rights"
        ) from walk.failure
    return walk.found


@dataclass
class _Folder:
    """A folder to be listed: its path as reached, its real path, and the real paths of where links were crossed."""

    path: str
    real: str
    parts: Parts
    crossed: Parts = ()


class _Walk:
    def __init__(self, root: str, follow_links: bool) -> None:
        self.root, self.follow_links = root, follow_links
        self.found = Gathered()
        self.failure: OSError | None = None
        self._waiting = [_Folder(root, root, ())]
        self._linked: set[str] = set()  # real paths of folders reached through a link; each is walked once

    def run(self) -> None:
        while self._waiting:
            folder = self._waiting.pop()
            try:
                with os.scandir(folder.path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                if not folder.parts:
                    self.failure = error
                self.found.leave(folder.parts, *told(error))
                continue
            if is_run_folder(entry.name for entry in entries):
                self.found.runs.append(folder.parts)
                continue
            self.found.folders[folder.parts] = len(entries)
            for entry in entries:
                self._see(folder, entry)

    def _see(self, folder: _Folder, entry: os.DirEntry[str]) -> None:
        parts = (*folder.parts, entry.name)
        if reason := hidden(entry.name):
            self.found.leave(parts, "hidden", reason)
        elif entry.is_symlink():
            self._see_link(folder, entry.path, parts)
        elif entry.is_dir(follow_symlinks=False):
            self._waiting.append(_Folder(entry.path, os.path.join(folder.real, entry.name), parts, folder.crossed))
        elif entry.is_file(follow_symlinks=False):
            self._see_file(entry.path, parts)
        else:
            try:
                kind = special_kind(os.lstat(entry.path).st_mode)
            except OSError as error:
                self.found.leave(parts, *told(error))
            else:
                self.found.leave(parts, "special-file", f"it is {kind}")

    def _see_file(self, path: str, parts: Parts) -> None:
        problem = probe(path)
        if problem is None:
            self.found.pictures.append((parts, FilePlace(Path(path))))
            return
        if len(parts) == 1 and path.lower().endswith(TABLE_ENDINGS):
            self.found.tables.append((parts, FilePlace(Path(path))))
        if path.lower().endswith(".parquet"):
            self.found.parquet.append(Path(path))
        self.found.leave(parts, *problem)

    def _see_link(self, folder: _Folder, path: str, parts: Parts) -> None:
        problem, real, mode = follow_link(path, self.root, self.follow_links)
        if problem is not None:
            self.found.leave(parts, *problem)
        elif stat.S_ISREG(mode):
            self._see_file(path, parts)
        elif not stat.S_ISDIR(mode):
            self.found.leave(parts, "special-file", f"it is a link to {special_kind(mode)}")
        elif any(f"{here}{os.sep}".startswith(_with_separator(real)) for here in (folder.real, *folder.crossed)):
            self.found.leave(parts, "link-loop", "it is a link to a folder that it lies in")
        elif real in self._linked:
            self.found.leave(parts, "linked-twice", "another link to the same folder was followed")
        else:
            self._linked.add(real)
            self._waiting.append(_Folder(path, real, parts, (*folder.crossed, folder.real)))


def follow_link(path: str, root: str, follow_links: bool) -> tuple[tuple[str, str] | None, str, int]:
    """Find where a path with links leads: a code and reason where it must not be followed, its real path, its mode.

    `root` is a real path; beyond it no link is followed unless `follow_links`.
    """
    try:
        real = os.path.realpath(path, strict=True)
        mode = os.stat(real).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ("dangling-link", "it is a link to nothing"), "", 0
    except OSError as error:
        circle = error.errno == errno.ELOOP
        return ("link-loop", "its links lead round in a circle") if circle else told(error), "", 0
    if not follow_links and not is_inside(real, root):
        return ("outside-root", "it is a link that leads out of the folder; --follow-links follows it"), "", 0
    return None, real, mode


def is_inside(real: str, root: str) -> bool:
    """Say whether a real path is `root` or lies under it."""
    return real == root or real.startswith(_with_separator(root))


def _with_separator(path: str) -> str:
    return path if path.endswith(os.sep) else path + os.sep


def arrange(found: Gathered, title: str) -> tuple[list[Record], list[str]]:
    """Turn pictures in a tree into records, by source, and notes; what has no class is added to `found.left_out`.

    A picture's class is the first folder below the top, or below a split's folder, however deep it lies there. Folders
    named train, val (valid, validation) and test, in any case, are splits if they hold class folders; then other
    folders beside them are left out. Where pictures lie directly in such a folder and others stand beside it, it is a
    class. Raises DataError where a split folder other than train stands among class folders.
    """
    notes: list[str] = []
    splits = _find_splits(found, title, notes)
    depth = 1 if splits else 0
    records, nested, spellings = [], Counter[str](), dict[str, set[str]]()
    for parts, place in found.pictures:
        if splits and len(parts) > 1 and parts[0] not in splits:
            continue  # told once, for its folder
        if len(parts) < depth + 2:
            found.leave(parts, "misplaced", "it lies in no class folder")
            continue
        label = class_name(parts[depth])
        nested[label] += len(parts) > depth + 2
        spellings.setdefault(label, set()).add(parts[depth])
        records.append(Record(found.shown(parts), label, place, splits.get(parts[0])))
    _note_empty(found)
    if deeper := sorted(label for label, count in nested.items() if count):
        notes.append(f"pictures in folders inside a class folder count to that class: {few(deeper)}")
    notes += [
        f"the folders called {few([label])} differ only in how Unicode writes them: they are one class"
        for label in sorted(spellings)
        if len({storable(name) for name in spellings[label]}) > 1
    ]
    return sorted(records, key=lambda record: record.source), notes


def _find_splits(found: Gathered, title: str, notes: list[str]) -> dict[str, str]:
    """Return which of the folders at the top are splits, as {name: split}."""
    directly, deeper = Counter[str](), Counter[str]()
    for parts, _ in found.pictures:
        if len(parts) > 1:
            (deeper if len(parts) > 2 else directly)[parts[0]] += 1
    tops = sorted(directly.keys() | deeper.keys())
    splits = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    others = [top for top in tops if top not in splits]
    if not splits:
        return {}
    if others and not any(deeper[top] for top in splits):
        notes.append(f"{few(list(splits))} stands among class folders and holds pictures directly: taken as a class")
        return {}
    if others and "train" not in splits.values():
        raise DataError(
            f"{title} holds {few(list(splits))} next to {few(others)}",
            "the first is named as a split; the others are then no train pictures, and there is no folder train",
            f"move {few(others)} into a folder train, or rename {few(list(splits))}",
        )
    for top in others:
        found.leave(
            (top,),
            "beside-split",
            f"it stands next to {few(list(splits))} and is no split: its {directly[top] + deeper[top]:,} pictures are"
            " not used",
        )
    for split in sorted(set(splits.values())):
        same = [top for top in splits if splits[top] == split]
        if len(same) > 1:
            notes.append(f"{few(same)} are read together as {split}")
    return splits


def _note_empty(found: Gathered) -> None:
    """List the folders of trainings, and those that hold no picture; of folders in each other the uppermost only."""
    for parts in found.runs:
        found.leave(parts, "run-folder", "it is the folder of a training run")
    told_of = {parts[:depth] for parts, _ in found.pictures for depth in range(len(parts))}
    told_of |= {parts[:depth] for parts in found.runs for depth in range(len(parts) + 1)}
    empty: set[Parts] = set()
    for parts in sorted(found.folders.keys() - told_of):
        if not any(parts[:depth] in empty for depth in range(1, len(parts))):
            empty.add(parts)
            reason = "it holds no picture" if found.folders[parts] else "it is empty"
            found.leave(parts, "empty-folder", reason)
