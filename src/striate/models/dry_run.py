"""Running a net for a look at it, without a trace left in it: the ground for the layer table and the check."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from striate.models.receptive import Fields
from striate.models.watching import Operation, Watch, is_shared


def set_mode(net: nn.Module, training: bool) -> None:
    """Put a net into training or evaluation mode, also where its class uses the name `train` for something else.

    An override is called if its first parameter is `mode`, as in torch (a net may keep its BatchNorm frozen that way);
    any other, such as the first article's `train(self, inputs, targets)`, is passed over.
    """
    train = type(net).train
    own_mode = train is nn.Module.train
    if not own_mode:
        names = list(inspect.signature(train).parameters)
        if names[1:2] == ["mode"]:
            net.train(training)
            return
    net.training = training
    for child in net.children():
        set_mode(child, training)


@contextlib.contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Give back every buffer, mode and random number generator bit for bit when the block ends.

    Lazy layers are the exception: a run gives them their shape, and they keep it.
    """
    modes = [(module, module.training) for module in net.modules()]
    buffers = [
        (module, name, buffer, None if buffer is None or is_lazy(buffer) else buffer.detach().clone())
        for module in net.modules()
        for name, buffer in module._buffers.items()
    ]
    devices = sorted({tensor.device.index for tensor in net.parameters() if tensor.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, buffer, copy in buffers:
            if buffer is not None and copy is not None:
                # A net may have put another tensor in the buffer's place; the optimizer or EMA knows the first.
                buffer.copy_(copy)
                module._buffers[name] = buffer


def example_pictures(net: nn.Module, count: int, input_shape: tuple[int, int, int]) -> Tensor:
    """Return `count` different pictures of noise (count, C, H, W) where the net's weights are."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand((count, *input_shape), generator=generator)
    parameter = next(iter(net.parameters()), pictures)
    return pictures.to(parameter.device, parameter.dtype if parameter.dtype.is_floating_point else None)


@dataclass
class Call:
    """One run of one module: its qualified name, and the shapes of its first tensor going in and coming out.

    `macs` are the multiply-adds of the operations in its own `forward`, None if one is not known; `fields` what its
    output sees of the picture; `is_view` says that the output stands in the memory of the input. All three need a
    watched run.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None = None
    output: Any = field(default=None, repr=False)
    macs: int | None = 0
    fields: Fields | None = field(default=None, repr=False)
    is_view: bool = False

    @property
    def is_layer(self) -> bool:
        """Whether the module does work of its own rather than only joining others."""
        return next(self.module.children(), None) is None

    @property
    def title(self) -> str:
        """The layer as its owner would look for it: `fc1 nn.Linear(in_features=1568, out_features=10, bias=True)`."""
        kind = type(self.module)
        name = f"layer {self.name}" if self.name.isdigit() else self.name
        if not self.is_layer:
            return f"{name} {kind.__name__}".strip()
        prefix = "nn." if kind.__module__.startswith("torch.nn.") else ""
        text = repr(self.module)
        if "\n" in text or len(text) > 80:  # BatchNorm's would fill a line with defaults
            text = text.replace("\n", " ").partition(",")[0] + ", …)"
        return f"{name} {prefix}{text}".strip()


@dataclass
class Trace:
    """The modules of one run: those that ended, in that order, and those still running, outermost first.

    In a watched run `steps` holds the ended modules and the operations between them, each operation with the module
    whose `forward` called it.
    """

    ended: list[Call] = field(default_factory=list)
    running: list[Call] = field(default_factory=list)
    output: Any = None
    steps: list[Call | tuple[Call, Operation]] = field(default_factory=list)
    watch: Watch | None = None

    @property
    def layers(self) -> list[Call]:
        """The ended modules without children, in the order in which they ran."""
        return [call for call in self.ended if call.is_layer]

    def hear(self, operation: Operation) -> None:
        """Note an operation under the module that is running."""
        if self.running:
            sofar = self.running[-1].macs
            self.running[-1].macs = None if sofar is None or operation.macs is None else sofar + operation.macs
            self.steps.append((self.running[-1], operation))


@contextlib.contextmanager
def traced(net: nn.Module, watched: Tensor | None = None) -> Iterator[Trace]:
    """Record every module that runs inside the block; the record is good also when the run fails.

    With a picture (1, C, H, W) to be `watched`, what happens to it is recorded operation by operation.
    """
    trace = Trace()
    names = {module: name for name, module in net.named_modules()}

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        trace.running.append(Call(names[module], module, _shape(arguments)))

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        call = trace.running.pop()
        while call.module is not module:  # the net caught the error of an inner module and went on
            call = trace.running.pop()
        call.output_shape = _shape(output)
        call.output = output
        trace.ended.append(call)
        if trace.watch is not None:
            call.fields = trace.watch.fields_of(output)
            call.is_view = is_shared(arguments, output)
            trace.steps.append(call)

    handles = [
        handle
        for module in names
        for handle in (module.register_forward_pre_hook(before), module.register_forward_hook(after))
    ]
    try:
        if watched is None:
            yield trace
        else:
            with Watch(watched, trace.hear) as trace.watch:
                yield trace
    finally:
        for handle in handles:
            handle.remove()


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of the first tensor in a value that may be a tuple, a list or a dict."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return next((shape for shape in map(_shape, value) if shape is not None), None)
    return None


def last_place(error: BaseException, file_name: str = "") -> str:
    """Return `file:line: source` of the innermost frame outside torch and striate's nets (in `file_name`, if given)."""
    library = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file_name or (not file_name and not frame.filename.startswith(library)):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return ""
