"""Where the verbs take pictures from: files, folders, stdin, and numbered pictures of a data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.cli.output import hint, printable
from striate.errors import DataError, UsageError
from striate.settings.verbs import PictureSettings, choose_indices

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """One picture to ask about: its name, what the predictor reads, and its true class where that is known."""

    name: str
    content: Any
    truth: str | None = None


def own_net(target: str | None) -> Any:
    """Return the class that `net.py:MyNet` names, or None."""
    if target is None:
        return None
    from striate.models.user import load_class

    return load_class(target)


def from_paths(paths: Sequence[str]) -> list[Source]:
    """Return the pictures that paths name; folders are walked, `-` is a picture on stdin.

    Raises UsageError where `-` is named twice, DataError where a folder holds no picture.
    """
    sources: list[Source] = []
    for path in _expanded(paths):
        if path == STDIN:
            if any(source.name == STDIN for source in sources):
                raise UsageError("- is named twice", "stdin holds one picture", "name it once")
            sources.append(Source(STDIN, sys.stdin.buffer.read()))
        elif os.path.isdir(path):
            sources.extend(Source(found, Path(found)) for found in walk(path))
        else:
            sources.append(Source(path, Path(path)))
    return sources


def walk(folder: str) -> list[str]:
    """Return the pictures under a folder, sorted by path; hidden files and folders are left out.

    A file counts as a picture by its suffix; one line tells how many others were passed over. Raises DataError where
    none is left.
    """
    from PIL import Image

    suffixes = set(Image.registered_extensions())
    found, others = [], 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in suffixes:
                found.append(os.path.join(parent, name))
            else:
                others += 1
    if others:
        told = "1 file that is no picture by its" if others == 1 else f"{others} files that are no pictures by their"
        hint(f"{printable(folder)}: passed over {told} suffix")
    if not found:
        raise DataError(f"{folder} holds no picture", "no file in it has a picture's suffix", "name the files")
    return sorted(found)


def from_data_set(settings: PictureSettings, runs: Sequence[str]) -> list[Source]:
    """Return the pictures that --data, --split and --index name.

    The numbers are those of the part as the data set's maker gives it. Where its maker gives no such part (digits has
    no test set), they count the pictures that the first of `runs` trained on this data set had set apart.
    """
    assert settings.data is not None and settings.index is not None
    parts = _parts(settings.data, settings, runs)
    name = parts.name
    if settings.split == "train" or getattr(parts, settings.split) is not None:
        part = parts.part(settings.split)
        chosen = choose_indices(settings.index, len(part), f"{name}/{settings.split}")
    else:
        part, indices = _set_apart(parts, settings.split, runs)
        numbers = choose_indices(settings.index, len(indices), f"the {settings.split} split of {name}")
        chosen = [int(indices[number]) for number in numbers]
    return [Source(part.source(number), part.images[number], part.classes[part.labels[number]]) for number in chosen]


def _parts(data: str, settings: PictureSettings, runs: Sequence[str]) -> Any:
    """Open a named data set, with class names in the language of the first of `runs`, or pictures of one's own."""
    from striate.data.builtin import find_named, load_named
    from striate.data.preprocess import Preprocess
    from striate.data.sources import looks_like_pictures
    from striate.runs.folder import open_run
    from striate.runs.model_file import read_card

    if _is_file(runs[0]) and looks_like_pictures(data):
        raise UsageError(f"{runs[0]} keeps no data", "its classes are known, its folders are not", f"name them: {data}")
    if _is_file(runs[0]):
        return load_named(find_named(data).name, settings.data_root, report=hint)

    from striate.training.material import open_data, open_other
    from striate.training.records import read_config

    folder = open_run(runs[0])
    config = read_config(folder)
    if settings.data_root is not None:
        config = config.model_copy(update={"data_root": settings.data_root})
    if looks_like_pictures(data) and config.data == str(Path(data).expanduser().absolute()):
        return open_data(config, hint).parts  # numbered as in the run, with its fixes
    card = read_card(folder.path)
    target = data if looks_like_pictures(data) else find_named(data).name
    return open_other(target, config, Preprocess.from_json(card.preprocess), tuple(card.classes), hint)


def _set_apart(parts: Any, split: str, runs: Sequence[str]) -> Any:
    from striate.data.split import Split
    from striate.runs.folder import open_run

    for run in (run for run in runs if not _is_file(run)):
        folder = open_run(run)
        if folder.read_json("data.json")["name"] == parts.name and not folder.read_json("data.json").get("given"):
            return Split.from_json(folder.read_json("split.json")).of(parts, split)
    raise DataError(
        f"{parts.name} has no part {split!r}",
        f"its maker gives none, and {runs[0]} does not say that it set one apart",
        "use --split train",
    )


def _is_file(run: str) -> bool:
    """Say whether a model is a file that `striate export` wrote, which keeps no data."""
    from striate.predictor.onnx_file import is_onnx
    from striate.runs.model_file import is_packed

    return is_onnx(run) or is_packed(run)


def _expanded(paths: Sequence[str]) -> list[str]:
    """Expand *.png where the shell does not: on Windows."""
    if os.name != "nt":
        return list(paths)
    import glob

    expanded: list[str] = []
    for path in paths:
        expanded.extend(sorted(glob.glob(path)) or [path] if not os.path.exists(path) else [path])
    return expanded
