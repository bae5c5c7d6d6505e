"""Where and how to compute: device, threads, precision plan, and random numbers that are functions of a key."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from striate.errors import UsageError

# Multiply-adds of a training step's forward pass (benchmarks/small_steps.py; docs/numbers.md, "Small steps").
# Below the first, oneDNN's kernels cost more to call than they bring. Below the second, a second thread brings a tenth
# at best, and costs tens of times where another program wants its core: the threads wait for each other at every layer.
PLAIN_KERNEL_MACS = 500_000
ONE_THREAD_MACS = 4_000_000
# From here on `auto` takes bf16, on a processor that computes in it: convolutions and matrix products then fill a step,
# and those bf16 halves. Below, turning numbers from one format into the other costs about what it saves. A cautious
# rule, to be checked on a processor with bf16 by benchmarks/plan.py.
BF16_MACS = 1_000_000_000


def choose_device(name: str) -> tuple[torch.device, str]:
    """Return the device that `name` asks for and a sentence where `auto` had to settle for the CPU.

    `name`: auto, cpu, cuda, cuda:1 or mps. Raises UsageError for a device that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), ""
        if torch.backends.mps.is_available():
            return torch.device("mps"), ""
        return torch.device("cpu"), "no GPU found: using the CPU"
    kind = name.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device {name!r}", "known: auto, cpu, cuda, cuda:1, mps", "use --device auto")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}", str(error).splitlines()[0], "use --device auto") from error
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(
                f"device {name} is not there", f"torch sees {count} CUDA devices", "use --device auto or --device cpu"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps is not there", "it needs macOS on Apple silicon", "use --device auto")
    return device, ""


def fits(device: torch.device, content: int) -> bool:
    """Say whether so many bytes may lie on a GPU all the time: where they take at most half of what is free there."""
    return device.type == "cuda" and 2 * content <= torch.cuda.mem_get_info(device)[0]


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a tensor to the device; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def key(seed: int, stream: str, epoch: int = 0, step: int = 0) -> int:
    """Return a 63-bit number that is a function of its arguments alone (blake2b).

    Order, augmentation and dropout are seeded with it, so no generator state ever needs saving.
    """
    text = f"{seed}/{stream}/{epoch}/{step}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, stream: str, epoch: int = 0, step: int = 0) -> torch.Generator:
    """Return a CPU generator seeded with `key(seed, stream, epoch, step)`."""
    return torch.Generator().manual_seed(key(seed, stream, epoch, step))


def seed_step(device: torch.device, seed: int, epoch: int, step: int) -> None:
    """Seed torch's own generators, which dropout draws from, for one step."""
    number = key(seed, "dropout", epoch, step)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


def processor_flags() -> frozenset[str]:
    """Return what torch knows of this processor: its capability level, and `bf16` where it computes in bfloat16."""
    flags = {torch.backends.cpu.get_cpu_capability().lower()}
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if any(getattr(torch.cpu, probe, lambda: False)() for probe in probes):
        flags.add("bf16")
    return frozenset(flags)


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Take numbers under 1e-38 for 0 inside a `with`, or in a function that this decorates; afterwards as before.

    Arithmetic on them is up to a hundred times slower, and nothing in a net hangs on them. torch's worker threads take
    the setting over from the thread that starts them, at the first parallel operation: so every room that computes
    does it in here.
    """
    kept = sys.float_info.min / 2 > 0.0  # as it is now; torch cannot tell
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if kept:
            torch.set_flush_denormal(False)


@dataclass(frozen=True)
class Plan:
    """How a run computes: a pure function of processor, net and batch, recorded in the run and replayed by resume.

    `answer_threads` is for answers, whose batches are large whatever the training's are; 0: torch's own number.
    """

    precision: str
    channels_last: bool
    threads: int
    onednn: bool
    reason: str
    answer_threads: int = 0

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of pictures and convolution weights in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which forward and loss run; it does nothing in fp32."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Compute with the plan's threads and kernels inside a `with`; afterwards as before."""
        backend: Any = torch.backends.mkldnn
        threads, onednn = torch.get_num_threads(), backend.enabled
        with denormals_flushed():
            torch.set_num_threads(self.threads)
            backend.enabled = self.onednn
            try:
                yield
            finally:
                torch.set_num_threads(threads)
                backend.enabled = onednn

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)


def make_plan(
    device: torch.device,
    *,
    precision: str,
    threads: int,
    step_macs: int,
    channels_last: bool,
    flags: frozenset[str],
    available_threads: int,
) -> Plan:
    """Choose precision, memory format, threads and kernels; never by a timing, so the same seed gives the same bits.

    `precision`: auto, fp32 or bf16; `threads`: 0 chooses; `step_macs`: forward multiply-adds of one batch;
    `channels_last`: whether the net gains by that layout and can take it.
    Raises UsageError for bf16 on a processor without it.
    """
    on_processor = device.type == "cpu"
    channels_last = channels_last and device.type != "mps"
    reasons = ["channels-last" if channels_last else "plain layout"]
    if precision == "auto":
        precision, reason = _choose_precision(device, step_macs, flags)
        reasons += [reason] if reason else []
    else:
        check_precision(precision, device, flags)
        reasons.append("precision as asked")
    answer_threads = threads or available_threads
    if threads > 0:
        reasons.append("threads as asked")
    elif on_processor and step_macs < ONE_THREAD_MACS:
        threads = 1
        reasons.append(f"a step of {step_macs / 1e6:.1f} million multiply-adds is small")
    else:
        threads = available_threads
    plain_kernels = on_processor and step_macs < PLAIN_KERNEL_MACS
    if plain_kernels:
        reasons.append("plain kernels")
    return Plan(precision, channels_last, threads, not plain_kernels, ", ".join(reasons), answer_threads)


def _choose_precision(device: torch.device, step_macs: int, flags: frozenset[str]) -> tuple[str, str]:
    """Return the precision that `auto` means, and why."""
    if device.type != "cpu":
        return ("bf16", "") if device.type == "cuda" else ("fp32", "")
    if "bf16" not in flags:
        return "fp32", "a processor without bf16"
    if step_macs < BF16_MACS:
        return "fp32", "a step too small for bf16"
    return "bf16", "a processor with bf16"


def check_precision(precision: str, device: torch.device, flags: frozenset[str]) -> None:
    """Raise UsageError for bf16 on a processor without it: there it is emulated, tens of times slower."""
    if precision == "bf16" and device.type == "cpu" and "bf16" not in flags:
        raise UsageError(
            "precision bf16 is not for this processor",
            "it has neither AVX512_BF16 nor AMX; bf16 would be emulated, tens of times slower",
            "use --precision fp32",
        )


def available_threads() -> int:
    """Return how many threads torch would use by itself: cores this process may run on, or OMP_NUM_THREADS."""
    return max(1, torch.get_num_threads())


def peak_memory_mb() -> float:
    """Return the most memory this process has held, in megabytes (0 where the system does not say)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def processor_name() -> str:
    """Return the processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment(device: torch.device) -> dict[str, Any]:
    """Return what env.json records: versions, machine, device."""
    import numpy
    import PIL

    import striate

    return {
        "format": 1,
        "striate": striate.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "system": platform.platform(),
        "processor": processor_name(),
        "capability": sorted(processor_flags()),
        "cores": os.cpu_count(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
    }
