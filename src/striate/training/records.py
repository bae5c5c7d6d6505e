"""What describes a run on disk: config.yaml, with which it can be run again, and data.json."""

from __future__ import annotations

from typing import Any

import yaml

from striate.errors import DataError
from striate.runs.folder import RunFolder
from striate.settings.train import TrainSettings
from striate.training.material import Material


def config_text(settings: TrainSettings) -> str:
    """Return config.yaml: every setting in force, each with its description."""
    lines = ["# Every setting in force. Use it again with: striate train --config config.yaml", ""]
    for name, value in settings.model_dump(mode="json").items():
        described = TrainSettings.model_fields[name].description
        text = yaml.safe_dump({name: value}, default_flow_style=True, allow_unicode=True, width=10_000).strip()
        lines += [f"# {described}", text[1:-1] if text.startswith("{") else text]
    return "\n".join(lines) + "\n"


def read_config(folder: RunFolder) -> TrainSettings:
    """Read config.yaml back. Raises DataError naming the file where it is damaged."""
    path = folder.file("config.yaml")
    try:
        return TrainSettings(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read", str(error).splitlines()[0], "restore it or train again") from error


def data_record(material: Material, given: bool) -> dict[str, Any]:
    """Return data.json: what the run was trained on; `given` where it came as arrays, which no name brings back."""
    parts, split, preprocess = material.parts, material.split, material.preprocess
    present = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {
        "format": 1,
        "name": parts.name,
        "licence": parts.licence,
        "given": given,
        "fingerprints": {name: part.fingerprint for name, part in present.items() if part is not None},
        "counts": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "classes": list(parts.train.classes),
        "picture": {"size": list(parts.train.size), "channels": parts.train.channels},
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "findings": [],
    }
