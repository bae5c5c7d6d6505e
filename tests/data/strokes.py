"""The digits 0 to 9 as one draws them: polylines, points (across, down) in a box from 0 to 1, and a pen for them."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw


def arc(middle: tuple[float, float], radii: tuple[float, float], start: float, end: float) -> list[tuple[float, float]]:
    """Return points of an ellipse from one angle to another, in degrees; 0 is right, 90 is down."""
    steps = max(6, round(abs(end - start) / 12))
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(middle[0] + radii[0] * math.cos(a), middle[1] + radii[1] * math.sin(a)) for a in angles]


STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [arc((0.5, 0.5), (0.3, 0.48), -80, 280)],
    1: [[(0.5, 0.02), (0.48, 0.5), (0.46, 0.98)]],
    2: [[*arc((0.48, 0.28), (0.28, 0.26), 190, 390), (0.22, 0.96), (0.8, 0.94)]],
    3: [[*arc((0.46, 0.26), (0.28, 0.24), 200, 440), *arc((0.46, 0.74), (0.32, 0.24), 280, 520)]],
    4: [[(0.6, 0.02), (0.18, 0.62), (0.84, 0.6)], [(0.64, 0.34), (0.6, 0.98)]],
    5: [[(0.3, 0.04), (0.26, 0.44), *arc((0.46, 0.68), (0.3, 0.29), 235, 500)], [(0.3, 0.04), (0.76, 0.03)]],
    6: [[(0.64, 0.02), (0.36, 0.36), *arc((0.5, 0.7), (0.26, 0.28), 200, 560)]],
    7: [[(0.18, 0.06), (0.8, 0.04), (0.56, 0.46), (0.42, 0.98)]],
    8: [[*arc((0.5, 0.26), (0.22, 0.24), 90, 450), *arc((0.5, 0.74), (0.27, 0.24), 270, 630)]],
    9: [[*arc((0.48, 0.3), (0.26, 0.28), 0, -360), (0.72, 0.62), (0.6, 0.98)]],
}


def draw(
    digit: int,
    side: int = 280,
    pen: float = 0.08,
    *,
    box: tuple[float, float, float, float] = (0.2, 0.15, 0.8, 0.85),
    ink: str | tuple[int, ...] = "black",
    paper: str | tuple[int, ...] = "white",
    mode: str = "RGB",
) -> Image.Image:
    """Draw a digit into `box` (shares of the side) with a round pen of `pen` sides width, its edges gray."""
    image = Image.new(mode, (side * 4, side * 4), paper)
    write(image, digit, tuple(edge * side * 4 for edge in box), max(4.0, pen * side * 4), ink)  # type: ignore[arg-type]
    return image.resize((side, side), Image.Resampling.BOX)


def write(
    image: Image.Image, digit: int, box: tuple[float, float, float, float], pen: float, ink: str | tuple[int, ...]
) -> None:
    """Draw a digit into a box (left, top, right, bottom) of an image."""
    left, top, right, bottom = box
    canvas, radius = ImageDraw.Draw(image), pen / 2
    for line in STROKES[digit]:
        points = [(left + x * (right - left), top + y * (bottom - top)) for x, y in line]
        canvas.line(points, fill=ink, width=max(1, round(pen)), joint="curve")
        for x, y in (points[0], points[-1]):
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
