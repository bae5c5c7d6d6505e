"""From a card and a file of weights to a net: everything has to fit, and that is known before memory is taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from striate.errors import DataError, StriateError, UsageError
from striate.models.diagnose import explain_output, run_explained
from striate.models.dry_run import example_pictures
from striate.models.registry import create_model
from striate.models.timm_nets import check_timm, is_timm
from striate.models.user import instantiate, load_class, take_logits
from striate.runs.model_file import ModelCard
from striate.runs.packed import StoredModel
from striate.runs.tensors import Described

OwnNet = torch.nn.Module | type[torch.nn.Module] | str | None
State = Mapping[str, torch.Tensor]

NAMES_SHOWN = 40


def load_net(stored: StoredModel, model: OwnNet = None, expect_sha256: str | None = None) -> torch.nn.Module:
    """Build the net of a model's card and load its weights; see `build_net`.

    Raises DataError for a file that is damaged, has another digest than the card's or the expected one, or does not
    fit the net.
    """
    card, origin = stored.card, str(stored.weights)
    if expect_sha256 is not None:
        check_digest(stored.weights, stored.sha256(), expect_sha256)
    if is_timm(card.name):
        check_timm(card.library)
    described = stored.describe()
    if card.name is not None:
        check_fit(_expected_by(card, stored.card_path), described, origin)
    net = build_net(card, model)
    check_fit(net.state_dict(), described, origin)
    load_weights(net, stored.read(expect_sha256), origin)
    return net


def build_net(card: ModelCard, model: OwnNet = None) -> torch.nn.Module:
    """Build the net that a card describes; a user's own module must be given, for no file may name code to run.

    `model`: the module, its class, or `net.py:MyNet` as the user typed it.
    """
    if isinstance(model, str):
        model = load_class(model) if ".py:" in model or card.name is None else None
    if card.name is not None:
        if model is not None:
            raise UsageError(f"this run's net is {card.name}", "it needs no model", "leave out --model")
        return create_model(card.name, card.num_classes, card.in_channels, card.input_size, **card.options)
    if model is None:
        raise UsageError(
            f"this run's net is your own class {card.class_name}",
            "a run folder holds weights, never code",
            f"give it: --model net.py:{card.class_name}, or model={card.class_name}() in Python",
        )
    if isinstance(model, torch.nn.Module):
        net = model
    else:
        net = instantiate(model, card.num_classes, card.in_channels, card.input_size, **card.options)
    shape = (card.in_channels, *card.input_size)
    take_logits(net, shape)
    check_output(net, shape, card.num_classes)
    return net


def load_weights(net: torch.nn.Module, tensors: State, origin: str) -> None:
    """Copy weights into a net; every name, shape and type must match. Raises DataError listing what does not."""
    check_fit(net.state_dict(), tensors, origin)
    net.load_state_dict(tensors)


def expected_state(
    name: str, num_classes: int, in_channels: int, input_size: tuple[int, int], options: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return the state of a registered net as tensors without memory: how its weights have to be called and shaped."""
    with torch.device("meta"):
        return create_model(name, num_classes, in_channels, input_size, **options).state_dict()


def _expected_by(card: ModelCard, path: Path) -> dict[str, torch.Tensor]:
    assert card.name is not None
    try:
        return expected_state(card.name, card.num_classes, card.in_channels, card.input_size, card.options)
    except StriateError as error:
        raise DataError(f"{path} describes no net: {error.what}", error.cause, error.fix) from error
    except Exception as error:  # whatever a constructor says of values that no person would give
        raise DataError(f"{path} describes no net", f"{type(error).__name__}: {str(error)[:200]}") from error


def check_fit(own: State, found: Mapping[str, torch.Tensor | Described], origin: str) -> None:
    """Raise DataError listing each name, shape and type in `found` that is not the net's own."""
    wrong = {
        "missing": sorted(set(own) - set(found)),
        "not in the net": sorted(set(found) - set(own)),
        "shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in found and tuple(found[name].shape) != tuple(own[name].shape)
        ],
        "type": [
            f"{name} {found[name].dtype} instead of {own[name].dtype}"
            for name in own
            if name in found and found[name].dtype != own[name].dtype
        ],
    }
    told = [f"{kind}: {_some(names)}" for kind, names in wrong.items() if names]
    if told:
        raise DataError(
            f"{origin} does not fit the net",
            "; ".join(told),
            "name the net these weights were saved from, with its classes and options",
        )


def check_output(net: torch.nn.Module, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise UsageError where a net does not answer pictures (C, H, W) with one number for each class."""
    trace = run_explained(net, example_pictures(net, 2, input_shape), training=False)
    problem = explain_output(net, trace, False, 2, num_classes)
    if problem is not None:
        raise problem


def check_digest(path: Path, found: str, expected: str | None) -> None:
    """Raise DataError where a digest is expected and the file has another."""
    if expected is not None and found.lower() != expected.lower():
        raise DataError(
            f"{path} is not the file that was expected",
            f"its SHA-256 is {found}, not {expected}",
            "ask its maker which of the two is right",
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:200] for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} … ({len(names)} in all)"
