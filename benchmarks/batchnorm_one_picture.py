"""One picture a step and BatchNorm: test accuracy with running statistics as they are, and measured anew.

    python benchmarks/batchnorm_one_picture.py [--seeds 3] [--recipe tutorial-strided-cnn] [--train-range 0:60000]

Each seed is trained once with the recipe; the same weights are then tested twice. Data: STRIATE_DATA.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from striate.evaluation.evaluate import evaluate_pictures
from striate.settings.layers import resolve_train
from striate.training.begin import start_job
from striate.training.loop import recompute_batchnorm


def accuracies(recipe: str, seed: int, train_range: str) -> tuple[float, float]:
    """Return test accuracy with the running statistics as training left them, and with statistics measured anew."""
    with tempfile.TemporaryDirectory() as folder:
        settings, _, _ = resolve_train(
            {"recipe": recipe, "seed": seed, "out": f"{folder}/run", "recompute_batchnorm": "off",
             "train_range": train_range},
            origin="argument",
            environ=os.environ,
        )  # fmt: skip
        job = start_job(settings, report=lambda line: None)
        for _ in job.run():
            pass
        assert job.evaluation is not None
        before = job.evaluation.record["top1"]["value"]
        recompute_batchnorm(job.tested.net, job.learner.batches, settings.epochs)
        part, images, indices = job.material.pictures("test")
        after = evaluate_pictures(job.predictor(), part, images, indices, split="test").record["top1"]["value"]
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="tutorial-strided-cnn")
    parser.add_argument("--train-range", default="0:60000")
    arguments = parser.parse_args()
    print("| seed | running statistics | measured anew |\n|---|---|---|")
    for seed in range(arguments.seeds):
        before, after = accuracies(arguments.recipe, seed, arguments.train_range)
        print(f"| {seed} | {100 * before:.2f} % | {100 * after:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
