"""The nets: one file each; importing this package enters them all into the registry."""

from __future__ import annotations

from striate.models import airnet as airnet
from striate.models import alexnet as alexnet
from striate.models import lenet as lenet
from striate.models import mlp as mlp
from striate.models import simple_cnn as simple_cnn
from striate.models import strided_cnn as strided_cnn
from striate.models import three_conv as three_conv
from striate.models.registry import create_model, describe_model, list_models, model_options

__all__ = ["create_model", "describe_model", "list_models", "model_options"]
