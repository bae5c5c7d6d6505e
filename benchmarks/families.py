"""One net of each classic family, trained for the same time on the same pictures: what does each reach?

    python benchmarks/families.py [--time 60s] [--data cifar10] [--only resnet20,vgg11] [--set epochs=1]

Each trains through `striate.train` with the recipe that `--model` chooses, one after the other, seed 0. The time is of
training alone: reading before and the test after it come on top. All see the data set's pictures at its own size, in
the net's form for small pictures, without augmentation; a net with a larger least size sees them at that. alexnet-2012
runs with and without response normalisation, vgg11 with and without BatchNorm. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import striate

# Name in the table: net, options, other settings.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lenet5-1998": ("lenet5-1998", {}, {}),
    "lenet5": ("lenet5", {"activation": "relu", "pool": "max"}, {}),
    "alexnet": ("alexnet", {}, {"size": 64}),
    "alexnet-2012": ("alexnet-2012", {}, {}),
    "alexnet-2012 without LRN": ("alexnet-2012", {"lrn": False}, {}),
    "vgg11": ("vgg11", {}, {}),
    "vgg11 with BatchNorm": ("vgg11", {"batch_norm": True}, {}),
    "googlenet": ("googlenet", {}, {}),
    "resnet18": ("resnet18", {}, {}),
    "resnet20": ("resnet20", {}, {}),
    "densenet121": ("densenet121", {}, {}),
    "densenet-cifar": ("densenet-cifar", {}, {}),
    "airnet": ("airnet", {}, {}),
}


def run(case: str, data: str, settings: dict[str, Any]) -> str:
    """Train one and return its row of the table."""
    model, options, others = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        given = {"model_option": options, **others, **settings, "out": f"{folder}/run"}
        trained = striate.train(data, model=model, quiet=True, **given)
        (told,) = striate.compare([trained.folder])
        last = trained.results[-1]
    top1 = told["top1"]
    accuracy = f"{100 * top1['value']:.2f} % ({100 * top1['low']:.2f} to {100 * top1['high']:.2f})"
    millions = told["macs"] / 1e6
    return (
        f"| {case} | {told['parameters']:,} | {millions:,.1f} million | {last['epoch']} ({last['step']:,} steps) "
        f"| {accuracy} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", default="60s", help="of training, for each")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--only", default=",".join(CASES), help="rows of the table, by name")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of train")
    arguments = parser.parse_args()
    settings: dict[str, Any] = dict(text.split("=", 1) for text in arguments.set)
    if "epochs" not in settings:
        settings["time"] = arguments.time
    print("| net | parameters | MACs | epochs | test accuracy (95 % interval) |\n|---|---|---|---|---|")
    for case in arguments.only.split(","):
        print(run(case, arguments.data, settings), flush=True)


if __name__ == "__main__":
    main()
