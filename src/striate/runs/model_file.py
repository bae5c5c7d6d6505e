"""A model on disk: weights/best.safetensors beside model.json, which says how to build and use it.

Both may come from a stranger: everything in them is checked before a net is built or a tensor loaded.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from striate.data.preprocess import Preprocess
from striate.errors import DataError
from striate.files import sha256_bytes, write_json
from striate.runs.doubt import Doubt
from striate.runs.folder import RunFolder

if TYPE_CHECKING:
    import torch

FORMAT = 1
#: format → the function that turns a document of that format into one of the next.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

ENTRIES = {
    "format", "model", "classes", "preprocess", "output", "temperature", "weights", "metrics", "licence", "doubt",
    "sha256",
}  # fmt: skip

# Far above any use, and low enough that no document asks for more work or memory than a person would wait for.
MOST_CARD_BYTES = 8 << 20
MOST_CLASSES = 100_000
MOST_CHANNELS = 1_024
MOST_PIXELS = 4_096  # of a side; the most that --size takes
MOST_IN_OPTION = 100_000
MOST_OPTION_ENTRIES = 100
MOST_TEXT = 1_000
MOST_NUMBER = 1e18
LEAST_TEMPERATURE = 1e-3
PACKED_SUFFIX = ".safetensors"
RESTORE = "restore it or train again"


@dataclass(frozen=True)
class ModelCard:
    """model.json: all that is needed to build a net, prepare a picture for it and name its answers.

    `name` is the registry's, or None for a user's own module, of which only the class name is kept.
    `input_size` (H, W) in pixels; `preprocess` as Preprocess.to_json gives it; `output` softmax or sigmoid;
    `weights` {file, sha256, epoch}; `doubt` as Doubt.to_json gives it, or None where it was not measured. `library`:
    the package and version that a net of another's comes from, such as `timm 1.0.31`.
    """

    name: str | None
    class_name: str
    options: dict[str, Any]
    num_classes: int
    in_channels: int
    input_size: tuple[int, int]
    classes: list[str]
    preprocess: dict[str, Any]
    output: str
    temperature: float
    weights: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    doubt: dict[str, Any] | None = None
    library: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return model.json's content."""
        value = asdict(self)
        if self.doubt is None:
            del value["doubt"]
        model = {key: value.pop(key) for key in ("name", "options", "num_classes", "in_channels", "input_size")}
        model["class"] = value.pop("class_name")
        library = value.pop("library")
        if library:
            model["library"] = library
        model["input_size"] = list(self.input_size)
        return {"format": FORMAT, "model": model, **value}

    @classmethod
    def from_json(cls, value: Any, path: Path) -> ModelCard:
        """Read model.json's content. Raises DataError naming the file and what is wrong with it."""
        value = migrate(value, path)
        unknown = value.keys() - ENTRIES
        if unknown:
            raise _no_card(path, f"it has an entry {_short(min(unknown))}, which no card has")
        try:
            model = value["model"]
            height, width = model["input_size"]
            card = cls(
                name=model["name"],
                class_name=model["class"],
                options=model["options"],
                num_classes=model["num_classes"],
                in_channels=model["in_channels"],
                input_size=(height, width),
                **{key: value[key] for key in ("classes", "preprocess", "output", "temperature", "weights")},
                metrics=value.get("metrics", {}),
                licence=value.get("licence", ""),
                doubt=value.get("doubt"),
                library=model.get("library", ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _no_card(path, f"{type(error).__name__}: {error}") from error
        problem = card.problem()
        if problem:
            raise _no_card(path, problem)
        return card

    def problem(self) -> str:
        """Say what cannot be in this card, or nothing."""
        if not (self.name is None or _is_text(self.name)) or not _is_text(self.class_name):
            return "model has no name and class in words"
        if self.library and not _is_text(self.library):
            return "library is no text"
        problem = size_problem(self.num_classes, self.in_channels, self.input_size, self.options)
        if problem:
            return problem
        if not isinstance(self.classes, list) or not all(_is_text(name) for name in self.classes):
            return f"classes is no list of names of 1 to {MOST_TEXT} characters"
        if len(self.classes) != self.num_classes:
            return f"it names {len(self.classes)} classes for a net of {self.num_classes}"
        if len(set(self.classes)) != self.num_classes:
            return "a class stands in it twice"
        if self.output not in ("softmax", "sigmoid"):
            return f"output is {_short(self.output)}, not softmax or sigmoid"
        if not _is_number(self.temperature) or not LEAST_TEMPERATURE <= self.temperature <= 1 / LEAST_TEMPERATURE:
            return f"temperature is {_short(self.temperature)}, not a number above 0 of any sense"
        try:
            Preprocess.from_json(self.preprocess)
            Doubt.from_json(self.doubt)
        except DataError as error:
            return f"{error.what} ({error.cause})"
        prepared = self.preprocess.get("size"), self.preprocess.get("channels")
        if prepared != (list(self.input_size), self.in_channels):
            return f"preprocess makes pictures of {_short(prepared)}, not of the size and channels that the net takes"
        return self._problem_beside_the_net()

    def _problem_beside_the_net(self) -> str:
        if not isinstance(self.metrics, dict) or not isinstance(self.licence, str):
            return "metrics is no JSON object, or licence no text"
        if not all(_is_number(self.metrics.get(key, 0)) for key in ("parameters", "macs")):
            return "parameters and macs in metrics are no numbers"
        named = self.weights if isinstance(self.weights, dict) else {}
        if not all(_is_text(named.get(key)) for key in ("file", "sha256")):
            return "weights do not name a file and its sha256"
        return ""


def size_problem(num_classes: Any, in_channels: Any, input_size: Any, options: Any) -> str:
    """Say what of a net's arguments is out of any sensible range, or nothing; nothing is built for it."""
    height, width = input_size
    for what, number, most in (
        ("num_classes", num_classes, MOST_CLASSES),
        ("in_channels", in_channels, MOST_CHANNELS),
        ("input_size", height, MOST_PIXELS),
        ("input_size", width, MOST_PIXELS),
    ):
        if type(number) is not int or not 1 <= number <= most:
            return f"{what} is {_short(number)}, not a whole number from 1 to {most:,}"
    if not isinstance(options, dict) or len(options) > MOST_OPTION_ENTRIES:
        return "options is no JSON object of a few entries"
    for name, value in options.items():
        entries = list(value) if isinstance(value, (list, tuple)) else [value]
        if not _is_text(name) or len(entries) > MOST_OPTION_ENTRIES or not all(_is_option(entry) for entry in entries):
            return f"the option {_short(name)} is out of range (numbers go to {MOST_IN_OPTION:,})"
    return ""


def migrate(value: Any, path: Path) -> dict[str, Any]:
    """Bring a document of an older format to this one, step by step. Raises DataError for a newer or unknown one."""
    if not isinstance(value, dict) or type(value.get("format")) is not int:
        raise _no_card(path, "it is no JSON object with a format")
    while value["format"] != FORMAT:
        number = value["format"]
        if number > FORMAT:
            raise DataError(
                f"{path} has format {number}", f"this striate reads up to {FORMAT}", "install a newer striate"
            )
        if number not in MIGRATIONS:
            raise DataError(f"{path} has format {number}", "no striate ever wrote it", RESTORE)
        value = {**MIGRATIONS[number](value), "format": number + 1}
    return value


def write_card(folder: Path, card: ModelCard) -> None:
    """Write model.json, atomically, with its own digest: no other file tells of a damaged digit in it."""
    write_json(folder / "model.json", card_document(card))


def card_document(card: ModelCard) -> dict[str, Any]:
    """Return the document that describes a model, with its own digest: model.json, and what an export carries."""
    document = card.to_json()
    return {**document, "sha256": document_digest(document)}


def card_text(card: ModelCard) -> str:
    """Return `card_document` as JSON in one line, for the header of a file."""
    return json.dumps(card_document(card), ensure_ascii=False, allow_nan=False)


def document_digest(document: dict[str, Any]) -> str:
    """SHA-256 as hex of a document without its entry `sha256`, whatever its spaces and the order of its keys."""
    content = {name: value for name, value in document.items() if name != "sha256"}
    return sha256_bytes(json.dumps(content, sort_keys=True).encode())


def read_card(folder: Path) -> ModelCard:
    """Read model.json. Raises DataError where it is missing, too large, damaged, or not what it should be."""
    path = folder / "model.json"
    if not path.is_file():
        raise DataError(f"{path} is missing", *_why_no_model(folder))
    try:
        if path.stat().st_size > MOST_CARD_BYTES:
            raise _no_card(path, f"it has more than {MOST_CARD_BYTES:,} bytes")
        return parse_card(path.read_text(encoding="utf-8"), path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read", str(error)[:200], RESTORE) from error


def parse_card(text: str, path: Path) -> ModelCard:
    """Read model.json's text, which `path` holds. Raises DataError where it is damaged, or not what it should be."""
    try:
        value = json.loads(text)
        digest = document_digest(value) if isinstance(value, dict) else ""
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read", str(error)[:200], RESTORE) from error
    card = ModelCard.from_json(value, path)
    if value.get("sha256", digest) != digest:
        raise DataError(
            f"{path} is damaged, or someone changed it",
            f"the SHA-256 of its content is {digest}, and it says {_short(value['sha256'])}",
            "restore it; if the change is meant, take the entry sha256 out of it",
        )
    return card


def is_packed(target: str | Path) -> bool:
    """Say whether `target` names a file that may hold a packed model (packed.py), and no run."""
    path = Path(target)
    return path.suffix.lower() == PACKED_SUFFIX and not path.is_dir()


def weights_path(folder: Path, card: ModelCard) -> Path:
    """Return the file of weights that the card names. Raises DataError for one outside the run's folder."""
    return _inside(folder, card.weights["file"])


def _inside(folder: Path, name: str) -> Path:
    if PurePosixPath(name).is_absolute() or ".." in name.split("/") or ":" in name or "\\" in name:
        raise DataError(f"{folder / 'model.json'} names weights outside its folder: {name}")
    return folder / name


def read_weights(folder: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    """Read the weights that the card names; their digest has to be the card's.

    Raises DataError where the file is missing, damaged, not finite, or not the one the card was written for.
    """
    from striate.runs.tensors import read_tensors

    path = weights_path(folder, card)
    tensors = read_tensors(path, sha256=card.weights["sha256"])
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raise DataError where a tensor read from `path` holds an infinite value or one that is not a number."""
    name = first_not_finite(tensors)
    if name is not None:
        raise DataError(f"{path}: {name} holds values that are not finite", "", "train again with a lower --lr")


def write_features(folder: Path, features: NDArray[np.float32]) -> dict[str, str]:
    """Write features of train pictures (n, D) beside the weights; return what the card says of the file."""
    import torch

    from striate.runs.tensors import write_tensors

    name = "weights/features.safetensors"
    return {"file": name, "sha256": write_tensors(folder / name, {"features": torch.from_numpy(features)})}


def read_doubt(folder: Path, card: ModelCard) -> Doubt | None:
    """Return the card's doubt with the features that pictures are compared with, unless their file was left behind.

    Raises DataError for a file that is damaged or not the one the card was written for.
    """
    doubt = Doubt.from_json(card.doubt)
    if doubt is None or doubt.features is None:
        return doubt
    path = _inside(folder, doubt.features["file"])
    if not path.exists():
        return doubt
    from striate.runs.tensors import read_tensors

    found = read_tensors(path, sha256=doubt.features["sha256"]).get("features")
    if found is None or found.dim() != 2 or not found.is_floating_point() or 0 in found.shape:
        raise DataError(f"{path} does not hold features of pictures", "", RESTORE)
    return replace(doubt, kept=found.float().numpy())


def first_not_finite(tensors: dict[str, torch.Tensor]) -> str | None:
    """Return the name of the first tensor that holds an infinite value or one that is not a number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_TEXT


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MOST_NUMBER


def _is_option(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        # Where the net's constructor wants numbers, text is read as numbers: 4096,4096 or 4_096.
        return len(value) <= MOST_TEXT and not re.search(r"\d{6}", value.replace("_", ""))
    return _is_number(value) and abs(value) <= MOST_IN_OPTION


def _short(value: Any) -> str:
    return reprlib.repr(value)[:80]


def _no_card(path: Path, cause: str) -> DataError:
    return DataError(f"{path} is not a model card", cause, RESTORE)


def _why_no_model(folder: Path) -> tuple[str, str]:
    status = RunFolder(folder).status() if (folder / "status.json").is_file() else {}
    if status.get("state") == "failed":
        return f"the run failed: {status.get('reason', '')}", "mend the cause and train again"
    return "the run has no finished model yet", f"finish it with striate resume {folder}"
