"""What the layers hold: kernels, feature maps of a picture, and what a single cell of a map sees of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from striate.errors import UsageError, unknown_name
from striate.explain.looking import Batch, Floats, as_input, at_rest, watched

Field = tuple[int, int, int, int]  # top, left, bottom, right in pixels; the last two are left out

_PADDING_MODES = {"zeros": "constant"}  # functional.pad has another name for it
# Layers that pool, and such as change each number for itself.
_MAXIMA = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)
_MEANS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_EACH = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity),
)


@dataclass(frozen=True)
class Layer:
    """One run of one layer: its name (`relu#2` is a second run), its class, the shape it returns for one picture.

    `maps` (C, H, W) are told from `units` (F,) by the length of the shape.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def has_maps(self) -> bool:
        """Whether it returns maps (C, H, W)."""
        return len(self.shape) == 3


@dataclass(frozen=True)
class LayerMaps:
    """The feature maps of one layer: float32 (N, C, H, W)."""

    name: str
    kind: str
    maps: Floats


@dataclass(frozen=True)
class Terms:
    """The multiply-adds behind one number: `inputs`, `weights`, `products` of one shape, a bias, and their sum.

    (I, kh, kw) for a convolution, zeros where it looks over the picture's edge; (F,) for a linear layer. `channels` are
    the numbers of the I maps among the layer's inputs: all, but for grouped convolutions.
    """

    inputs: Floats
    weights: Floats
    products: Floats
    bias: float
    total: float
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """The numbers that one number of a layer without kernels is made of: `inputs` (h, w), and by which `rule`.

    `max` and `mean` of a pooling layer; `each` where the number at the same place alone counts, as for an activation.
    """

    inputs: Floats
    rule: str


@dataclass(frozen=True)
class Cell:
    """One number of a layer's output for one picture.

    `field`: the pixels of the picture that it hangs on, (top, left, bottom, right), the last two left out; None where
    it hangs on none. `terms`: for a convolution and a linear layer, how it comes about; `window` for pooling layers
    and such as change each number for itself.
    """

    value: float
    field: Field | None
    terms: Terms | None
    window: Window | None = None


def list_layers(net: nn.Module, batch: Batch) -> list[Layer]:
    """Return the layers in the order in which they run on a batch (N, C, H, W).

    A module that joins others is among them where it returns something of its own, such as a residual block's sum.
    """
    found: list[Layer] = []
    last: tuple[Any, int] = (None, 0)

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal last
        if not isinstance(output, Tensor) or output.dim() < 2:
            return
        joins = next(module.children(), None) is not None
        # In-place functions change what an inner module returned without making another tensor of it.
        same = output is last[0] and output._version == last[1]
        last = (output, output._version)
        if not (joins and same):
            found.append(Layer(name, type(module).__name__, tuple(output.shape[1:])))

    with at_rest(net), watched(net, see):
        net(as_input(net, batch)[:1])
    return found


def left_out(layers: Sequence[Layer]) -> str:
    """Return a sentence about the layers that have no maps to look at; empty where all have them."""
    units = [layer for layer in layers if not layer.has_maps]
    if not units:
        return ""
    named = ", ".join(f"{layer.name} ({'×'.join(map(str, layer.shape))})" for layer in units[:8])
    more = f" and {len(units) - 8} more" if len(units) > 8 else ""
    return f"without maps, since they return single numbers: {named}{more}"


def feature_maps(net: nn.Module, batch: Batch, layers: Sequence[str] | None = None) -> list[LayerMaps]:
    """Return the maps of every layer that has them, or of the named ones, in the order in which they run.

    `batch` (N, C, H, W), normalised (`Predictor.preprocess.normalise`). Each `maps` is float32 (N, C, H, W): what the
    layer returned in evaluation mode, also where a later layer overwrites it. Layers without maps, such as linear
    ones, are not among them (`list_layers` has all, `left_out` a sentence). Raises UsageError for an unknown name.
    """
    pictures = as_input(net, batch)
    known = list_layers(net, pictures)
    if layers is not None:
        for name in layers:
            check_layer(net, known, name)
    wanted = {layer.name for layer in known if layer.has_maps} if layers is None else set(layers)
    found: list[LayerMaps] = []

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if name in wanted and isinstance(output, Tensor) and output.dim() == 4:
            maps = output.float().cpu().contiguous().clone().numpy()
            found.append(LayerMaps(name, type(module).__name__, maps))

    with at_rest(net), watched(net, see):
        net(pictures)
    return found


def layer_output(net: nn.Module, batch: Batch, layer: str) -> Floats:
    """Return what a layer returns for a batch (N, C, H, W): maps (N, C, H, W), or single numbers (N, F); float32.

    `layer` as `list_layers` names it. Raises UsageError for one that is not there or does not run.
    """
    pictures = as_input(net, batch)
    check_layer(net, list_layers(net, pictures), layer)
    caught: list[Floats] = []

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if name == layer and isinstance(output, Tensor):
            caught.append(output.float().cpu().contiguous().clone().numpy())

    with at_rest(net), watched(net, see):
        net(pictures)
    if not caught:
        raise UsageError(f"layer {layer} does not run", "the net leaves it out in evaluation mode")
    return caught[0]


def check_layer(net: nn.Module, known: Sequence[Layer], name: str) -> None:
    """Raise UsageError, with the near names, for a layer that is neither listed nor the name of a module."""
    names = [layer.name for layer in known]
    base = name.rpartition("#")[0] if name.rpartition("#")[2].isdigit() else name
    if name not in names and (not base or base not in dict(net.named_modules())):
        raise unknown_name("layer", name, names, fix="`striate explain RUN --layers` lists them all")


def kernels(net: nn.Module, layer: str, input_shape: tuple[int, int, int] | None = None) -> Floats:
    """Return a layer's kernels, float32 (O, I, kh, kw): one for each output and input channel.

    A linear layer that reads whole pictures (C, H, W) = `input_shape` gives its weights as kernels of the picture's
    size. Raises UsageError for an unknown layer and one without kernels.
    """
    modules = {name: module for name, module in net.named_modules() if name}
    if layer not in modules:
        raise unknown_name("layer", layer, modules)
    module = modules[layer]
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear) and input_shape and _reads_the_picture(net, layer, module, input_shape):
        weight = module.weight.view(-1, *input_shape)
    elif not isinstance(module, nn.Conv2d):
        weight = None
    if not isinstance(weight, Tensor):
        raise UsageError(
            f"layer {layer} has no kernels",
            f"it is {type(module).__name__}; convolutions have them, and linear layers that read the picture itself",
        )
    return weight.detach().float().cpu().contiguous().numpy().copy()


def layers_with_kernels(net: nn.Module, input_shape: tuple[int, int, int]) -> list[str]:
    """Return the names of the layers whose kernels can be shown, in the net's order."""
    names = [name for name, module in net.named_modules() if name and isinstance(module, nn.Conv2d)]
    if names:
        return names
    linear = [(name, module) for name, module in net.named_modules() if name and isinstance(module, nn.Linear)]
    return [name for name, module in linear[:1] if _reads_the_picture(net, name, module, input_shape)]


def _reads_the_picture(net: nn.Module, layer: str, module: nn.Linear, input_shape: tuple[int, int, int]) -> bool:
    """Say whether a linear layer gets the picture itself, and not as many numbers of another kind."""
    if module.in_features != math.prod(input_shape):
        return False
    picture = as_input(net, torch.linspace(0, 1, module.in_features).view(1, *input_shape))
    taken: list[Tensor] = []

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if name == layer:
            taken.append(arguments[0].flatten().clone())

    with at_rest(net), watched(net, see):
        net(picture.clone())
    return bool(taken) and torch.equal(taken[0], picture.flatten())


def scaled(kernel: Floats) -> Floats:
    """Scale weights for display: 0.5 is zero, and the weight farthest from it becomes 0 or 1."""
    farthest = float(abs(kernel).max(initial=0.0))
    return 0.5 + kernel / (2 * farthest) if farthest > 0 else kernel * 0 + 0.5


def cell(net: nn.Module, picture: Batch, layer: str, channel: int, y: int, x: int) -> Cell:
    """Return what one number of a layer's output sees of a picture (C, H, W), and how it comes about.

    `layer` as `list_layers` names it, `channel, y, x` its place in the map; for a linear layer the unit, 0, 0. Raises
    UsageError for a layer or place that is not there.
    """
    pictures = as_input(net, picture[None])
    check_layer(net, list_layers(net, pictures), layer)
    caught: list[tuple[nn.Module, Tensor, Tensor]] = []

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if name == layer and isinstance(output, Tensor):
            given = next((value for value in arguments if isinstance(value, Tensor)), output)
            caught.append((module, given.detach().clone(), output.detach().clone()))

    with at_rest(net), watched(net, see):
        net(pictures)
        if not caught:
            raise UsageError(f"layer {layer} does not run", "the net leaves it out in evaluation mode")
        module, given, output = caught[0]
        place = (channel, y, x) if output.dim() == 4 else (channel,)
        if output.dim() not in (2, 4) or not all(
            0 <= at < length for at, length in zip(place, output.shape[1:], strict=True)
        ):
            shape = tuple(output.shape[1:])
            raise UsageError(f"layer {layer} has no cell {channel}, {y}, {x}", f"its output has shape {shape}")
        terms, window = _terms(module, given, place), _window(module, given, output, place)
    value = float(output[(0, *place)])
    return Cell(value, receptive_field(net, tuple(pictures.shape[1:]), layer, place), terms, window)


def receptive_field(net: nn.Module, input_shape: tuple[int, ...], layer: str, place: tuple[int, ...]) -> Field | None:
    """Return the box of pixels that one number (channel, y, x) of a layer's output hangs on; None where it is none.

    Found by trial: pixels that are not numbers make every number that hangs on them one, whatever joins them, so the
    box is right for branches, skips and functions too. Each edge is halved in on, all four in one batch.
    """
    height, width = input_shape[1:]
    caught: list[Tensor] = []

    def see(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if name == layer:
            caught.append(output[(slice(None), *place[: output.dim() - 1])].isnan())

    def reached(boxes: Sequence[Field]) -> list[bool]:
        """Say for each box of pixels whether the cell hangs on one of them."""
        pictures = torch.zeros((len(boxes), *input_shape))
        for picture, (top, left, bottom, right) in zip(pictures, boxes, strict=True):
            picture[:, top:bottom, left:right] = math.nan
        caught.clear()
        net(as_input(net, pictures))
        return [bool(answer) for answer in caught[0].tolist()]

    with at_rest(net), watched(net, see), _exact_kernels():
        if not reached([(0, 0, height, width)])[0]:
            return None
        # The first three numbers of each edge: pixels on its outer side that are surely free, and surely not.
        free, met = [0, 0, 0, 0], [height, width, height, width]
        while any(many - few > 1 for few, many in zip(free, met, strict=True)):
            middle = [(few + many) // 2 for few, many in zip(free, met, strict=True)]
            boxes = [
                (0, 0, middle[0], width),
                (0, 0, height, middle[1]),
                (height - middle[2], 0, height, width),
                (0, width - middle[3], height, width),
            ]
            for edge, hit in enumerate(reached(boxes)):
                if hit:
                    met[edge] = middle[edge]
                else:
                    free[edge] = middle[edge]
    return free[0], free[1], height - free[2], width - free[3]


@contextlib.contextmanager
def _exact_kernels() -> Iterator[None]:
    """Compute convolutions as sums over each window alone: the fast ways (Winograd, FFT) mix neighbouring windows."""
    onednn: Any = torch.backends.mkldnn
    enabled = onednn.enabled
    onednn.enabled = False  # mkldnn.flags sets TF32 as well, and warns of it
    try:
        with torch.backends.nnpack.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        onednn.enabled = enabled


def _terms(module: nn.Module, given: Tensor, place: tuple[int, ...]) -> Terms | None:
    """Return the multiply-adds of one number; None for a layer that has no sum of products."""
    if type(module).forward is nn.Linear.forward and isinstance(module, nn.Linear) and given.dim() == 2:
        inputs, weights, first = given[0], module.weight[place[0]], 0
    elif type(module).forward is nn.Conv2d.forward and isinstance(module, nn.Conv2d) and given.dim() == 4:
        channel, y, x = place
        count = module.weight.shape[1]
        first = channel // (module.out_channels // module.groups) * count
        padded = functional.pad(given, _padding(module), _PADDING_MODES.get(module.padding_mode, module.padding_mode))
        rows, columns = (
            [at * stride + step * dilation for step in range(size)]
            for at, stride, size, dilation in zip(
                (y, x), module.stride, module.kernel_size, module.dilation, strict=True
            )
        )
        inputs = padded[0, first : first + count][:, rows][:, :, columns]  # (I, kh, kw)
        weights = module.weight[channel]
    else:
        return None
    products = inputs * weights
    bias = float(module.bias[place[0]]) if module.bias is not None else 0.0
    channels = tuple(range(first, first + len(inputs)))
    held, scales, made = (_as_floats(values) for values in (inputs, weights, products))
    return Terms(held, scales, made, bias, float(products.double().sum()) + bias, channels)


def _window(module: nn.Module, given: Tensor, output: Tensor, place: tuple[int, ...]) -> Window | None:
    """Return what one number of a pooling layer or an activation is made of; None for other layers."""
    if isinstance(module, _EACH) and given.shape == output.shape and not getattr(module, "inplace", False):
        return Window(_as_floats(given[(0, *place)].reshape(1, 1)), "each")
    if not isinstance(module, _MEANS + _MAXIMA) or given.dim() != 4 or getattr(module, "divisor_override", None):
        return None
    held, spans = given[0, place[0]], []
    for axis, at in enumerate(place[1:]):
        length = held.shape[axis]
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            many = output.shape[2 + axis]
            spans.append(list(range(at * length // many, -(-(at + 1) * length // many))))
        else:
            names = ("kernel_size", "stride", "padding", "dilation")
            size, stride, padding, dilation = (_of_axis(getattr(module, name, 1), axis) for name in names)
            edge = padding if getattr(module, "count_include_pad", False) else 0  # zeros that count in the mean
            steps = [at * stride - padding + step * dilation for step in range(size)]
            spans.append([step + edge for step in steps if -edge <= step < length + edge])
    if getattr(module, "count_include_pad", False):
        rows, columns = (_of_axis(module.padding, axis) for axis in (0, 1))  # type: ignore[arg-type]
        held = functional.pad(held, (columns, columns, rows, rows))
    return Window(_as_floats(held[spans[0]][:, spans[1]]), "max" if isinstance(module, _MAXIMA) else "mean")


def _as_floats(values: Tensor) -> Floats:
    return values.float().cpu().contiguous().numpy()


def _of_axis(value: int | tuple[int, ...], axis: int) -> int:
    return value if isinstance(value, int) else value[axis]


def _padding(module: nn.Conv2d) -> list[int]:
    """Return the pixels that a convolution adds: left, right, top, bottom, as functional.pad wants them."""
    if isinstance(module.padding, str):
        spans = [
            step * (size - 1) if module.padding == "same" else 0
            for size, step in zip(module.kernel_size, module.dilation, strict=True)
        ]
        sides = [(span // 2, span - span // 2) for span in spans]
    else:
        sides = [(length, length) for length in module.padding]
    return [*sides[1], *sides[0]]
