"""Accuracy on MNIST test pictures as people would bring them, with and without the steps for drawings.

    python benchmarks/drawings.py --run runs/mnist-lenet5-1 [--pictures 2000] [--sides 28,112,280,1000,2000]
    python benchmarks/drawings.py --run runs/mnist-lenet5-1 --unlike
    python benchmarks/drawings.py --run runs/mnist-lenet5-1 --reject 0.998,0.999

tests/data/redrawn.py renders the pictures. A tenth of them is taken at 1,000 pixels, a fortieth at 2,000. `--unlike`:
how well pictures of other kinds are told from digits, as AUROC and as the share that is flagged. `--reject`: the
precision that was wanted, and that of the answers to the test pictures. Needs STRIATE_DATA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from figures import numbers
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score

import striate
from striate.data.builtin import load_named
from striate.data.dataset import Dataset
from striate.data.drawing import STEPS
from striate.data.preprocess import to_channels
from striate.predictor.predictor import Predictor

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.data.redrawn import STYLES

LETTERS = "ABCDEFGHJKLMNPQRTUVWXYabdefghijkmnpqrtuvwxy"  # without those that look like digits


def test_set(name: str) -> Dataset:
    """Return the test pictures of a data set."""
    part = load_named(name).test
    assert part is not None
    return part


def accuracy(predictor: Predictor, pictures: Iterator[np.ndarray], labels: np.ndarray) -> float:
    """Return the share of right answers in percent."""
    answers = [int(answer.label) for answer in predictor.answers(pictures)]
    return 100 * float(np.mean(np.array(answers) == labels))


def rendered(name: str, digits: np.ndarray, side: int) -> Iterator[np.ndarray]:
    """Yield digits (N, 28, 28) in a style, always the same."""
    random = np.random.default_rng(side)
    for digit in digits:
        yield STYLES[name](digit, side, random)


def table(predictor: Predictor, count: int, sides: list[int], names: list[str]) -> None:
    """Print a row for each style and size."""
    part = test_set("mnist")
    chosen = np.sort(np.random.default_rng(0).permutation(len(part))[:count])
    plain = predictor.configured(no_step=("all",))
    clean = predictor.predict_many(list(part.images[chosen]))
    same = sum(answer.seen.tobytes() == part.images[i].tobytes() for answer, i in zip(clean, chosen, strict=True))
    right = 100 * np.mean([int(answer.label) == part.labels[i] for answer, i in zip(clean, chosen, strict=True)])
    print(f"as they are: {right:.2f} % of {count:,}, {same:,} of them byte for byte what the net saw\n")
    print("| style | side | pictures | with the steps | clean | without |\n|---|---|---|---|---|---|")
    for name in names:
        for side in sides:
            some = chosen[: count if side < 1000 else count // (10 if side < 2000 else 40)]
            digits, labels = part.images[some, ..., 0], part.labels[some]
            base = 100 * np.mean([int(answer.label) for answer in clean[: len(some)]] == labels)
            found, without = (accuracy(one, rendered(name, digits, side), labels) for one in (predictor, plain))
            print(f"| {name} | {side} | {len(some):,} | {found:.2f} | {base:.2f} | {without:.2f} |", flush=True)


def letters(count: int) -> list[np.ndarray]:
    """Return letters (28, 28), light on dark, in sizes from 16 to 24 pixels."""
    path = font_manager.findfont("DejaVu Sans")
    found = []
    for number in range(count):
        image = Image.new("L", (28, 28))
        font = ImageFont.truetype(path, 16 + number // len(LETTERS) % 9)
        ImageDraw.Draw(image).text((14, 14), LETTERS[number % len(LETTERS)], 255, font, anchor="mm")
        found.append(np.asarray(image))
    return found


def unlike(predictor: Predictor, count: int) -> None:
    """Print AUROC and the share of flagged pictures for each kind, as they are and through the steps for drawings."""
    colour = to_channels(test_set("cifar10").images[:count], 1)
    kinds = {
        "MNIST test": list(test_set("mnist").images[:count]),
        "Fashion-MNIST": list(test_set("fashion-mnist").images[:count]),
        "letters": letters(count),
        "uniform noise": list(np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)),
        "CIFAR-10 in gray": list(colour),
    }
    print("| pictures | AUROC | flagged | AUROC, no steps | flagged, no steps |\n|---|---|---|---|---|")
    own: dict[bool, np.ndarray] = {}
    for kind, pictures in kinds.items():
        cells = []
        for skip in (False, True):
            asked = predictor.configured(no_step=STEPS if skip else ())
            far = np.array([answer.distance for answer in asked.answers(pictures)])
            own.setdefault(skip, far)
            truth = np.repeat([0, 1], [len(own[skip]), len(far)])
            auroc = roc_auc_score(truth, np.concatenate([own[skip], far]))
            cells += ["" if kind == "MNIST test" else f"{auroc:.4f}", f"{100 * (far > 1).mean():.1f} %"]
        print(f"| {kind} ({len(pictures):,}) | {' | '.join(cells)} |", flush=True)


def reject(predictor: Predictor, wanted: list[float]) -> None:
    """Print what a wanted precision gives on the test pictures."""
    part = test_set("mnist")
    doubt = predictor.doubt
    assert doubt is not None
    print("| wanted | least probability | answered | precision on the test |\n|---|---|---|---|")
    logits = predictor.logits(part.images)
    sure, right = predictor.probabilities(logits).max(axis=1), logits.argmax(axis=1) == part.labels
    for precision in wanted:
        least = doubt.least_probability(precision)
        kept = sure >= least
        print(f"| {precision} | {least:.4f} | {100 * kept.mean():.2f} % | {100 * right[kept].mean():.2f} % |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--sides", type=numbers, default=[28, 112, 280])
    parser.add_argument("--only", default=",".join(STYLES))
    parser.add_argument("--unlike", action="store_true")
    parser.add_argument("--reject", type=lambda text: [float(part) for part in text.split(",")])
    arguments = parser.parse_args()
    predictor = striate.load(arguments.run, device="cpu")
    if arguments.unlike:
        unlike(predictor, arguments.pictures)
    elif arguments.reject:
        reject(predictor, arguments.reject)
    else:
        table(predictor, arguments.pictures, arguments.sides, arguments.only.split(","))


if __name__ == "__main__":
    main()
