"""Curves that redraw themselves in a notebook while a net is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from striate.report.plots import Rows, Steps, curves_png


class LiveCurves:
    """Redraws the curves of a run in one place below a notebook's cell.

    Outside a notebook it draws nothing and says so once, through `report` (default: a line to stderr).
    """

    def __init__(self, title: str = "", report: Callable[[str], None] | None = None) -> None:
        self.title = title
        self._report = report if report is not None else _to_stderr
        self._handle: Any = None
        self._told = False

    def update(self, steps: Steps, results: Rows) -> None:
        """Draw the curves anew; the arguments are those of `striate.report.plots.curves`."""
        if not in_notebook():
            if not self._told:
                self._report("live curves need a notebook: open curves.png in the run's folder instead")
                self._told = True
            return
        from IPython.display import Image, display

        picture = Image(data=curves_png(steps, results, self.title), format="png")
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def in_notebook() -> bool:
    """Tell whether the code runs in a notebook's kernel; IPython in a terminal cannot show pictures."""
    if "IPython" not in sys.modules:  # a kernel has imported it long before; importing it here would cost a second
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
