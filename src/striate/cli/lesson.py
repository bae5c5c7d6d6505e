"""`striate lesson`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.cli.flags import argument, given_values, make_command, settings_flags
from striate.cli.output import hint, printable, say, say_json, say_table
from striate.errors import unknown_name
from striate.settings.base import build
from striate.settings.lesson import OF_LESSON, LessonSettings, lesson_arguments
from striate.settings.values import from_text

if TYPE_CHECKING:
    from striate.lessons.lesson import Lesson

WIDEST = 110  # columns: longer lines are hard to read


def _lesson(name: str | None, **flags: Any) -> None:
    given = from_text(LessonSettings, given_values(flags))
    settings, origins = build(LessonSettings, [("flag", given)])
    if name is not None and name not in OF_LESSON:
        raise unknown_name("lesson", name, OF_LESSON, "see `striate lesson`")
    arguments = lesson_arguments(name, settings, origins)
    if name is None:
        _list(settings)
        return
    from striate.lessons.catalogue import lesson

    if settings.plot is not None:
        arguments["with_pictures"] = True
    made = lesson(name, **arguments)
    if settings.as_json:
        say_json(made.to_json())
    else:
        from striate.report.lesson_text import lesson_lines

        width = min(shutil.get_terminal_size((100, 24)).columns, WIDEST)
        for line in lesson_lines(made, settings.lang, width):
            say(printable(line))
    if settings.plot is not None:
        _draw(made, settings.plot, settings.lang)
    if settings.html is not None:
        from striate.files import write_text
        from striate.report.lesson_page import lesson_page

        write_text(settings.html, lesson_page(made, settings.lang if origins["lang"] == "flag" else None))
        hint(f"written: {printable(str(settings.html))}")


def _list(settings: LessonSettings) -> None:
    from striate.lessons.titles import TITLES

    if settings.as_json:
        lessons = [
            {"name": name, "title": title._asdict(), "about": about._asdict(), "flags": list(OF_LESSON[name])}
            for name, (title, about) in TITLES.items()
        ]
        say_json({"format": 1, "lessons": lessons})
        return
    columns = ("lesson", "what it is about") if settings.lang == "en" else ("课程", "内容")
    say_table(columns, [(name, getattr(about, settings.lang)) for name, (_, about) in TITLES.items()])


def _draw(made: Lesson, path: Path, language: str) -> None:
    from striate.report.plots import sample_grid

    part = made.part("kernels")
    labels = [getattr(picture.title, language) for picture in part.pictures]
    sample_grid(path, [picture.pixels for picture in part.pictures], labels, title=getattr(part.title, language))
    hint(f"drawn: {printable(str(path))}")


lesson = make_command(
    "lesson",
    _lesson,
    [
        argument("name", "NAME", "A lesson; without one they are listed.", required=False),
        *settings_flags(LessonSettings, sections={"input": "What is worked out", "lang": "Options"}),
    ],
    "A lesson with numbers that one can check by hand: as text, as a page that moves, as JSON.",
)
