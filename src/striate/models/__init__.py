"""The nets: one file each; importing this package enters them all into the registry."""

from __future__ import annotations

from striate.models import airnet as airnet
from striate.models import alexnet as alexnet
from striate.models import alexnet_2012 as alexnet_2012
from striate.models import densenet as densenet
from striate.models import googlenet as googlenet
from striate.models import lenet as lenet
from striate.models import lenet_1998 as lenet_1998
from striate.models import mlp as mlp
from striate.models import resnet as resnet
from striate.models import resnet_cifar as resnet_cifar
from striate.models import simple_cnn as simple_cnn
from striate.models import strided_cnn as strided_cnn
from striate.models import three_conv as three_conv
from striate.models import vgg as vgg
from striate.models.registry import create_model, describe_model, list_models, model_options

__all__ = ["create_model", "describe_model", "list_models", "model_options"]
