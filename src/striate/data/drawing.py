"""Drawings of one's own for a net trained on drawings: from any picture of a digit to what its training pictures are.

Polarity, paper, shadow, frames, specks, the pen and the place are brought to the net's `DrawingStyle`, step by step.
Each step can be left out and tells what it did. A picture that is already as the training pictures are stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from striate.data.ink import (
    STRONG,
    WEAK,
    Levels,
    Marks,
    Pieces,
    find_ink,
    find_pieces,
    highest,
    is_dark_on_light,
    reduced,
)
from striate.data.pen import resized, thickened, thinned
from striate.data.preprocess import Pixels, over_white, to_channels
from striate.data.style import INK, DrawingStyle
from striate.errors import unknown_name

#: The steps in their order; `alpha` happens while the picture is decoded.
STEPS = ("alpha", "colour", "polarity", "paper", "frame", "specks", "crop", "thicken", "thin", "scale", "centre")

Box = tuple[int, int, int, int]

# Pictures are worked on at this many pixels of the longer side.
_WORKING = 1_000
# A frame lies in this outer share of the picture, and is a line of ink over most of it.
_BAND, _LINE, _SPAN = 0.12, 0.85, 0.6
# Specks are smaller than these shares of the largest piece; those that touch the border may be larger.
_SPECK_AREA, _SPECK_SIDE, _BORDER_SPECK = 0.02, 0.12, 0.15
# Pieces of one digit lie above each other, and nearer than this share of its height.
_OVERLAP, _GAP = 0.5, 0.35
_LUMA = np.array([0.299, 0.587, 0.114])
_PLAIN_IN_GRAY = 0.35
# A canvas shows ink alone where less than this share of what is opaque lies so far from the rest, in levels of 0–255.
_PLAIN_ALPHA, _OTHER_LEVEL, _LOOKED_AT = 0.002, 60, 500


@dataclass(frozen=True)
class Redrawn:
    """A picture uint8 (H, W, 1) as the net sees it, what was done to it, and where in the given one it was found."""

    picture: Pixels
    steps: tuple[str, ...]
    box: Box | None = None


@dataclass
class _Sheet:
    """A picture on its way: ink 0–1 (h, w), its pieces, how much smaller it is than the given one, what was done."""

    ink: Levels
    scale: float
    skip: frozenset[str]
    steps: list[str] = field(default_factory=list)

    def wants(self, step: str) -> bool:
        return step not in self.skip


def check_steps(names: Iterable[str]) -> frozenset[str]:
    """Return the names of steps as a set; `all` is every step. Raises UsageError for one that is not known."""
    chosen = frozenset(names)
    for name in sorted(chosen - {*STEPS, "all"}):
        raise unknown_name("step", name, (*STEPS, "all"))
    return frozenset(STEPS) if "all" in chosen else chosen


def redraw(
    pixels: Pixels, style: DrawingStyle, size: tuple[int, int], skip: frozenset[str] = frozenset()
) -> list[Redrawn]:
    """Bring a picture uint8 (H, W, 1 or 3) of one digit or symbol to the style and size (height, width) of a net.

    Returns the one; where no ink is found it is empty, and its steps say so.
    """
    sheet = _read(pixels, style, skip)
    pieces = _clean(sheet)
    kept = _kept(sheet, pieces, range(len(pieces.areas)))
    box = _box_of(kept > INK)
    if box is None:
        return [Redrawn(_blank(style, size), (*sheet.steps, "no ink found"))]
    return [_finish(sheet, kept, box, style, size)]


def separate_digits(
    pixels: Pixels, style: DrawingStyle, size: tuple[int, int], skip: frozenset[str] = frozenset()
) -> list[Redrawn]:
    """Find the digits in a picture and bring each to the style of the net: lines from above, each from left to right.

    Digits that touch each other are one. Returns nothing where no ink is found.
    """
    sheet = _read(pixels, style, skip)
    pieces = _clean(sheet)
    found = []
    for members in _in_order(pieces, _grouped(pieces)):
        kept = _kept(sheet, pieces, members)
        box = _box_of(kept > INK)
        if box is not None:
            found.append(_finish(sheet, kept, box, style, size))
    return found


def over_contrast(images: Pixels) -> Pixels:
    """Lay pictures uint8 (…, C + 1), whose last channel is alpha, over what their ink stands out from.

    White, as everywhere, but black where all that is drawn is light; and where paper is drawn too, over that paper.
    """
    side = max(1, max(images.shape[:2]) // _LOOKED_AT)
    some = images[::side, ::side]
    drawn = some[some[..., -1] > 127][:, :-1]
    if drawn.size == 0:
        return over_white(images)
    luma = drawn.mean(axis=1)
    usual = float(np.median(luma))
    plain = float((np.abs(luma - usual) > _OTHER_LEVEL).mean()) < _PLAIN_ALPHA
    if (usual > 127) != plain:
        return over_white(images)
    negative = images.copy()
    negative[..., :-1] = 255 - images[..., :-1]
    return 255 - over_white(negative)


def inverted(dark: bool) -> str:
    """Say that a picture with dark or light ink was inverted."""
    return f"inverted: the ink is {'dark' if dark else 'light'}"


def _read(pixels: Pixels, style: DrawingStyle, skip: frozenset[str]) -> _Sheet:
    """Find the ink: colour, polarity, paper."""
    steps: list[str] = []
    longest = max(pixels.shape[:2])
    gray, told = _gray(pixels, "colour" not in skip)
    steps += told
    levels = reduced(gray, _WORKING)
    dark = is_dark_on_light(levels) if "polarity" not in skip else style.ground == 255
    if dark != (style.ground == 255):
        steps.append(inverted(dark))
    found = find_ink(levels if dark else 1 - levels, follow="paper" not in skip)
    if found.uneven:
        steps.append("paper evened: its level changes from place to place")
    if found.noise > 0.02:
        steps.append("noise of the paper removed")
    return _Sheet(found.amount, max(levels.shape) / longest, skip, steps)


def _gray(pixels: Pixels, by_contrast: bool) -> tuple[Levels, list[str]]:
    """Return levels 0–1 (H, W): the luma, or where ink and paper differ in colour alone, along that difference."""
    if pixels.shape[2] == 1:
        return pixels[..., 0].astype(np.float32) / np.float32(255), []
    side = max(1, max(pixels.shape[:2]) // 128)
    some = pixels[::side, ::side].reshape(-1, 3).astype(np.float64)
    spread = np.cov(some.T) if len(some) > 1 else np.zeros((3, 3))
    strengths, axes = np.linalg.eigh(spread)
    along_luma = float(_LUMA @ spread @ _LUMA) / float(_LUMA @ _LUMA)
    if by_contrast and along_luma < _PLAIN_IN_GRAY**2 * strengths[-1]:
        axis = axes[:, -1] / np.abs(axes[:, -1]).sum()
        axis = (axis if axis @ _LUMA >= 0 else -axis).astype(np.float32)
        levels = pixels.astype(np.float32) @ axis / np.float32(255) - min(0.0, float(axis[axis < 0].sum()))
        return levels.astype(np.float32), ["ink told from paper by its colour"]
    return to_channels(pixels, 1)[..., 0].astype(np.float32) / np.float32(255), []


def _clean(sheet: _Sheet) -> Pieces:
    """Find the pieces of ink and drop frame and specks; `sheet.ink` keeps what is near the rest."""
    if sheet.wants("frame") and _cut_frame(sheet.ink):
        sheet.steps.append("frame removed")
    pieces = find_pieces(sheet.ink > WEAK)
    strong = np.zeros(len(pieces.areas) + 1, bool)
    strong[pieces.labels[sheet.ink > STRONG]] = True
    keep = strong[1:]
    if sheet.wants("frame"):
        edges = keep & _at_the_rim(pieces, sheet.ink.shape)
        if edges.any() and not np.array_equal(edges, keep):
            keep = keep & ~edges
            sheet.steps.append("lines at the border removed")
    if sheet.wants("specks") and keep.any():
        specks = keep & _specks(pieces, keep)
        if specks.any():
            keep = keep & ~specks
            sheet.steps.append(f"specks removed: {int(specks.sum())}")
    return _chosen(pieces, keep)


def _cut_frame(ink: Levels) -> bool:
    """Blank a frame of lines along all four sides, whether a digit touches it or not; say whether there was one."""
    marks = ink > STRONG
    cuts = []
    for view in (marks, marks[::-1], marks.T, marks.T[::-1]):
        lines = view[: max(1, round(_BAND * len(view)))].mean(axis=1) > _LINE
        if not lines.any():
            return False
        first = int(lines.argmax())
        after = lines[first:]
        if after.all():  # it does not end within the band: paper or a stroke, no line
            return False
        cuts.append(first + int((~after).argmax()) + 1)
    top, bottom, left, right = cuts
    inner = ink[top : ink.shape[0] - bottom, left : ink.shape[1] - right].copy()
    if not (inner > STRONG).any():
        return False
    ink[:] = 0
    ink[top : ink.shape[0] - bottom, left : ink.shape[1] - right] = inner
    return True


def _at_the_rim(pieces: Pieces, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Say which pieces are lines along a side of the picture: long, near it, and touching it."""
    height, width = shape
    band = (max(1, round(_BAND * width)), max(1, round(_BAND * height)))
    outer = pieces.labels.copy()
    outer[band[1] : height - band[1], band[0] : width - band[0]] = 0
    inside = np.bincount(outer.reshape(-1), minlength=len(pieces.areas) + 1)[1:]
    left, top, right, bottom = pieces.boxes.T
    touches = (left == 0) | (top == 0) | (right == width) | (bottom == height)
    spans = (right - left > _SPAN * width) | (bottom - top > _SPAN * height)
    return touches & spans & (inside > 0.8 * pieces.areas)


def _specks(pieces: Pieces, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    left, top, right, bottom = pieces.boxes.T
    sides = np.maximum(right - left, bottom - top)
    largest = int(np.where(keep, pieces.areas, 0).argmax())
    small = (pieces.areas < _SPECK_AREA * pieces.areas[largest]) | (sides < _SPECK_SIDE * sides[largest])
    height, width = pieces.labels.shape
    touches = (left == 0) | (top == 0) | (right == width) | (bottom == height)
    small |= touches & (pieces.areas < _BORDER_SPECK * pieces.areas[largest])
    small[largest] = False
    return small


def _chosen(pieces: Pieces, keep: NDArray[np.bool_]) -> Pieces:
    names = np.zeros(len(keep) + 1, np.int32)
    names[1:][keep] = np.arange(1, int(keep.sum()) + 1)
    return Pieces(names[pieces.labels], pieces.areas[keep], pieces.boxes[keep])


def _kept(sheet: _Sheet, pieces: Pieces, members: Sequence[int]) -> Levels:
    """Return the ink of some pieces with their soft edges, and nothing else."""
    chosen = np.zeros(len(pieces.areas) + 1, np.float32)
    chosen[[member + 1 for member in members]] = 1
    reach = 2 * max(1, round(max(sheet.ink.shape) / 250)) + 1
    near = highest(chosen[pieces.labels], reach)
    others = (pieces.labels > 0) & (chosen[pieces.labels] == 0)
    return np.where((near > 0) & ~others, sheet.ink, np.float32(0))


def _grouped(pieces: Pieces) -> list[list[int]]:
    """Join the pieces that make one digit: such as lie above each other, with a small gap."""
    groups: list[tuple[list[int], list[int]]] = []
    for member in np.argsort(-pieces.areas):
        box = [int(side) for side in pieces.boxes[member]]
        for members, whole in groups:
            shared = min(box[2], whole[2]) - max(box[0], whole[0])
            gap = max(box[1], whole[1]) - min(box[3], whole[3])
            height = max(whole[3] - whole[1], box[3] - box[1])
            if shared > _OVERLAP * min(box[2] - box[0], whole[2] - whole[0]) and gap < _GAP * height:
                members.append(int(member))
                whole[:] = [min(box[0], whole[0]), min(box[1], whole[1]), max(box[2], whole[2]), max(box[3], whole[3])]
                break
        else:
            groups.append(([int(member)], box))
    return [members for members, _ in groups]


def _in_order(pieces: Pieces, groups: list[list[int]]) -> list[list[int]]:
    """Sort groups as one reads: in lines from above, from left to right in each."""
    boxes = {id(group): pieces.boxes[group] for group in groups}
    top = {key: int(box[:, 1].min()) for key, box in boxes.items()}
    bottom = {key: int(box[:, 3].max()) for key, box in boxes.items()}
    left = {key: int(box[:, 0].min()) for key, box in boxes.items()}
    lines: list[list[list[int]]] = []
    for group in sorted(groups, key=lambda one: top[id(one)] + bottom[id(one)]):
        middle = (top[id(group)] + bottom[id(group)]) / 2
        for line in lines:
            if top[id(line[0])] <= middle < bottom[id(line[0])]:
                line.append(group)
                break
        else:
            lines.append([group])
    return [group for line in lines for group in sorted(line, key=lambda one: left[id(one)])]


def _finish(sheet: _Sheet, kept: Levels, box: Box, style: DrawingStyle, size: tuple[int, int]) -> Redrawn:
    """Crop the ink of one digit, give it the usual strokes, scale and place it."""
    steps = list(sheet.steps)
    left, top, right, bottom = box
    given: Box = tuple(round(side / sheet.scale) for side in box)  # type: ignore[assignment]
    if sheet.wants("crop"):
        if (right - left, bottom - top) != kept.shape[::-1]:
            steps.append(f"cropped to {given[2] - given[0]}×{given[3] - given[1]} at {given[0]},{given[1]}")
        kept = kept[top:bottom, left:right]
    goal = style.box if sheet.wants("scale") else max(size)
    for step, change in (("thicken", thickened), ("thin", thinned)):
        if sheet.wants(step):
            kept, told = change(kept, style, goal)
            steps += told
    before = kept.shape
    small = _fitted(kept, goal, size)
    if small.shape != before:
        steps.append(f"scaled into {goal}×{goal}")
    picture, moved = _placed(small, style, size, centre=sheet.wants("centre"))
    if moved:
        steps.append(f"centred by {style.centring}")
    return Redrawn(picture, tuple(steps), given)


def _fitted(ink: Levels, goal: int, size: tuple[int, int]) -> Levels:
    """Scale ink so that its longer side is the box, its shape kept, and it fits the picture."""
    height, width = ink.shape
    scale = min(goal / max(height, width), size[0] / height, size[1] / width)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    return ink if shape == ink.shape else np.clip(resized(ink, shape), 0, 1)


def _placed(ink: Levels, style: DrawingStyle, size: tuple[int, int], *, centre: bool) -> tuple[Pixels, bool]:
    """Put ink into a picture (height, width, 1); say whether it lies elsewhere than in the middle."""
    height, width = ink.shape
    middle = [(size[0] - height) / 2, (size[1] - width) / 2]
    place = list(middle)
    if centre:
        place = [middle[0] + style.centre[0], middle[1] + style.centre[1]]
        if style.centring == "mass":
            total = max(float(ink.sum()), 1e-6)
            place[0] -= float(ink.sum(axis=1) @ (np.arange(height) + 0.5)) / total - height / 2
            place[1] -= float(ink.sum(axis=0) @ (np.arange(width) + 0.5)) / total - width / 2
    top = min(max(round(place[0]), 0), size[0] - height)
    left = min(max(round(place[1]), 0), size[1] - width)
    levels = np.rint(ink * 255).astype(np.uint8)
    picture = _blank(style, size)
    picture[top : top + height, left : left + width, 0] = levels if style.ground == 0 else 255 - levels
    return picture, centre and (top, left) != (round(middle[0]), round(middle[1]))


def _blank(style: DrawingStyle, size: tuple[int, int]) -> Pixels:
    return np.full((*size, 1), style.ground, np.uint8)


def _box_of(marks: Marks) -> Box | None:
    rows, columns = np.flatnonzero(marks.any(axis=1)), np.flatnonzero(marks.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
