"""Several processes that train one net, started by torchrun: what they add up, and what the first one tells the others.

Gradients are summed by hand, one flat bucket after the backward pass, and not by DistributedDataParallel: the mean must
be over the whole batch, whatever share of it (of its weights, of nothing at all) a process holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from striate.data.rows import Rows
from striate.errors import PeerLost, StriateError, UsageError
from striate.settings.launch import Launch, cores, find_launch
from striate.settings.values import parse_time
from striate.training.losses import Loss

Value = TypeVar("Value")
Answers = NDArray[np.float32]

# A process that lost another one waits so long for what the others have to say of it, and for torchrun to notice first
# which one ended: torchrun looks ten times a second.
LISTENING_SECONDS = 1.5
STARTING_SECONDS = 60.0  # that processes may begin apart: one reads torch from a slow disk, another from memory
_COUNTER = "num_batches_tracked"  # BatchNorm's; it counts the same everywhere


class Alone:
    """One process: the whole batch is its own, and nobody is to be told anything."""

    rank, size, leads = 0, 1, True
    launch: Launch | None = None

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        return

    def leave(self) -> None:
        """Go on alone: nothing more is to be summed or told."""

    def place(self, device: torch.device) -> torch.device:
        """Return this process's own device of that kind."""
        return device

    def average_gradients(self, net: nn.Module, parameters: Sequence[nn.Parameter], loss: Loss, labels: Tensor) -> None:
        """Make the gradients of this process's part of a batch, whose mean loss it took, those of the whole batch.

        The net's buffers become those of the first process.
        """

    def drawing(self, device: torch.device, part: int, whole: int) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a net draws random numbers for its `part` of a batch of `whole` pictures."""
        return _AS_IT_IS

    def whole_batches(
        self, losses: list[float], sizes: list[int], correct: int, next_block: int
    ) -> tuple[list[float], list[int], int]:
        """Turn losses and sizes of this process's parts of the last steps, and its right answers, into the batches'.

        `next_block`: steps until the next ones are read; it is the first process's that counts.
        """
        return losses, sizes, correct

    def block_ends(self, steps: int, is_due: bool) -> bool:
        """Say whether the losses of the last `steps` are to be read now; `is_due` as one process would."""
        return is_due

    def answers(self, ask: Callable[[Rows], Answers], images: Rows, classes: int) -> Answers:
        """Return the logits (n, classes) that `ask` gives for images (n, H, W, C)."""
        return ask(images)

    def agree(self, stop: int, total_steps: int) -> tuple[int, int]:
        """Return the signal that stops the run, whichever process it came to, and the first process's total steps."""
        return stop, total_steps

    def meet(self) -> None:
        """Wait until every process is here."""

    def tell(self, value: Value | None) -> Value:
        """Return the first process's value, which JSON must be able to hold."""
        assert value is not None
        return value

    def tell_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the first process's tensors."""
        return dict(tensors or {})


ALONE = Alone()
_AS_IT_IS = contextlib.nullcontext()


class Team(Alone):
    """This process among `size` that torchrun started; used as `with Team(launch, seconds) as team: …`.

    Each of them calls each method, in the same order. A process that does not answer for `timeout` seconds, or is gone,
    raises PeerLost in the others.
    """

    def __init__(self, launch: Launch, timeout: float) -> None:
        self.launch = launch
        self.rank, self.size, self.leads = launch.rank, launch.size, launch.rank == 0
        self.timeout = timeout
        self._shares: list[Tensor] = []  # of the mean loss of each batch since the last block
        self._block = 1
        torch.set_num_threads(launch.threads)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            starting = timedelta(seconds=max(timeout, STARTING_SECONDS))
            self._store, _, _ = next(dist.rendezvous("env://", timeout=starting))
            # Started again by torchrun, the store still holds the addresses of the processes before. Several machines
            # count the starts each for itself, so that only the number of a single one is the same for all.
            again = launch.restarts if launch.local_size == self.size else 0
            store = dist.PrefixStore(f"striate/start/{again}", self._store)
            place: dict[str, Any] = {"store": store, "rank": self.rank, "world_size": self.size}
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout), **place)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise StriateError(
                f"process {self.rank} of {self.size} did not find the others", reason, "see docs/distributed.md"
            ) from error
        self._store.set(self._key("process"), f"{platform.node()} {os.getpid()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Leave; an error is first told to the others, so that the one who speaks can name it."""
        if error is not None and not isinstance(error, (PeerLost, GeneratorExit)):
            told = ": ".join(str(error).splitlines()[:2]) or type(error).__name__
            with contextlib.suppress(RuntimeError):
                self._store.set(self._key("left"), told)
            if not self.leads:
                error.told = True  # type: ignore[attr-defined]
        self.leave()

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def place(self, device: torch.device) -> torch.device:
        assert self.launch is not None
        if device.type == "cpu":
            return device
        here = self.launch.local_size
        if device.type != "cuda" or (device.index is not None and here > 1):
            raise UsageError(
                f"{here} processes cannot share the device {device}", "each needs one of its own", "use --device cuda"
            )
        if here > torch.cuda.device_count():
            raise UsageError(
                f"{here} processes and {torch.cuda.device_count()} CUDA devices",
                "each process needs one of its own",
                f"use --nproc-per-node {torch.cuda.device_count()}, or --device cpu",
            )
        torch.cuda.set_device(self.launch.local_rank)
        return torch.device("cuda", self.launch.local_rank)

    def average_gradients(self, net: nn.Module, parameters: Sequence[nn.Parameter], loss: Loss, labels: Tensor) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        own = [parameter.grad for parameter in trained]
        mass = loss.mass(labels).reshape(1).float()
        present = torch.tensor([float(gradient is not None) for gradient in own], device=mass.device)
        buffers = [buffer for name, buffer in net.named_buffers() if not name.endswith(_COUNTER)]
        floats = [buffer for buffer in buffers if buffer.dtype == torch.float32]
        theirs = [buffer.flatten() if self.leads else torch.zeros_like(buffer).flatten() for buffer in floats]
        gradients = [
            torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
            for parameter, gradient in zip(trained, own)
        ]
        bucket = torch.cat([*gradients, mass, present, *theirs])
        end = sum(parameter.numel() for parameter in trained)
        bucket[:end] *= mass
        self._sum(bucket)
        self._shares.append(mass / bucket[end])
        bucket[:end] /= bucket[end].clone()
        found = [True] * len(own) if len(own) == sum(gradient is not None for gradient in own) else None
        if found is None:  # one that no process has a gradient for is left alone, as one process leaves it
            found = [number > 0 for number in bucket[end + 1 : end + 1 + len(own)].tolist()]
        pieces = bucket[:end].split([parameter.numel() for parameter in trained])
        for parameter, piece, is_there in zip(trained, pieces, found):
            if is_there:
                parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad.copy_(piece.view(parameter.shape))
        with torch.no_grad():
            pieces = bucket[end + 1 + len(own) :].split([buffer.numel() for buffer in floats])
            for buffer, piece in zip(floats, pieces):
                buffer.copy_(piece.view(buffer.shape))
        for buffer in buffers:
            if buffer.dtype != torch.float32:
                self._send(buffer)

    def drawing(self, device: torch.device, part: int, whole: int) -> contextlib.AbstractContextManager[Any]:
        if device.type == "cpu":
            rows = np.array_split(np.arange(whole), self.size)[self.rank]
            return Drawing(part, int(rows[0]) if len(rows) else 0, whole, self.rank, self.size)
        torch.cuda.manual_seed(torch.cuda.initial_seed() + self.rank)  # numbers of its own, not one process's
        return _AS_IT_IS

    def whole_batches(
        self, losses: list[float], sizes: list[int], correct: int, next_block: int
    ) -> tuple[list[float], list[int], int]:
        shares = torch.cat(self._shares).double().cpu()
        self._shares = []
        steps = len(losses)
        own = torch.tensor(losses, dtype=torch.float64) * shares
        counts = [*sizes, correct, next_block if self.leads else 0]
        numbers = torch.cat((own, torch.tensor(counts, dtype=torch.float64)))
        self._sum(numbers)
        whole = numbers.tolist()
        self._block = int(whole[-1])
        return whole[:steps], [int(size) for size in whole[steps:-2]], int(whole[-2])

    def block_ends(self, steps: int, is_due: bool) -> bool:
        return steps >= self._block

    def answers(self, ask: Callable[[Rows], Answers], images: Rows, classes: int) -> Answers:
        rows = np.array_split(np.arange(len(images)), self.size)[self.rank]
        whole = torch.zeros(len(images), classes)
        if len(rows):
            own = slice(int(rows[0]), int(rows[-1]) + 1)
            whole[own] = torch.from_numpy(ask(images.part(own)))
        self._sum(whole)
        return whole.numpy()

    def agree(self, stop: int, total_steps: int) -> tuple[int, int]:
        orphaned = self.launch is not None and os.getppid() != self.launch.parent
        if orphaned and not stop:  # nobody else would end this process
            stop = int(signal.SIGTERM)
        numbers = torch.tensor([stop, total_steps if self.leads else 0])
        self._greatest(numbers)
        return int(numbers[0]), int(numbers[1])

    def meet(self) -> None:
        self._sum(torch.zeros(1))

    def tell(self, value: Value | None) -> Value:
        text = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8).copy()
        length = torch.tensor([len(text)])
        self._send(length)
        content = torch.from_numpy(text) if self.leads else torch.empty(int(length), dtype=torch.uint8)
        self._send(content)
        told: Value = json.loads(content.numpy().tobytes())
        return told

    def tell_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        tensors = tensors or {}
        known = [(name, str(one.dtype).removeprefix("torch."), list(one.shape)) for name, one in tensors.items()]
        received = {}
        for name, kind, shape in self.tell(known if self.leads else None):
            of_leader = tensors[name].detach().cpu().contiguous() if self.leads else None
            received[name] = torch.empty(shape, dtype=getattr(torch, kind)) if of_leader is None else of_leader
            self._send(received[name])
        return received

    def _sum(self, tensor: Tensor) -> None:
        self._reach(lambda: dist.all_reduce(tensor))

    def _greatest(self, tensor: Tensor) -> None:
        self._reach(lambda: dist.all_reduce(tensor, dist.ReduceOp.MAX))

    def _send(self, tensor: Tensor) -> None:
        self._reach(lambda: dist.broadcast(tensor, 0))

    def _reach(self, act: Callable[[], Any]) -> None:
        """Do what all processes do together. Raises PeerLost where one of them does not."""
        try:
            act()
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> PeerLost:
        """Find out who is missing, end one that stands still on this machine, and build the error that names it.

        One process tells it: the first of those that are left.
        """
        assert self.launch is not None
        stands_still = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        with contextlib.suppress(RuntimeError):
            self._store.set(self._key("lost"), "yes")
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()  # those who wait for this process shall not wait any longer
        time.sleep(LISTENING_SECONDS)
        said = {rank: self._read("left", rank) for rank in range(self.size)}
        there = [rank for rank in range(self.size) if rank == self.rank or self._read("lost", rank)]
        gone = [rank for rank in range(self.size) if rank not in there]
        reasons = [f"process {rank}: {said[rank]}" for rank in gone if said[rank]]
        silent = [rank for rank in gone if not said[rank]]
        names = " and ".join(str(rank) for rank in silent or gone) or "another"
        if reasons:
            what, cause = f"process {names} of {self.size} left", "; ".join(reasons)
        elif stands_still:
            what = f"process {names} of {self.size} has not answered for {self.timeout:g} s"
            cause = "it stands still, or is at a longer work than that (--timeout)"
            self._end_here(silent)
        else:
            what = f"process {names} of {self.size} is gone"
            cause = "it was killed, or its machine or the network failed"
        lost = PeerLost(what, cause)
        lost.told = self.rank != min(there) or bool(said[0])
        return lost

    def _end_here(self, ranks: Sequence[int]) -> None:
        """End processes of this machine that stand still: torchrun would wait half a minute before it does so."""
        for rank in ranks:
            node, _, number = self._read("process", rank).partition(" ")
            if node == platform.node() and number.isdigit():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(number), signal.SIGKILL)

    def _key(self, what: str, rank: int | None = None) -> str:
        assert self.launch is not None
        return f"striate/{self.launch.restarts}/{what}/{self.rank if rank is None else rank}"

    def _read(self, what: str, rank: int) -> str:
        try:
            known = self._store.check([self._key(what, rank)])
            return self._store.get(self._key(what, rank)).decode() if known else ""
        except RuntimeError:  # the store's own process is the one that is gone
            return ""


class Drawing(torch.utils._python_dispatch.TorchDispatchMode):
    """Makes dropout draw for the whole batch and take this process's rows: the numbers that one process would draw.

    A part of a part (--accumulate) has numbers of its own for each process.
    """

    def __init__(self, part: int, first: int, whole: int, rank: int, size: int) -> None:
        super().__init__()
        self.part, self.first, self.whole = part, first, whole
        self.rank, self.size = rank, size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _DRAWS or args[0].ndim == 0:
            return func(*args, **(kwargs or {}))
        own = args[0]
        rows = len(own)
        whole, first = (self.whole, self.first) if rows == self.part else (rows * self.size, rows * self.rank)
        apart = own.ndim == 4 and not own.is_contiguous() and own.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if apart else torch.contiguous_format
        drawn = torch.empty((whole, *own.shape[1:]), dtype=own.dtype, memory_format=layout)
        func(drawn, *args[1:], **(kwargs or {}))
        return own.copy_(drawn[first : first + rows])


_DRAWS = {torch.ops.aten.bernoulli_.float, torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default}


def join(timeout: str) -> Alone:
    """Return this process's team: those that torchrun started, which wait `timeout` (10m) for each other; or itself."""
    launch = find_launch()
    if launch is None or launch.size == 1:
        team = Alone()
        team.launch = launch
        return team
    return Team(launch, parse_time(timeout))


def remarks(team: Alone, device: torch.device, has_batchnorm: bool) -> Iterator[str]:
    """Yield what is to be said of a team before it trains."""
    launch = team.launch
    if launch is None or team.size == 1:
        return
    if device.type == "cpu" and launch.local_size == team.size:
        shared = f"{team.size} processes share {cores()} cores, which one process uses without exchanging gradients"
        yield f"{shared}: on one machine more processes can only lose"
    if has_batchnorm and device.type == "cpu":
        yield "BatchNorm measures each process's part of a batch: the end is not that of one process, but as good a one"
