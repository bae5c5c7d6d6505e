"""Test-time augmentation: which pictures are asked, and how their answers are weighed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from striate.data.preprocess import Preprocess
from striate.errors import UsageError
from striate.predictor.augmented import ask_with
from striate.predictor.torch_backend import predictor_of

PICTURES = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(0))
KINDS = ("none", "mirror", "shift", "mirror-shift")


class Watched:
    """A net whose logits are the first pixels of each picture; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def __call__(self, pictures: Tensor) -> Tensor:
        self.asked.append(pictures)
        return pictures[:, 0, 0, :3]


def by_hand(pictures: Tensor, kind: str) -> list[tuple[float, Tensor]]:
    """Return (weight, pictures) of each view, from numpy's own padding."""
    views = [(1.0, pictures)]
    if "shift" in kind:
        padded = torch.from_numpy(np.pad(pictures.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect"))
        views = [(0.5, pictures), (0.25, padded[:, :, :-2, :-2]), (0.25, padded[:, :, 2:, 2:])]
    if "mirror" in kind:
        views = [(weight / 2, view) for weight, shown in views for view in (shown, torch.flip(shown, (3,)))]
    return views


@pytest.mark.parametrize("kind", KINDS)
def test_the_views_and_their_weights(kind: str) -> None:
    net = Watched()
    found = ask_with(kind)(net, PICTURES)
    views = by_hand(PICTURES, kind)
    assert len(net.asked) == len(views) and sum(weight for weight, _ in views) == 1
    for asked, (_, view) in zip(net.asked, views, strict=True):
        assert torch.equal(asked, view)
    torch.testing.assert_close(found, sum(weight * view[:, 0, 0, :3] for weight, view in views))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_every_view_is_laid_out_as_the_pictures(kind: str, layout: torch.memory_format) -> None:
    net = Watched()
    ask_with(kind)(net, PICTURES.contiguous(memory_format=layout))
    assert all(asked.is_contiguous(memory_format=layout) for asked in net.asked)


def test_a_net_that_is_blind_to_the_mirror_answers_the_same() -> None:
    def mean(pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))

    torch.testing.assert_close(ask_with("mirror")(mean, PICTURES), mean(PICTURES))


def test_an_unknown_kind() -> None:
    with pytest.raises(UsageError, match="mirrored") as caught:
        ask_with("mirrored")
    assert "mirror" in caught.value.cause


def test_the_predictor_asks_in_batches() -> None:
    torch.manual_seed(0)
    predictor = predictor_of(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), Preprocess((8, 8), channels=1), ("a", "b", "c")
    )
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    wanted = (predictor.logits(images) + predictor.logits(mirrored)) / 2
    found = predictor.logits(images, batch_size=7, ask=ask_with("mirror"))
    assert np.abs(found - wanted).max() < 1e-5
