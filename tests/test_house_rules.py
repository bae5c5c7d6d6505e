"""The rules of the house, held by reading the source: import law, sizes, no pickle, no second copy of a name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "striate"
FILES = sorted(SOURCE.rglob("*.py"))

# A room may import only from rows below its own, and from itself; the highest row comes first.
ROWS = (
    ("cli",),
    ("api", "shipping", "serve", "tuning", "estimator"),
    ("reporting",),
    ("report",),
    ("training", "explain", "exporting", "lessons"),
    ("evaluation",),
    ("predictor",),
    ("runs",),
    ("data", "models"),
    ("settings", "device", "files"),
    ("errors", "recipes"),  # recipes holds YAML files and no code
)
ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}
SEES_SETTINGS = {"cli", "api", "reporting", "shipping", "training", "tuning", "estimator", "runs", "settings"}
ONLY_IN = {
    "typer": {"cli"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "python_multipart": {"serve"},
    "prometheus_client": {"serve"},
    "onnx": {"exporting"},
    "onnxruntime": {"exporting", "predictor"},
    "matplotlib": {"report"},
    "timm": {"models"},
    "tensorboard": {"training"},
    "mlflow": {"training"},
    "optuna": {"tuning", "cli"},  # the command only asks whether it is there
}
LIMIT_FILE, LIMIT_FUNCTION = 400, 80
LONGER_FUNCTIONS = {"training/loop.py": 120}
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pty", "pexpect"}
NETWORK = {"socket", "ssl", "http", "httpx", "urllib", "urllib3", "requests", "aiohttp", "ftplib", "smtplib"}
SEES_NETWORK = {
    "data/download.py",
    "serve/protocol.py",
    "serve/running.py",
    "serve/workers.py",
}  # the last three listen
READS_FOREIGN = "runs/foreign.py"  # the one place that hands a pickle to torch, after reading it as data
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "breakpoint", "torch.save", "np.load", "numpy.load"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.full_load"),
    *("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "system", "popen"),
}
SAFE_LOADER = ("settings/recipes.py", "_Loader")  # a yaml.SafeLoader
# Names of modules that a table of ours holds, and a file that the user types: no file names code.
IMPORTS_BY_NAME = {
    "importlib.import_module": {"__init__.py", "cli/group.py"},
    "importlib.util.spec_from_file_location": {"models/user.py"},
}
FORBIDDEN_ENDS = ("unsafe_load", "read_pickle", "add_safe_globals", "safe_globals", ".allow_pickle")
DOORS = ("__init__.py", "__main__.py")  # the package's own doors join whatever they open


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            module = node.module or ""
            found += [
                (node.lineno, f"{module}.{alias.name}" if module == "striate" else module) for alias in node.names
            ]
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_import_law(path: Path) -> None:
    if path.parent == SOURCE and path.name in DOORS:
        return
    room = room_of(path)
    assert room in ROW_OF, f"{room} has no row in the import law"
    for line, name in imports(parse(path)):
        parts = name.split(".")
        if parts[0] == "striate":
            target = parts[1] if len(parts) > 1 else ""
            if target not in ROW_OF:  # `import striate` for its version
                continue
            assert target == room or ROW_OF[target] > ROW_OF[room], f"{path}:{line}: {room} imports {target}"
            if target == "settings":
                assert room in SEES_SETTINGS, f"{path}:{line}: {room} sees settings"
        elif parts[0] in ONLY_IN:
            assert room in ONLY_IN[parts[0]], f"{path}:{line}: {parts[0]} in {room}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_sizes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LIMIT_FILE, f"{path} has {lines} lines"
    limit = LONGER_FUNCTIONS.get(path.relative_to(SOURCE).as_posix(), LIMIT_FUNCTION)
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= limit, f"{path}:{node.lineno}: {node.name} has {length} lines"


def called_names(tree: ast.AST) -> list[tuple[ast.Call, str]]:
    """Return each call with the dotted name that is called, such as `torch.load`; `.load` where what stands before it
    is no name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words, function = [], node.func
            while isinstance(function, ast.Attribute):
                words.append(function.attr)
                function = function.value
            words.append(function.id if isinstance(function, ast.Name) else "")
            found.append((node, ".".join(reversed(words))))
    return found


def keywords(call: ast.Call) -> dict[str, Any]:
    return {word.arg or "": getattr(word.value, "value", None) for word in call.keywords}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_pickle_no_shell_and_no_code_from_text(path: Path) -> None:
    tree = parse(path)
    place = path.relative_to(SOURCE).as_posix()
    for line, name in imports(tree):
        assert name.split(".")[0] not in UNPICKLERS, f"{path}:{line}: {name}"
        if name.split(".")[0] in NETWORK:
            assert place in SEES_NETWORK, f"{path}:{line}: {name}"
    for call, name in called_names(tree):
        where = f"{path}:{call.lineno}: {name}()"
        assert name not in FORBIDDEN_CALLS and not name.endswith(FORBIDDEN_ENDS), where
        if name == "torch.load":
            assert place == READS_FOREIGN, where
            assert keywords(call) == {"map_location": "cpu", "weights_only": True, "mmap": False}, where
        assert keywords(call).get("shell") is not True, f"{where} with a shell"
        assert not keywords(call).get("allow_pickle"), f"{where} with pickles"
        if name == "yaml.load":  # with a loader of ours, which knows plain values only
            loaders = [ast.unparse(word.value) for word in call.keywords if word.arg == "Loader"]
            assert [(place, *loaders)] == [SAFE_LOADER], where
        assert place in IMPORTS_BY_NAME.get(name, {place}), where
        if name.endswith("load_state_dict"):
            assert "strict" not in keywords(call) and len(call.args) == 1, f"{where} with strict"


def test_the_rule_on_calls_would_catch_them() -> None:
    tree = ast.parse("from os import system\nos.system('x')\ntorch.load(f, weights_only=False)\nself.x.unsafe_load(y)")
    assert [name for _, name in called_names(tree)] == ["os.system", "torch.load", "self.x.unsafe_load"]
    assert all(name in FORBIDDEN_CALLS or name.endswith(FORBIDDEN_ENDS) for name in ("os.system", "self.x.unsafe_load"))
    assert keywords(called_names(tree)[1][0]) == {"weights_only": False}


def test_the_loop_has_no_nested_function_and_steps_once() -> None:
    tree = parse(SOURCE / "training" / "loop.py")
    loop = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "train_epoch")
    inner = [node for node in ast.walk(loop) if isinstance(node, (ast.FunctionDef, ast.Lambda)) and node is not loop]
    assert not inner, "train_epoch has a nested function"


def test_the_optimizer_steps_in_one_place() -> None:
    places = []
    for path in FILES:
        for node in ast.walk(parse(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "step"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "optimizer"
            ):
                places.append(f"{path.relative_to(SOURCE).as_posix()}:{node.lineno}")
    assert len(places) == 1 and places[0].startswith("training/loop.py"), places


def test_every_source_file_says_what_it_is_for() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
