"""What torchvision publishes for nets that are also ours: file, digest, and the pictures that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from striate.errors import unknown_name
from striate.models.registry import convert_options

ADDRESS = "https://download.pytorch.org/models/"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """One file of weights: its name ends in the first digits of its SHA-256.

    `mean` and `std` in units of 0–1; `side` that the net sees of a picture whose short side is `resized`. `options`
    make our net the one of the file. Source: torchvision 0.29, `torchvision/models/*.py`, enumerations `…_Weights`.
    """

    file: str
    megabytes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    side: int = 224
    resized: int = 256

    @property
    def sha256_begins(self) -> str:
        """The first hexadecimal digits of the file's SHA-256."""
        return self.file.removesuffix(".pth").rpartition("-")[2]


_BATCH_NORM = {"batch_norm": True}

#: net → its files. The first whose options are those asked for is taken.
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "alexnet": (Published("alexnet-owt-7be5be79.pth", 233, {"hidden": (4096, 4096)}),),
    "densenet121": (Published("densenet121-a639ec97.pth", 31),),
    "densenet161": (Published("densenet161-8d451a50.pth", 110),),
    "densenet169": (Published("densenet169-b2777c0a.pth", 55),),
    "densenet201": (Published("densenet201-c1103571.pth", 77),),
    # It normalises anew what came as the others want it (`transform_input`): together (x − 0.5) / 0.5.
    "googlenet": (Published("googlenet-1378be20.pth", 50, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),),
    "resnet18": (Published("resnet18-f37072fd.pth", 45),),
    "resnet34": (Published("resnet34-b627a593.pth", 83),),
    "resnet50": (Published("resnet50-11ad3fa6.pth", 98, resized=232),),
    "resnet101": (Published("resnet101-cd907fc2.pth", 171, resized=232),),
    "resnet152": (Published("resnet152-f82ba261.pth", 230, resized=232),),
    "vgg11": (Published("vgg11-8a719046.pth", 507), Published("vgg11_bn-6002323d.pth", 507, _BATCH_NORM)),
    "vgg13": (Published("vgg13-19584684.pth", 508), Published("vgg13_bn-abd245e5.pth", 508, _BATCH_NORM)),
    "vgg16": (Published("vgg16-397923af.pth", 528), Published("vgg16_bn-6c64b313.pth", 528, _BATCH_NORM)),
    "vgg19": (Published("vgg19-dcbb9e9d.pth", 548), Published("vgg19_bn-c79401a0.pth", 548, _BATCH_NORM)),
}


def published(net: str, options: Mapping[str, Any]) -> Published:
    """Return the file for a net with these options; what is not asked for is as the file has it.

    Raises UsageError for a net that torchvision publishes nothing for.
    """
    if net not in PUBLISHED:
        raise unknown_name("net with weights of torchvision", net, PUBLISHED, "choose one of them, or timm:NAME")
    asked = convert_options(net, options)
    files = PUBLISHED[net]
    wanted = [one for one in files if all(asked.get(key) == value for key, value in one.options.items())]
    # Of two the one with more options fits better; of one file the options follow from it.
    return max(wanted or files[:1], key=lambda one: len(one.options) if len(files) > 1 else 0)
