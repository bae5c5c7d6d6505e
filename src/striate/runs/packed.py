"""Where a model's parts are: a run keeps card and weights apart, a packed file has the card in its header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from striate.errors import DataError
from striate.files import sha256_file
from striate.runs.folder import RunFolder, open_run
from striate.runs.model_file import (
    ModelCard,
    card_text,
    check_finite,
    is_packed,
    parse_card,
    read_card,
    read_weights,
    weights_path,
)
from striate.runs.tensors import Described, data_digest, pack_tensors, read_head, read_header, read_tensors

#: The entry of the header's metadata that holds the card.
KEY = "striate"
#: What the card of a packed model says in the place of a file of weights.
HERE = "here"


@dataclass(frozen=True)
class StoredModel:
    """A model on disk that nothing is loaded of yet: its card, and the files that hold card and weights."""

    name: str
    card: ModelCard
    card_path: Path
    weights: Path
    packed: bool

    def describe(self) -> dict[str, Described]:
        """Read what the file of weights says it holds, without loading it. Raises DataError."""
        return read_header(self.weights)

    def sha256(self) -> str:
        """Return the digest by which others know these weights: the card's, and of a packed file its own."""
        return sha256_file(self.weights) if self.packed else str(self.card.weights["sha256"])

    def read(self, expect_sha256: str | None = None) -> dict[str, torch.Tensor]:
        """Read the weights; their digest has to be the card's, and of a packed file also the expected one.

        Raises DataError where the file is missing, damaged, not finite, or not the one the card was written for.
        """
        if not self.packed:
            return read_weights(self.card_path.parent, self.card)
        whole = expect_sha256.lower() if expect_sha256 is not None else None
        tensors = read_tensors(self.weights, sha256=whole, data_sha256=self.card.weights["sha256"])
        check_finite(tensors, self.weights)
        return tensors


def open_model(target: str | Path) -> StoredModel:
    """Find a model: a run by its folder or name, or a packed file. Raises UsageError or DataError."""
    if is_packed(target):
        return open_packed(Path(target))
    folder = open_run(target)
    return model_of_run(folder, read_card(folder.path))


def model_of_run(folder: RunFolder, card: ModelCard) -> StoredModel:
    """Return the model of a run whose card was read."""
    return StoredModel(folder.name, card, folder.file("model.json"), weights_path(folder.path, card), packed=False)


def open_packed(path: Path) -> StoredModel:
    """Read the card in a packed file's header. Raises DataError where there is none, or it is not what it should be."""
    _, metadata = read_head(path)
    if KEY not in metadata:
        raise DataError(
            f"{path} holds weights without their model",
            f"its header has no entry {KEY!r}",
            "name the run itself, pack it with striate export RUN --to striate, or make a run: striate import",
        )
    card = parse_card(metadata[KEY], path)
    if card.weights["file"] != HERE:
        raise DataError(f"{path} says that its weights are elsewhere", "", "pack the run again")
    return StoredModel(path.stem, card, path, path, packed=True)


def pack_model(card: ModelCard, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return the content of a packed file: the weights, and in the header the card with the digest of their bytes."""
    digest = data_digest(pack_tensors(tensors))
    packed = replace(card, weights={**card.weights, "file": HERE, "sha256": digest})
    return pack_tensors(tensors, {KEY: card_text(packed)})
