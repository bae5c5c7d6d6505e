"""Published weights brought here: from their cache, or over the network with a word."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from striate.data.digests import Digests
from striate.data.download import fetch
from striate.data.lookup import cache_folder
from striate.errors import DataError
from striate.files import sha256_file
from striate.models.timm_nets import WeightsCard
from striate.models.torchvision_weights import ADDRESS, Published

Report = Callable[[str], None]


def fetch_torchvision(file: Published, download: bool, report: Report) -> Path:
    """Return the path of a file of torchvision's: where torch.hub keeps it, from our cache, or downloaded.

    Its SHA-256 has to begin as its name says. Raises DataError where it is not to be had.
    """
    import torch

    address = ADDRESS + file.file
    own = cache_folder().parent / "weights" / file.file
    places = (own, Path(torch.hub.get_dir()) / "checkpoints" / file.file)
    for path in places:
        if path.is_file() and sha256_file(path).startswith(file.sha256_begins):
            return path
    if not download:
        raise DataError(
            f"{file.file} is not here, and --no-download forbids to fetch it",
            f"looked in {places[0].parent} and {places[1].parent}",
            f"get {address} and: --init-from {file.file}; or --init-from none",
        )
    report(f"downloading {file.file} ({file.megabytes} MB) from {ADDRESS}")
    digests = _Begins(file.sha256_begins)
    fix = f"get it in another way and: --init-from {file.file}; or begin without: --init-from none"
    return fetch([address], own, digests, file.megabytes << 20, report=report, fix=fix)


class _Begins(Digests):
    """A digest of which the beginning is known."""

    def __init__(self, begins: str) -> None:
        super().__init__(sha256=begins)

    def problem(self, path: Path) -> str:
        """Return "" for a good file, otherwise a sentence on what is wrong."""
        found = sha256_file(path)
        return "" if found.startswith(self.sha256) else f"SHA-256 is {found}, expected one that begins {self.sha256}"


def fetch_timm(card: WeightsCard, download: bool, report: Report) -> Path:
    """Return the path of a file of timm's weights in the hub's own cache, where huggingface-hub brings it.

    Raises DataError where it is not to be had.
    """
    import huggingface_hub

    instead = "give a file of them: --init-from model.safetensors; or begin without: --init-from none"
    if not card.repository or not card.file.endswith(".safetensors"):
        raise DataError(f"timm's {card.name} is not published as safetensors", "no pickle is read from there", instead)
    endpoint = os.environ.get("HF_ENDPOINT") or None
    kept = huggingface_hub.try_to_load_from_cache(card.repository, card.file)
    if isinstance(kept, str):
        return Path(kept)
    if not download:
        cause = f"{card.repository} is not in the hub's cache, and --no-download forbids to fetch it"
        raise DataError(f"timm's {card.name} is not here", cause, instead)
    report(f"downloading {card.repository}/{card.file} from {endpoint or 'https://huggingface.co'}")
    try:
        return Path(huggingface_hub.hf_hub_download(card.repository, card.file, endpoint=endpoint))
    except Exception as error:  # its own kinds, those of its HTTP client, and any on answers that are no hub's
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"timm's {card.name} cannot be had", reason, instead) from error
