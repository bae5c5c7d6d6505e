"""Live curves with a stand-in for IPython, and without one."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from striate.report.live import LiveCurves, in_notebook

STEPS: Any = ([1, 2, 3], [2.0, 1.0, 0.5])
RESULTS: Any = [{"epoch": 1, "step": 3, "train_accuracy": 0.5}]


class Handle:
    """What display(…, display_id=True) gives back."""

    def __init__(self) -> None:
        self.updates: list[Any] = []

    def update(self, shown: Any) -> None:
        self.updates.append(shown)


class Notebook:
    """Records what a notebook would show."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shell: Any) -> None:
        self.shown: list[Any] = []
        self.handle = Handle()
        top, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        top.get_ipython = lambda: shell  # type: ignore[attr-defined]
        display.Image = lambda data, format: (format, data)  # type: ignore[attr-defined]
        display.display = self.display  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", top)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, shown: Any, display_id: bool) -> Handle:
        assert display_id is True
        self.shown.append(shown)
        return self.handle


def test_in_a_notebook_the_picture_is_shown_once_and_then_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch, types.SimpleNamespace(kernel=object()))
    said: list[str] = []
    live = LiveCurves("digits-1", said.append)
    for _ in range(3):
        live.update(STEPS, RESULTS)
    assert len(notebook.shown) == 1 and len(notebook.handle.updates) == 2
    kind, content = notebook.shown[0]
    assert kind == "png" and content.startswith(b"\x89PNG")
    assert said == []


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace(kernel=None), types.SimpleNamespace()])
def test_a_terminal_is_no_notebook(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch, shell)
    said: list[str] = []
    live = LiveCurves(report=said.append)
    live.update(STEPS, RESULTS)
    live.update(STEPS, RESULTS)
    assert notebook.shown == []
    assert len(said) == 1 and "curves.png" in said[0]


def test_without_ipython_nothing_is_imported_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    live = LiveCurves()
    live.update(STEPS, RESULTS)
    live.update(STEPS, RESULTS)
    assert "IPython" not in sys.modules
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("live curves") == 1
