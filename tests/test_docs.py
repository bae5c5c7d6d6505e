"""The README, the pages of docs/ and the examples: what they show is there, parses and runs."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from striate.cli.flags import TYPER_USAGE_ERROR, given_values
from striate.cli.main import build, run
from striate.data import augment
from striate.data.lookup import find_named
from striate.data.sources import looks_like_pictures
from striate.errors import StriateError
from striate.models import list_models
from striate.settings import verbs
from striate.settings.base import build as build_settings
from striate.settings.explain import ExplainSettings
from striate.settings.export import ExportSettings
from striate.settings.layers import resolve_train
from striate.settings.lesson import OF_LESSON, LessonSettings
from striate.settings.recipes import list_recipes, load_recipe
from striate.settings.report import ReportSettings
from striate.settings.serve import ServeSettings
from striate.settings.train import TrainSettings
from striate.settings.tune import TuneSettings
from striate.settings.values import from_text

ROOT = Path(__file__).parents[1]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
ARTICLES = sorted((ROOT / "docs" / "articles").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ARTICLES])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHELLS = ("console", "sh", "powershell")
# Commands that are quick and print the same on every machine.
QUICK = re.compile(r"(lesson|models|recipes|data show digits)\b|train .*--show-config")
# Lines of the first run that depend neither on the machine nor on how many epochs are run.
STABLE = ("data ", "pictures ", "net ", "training ")
SETTINGS_OF = {
    "tune": TuneSettings,
    "eval": verbs.EvalSettings,
    "resume": verbs.ResumeSettings,
    "verify": verbs.VerifySettings,
    "predict": verbs.PredictSettings,
    "export": ExportSettings,
    "report": ReportSettings,
    "serve": ServeSettings,
    "compare": verbs.CompareSettings,
    "explain": ExplainSettings,
    "import": verbs.ImportSettings,
    "check": verbs.CheckSettings,
    "cache ls": verbs.CacheListSettings,
    "lesson": LessonSettings,
    "models": verbs.ModelsSettings,
    "recipes": verbs.RecipesSettings,
    "data ls": verbs.DataListSettings,
    "data show": verbs.DataShowSettings,
    "data add": verbs.DataAddSettings,
}  # of train: TrainSettings


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
        yield match[1], match[2]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def shell_lines(page: Path) -> list[str]:
    """Return the lines of a page that a reader would type into a shell, without the prompt."""
    lines = []
    for language, text in blocks(page):
        if language == "console":
            lines += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        elif language in SHELLS:
            lines += [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return lines


def striate_words(line: str) -> list[str] | None:
    """Return the words after `striate` of a shell line, or None for another command."""
    line = line.replace("\\", "/")
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if not words or Path(words[0]).name != "striate":
        return None
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "&&", ";")]
    return words[1 : ends[0]] if ends else words[1:]


def commands_of(page: Path) -> list[list[str]]:
    """Return all command lines of striate that a page shows, in blocks and in `code` of the text."""
    shown = shell_lines(page)
    shown += re.findall(r"`(striate [a-z][^`]*)`", prose(page))
    return [words for line in shown if (words := striate_words(line)) is not None]


def check_command(words: Sequence[str]) -> None:
    """Parse a command line as the program does, and build its settings; nothing is run."""
    command, names, rest = build(), [], list(words)
    while hasattr(command, "list_commands"):
        if not rest or rest[0].startswith("-"):
            command.make_context("striate", rest or ["--help"], resilient_parsing=True)
            return
        names.append(rest.pop(0))
        assert names[-1] in command.list_commands(None), f"there is no verb {' '.join(names)}"
        command = command.get_command(None, names[-1])
    if "--help" in rest or not rest:  # `striate eval` in the text is a verb's name
        return
    given = given_values(command.make_context(names[-1], rest).params)
    check_values(" ".join(names), given)


def check_values(verb: str, given: Mapping[str, Any]) -> None:
    """Build the settings of a verb, and look the names up that they hold."""
    model = SETTINGS_OF.get(verb, TrainSettings)
    values = {name: value for name, value in given.items() if name in model.model_fields}
    if verb == "train":
        settings, _, _ = resolve_train({**values, "data": given.get("target", values.get("data"))}, environ={})
        augment.parse(settings.augment)
        assert settings.model is not None
        known = settings.model in list_models() or settings.model.startswith("timm:")
        assert ".py:" in settings.model or known, settings.model
    else:
        settings = build_settings(model, [("flag", from_text(model, values))])[0]
    data = given["name"] if verb == "data show" else getattr(settings, "data", None)
    if data is not None and not looks_like_pictures(data):
        find_named(data)
    if verb == "lesson" and "name" in given:
        assert given["name"] in OF_LESSON, given["name"]
    if verb in ("models", "recipes") and "name" in given:
        known = list_models() if verb == "models" else list_recipes()
        assert given["name"] in known or ".py:" in given["name"] or given["name"].startswith("timm:"), given["name"]


def shown_outputs(page: Path) -> list[tuple[list[str], list[str]]]:
    """Return each command of striate in the console blocks with the lines shown below it."""
    shown: list[tuple[list[str], list[str]]] = []
    for language, text in blocks(page):
        for part in re.split(r"^\$ ", text, flags=re.M)[1:] if language == "console" else ():
            command, *lines = part.splitlines()
            words = striate_words(command)
            if words is not None:
                shown.append((words, lines))
    return shown


def is_refused(words: Sequence[str], lines: Sequence[str]) -> bool:
    """Say whether a command is shown for its error, which needs no file of the reader's."""
    return words[:2] == ["train", "digits"] and lines[0].startswith("error: ") and ".py:" not in " ".join(words)


def pattern_of(lines: Sequence[str]) -> str:
    """Return the pattern that an output must match: the lines as they stand, `…` alone for any number of others."""
    return "".join("(?:.*\n)*" if line == "…" else re.escape(line) + "\n" for line in lines)


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(match[1]) for match in re.finditer(r"^#+ (.*)$", prose(page), re.M)}


def identifier(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without the user's settings, in which trainings are two epochs long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STRIATE_DATA", raising=False)
    monkeypatch.setenv("STRIATE_EPOCHS", "2")
    monkeypatch.setenv("STRIATE_DEVICE", "cpu")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_every_command_shown_parses(page: Path) -> None:
    refused = [words for words, lines in shown_outputs(page) if is_refused(words, lines)]
    for words in commands_of(page):
        if words in refused:
            continue
        try:
            check_command(words)
        except Exception as error:
            pytest.fail(f"{page.name}: striate {shlex.join(words)}: {error}")


def test_a_wrong_command_would_be_caught() -> None:
    wrong = ["train digits --epoch 3", "trian digits", "train mnst", "train digits --recipe mnst", "predict --json"]
    wrong += ["train digits --augment flop", "train digits --model resent", "compare a b --data mnist", "models lenet"]
    for line in wrong:
        with pytest.raises((AssertionError, StriateError, TYPER_USAGE_ERROR)):
            check_command(line.split())
    assert striate_words("STRIATE_EPOCHS=3 .venv/bin/striate train digits | head -3") == ["train", "digits"]
    assert striate_words(r".venv\Scripts\striate train digits  # a note") == ["train", "digits"]
    assert striate_words("make demo") is None


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_make_targets_and_scripts_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in shell_lines(page):
        words = shlex.split(line.replace("\\", "/"), comments=True)
        if words[0] == "make":
            for target in words[1:]:
                assert "=" in target or re.search(rf"^{re.escape(target)}:", makefile, re.M), line
        for word in words:
            if word.startswith(("examples/", "benchmarks/", "tests/")):
                assert (ROOT / word).exists(), line


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_every_relative_link_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}: no such heading"


def test_pictures_are_small() -> None:
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.suffix == ".png" and path.stat().st_size <= 150_000, path


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_python_blocks_run(page: Path, scratch: Path) -> None:
    """A page's blocks run one after the other, as a reader would paste them."""
    written = [text for language, text in blocks(page) if language == "python"]
    if not written or page == README_ZH:  # the Chinese blocks are the English ones, which the next test holds
        return
    script = scratch / "page.py"
    script.write_text("\n".join(written), encoding="utf-8")
    runpy.run_path(str(script))


@pytest.mark.parametrize("example", EXAMPLES, ids=identifier)
def test_examples_run(example: Path, scratch: Path) -> None:
    copied = scratch / example.name
    text = example.read_text(encoding="utf-8")
    text = re.sub(r"(epochs=|EPOCHS, BATCH, LEARNING_RATE = )\d+", r"\g<1>2", text)
    copied.write_text(text, encoding="utf-8")
    runpy.run_path(str(copied), run_name="__main__")


def test_quickstart_is_short() -> None:
    assert len((ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8").splitlines()) <= 25


def test_both_readmes_say_the_same() -> None:
    assert shell_lines(README) == shell_lines(README_ZH)
    english, chinese = (
        [ast.dump(ast.parse(text)) for language, text in blocks(page) if language == "python"]
        for page in (README, README_ZH)
    )
    assert english == chinese
    outputs, outputs_zh = (
        [text for language, text in blocks(page) if language == "console"] for page in (README, README_ZH)
    )
    assert outputs == outputs_zh


@pytest.mark.parametrize("page", [page for page in ARTICLES if not page.match("*.zh.md")], ids=identifier)
def test_an_article_is_the_same_in_both_languages(page: Path) -> None:
    """Commands, outputs and Python are equal; but for lessons that the Chinese page shows in Chinese."""
    chinese = page.with_suffix(".zh.md")
    commands = [line.replace(" --lang zh", "") for line in shell_lines(chinese)]
    assert commands == shell_lines(page)
    pairs = list(zip(blocks(page), blocks(chinese), strict=True))
    assert all(one == other for one, other in pairs if "--lang zh" not in other[1])
    assert f"({page.name})" in prose(chinese) and f"({chinese.name})" in prose(page)
    index = prose(ROOT / "docs" / "articles.md")
    assert f"(articles/{page.name})" in index and f"(articles/{chinese.name})" in index


def test_the_first_run_in_the_readme_is_what_it_prints(scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = next(text for language, text in blocks(README) if text.startswith("$ striate train digits\n"))
    assert run(["train", "digits", "--epochs", "1"]) == 0
    printed = capfd.readouterr().out.splitlines()
    for line in printed:
        if line.startswith(STABLE):
            assert line in shown.splitlines(), f"the README shows another line than: {line}"
    rows = re.findall(r"^ *(\d+)/(\d+) ", shown, re.M)
    epochs = load_recipe("digits")["epochs"]
    assert rows == [(str(epoch), str(epochs)) for epoch in range(1, epochs + 1)]
    kinds, printed_kinds = (re.findall(r"^([a-z]+)  ", text, re.M) for text in (shown, "\n".join(printed)))
    # The device is given here, so that nothing is noted about it.
    assert [kind for kind in kinds if kind != "note"] == printed_kinds


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_quick_outputs_are_what_is_printed(
    page: Path, scratch: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # as a pipe has them; pytest-xdist gives its workers 80
    monkeypatch.delenv("STRIATE_EPOCHS")
    monkeypatch.delenv("STRIATE_DEVICE")
    for words, lines in shown_outputs(page):
        refused = is_refused(words, lines)
        if not refused and (not QUICK.match(shlex.join(words)) or ".py:" in shlex.join(words)):
            continue
        capfd.readouterr()
        assert (run(words) != 0) is refused
        captured = capfd.readouterr()
        assert re.fullmatch(pattern_of(lines), captured.out + captured.err), f"striate {shlex.join(words)}"


def masked(text: str) -> str:
    """Return an output without what depends on the machine: numbers and the widths that they make."""
    return re.sub(r" +", " ", re.sub(r"\d+(?:\.\d+)?", "0", text))


def test_what_explain_shows_is_what_it_prints(scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a run on the digits: the same lines, but for numbers; the classes are numbers too."""
    assert run(["train", "digits", "--quiet", "--out", "digits"]) == 0
    page = ROOT / "docs" / "explain.md"
    shown = [(words, lines) for words, lines in shown_outputs(page) if words[:2] == ["explain", "digits"]]
    assert len(shown) == 2
    for words, lines in shown:
        capfd.readouterr()
        assert run(words) == 0
        captured = capfd.readouterr()
        printed = masked(captured.err + captured.out)
        assert re.fullmatch(pattern_of([masked(line) for line in lines]), printed), f"striate {shlex.join(words)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2-lenet.md", "5-three-conv.md"])
def test_an_article_shows_how_answers_change(
    name: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The article's net is trained and its picture edited anew.

    Every shown row must be printed. On the machine of the page all of them are the same; on another the weights differ,
    and three answers of four have to be.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRIATE_DATA", str(data_root))
    monkeypatch.setenv("COLUMNS", "100")
    shown = shown_outputs(ROOT / "docs" / "articles" / name)
    recipe = next(words for words, _ in shown if words[:2] == ["train", "--recipe"])
    (words, lines) = next((words, lines) for words, lines in shown if words[0] == "explain")
    assert run([*recipe, "--quiet", "--out", words[1]]) == 0
    capfd.readouterr()
    assert run(words) == 0
    printed, wanted = (edited(text) for text in (capfd.readouterr().out.splitlines(), lines))
    assert len(wanted) >= 7 and wanted.keys() <= printed.keys()
    assert sum(printed[edit] == answer for edit, answer in wanted.items()) >= 0.75 * len(wanted)
    assert printed["flip", "as it is"] != printed["flip", "upside down"]


def edited(lines: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return the answers of the rows of `explain --edits` by edit and strength."""
    cells = [re.split(r"  +", line) for line in lines]
    return {(row[0], row[1]): row[2] for row in cells if row[0] in ("rotate", "flip")}


def test_every_setting_of_train_is_described() -> None:
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    for name in TrainSettings.model_fields:
        assert f"`--{name.replace('_', '-')}" in text, f"docs/train.md does not describe {name}"


def test_every_net_and_every_recipe_of_an_article_is_named() -> None:
    for page in (README, README_ZH, ROOT / "docs" / "articles.md"):
        text = page.read_text(encoding="utf-8")
        for name in list_recipes():
            assert not name.startswith("tutorial-") or f"`{name}`" in text or f" {name}" in text, (page.name, name)
    tour = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    for name in list_models():
        assert f"`{name}`" in tour, f"docs/train.md does not name the net {name}"
