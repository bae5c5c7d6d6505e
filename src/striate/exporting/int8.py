"""An ONNX model in 8 bits: weights and activations as whole numbers, their ranges measured on train pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from striate.data.dataset import Images
from striate.exporting.onnx import quiet
from striate.predictor.onnx_backend import INPUT

if TYPE_CHECKING:
    import onnx

CALIBRATION_BATCH = 32
# What costs the time, and what hands numbers on between them. Normalisation, activations that are no ReLU, temperature
# and softmax stay in float32.
QUANTISED = (
    *("Conv", "Gemm", "MatMul", "Relu"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Reshape", "Flatten"),
)


def quantise(model: onnx.ModelProto, pictures: Images) -> onnx.ModelProto:
    """Return a model in 8 bits; `pictures` uint8 (N, H, W, C) at the net's size tell the range of every activation.

    Static, with one scale for each channel of the weights (QDQ). Weights take 7 bits: on processors without VNNI the
    sum of two products of full 8 bits does not fit its 16 bits, and the answers would hang on the machine.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet():
        exact, prepared, written = (Path(folder, f"{name}.onnx") for name in ("exact", "prepared", "int8"))
        onnx.save(model, exact)
        quant_pre_process(exact, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            written,
            _reader(pictures),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(written)


def _reader(pictures: Images) -> Any:
    """Return what hands the pictures to onnxruntime, a batch at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(pictures)

        def get_next(self) -> dict[str, Images] | None:
            return next(self.batches, None)

    return Reader()


def _batches(pictures: Images) -> Iterator[dict[str, Images]]:
    for start in range(0, len(pictures), CALIBRATION_BATCH):
        yield {INPUT: np.ascontiguousarray(pictures[start : start + CALIBRATION_BATCH])}
