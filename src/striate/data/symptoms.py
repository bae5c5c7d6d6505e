"""What is wrong with the files, folders, names and classes of a source: findings from records, headers and notes."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from striate.data.findings import KINDS, Finding, finding
from striate.data.fixes import FIXES_NAME
from striate.data.loading import Header
from striate.data.records import LeftOut, Record, class_name, class_order
from striate.errors import DataError

Labels = Sequence[str | None]
Headers = Sequence[Header | DataError]

TINY = 10  # pictures in a class
RARE = 0.01  # share of the pictures that a rare format has
UNEVEN = 5  # times as many pictures in the commonest class as in the rarest
_AREAS, _ASPECTS = 8.0, 2.5  # times the median that a picture's area or aspect may be
_USUAL = 5.0  # or so many times the usual distance from it, whichever is more

ENDINGS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif", "mpo"),
    "PNG": ("png", "apng"),
    "BMP": ("bmp", "dib"),
    "GIF": ("gif",),
    "WEBP": ("webp",),
    "TIFF": ("tif", "tiff"),
}
_SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "evaluation")
# What the decoder notes → the finding that collects it.
_NOTES = (
    ("turned upright", "sideways"),
    ("EXIF block damaged", "damaged-exif"),
    ("bits scaled to 8", "deep"),
    ("32-bit values", "deep"),
    ("alpha over white", "alpha"),
    ("to RGB", "colour-space"),
    ("first frame", "animated"),
)


def left_out_findings(left_out: Iterable[LeftOut]) -> Iterator[Finding]:
    """Yield a finding for each code of what a source left out; the fixes file itself is none."""
    by_code: dict[str, list[LeftOut]] = defaultdict(list)
    for left in left_out:
        if left.source.rpartition("/")[2] != FIXES_NAME:
            by_code[left.code if left.code in KINDS else "left-out"].append(left)
    for code, found in by_code.items():
        if code != "unreadable":  # told with the pictures that cannot be decoded
            yield finding(code, [left.source for left in found], reasons=[left.reason for left in found])


def unreadable_finding(
    records: Sequence[Record], failures: Mapping[int, DataError], left_out: Iterable[LeftOut]
) -> Finding:
    """Build the finding of files that cannot be decoded, or not be read."""
    reasons = {left.source: left.reason for left in left_out if left.code == "unreadable"}
    reasons |= {records[index].source: _why(error, records[index].source) for index, error in failures.items()}
    return finding("unreadable", sorted(reasons), reasons=[reasons[source] for source in sorted(reasons)])


def name_findings(records: Sequence[Record], labels: Labels) -> Iterator[Finding]:
    """Yield findings about the names of classes and folders."""
    counts = Counter(label for label in labels if label is not None)
    classes = class_order(counts)
    yield finding("misnamed-folder", [repr(name) for name in classes if _is_misnamed(name)])
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[_folded(name)].append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    yield finding("similar-classes", [name for names in groups for name in names], groups=groups, joined_by=" ~ ")
    nested = {label for record, label in zip(records, labels, strict=True) if record.source.count("/") > 1}
    tops = {record.source.split("/")[0] for record in records}
    meant = [(name, _split_meant(name)) for name in classes if name in nested and name in tops]
    found = [(name, split) for name, split in meant if split]
    yield finding("split-name", [name for name, _ in found], reasons=[f"is {split} meant?" for _, split in found])
    spellings: dict[str, set[str]] = defaultdict(set)
    for record, label in zip(records, labels, strict=True):
        for part in record.source.split("/")[:-1]:
            if label is not None and class_name(part) == label:
                spellings[label].add(part)
    yield finding("unicode-names", [label for label in classes if len(spellings[label]) > 1])


def class_findings(labels: Labels, splits: Sequence[str | None], good: Sequence[int]) -> Iterator[Finding]:
    """Yield findings about the number of pictures in each class; `good` are the pictures that can be decoded."""
    classes = class_order({label for label in labels if label is not None})
    if len(classes) < 2:
        yield finding("single-class", classes or ["no class"])
    readable = Counter(labels[index] for index in good)
    few = [name for name in classes if readable[name] < TINY]
    yield finding("tiny-class", few, reasons=[_pictures(readable[name]) for name in few])
    trained = Counter(labels[index] for index in good if splits[index] in (None, "train"))
    by_size = sorted((name for name in classes if trained[name]), key=lambda name: -trained[name])
    if by_size and trained[by_size[0]] > UNEVEN * trained[by_size[-1]]:
        ends = [by_size[0], by_size[-1]]
        yield finding("imbalance", ends, reasons=[_pictures(trained[name]) for name in ends])
    stated = {split for split in splits if split is not None}
    if "train" not in stated:
        return
    untrained = [name for name in classes if not trained[name]]
    yield finding("untrained-class", untrained)
    missing: dict[str, list[str]] = defaultdict(list)
    for split in sorted(stated - {"train"}):
        here = {label for label, of in zip(labels, splits, strict=True) if of == split}
        for name in classes:
            if name not in here and trained[name]:
                missing[name].append(split)
    reasons = [f"not in {' and '.join(absent)}" for absent in missing.values()]
    yield finding("untested-class", missing, reasons=reasons)


def header_findings(records: Sequence[Record], headers: Headers) -> Iterator[Finding]:
    """Yield findings about names, sizes, shapes and channels of pictures."""
    known = [
        (record.source, header) for record, header in zip(records, headers, strict=True) if isinstance(header, Header)
    ]
    wrong = [(source, header.format) for source, header in known if _misnamed_as(source, header.format)]
    yield finding("wrong-extension", [source for source, _ in wrong], reasons=[f"it is a {form}" for _, form in wrong])
    sizes = [f"{header.width}×{header.height}" for _, header in known]
    measures: dict[str, tuple[Callable[[Header], float], float]] = {
        "odd-size": (lambda header: header.width * header.height, _AREAS),
        "odd-shape": (lambda header: header.width / header.height, _ASPECTS),
    }
    for code, (measure, factor) in measures.items():
        odd = _far_from_the_rest(np.array([measure(header) for _, header in known]), factor)
        yield finding(code, [known[index][0] for index in odd], reasons=[sizes[index] for index in odd])
    forms = Counter(header.format for _, header in known)
    rare = [(source, header.format) for source, header in known if forms[header.format] <= RARE * len(known)]
    yield finding("odd-format", [source for source, _ in rare], reasons=[f"it is a {form}" for _, form in rare])
    gray = [source for source, header in known if header.channels == 1]
    colour = [source for source, header in known if header.channels != 1]
    if gray and colour:
        detail = f"{len(gray):,} gray, {len(colour):,} in colour"
        yield finding("mixed-channels", gray if len(gray) <= len(colour) else colour, detail=detail)


def note_findings(records: Sequence[Record], notes: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Yield findings from what the decoder did beside reading."""
    told: dict[str, dict[str, str]] = defaultdict(dict)
    for record, phrases in zip(records, notes, strict=True):
        for phrase in phrases:
            for part, code in _NOTES:
                if part in phrase:
                    told[code][record.source] = phrase
    for code, reasons in told.items():
        yield finding(code, reasons, reasons=list(reasons.values()))


def _why(error: DataError, source: str) -> str:
    what = error.what.removeprefix(source).lstrip(": ")
    return error.cause or what


def _is_misnamed(name: str) -> bool:
    return name != name.strip() or any(unicodedata.category(character) in ("Cc", "Cf") for character in name)


def _folded(name: str) -> str:
    """Return what of a class name is left when case, spaces, - and _, and the forms of Unicode do not count."""
    name = unicodedata.normalize("NFKC", name)
    visible = "".join(character for character in name if unicodedata.category(character) != "Cf")
    folded = unicodedata.normalize("NFKC", visible.casefold())
    return re.sub(r"[\s_-]+", " ", folded).strip()


def _split_meant(name: str) -> str | None:
    """Return the split's name that a folder's name is nearly, None where it is none or like none."""
    near = difflib.get_close_matches(name.casefold().strip(), _SPLIT_NAMES, n=1, cutoff=0.75)
    return near[0] if near else None


def _misnamed_as(source: str, form: str) -> bool:
    """Say whether a file's ending is that of something else; an ending with digits, as in page.12, is none."""
    stem, dot, ending = re.split(r"[/!]", source)[-1].rpartition(".")
    letters = ending.isascii() and ending.isalpha() and len(ending) <= 5
    return bool(stem and dot) and letters and form in ENDINGS and ending.lower() not in ENDINGS[form]


def _far_from_the_rest(values: np.ndarray[Any, Any], factor: float) -> list[int]:
    """Return the indices of values that are `factor` times off the median, and five times as far as is usual."""
    if len(values) < 3:
        return []
    distance = np.abs(np.log(values) - np.log(np.median(values)))
    limit = max(np.log(factor), _USUAL * float(np.median(distance)))
    return [int(index) for index in np.flatnonzero(distance > limit)]


def _pictures(count: int) -> str:
    return f"{count:,} {'picture' if count == 1 else 'pictures'}"
