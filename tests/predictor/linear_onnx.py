"""A small ONNX file as export writes it, made by hand: a linear net."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from striate.data.preprocess import Preprocess
from striate.predictor.onnx_file import CARD_KEY
from striate.runs.model_file import ModelCard, document_digest


def card_of(classes: list[str], size: tuple[int, int], channels: int, **changed: Any) -> dict[str, Any]:
    """Return the content of model.json, with its digest."""
    values: dict[str, Any] = {
        "name": None,
        "class_name": "Linear",
        "options": {},
        "num_classes": len(classes),
        "in_channels": channels,
        "input_size": size,
        "classes": classes,
        "preprocess": Preprocess(size, "stretch", channels).to_json(),
        "output": "softmax",
        "temperature": 1.5,
        "weights": {"file": "weights/best.safetensors", "sha256": "0" * 64, "epoch": 1},
    }
    document = ModelCard(**{**values, **changed}).to_json()
    return {**document, "sha256": document_digest(document)}


def linear_model(
    size: tuple[int, int] = (8, 8), channels: int = 1, classes: int = 10, seed: int = 0, **changed: Any
) -> Any:
    """Return a ModelProto; `changed` is what the card says otherwise."""
    names = [str(number) for number in range(classes)]
    pixels = size[0] * size[1] * channels
    weight = np.random.default_rng(seed).normal(0, 0.4, (pixels, classes)).astype(np.float32)
    card = card_of(names, size, channels, **changed)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["warm"]),
        helper.make_node("Softmax", ["warm"], ["probabilities"], axis=1),
    ]
    constants = {"weight": weight, "scale": np.float32(1 / 255), "temperature": np.float32(card["temperature"])}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *size, channels])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", classes])
            for name in ("probabilities", "logits")
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {CARD_KEY: json.dumps(card)})
    return model
