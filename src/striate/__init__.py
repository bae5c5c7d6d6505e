"""striate trains, explains and ships convolutional image classifiers.

`striate.train("digits")` trains; `striate.load(run)` answers; `python -m striate --help` lists the commands.
Names are imported when first used, so `import striate` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → the module that holds it, and its name there if that is another
_PUBLIC = {
    "train": "striate.api",
    "resume": "striate.api",
    "verify": "striate.training.verify",
    "load": "striate.predictor.predictor:load_predictor",
    "import_model": "striate.training.importing",
    "evaluate": "striate.api",
    "export": "striate.shipping",
    "compare": "striate.reporting.comparison",
    "lesson": "striate.lessons.catalogue",
    "write_report": "striate.reporting.run",
    "Run": "striate.api",
    "ImageClassifier": "striate.estimator",
    "Predictor": "striate.predictor.predictor",
    "Dataset": "striate.data.dataset",
    "Parts": "striate.data.dataset",
    "Preprocess": "striate.data.preprocess",
    "load_named": "striate.data.builtin",
    "create_model": "striate.models.registry",
    "list_models": "striate.models.registry",
    "register": "striate.models.registry",
    "output_size": "striate.models.sizes",
    "StriateError": "striate.errors",
}

# rooms that are verbs too: `striate.explain(run, picture)` beside `striate.explain.cam`
_ROOMS = ("explain",)

__all__ = sorted([*_PUBLIC, *_ROOMS, "__version__"])

if TYPE_CHECKING:
    from striate.api import Run as Run
    from striate.api import evaluate as evaluate
    from striate.api import resume as resume
    from striate.api import train as train
    from striate.estimator import ImageClassifier as ImageClassifier
    from striate.lessons.catalogue import lesson as lesson
    from striate.predictor.predictor import load_predictor
    from striate.reporting.comparison import compare as compare
    from striate.reporting.run import write_report as write_report
    from striate.shipping import export as export
    from striate.training.importing import import_model as import_model
    from striate.training.verify import verify as verify

    load = load_predictor


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        if name in ("create_model", "list_models"):
            importlib.import_module("striate.models")  # registers the nets
        module, _, own_name = _PUBLIC[name].partition(":")
        value = getattr(importlib.import_module(module), own_name or name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"striate.{name}")
    raise AttributeError(f"module 'striate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
