"""What a team of processes adds up is what one process has: tested with threads in the place of processes.

Real processes stand in test_torchrun.py.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from striate.data.dataset import Dataset, Parts
from striate.data.rows import Rows
from striate.errors import UsageError
from striate.settings.launch import Launch, find_launch
from striate.settings.layers import resolve_train
from striate.training.distributed import ALONE, Alone, Drawing, Team, remarks
from striate.training.loop import Learner, Progress, train_epoch
from striate.training.losses import make_loss
from striate.training.material import prepare_material
from striate.training.prepare import _smallest_part, prepare_learner, prepare_net
from striate.training.state import state_tensors


class Shared:
    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.slots: list[Tensor] = [torch.empty(0)] * size


class InThreads(Team):
    """A team whose members are threads of this process."""

    def __init__(self, rank: int, shared: Shared) -> None:
        self.rank, self.size, self.leads = rank, len(shared.slots), rank == 0
        self.launch = None
        self.shared = shared
        self._shares, self._block = [], 1

    def place(self, device: torch.device) -> torch.device:
        return device

    def _together(self, tensor: Tensor, join: Callable[[list[Tensor]], Tensor]) -> None:
        self.shared.slots[self.rank] = tensor.detach().clone()
        self.shared.barrier.wait()
        joined = join(self.shared.slots)
        self.shared.barrier.wait()
        tensor.copy_(joined)

    def _sum(self, tensor: Tensor) -> None:
        self._together(tensor, lambda slots: torch.stack(slots).sum(0))

    def _greatest(self, tensor: Tensor) -> None:
        self._together(tensor, lambda slots: torch.stack(slots).amax(0))

    def _send(self, tensor: Tensor) -> None:
        self._together(tensor, lambda slots: slots[0])


class Headed(nn.Module):
    """A net with an auxiliary head, a layer that is never used, and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten())
        self.head = nn.Linear(36, 3)
        self.above = nn.Sequential(nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))
        self.unused = nn.Linear(2, 2)
        self.register_buffer("seen_mean", torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen_mean = x.mean().reshape(1).detach()
        x = self.below(x)
        if self.training and torch.is_grad_enabled():
            self.seen = [x]
        return self.above(x)

    def auxiliary_logits(self) -> list[Tensor]:
        seen, self.seen = self.seen, []
        return [self.head(x) for x in seen]


def uneven(count: int) -> Parts:
    random = np.random.default_rng(1)
    labels = (random.random(count) ** 2 * 3).astype(np.int64)  # rare classes
    labels[:3] = 0, 1, 2
    images = random.integers(0, 100, (count, 8, 8, 1)) + 60 * labels[:, None, None, None]
    return Parts("made", Dataset("made", images.astype(np.uint8), labels, ("a", "b", "c")))


def learners(teams: list[Alone], count: int, **settings: Any) -> list[Learner]:
    given = {"data": "made", "recipe": "generic", "batch_size": 12, "epochs": 2, "lr": 0.01, "schedule": "constant"}
    given |= {"validation": 0, "test_range": f"{count}:{count + 6}", "train_range": f":{count}", "device": "cpu"}
    resolved, _, _ = resolve_train({**given, **settings}, origin="argument", environ={})
    made = []
    for team in teams:
        material = prepare_material(resolved, uneven(count + 6), None, print)
        made.append(prepare_learner(resolved, material, prepare_net(resolved, material, Headed), None, team))
    return made


def trained(learner: Learner, epochs: int = 2) -> tuple[list[float], Progress, list[tuple[int, float]]]:
    try:
        return _trained(learner, epochs)
    except BaseException:
        if isinstance(learner.team, InThreads):
            learner.team.shared.barrier.abort()  # the others shall not wait
        raise


def _trained(learner: Learner, epochs: int) -> tuple[list[float], Progress, list[tuple[int, float]]]:
    """Return the losses of the steps, where the run stands, and (seen, accuracy) of each epoch."""
    progress, losses, ends = Progress(), [], []
    for _ in range(epochs):
        for block in train_epoch(learner, progress):
            learner.team.agree(0, learner.total_steps)
            losses += [row[3] for row in block]
        ends.append((progress.seen, progress.correct / progress.seen))
        progress.next_epoch()
    return losses, progress, ends


CASES: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": "sgd", "momentum": 0.9},
    "rare-classes-weigh-more": {"balance": "loss", "optimizer": "adamw"},
    "clip": {"clip": 0.05, "optimizer": "sgd"},
    "mean-squared-error": {"loss": "mean-squared-error", "balance": "loss", "optimizer": "sgd"},
    "mixed-and-weighed": {"augment": "shift:1,flip,mixup:0.4", "balance": "loss", "optimizer": "sgd"},
    "parts-of-parts": {"accumulate": 2, "balance": "loss", "optimizer": "sgd"},
    "averages": {"ema": 0.9, "optimizer": "sgd", "weight_decay": 0.01},
    "sampler-and-muon": {"balance": "sampler", "optimizer": "muon", "lookahead": 0.9},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("size", "count"),
    [(3, 37), pytest.param(2, 41, marks=pytest.mark.slow), pytest.param(5, 50, marks=pytest.mark.slow)],
)
def test_a_team_learns_what_one_process_learns(case: str, size: int, count: int) -> None:
    """41 pictures in batches of 12: the last holds 5; 37: it holds 1, and two of three processes have nothing to do."""
    [alone] = learners([ALONE], count, **CASES[case])
    shared = Shared(size)
    team = learners([InThreads(rank, shared) for rank in range(size)], count, **CASES[case])
    losses, _, ends = trained(alone)
    with alone.plan.active(), ThreadPoolExecutor(size) as pool:
        results = list(pool.map(trained, team))
    assert len(losses) == 2 * math.ceil(count / 12)
    expected = state_tensors(alone)
    for learner, (its_losses, _, its_ends) in zip(team, results):
        np.testing.assert_allclose(its_losses, losses, rtol=2e-4)
        assert its_ends == ends  # every picture once, and the same ones right
        found = state_tensors(learner)
        assert found.keys() == expected.keys()  # the layer that is not used has no optimizer state
        for name, tensor in expected.items():
            if "seen_mean" not in name:
                torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    first = state_tensors(team[0])
    assert all(torch.equal(state_tensors(other)[name], first[name]) for other in team for name in first)


def test_losses_would_differ_if_every_process_counted_alike() -> None:
    """The test above can fail: a plain mean over processes is another number where their parts are unequal."""
    shared = Shared(2)

    class Plain(InThreads):
        def average_gradients(self, net: Any, parameters: Any, loss: Any, labels: Tensor) -> None:
            super().average_gradients(net, parameters, _Unweighed(), labels)

    class _Unweighed:
        def mass(self, labels: Tensor) -> Tensor:
            return torch.ones(())

    settings = CASES["rare-classes-weigh-more"]
    [alone] = learners([ALONE], 41, **settings)
    wrong = learners([Plain(rank, shared) for rank in range(2)], 41, **settings)
    losses, _, _ = trained(alone)
    with alone.plan.active(), ThreadPoolExecutor(2) as pool:
        results = list(pool.map(trained, wrong))
    assert np.abs(np.array(results[0][0]) - losses).max() > 1e-3


@pytest.mark.parametrize(("size", "whole"), [(2, 12), (3, 10), (3, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_is_that_of_the_whole_batch(size: int, whole: int, layout: torch.memory_format) -> None:
    ones = torch.ones(whole, 4, 5, 6).contiguous(memory_format=layout)
    layers = nn.Sequential(nn.Dropout(0.4), nn.Dropout2d(0.3), nn.Flatten(), nn.Dropout(0.2))
    torch.manual_seed(3)
    expected = layers(ones)
    parts = []
    for rank, rows in enumerate(np.array_split(np.arange(whole), size)):
        if not len(rows):
            continue
        torch.manual_seed(3)
        with Drawing(len(rows), int(rows[0]), whole, rank, size):
            parts.append(layers(ones[rows[0] : rows[-1] + 1]))
    assert torch.equal(torch.cat(parts), expected)
    assert 0 < (expected == 0).float().mean() < 1


def test_parts_of_parts_draw_apart() -> None:
    drawn = []
    for rank in range(2):
        torch.manual_seed(3)
        with Drawing(8, 8 * rank, 16, rank, 2):
            drawn.append(nn.Dropout(0.5)(torch.ones(4, 100)))
    assert not torch.equal(*drawn)


@pytest.mark.parametrize(("size", "count"), [(2, 7), (3, 2), (4, 4)])
def test_every_picture_is_answered_once(size: int, count: int) -> None:
    images = np.arange(count, dtype=np.float32)
    asked: list[list[float]] = [[] for _ in range(size)]
    shared = Shared(size)

    def answer(rank: int) -> Any:
        def ask(some: Any) -> Any:
            asked[rank] += some[:].tolist()
            return np.stack((some[:], -some[:]), 1)

        return InThreads(rank, shared).answers(ask, Rows(images, np.arange(count)), 2)

    with ThreadPoolExecutor(size) as pool:
        answers = list(pool.map(answer, range(size)))
    for one in answers:
        assert np.array_equal(one, np.stack((images, -images), 1))
    assert sorted(chain.from_iterable(asked)) == images.tolist()


def test_what_the_first_one_says_holds() -> None:
    shared = Shared(3)
    tensors = {"weight": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), "step": torch.tensor(7)}

    def talk(rank: int) -> Any:
        team = InThreads(rank, shared)
        told = team.tell({"number": 1.5, "word": "größer", "none": None} if team.leads else None)
        received = team.tell_tensors(tensors if team.leads else None)
        return told, received, team.agree(15 if rank == 2 else 0, 100 if team.leads else 999)

    with ThreadPoolExecutor(3) as pool:
        for told, received, agreed in pool.map(talk, range(3)):
            assert told == {"number": 1.5, "word": "größer", "none": None}
            assert all(torch.equal(received[name], tensor) for name, tensor in tensors.items())
            assert agreed == (15, 100)


def test_one_process_does_nothing_more() -> None:
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    before = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    loss = make_loss("cross-entropy", 2, torch.device("cpu"))
    ALONE.average_gradients(layer, list(layer.parameters()), loss, torch.zeros(1, dtype=torch.int64))
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(layer.parameters(), before))  # type: ignore[arg-type]
    assert ALONE.agree(2, 5) == (2, 5)
    assert ALONE.block_ends(1, True) and not ALONE.block_ends(99, False)
    assert list(remarks(ALONE, torch.device("cpu"), True)) == []


ENVIRONMENT = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip


def test_where_torchrun_put_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = find_launch(ENVIRONMENT)
    assert launch is not None
    assert (launch.rank, launch.size, launch.local_rank, launch.local_size, launch.restarts) == (5, 8, 1, 4, 0)
    assert find_launch({**ENVIRONMENT, "RANK": "x"}) is None
    assert find_launch({name: value for name, value in ENVIRONMENT.items() if name != "TORCHELASTIC_RUN_ID"}) is None
    assert launch.command("resume r") == "torchrun --nnodes 2 … --nproc-per-node 4 -m striate resume r"
    monkeypatch.setattr("striate.settings.launch.cores", lambda: 10)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it by itself
    assert launch.threads == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launch.threads == 3


def test_what_is_said_of_a_team() -> None:
    team = InThreads(0, Shared(4))
    team.launch = Launch(0, 4, 0, 4, 0, "", 0)
    said = list(remarks(team, torch.device("cpu"), True))
    assert "4 processes share" in said[0] and "can only lose" in said[0] and "BatchNorm" in said[1]
    team.launch = Launch(0, 4, 0, 2, 0, "", 0)
    assert list(remarks(team, torch.device("cpu"), False)) == []


def test_a_part_of_one_picture_is_found_before_the_run() -> None:
    settings, _, _ = resolve_train({"data": "made", "recipe": "generic", "batch_size": 8}, environ={})
    assert _smallest_part(settings, 100, 1) == 4
    assert _smallest_part(settings, 100, 2) == 2
    assert _smallest_part(settings, 100, 3) == 1
    assert _smallest_part(settings, 101, 8) == 1


def test_a_batch_smaller_than_the_team_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 3 has no part for each of 4 processes"):
        learners([InThreads(0, Shared(4))], 40, batch_size=3)


def test_timeout_needs_torchrun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--timeout has no effect here"):
        resolve_train({"data": "digits", "timeout": "30s"}, environ={})
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings, _, _ = resolve_train({"data": "digits", "timeout": "30s"}, environ={})
    assert settings.timeout == "30s"
