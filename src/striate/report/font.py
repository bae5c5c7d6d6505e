"""The font of the pictures: DejaVu Sans, and for Chinese and Japanese the small font that ships beside this file."""

from __future__ import annotations

import threading
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

FONT_FILE = Path(__file__).with_name("striate-cjk.ttf")  # its origin and licence: FONT.txt, FONT-LICENSE.txt
FONT_NAME = "Striate CJK"

_registering = threading.Lock()


def families() -> list[str]:
    """Return the font families to give to a text, the packaged one last, making it known to matplotlib if need be.

    matplotlib takes each character from the first family that has it.
    """
    with _registering:
        if not any(entry.name == FONT_NAME for entry in font_manager.fontManager.ttflist):
            font_manager.fontManager.addfont(FONT_FILE)
    return ["DejaVu Sans", FONT_NAME]


def dress(figure: Figure) -> None:
    """Give every text of a figure the families, and let it show its characters as they are.

    Set on the texts and not in matplotlib's global settings, which other threads and the user's own plots share. A
    dollar sign in a class name is a dollar sign: no formula is read from it.
    """
    names = families()
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_fontfamily(names)
            text.set_parse_math(False)
            text.set_usetex(False)
