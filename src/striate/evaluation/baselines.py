"""What needs no net: answering the commonest class, and logistic regression on the pixels; kept once computed."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.data.dataset import Labels
from striate.data.disk import spans
from striate.data.preprocess import Preprocess
from striate.data.rows import Pictures
from striate.evaluation.metrics import wilson
from striate.files import write_json

# Bounds that keep the regression to some ten seconds on a laptop, whatever the data.
MOST_TRAINED, MOST_TESTED, MOST_SIDE, ITERATIONS = 4_000, 10_000, 32, 60
STRENGTH = 0.01  # scikit-learn's C: of 0.001, 0.01, 0.1 and 1 the best on MNIST's and CIFAR-10's validation pictures


def default_baseline_folder() -> Path:
    """Return the user's cache folder for baselines."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("striate")) / "baselines"


def baselines(
    train: tuple[Pictures, Labels],
    test: tuple[Pictures, Labels],
    key: Any,
    folder: Path | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return {commonest, logistic, trained, tested, side, cached}: two test accuracies {value, low, high}, and on what.

    `train` and `test`: uint8 (N, H, W, C) and int64 (N,). The regression is fitted on at most 4,000 train pictures,
    every class in proportion, at no more than 32 × 32 pixels, and tested on at most 10,000.
    `key`: what the result depends on (fingerprints and split), as plain data; under it the result is kept in `folder`.
    """
    bounds = [MOST_TRAINED, MOST_TESTED, MOST_SIDE, ITERATIONS, STRENGTH]
    digest = hashlib.sha256(json.dumps([key, bounds], sort_keys=True).encode()).hexdigest()
    path = (folder or default_baseline_folder()) / f"{digest[:32]}.json"
    kept = _read(path)
    if kept is not None:
        return {**kept, "cached": True}
    note("fitting the baselines (kept for the next report)")
    fresh = _compute(train, test)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": 1, **fresh})
    except OSError:  # a cache that cannot be written costs time, no answer
        pass
    return {**fresh, "cached": False}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        numbers = [value[name][part] for name in ("commonest", "logistic") for part in ("value", "low", "high")]
        whole = [value[name] for name in ("trained", "tested", "side")]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    good = all(isinstance(number, float) for number in numbers) and all(isinstance(number, int) for number in whole)
    return value if good and value.get("format") == 1 else None


def _compute(train: tuple[Pictures, Labels], test: tuple[Pictures, Labels]) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    commonest = int(np.bincount(train[1]).argmax())
    rows, asked = _spread(train[1], MOST_TRAINED), _spread(test[1], MOST_TESTED)
    side = min(MOST_SIDE, max(train[0].shape[1:3]))
    pixels, labels = _flat(train[0], rows, side), train[1][rows]
    mean, scale = pixels.mean(0), max(float(pixels.std()), 1e-6)
    if len(np.unique(labels)) < 2:
        answers = np.full(len(asked), commonest)
    else:
        model = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped before its optimum is meant
            model.fit((pixels - mean) / scale, labels)
        answers = model.predict((_flat(test[0], asked, side) - mean) / scale)
    return {
        "commonest": _share(int((test[1] == commonest).sum()), len(test[1])),
        "logistic": _share(int((answers == test[1][asked]).sum()), len(asked)),
        "trained": len(rows),
        "tested": len(asked),
        "side": side,
    }


def _spread(labels: Labels, most: int) -> NDArray[np.int64]:
    """Return up to `most` indices, every class in proportion, the same ones each time."""
    if len(labels) <= most:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[np.linspace(0, len(labels) - 1, most).astype(np.int64)])


def _flat(images: Pictures, rows: NDArray[np.int64], side: int) -> NDArray[np.float32]:
    """Return the pictures at `rows` as float32 (n, pixels), at no more than `side` pixels a side."""
    _, height, width, channels = images.shape
    small = Preprocess((side, side) if max(height, width) > side else (height, width), "stretch", channels)
    found = [small.geometry_all(images[rows[start:end]]) for start, end in spans(len(rows), height * width * channels)]
    return np.concatenate(found).reshape(len(rows), -1).astype(np.float32)


def _share(right: int, count: int) -> dict[str, float]:
    low, high = wilson(right, count)
    return {"value": right / count, "low": low, "high": high}
