"""What others call their layers, where striate calls them otherwise: for importing weights saved with their code.

The third and the fourth article's nets (simple-cnn, less-simple-cnn, alexnet) need no map: the names are the same. So
are torchvision's, but for the files of DenseNet that it published first.
"""

from __future__ import annotations

import re
from collections.abc import Collection

Names = dict[str, str]

#: BatchNorm counts its batches since torch 0.4 only: older files do not have that number, which no answer needs.
COUNTER = "num_batches_tracked"

#: In torchvision's first files of DenseNet a layer's parts are `norm.1` and so on; its own loader renames them too.
_DOTTED = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")

#: net → maps of an article's layers to ours; a map is used where it brings every name of a file to one of the net.
KEY_MAPS: dict[str, tuple[Names, ...]] = {
    # The first article keeps all layers in one Sequential called `model`.
    "mlp": ({"model.0": "layers.1", "model.2": "layers.3"}, {"model.1": "layers.1", "model.3": "layers.3"}),
    "strided-cnn": ({"model.0": "conv1", "model.2": "norm1", "model.3": "conv2", "model.5": "norm2", "model.7": "fc"},),
    # The second article's net is a Sequential itself.
    "lenet5": ({"0": "conv1", "3": "conv2", "7": "head.1", "9": "head.3", "11": "head.5"},),
    # The fifth article's: each convolution in a Sequential with its activation, or by itself.
    "three-conv": (
        {"conv1.0": "conv1", "conv2.0": "conv2", "conv3.0": "conv3", "out": "fc"},
        {"conv1.0": "conv1", "conv2.0": "conv2", "conv3.0": "conv3", "fc": "fc"},
        {"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "fc1": "fc"},
        {"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "out": "fc"},
    ),
}


def rename(net: str, found: Collection[str], own: Collection[str]) -> dict[str, str]:
    """Return the net's own name for each name of a file's state dict, by the first map that gives all of `own`.

    Names stay as they are where no map does: what is missing and unexpected is told by the file's own words.
    """
    needed = {name for name in own if not name.endswith(COUNTER)}
    same = {name: name for name in found}
    maps = [{name: _layer_in(names, name) for name in found} for names in KEY_MAPS.get(net, ())]
    for renamed in (*maps, {name: _DOTTED.sub(r"\1\2", name) for name in found}):
        if renamed != same and needed <= set(renamed.values()) <= set(own):
            return renamed
    return same


def _layer_in(names: Names, name: str) -> str:
    layer, dot, tensor = name.rpartition(".")
    return names.get(layer, layer) + dot + tensor
