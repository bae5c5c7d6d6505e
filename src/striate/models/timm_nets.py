"""Nets of timm by name, `timm:resnet18` or `timm:resnet18.a1_in1k`: how they are built, what their weights' card says.

timm is imported when a net of it is first asked for. Only names of its own registry are taken: a name that is an
address or a folder, as timm has them too, never reaches it, for names also stand in files of strangers.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from striate.errors import MissingExtra, UsageError, unknown_name

PREFIX = "timm:"


@dataclass(frozen=True)
class WeightsCard:
    """What timm publishes about the weights of a net, as plain data; `mean` and `std` in units of 0–1.

    `repository` and `file` on the Hugging Face hub; `crop`: share of the short side that its own test showed.
    """

    name: str
    repository: str
    file: str
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    interpolation: str
    licence: str


def is_timm(name: str | None) -> bool:
    """Say whether a net's name is one of timm's."""
    return name is not None and name.startswith(PREFIX)


def timm_version() -> str:
    """Return `timm 1.0.31`, of the timm that is installed. Raises MissingExtra."""
    return f"timm {_timm('a net of timm').__version__}"


def check_timm(made_with: str = "") -> None:
    """Raise MissingExtra where timm is not installed; `made_with`: the version that a model file names."""
    _timm(f"this model was made with {made_with}" if made_with else "a net of timm")


def timm_names() -> list[str]:
    """Return timm's names of nets."""
    return list(_timm("a net of timm").list_models())


@functools.lru_cache(maxsize=64)
def builder(name: str) -> Callable[..., nn.Module]:
    """Return what builds `timm:NAME`: it takes num_classes, in_channels, input_size, as every net does, and options.

    Its defaults are those of the published weights. Raises MissingExtra, and UsageError for a name timm does not have.
    """
    card = weights_card(name)

    def build(
        num_classes: int = 1000,
        in_channels: int = card.channels,
        input_size: int | tuple[int, int] = card.size,
        *,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> nn.Module:
        return _make(name, num_classes, in_channels, input_size, drop_rate=drop_rate, drop_path_rate=drop_path_rate)

    build.__doc__ = f"timm's {name.removeprefix(PREFIX)}."
    return build


def weights_card(name: str) -> WeightsCard:
    """Return what timm says of the weights of `timm:NAME`, or of its default ones. Raises as `builder`."""
    config = _config(name)
    channels, *size = config.input_size
    file = str(config.hf_hub_filename or "model.safetensors")
    return WeightsCard(
        name=f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture),
        repository=str(config.hf_hub_id or ""),
        file=file,
        channels=int(channels),
        size=(int(size[0]), int(size[1])),
        mean=tuple(map(float, config.mean)),
        std=tuple(map(float, config.std)),
        crop=float(config.crop_pct),
        interpolation=str(config.interpolation),
        licence=str(config.license or ""),
    )


def with_weights(
    name: str, state: dict[str, Tensor], num_classes: int, in_channels: int, input_size: tuple[int, int], **options: Any
) -> dict[str, Tensor]:
    """Return published weights as a net of these channels and this size has them: timm's own rules bring them there.

    The first convolution is summed or repeated for other channels, position embeddings are sampled anew, old names
    become new. Raises UsageError where they do not fit.
    """
    source = {"file": "", "url": "", "hf_hub_id": "", "state_dict": dict(state)}
    options = {**options, "pretrained": True, "pretrained_cfg_overlay": source}
    try:
        net = _make(name, num_classes, in_channels, input_size, **options)
    except (RuntimeError, KeyError) as error:
        cause = " ".join(str(error).split())[:300]
        raise UsageError(f"the weights do not fit {name}", cause, "name the net they were trained in") from error
    return net.state_dict()


def _make(
    name: str, num_classes: int, in_channels: int, input_size: int | tuple[int, int], **arguments: Any
) -> nn.Module:
    timm = _timm("a net of timm")
    config = _config(name)
    size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if config.fixed_input_size:  # the others take any size, and have no such argument
        arguments["img_size"] = size
    return timm.create_model(
        name.removeprefix(PREFIX),
        num_classes=num_classes,
        in_chans=in_channels,
        **{key: value for key, value in arguments.items() if not (key.startswith("drop") and value == 0.0)},
    )


def _config(name: str) -> Any:
    timm = _timm("a net of timm")
    wanted = name.removeprefix(PREFIX)
    architecture, _, tag = wanted.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("net of timm", wanted, timm.list_models(), "timm.list_models() lists them all")
    try:
        config = timm.get_pretrained_cfg(wanted)
    except RuntimeError:
        known = [entry.partition(".")[2] for entry in timm.list_pretrained(f"{architecture}.*")]
        raise unknown_name(f"weights of {architecture}", tag, known) from None
    if config is None:
        raise UsageError(f"timm says nothing of {wanted}", "its input is not known", "choose another of its nets")
    return config


def _timm(what: str) -> Any:
    if importlib.util.find_spec("timm") is None:
        raise MissingExtra(what, "it needs timm, which is not installed", "pip install 'striate[pretrained]'")
    import timm

    return timm
