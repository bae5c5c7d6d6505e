"""What describes a run on disk: config.yaml, with which it can be run again, and data.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from striate.data.dataset import Parts
from striate.data.disk import is_on_disk
from striate.data.doctor import Checkup
from striate.data.findings import Finding
from striate.data.hub import is_address
from striate.data.sources import looks_like_pictures
from striate.errors import DataError
from striate.runs.folder import RunFolder
from striate.settings.train import TrainSettings
from striate.training.changes import FILE
from striate.training.material import Material
from striate.training.prepare import OWN


def config_text(settings: TrainSettings, *, given: bool = False, changed: bool = False) -> str:
    """Return config.yaml: every setting in force, each with its description.

    `out` is left out, for each run has a folder of its own.
    `given`: the data came as arrays; `changed`: changes.json tells what was changed on the way.
    """
    lines = [f"# Every setting in force. Use it again with: {_used_again(settings, given)}"]
    if changed:
        lines.append(f"# They were not in force from the start: {FILE} tells what was changed, and where.")
    lines.append("")
    for name, value in settings.model_dump(mode="json").items():
        if name == "out":
            continue
        if name == "data" and not given and looks_like_pictures(value) and not is_address(value):
            value = str(Path(value).expanduser().absolute())
        if name in ("data_root", "fixes") and value is not None:
            value = str(Path(value).absolute())  # to be found from any folder
        described = TrainSettings.model_fields[name].description
        text = yaml.safe_dump({name: value}, default_flow_style=True, allow_unicode=True, width=10_000).strip()
        lines += [f"# {described}", text[1:-1] if text.startswith("{") else text]
    return "\n".join(lines) + "\n"


def _used_again(settings: TrainSettings, given: bool) -> str:
    own = (settings.model or "").removeprefix(OWN) if (settings.model or "").startswith(OWN) else ""
    if given:
        return f'striate.train(data, config="config.yaml"{f", model={own}" if own else ""})'
    return f"striate train --config config.yaml{f' --model net.py:{own}' if own else ''}"


def read_config(folder: RunFolder) -> TrainSettings:
    """Read config.yaml back. Raises DataError naming the file where it is damaged."""
    path = folder.file("config.yaml")
    try:
        return TrainSettings(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read", str(error).splitlines()[0], "restore it or train again") from error


def data_record(material: Material, checkup: Checkup | None, given: bool) -> dict[str, Any]:
    """Return data.json: what the run was trained on; `given` where it came as arrays, which no name brings back.

    `pictures` counts those of each part as its maker gives it, `counts` those of each split. `checkup`: what the doctor
    found in pictures of one's own; each one that could not be used stands in `left_out`, once.
    """
    parts, split, preprocess = material.parts, material.split, material.preprocess
    present = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {
        "format": 1,
        "name": parts.name,
        "licence": parts.licence,
        "given": given,
        "fingerprints": fingerprints(parts),
        "pictures": {name: len(part) for name, part in present.items() if part is not None},
        "counts": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "classes": list(parts.train.classes),
        "class_counts": {name: _class_counts(material, name) for name in ("train", "validation", "test")},
        "picture": {"size": list(parts.train.size), "channels": parts.train.channels},
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "order": _order(material),
        "findings": [_short(finding) for finding in checkup.findings] if checkup is not None else [],
        "geometry": list(checkup.geometry.reasons) if checkup is not None else [],
        "left_out": _left_out(checkup) if checkup is not None else [],
    }


def _order(material: Material) -> dict[str, Any]:
    lies = {"on_disk": is_on_disk(material.train_images)}
    if material.blocks is None:
        return {"kind": "whole", **lies}
    return {"kind": "blocks", **asdict(material.blocks), **lies, "memory": material.allowance}


def _class_counts(material: Material, split: str) -> list[int]:
    """Return the pictures of each class in a split."""
    if not len(getattr(material.split, split)):
        return [0] * len(material.parts.train.classes)
    part, indices = material.split.of(material.parts, split)
    return np.bincount(part.labels[indices], minlength=len(part.classes)).tolist()


def fingerprints(parts: Parts) -> dict[str, str]:
    """Return the fingerprint of each part that there is."""
    present = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {name: part.fingerprint for name, part in present.items() if part is not None}


def picture_list(parts: Parts) -> dict[str, Any] | None:
    """Return pictures.json: source and SHA-256 of each file of a part, in order; None where pictures are no files."""
    present = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    lists = {
        name: {"sources": list(part.sources), "sha256": list(part.digests)}
        for name, part in present.items()
        if part is not None and part.sources is not None and part.digests is not None
    }
    return {"format": 1, "parts": lists} if lists else None


def _short(finding: Finding) -> dict[str, Any]:
    """Return a finding without the list of all its pictures, which `striate check --json` gives."""
    whole = finding.to_json()
    return {name: whole[name] for name in ("code", "rank", "count", "what", "fix")}


def _left_out(checkup: Checkup) -> list[dict[str, str]]:
    source, failures = checkup.source, checkup.loaded.failures
    found = [{"source": left.source, "code": left.code, "reason": left.reason} for left in source.left_out]
    for number, error in failures.items():
        reason = f"{error.what}: {error.cause}" if error.cause else error.what
        found.append({"source": source.records[number].source, "code": "unreadable", "reason": reason})
    return sorted(found, key=lambda left: left["source"])
