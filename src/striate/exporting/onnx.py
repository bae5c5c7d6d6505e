"""A trained net as one ONNX file: raw pictures go in, probabilities and logits come out, and the file says what it is.

Input `images` uint8 (N, H, W, C) at the net's size, N free; outputs `probabilities` and `logits`, float32 (N, K).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from striate.data.preprocess import Preprocess
from striate.errors import MissingExtra, UsageError
from striate.models.dry_run import set_mode
from striate.predictor.folding import fold_batchnorm
from striate.predictor.onnx_backend import INPUT, LOGITS, PROBABILITIES
from striate.predictor.onnx_file import CARD_KEY, DIGEST_KEY, MOST_FILE_BYTES, graph_digest
from striate.runs.model_file import ModelCard, card_text

if TYPE_CHECKING:
    import onnx

OUTPUTS = (PROBABILITIES, LOGITS)
# The first with Gelu as one operator, which int8 leaves whole; onnxruntime runs it since 1.17, OpenVINO since 2024.
OPSET = 20
# Of the files' form: the least that has operators of that opset.
IR_VERSION = 9
# What is read again, of which 16 MiB are for the graph: more than 2 GiB would need files beside the file.
MOST_BYTES = MOST_FILE_BYTES - (16 << 20)
INSTALL = "pip install 'striate[export]'"
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


class Deployed(nn.Module):
    """The whole way from pictures uint8 (N, H, W, C) at the net's size to probabilities and logits (N, K)."""

    def __init__(self, net: nn.Module, preprocess: Preprocess, output: str, temperature: float) -> None:
        super().__init__()
        self.net = net
        self.preprocess = preprocess
        self.output = output
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # Laid out as a DataLoader's batches are: a net of the user's own may take a view of its maps.
        pictures = self.preprocess.normalise(images, channels_last=False)  # (N, H, W, C) -> (N, C, H, W)
        logits = self.net(pictures).float()  # -> (N, K)
        scaled = logits if self.temperature == 1.0 else logits / self.temperature
        return scaled.sigmoid() if self.output == "sigmoid" else scaled.softmax(1), logits


def check_installed() -> None:
    """Raise MissingExtra where what writes and runs ONNX files is not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise MissingExtra("cannot export to ONNX", f"it needs {name}, which is not installed", INSTALL)


def build_graph(net: nn.Module, card: ModelCard, source: str) -> onnx.ModelProto:
    """Return a trained net, on the CPU, as a checked ONNX model with its card inside.

    BatchNorm is folded where it follows a convolution; `source` says in words what the model was made of. The net is
    not changed. Raises UsageError for a net that is too large for one file, or that is no graph: whose way hangs on the
    values in a picture or on how many pictures there are.
    """
    import onnx

    size = sum(tensor.nbytes for tensor in net.state_dict().values())
    if size > MOST_BYTES:
        raise UsageError(
            f"the net has {size:,} bytes of weights",
            f"an ONNX file in one piece holds {MOST_BYTES:,}",
            "use --to striate, which takes more",
        )
    preprocess = Preprocess.from_json(card.preprocess)
    deployed = Deployed(fold_batchnorm(net), preprocess, card.output, card.temperature)
    was_training = net.training
    set_mode(deployed, False)
    try:
        with quiet():
            model = _trace(deployed, (*preprocess.size, preprocess.channels))
    except Exception as error:  # whatever a user's forward, or the exporter, says of it
        raise UsageError(
            f"{type(net).__name__} cannot be written as an ONNX graph",
            _root(error),
            "its forward may not decide by the values in a picture or by the number of pictures",
        ) from error
    finally:
        set_mode(net, was_training)
    shapes = [[size.dim_param or size.dim_value for size in _axes(value)] for value in model.graph.output]
    if shapes != [["N", card.num_classes]] * len(OUTPUTS):
        raise UsageError(
            f"{type(net).__name__} cannot be written as an ONNX graph",
            f"for N pictures its answers have the shapes {shapes}",
            "its forward may not write the number of pictures down: use x.size(0), or -1",
        )
    _strip(model)
    describe(model, card, source)
    onnx.checker.check_model(model, full_check=True)
    return model


def describe(model: onnx.ModelProto, card: ModelCard, source: str) -> None:
    """Write into a model's metadata what it is: the card for programs, and the rest for people."""
    import striate

    model.producer_name, model.producer_version = "striate", striate.__version__
    del model.metadata_props[:]
    for key, value in (
        (CARD_KEY, card_text(card)),
        ("classes", json.dumps(card.classes, ensure_ascii=False)),
        ("licence", card.licence),
        ("preprocess", json.dumps(card.preprocess, ensure_ascii=False)),
        ("source", source),
        (DIGEST_KEY, graph_digest(model.SerializeToString())),
    ):
        model.metadata_props.add(key=key, value=value)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep to itself what the exporter prints, logs and warns of."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _trace(deployed: Deployed, shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Write down what a pass does, with the number of pictures left open."""
    program: Any = torch.onnx.export(
        deployed,
        (torch.zeros((2, *shape), dtype=torch.uint8),),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes={INPUT: {0: torch.export.Dim("N")}},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return program.model_proto


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes of the code it read: paths of this machine, and names that nothing needs."""
    model.ir_version = IR_VERSION
    model.graph.name, model.doc_string, model.graph.doc_string = "striate", "", ""
    del model.graph.value_info[:], model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _axes(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


def _root(error: BaseException) -> str:
    """Return the first line of the first cause, which is in the net's own words."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
