"""ImageClassifier: a net with scikit-learn's fit and predict, for its grids, pipelines and cross-validation."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_is_fitted, validate_data
from torch import nn

from striate.data.dataset import Dataset, Images, Parts
from striate.errors import DataError, Interrupted, UsageError
from striate.report.console import Display, note
from striate.runs.journal import EpochResult
from striate.settings.layers import resolve_train
from striate.settings.train import TrainSettings
from striate.training.begin import start_job
from striate.training.job import Job
from striate.training.prepare import OWN
from striate.training.starting import settings_of_start

# Parameters that are settings of `train` by the same name; None leaves one to the recipe.
SETTINGS = (
    *("model_option", "recipe", "epochs", "time", "batch_size", "optimizer", "lr", "momentum", "weight_decay"),
    *("schedule", "warmup", "loss", "label_smoothing", "balance", "clip", "ema", "early_stop", "init", "augment"),
    *("size", "mean", "std", "validation", "device", "precision", "threads"),
)


class PicturesRefused(DataError, ValueError):
    """X or y that cannot be used; a ValueError too, as scikit-learn expects."""


class ParameterRefused(UsageError, ValueError):
    """A parameter that does not exist, is out of its range or does nothing; a ValueError too."""


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional net as a scikit-learn classifier.

    `model`: a registered name, or an nn.Module of your own or its class. Parameters named like settings of
    `striate.train` mean the same, and None leaves them to the recipe; `settings` holds any others by name.

    X: pictures as `striate.train` takes them: uint8, or floats in 0–1, of shape (N, H, W), (N, H, W, C) or
    (N, C, H, W). Flat rows (N, F) are refused unless `image_shape` says what they are: (8, 8), (32, 32, 3), or with
    -1 for what follows from F. `pixel_range` (low, high) are the numbers that stand for black and white; "fit" takes
    the least and the greatest of the X in `fit`, and clips what lies beyond them later. y: labels of any kind.

    `validation` of the pictures are set apart in `fit` (0.1 if not said; 0: none) to choose the best epoch.
    Without a `batch_size` a batch is at most half of the pictures. `random_state`: an int trains as `seed` does.
    No run folder is kept unless `out` names one, which must be new: every `fit` writes it.

    After `fit`: `classes_` (sorted), `n_features_in_` (numbers in a picture), `image_shape_` (H, W, C), `n_iter_`
    (epochs), `best_epoch_`, `history_` (the rows of results.csv) and `predictor_`, a striate.Predictor.
    Raises ValueError, which is a StriateError too, with cause and fix.
    """

    def __init__(
        self,
        model: Any = "three-conv",
        *,
        model_option: Mapping[str, Any] | None = None,
        recipe: str | None = None,
        epochs: int | None = None,
        time: str | None = None,
        batch_size: int | None = None,
        optimizer: str | None = None,
        lr: float | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        schedule: str | None = None,
        warmup: float | None = None,
        loss: str | None = None,
        label_smoothing: float | None = None,
        balance: str | None = None,
        clip: float | None = None,
        ema: float | None = None,
        early_stop: int | None = None,
        init: str | None = None,
        augment: str | None = None,
        size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        validation: float | None = None,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        settings: Mapping[str, Any] | None = None,
        image_shape: Sequence[int] | None = None,
        pixel_range: str | tuple[float, float] | None = None,
        out: str | Path | None = None,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.model_option = model_option
        self.recipe = recipe
        self.epochs = epochs
        self.time = time
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup = warmup
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.balance = balance
        self.clip = clip
        self.ema = ema
        self.early_stop = early_stop
        self.init = init
        self.augment = augment
        self.size = size
        self.mean = mean
        self.std = std
        self.validation = validation
        self.device = device
        self.precision = precision
        self.threads = threads
        self.settings = settings
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.out = out
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> ImageClassifier:
        """Train on pictures X with labels y, from new weights. Returns self."""
        if y is None:
            raise PicturesRefused("ImageClassifier requires y to be passed, but the target y is None")
        images = self._images(X, first=True)
        labels = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        check_consistent_length(images, labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise PicturesRefused(f"y holds one class, {classes[0]!r}", "a classifier tells two or more apart", "")
        with _as_value_errors(), ExitStack() as stack:
            names = tuple(str(name) for name in classes)
            parts = Parts("arrays", Dataset("arrays", images, numbers.astype(np.int64), names))
            out = self.out
            if out is None:
                out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="striate-"))) / "run"
            model, settings = self._settings(Path(out), len(images))
            report = note if self.verbose else _unheard
            job = start_job(settings, data=parts, model=model, report=report, command=f"{self!r}.fit(X, y)")
            history = self._train(job)
            self.predictor_ = job.predictor()
        self.classes_ = classes
        self.history_ = history
        self.n_iter_, self.best_epoch_ = len(history), job.best.epoch
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each picture, (N,)."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities (N, K) of each picture, in the order of `classes_`.

        Each row adds up to 1; those of a net with sigmoids are divided by their sum.
        """
        logits = self._logits(X)
        found = self.predictor_.probabilities(logits)
        return found / found.sum(axis=1, keepdims=True)

    def _logits(self, X: Any) -> NDArray[np.float32]:
        check_is_fitted(self)
        images = self._images(X, first=False)
        preprocess, threads = self.predictor_.preprocess, self.predictor_.backend.threads
        return self.predictor_.logits(preprocess.geometry_all(images, threads))

    def _settings(self, out: Path, pictures: int) -> tuple[Any, TrainSettings]:
        """Return the user's own net, or None, and the settings of the run."""
        given = {name: getattr(self, name) for name in SETTINGS if getattr(self, name) is not None}
        twice = given.keys() & (self.settings or {}).keys()
        if twice:
            raise UsageError(f"{', '.join(sorted(twice))} given twice", "once in settings", "leave one out")
        given = {**given, **(self.settings or {})}
        own = None
        if isinstance(self.model, str):
            given["model"] = self.model
        else:  # trained on a copy: what was given to the constructor stays as it is
            own = copy.deepcopy(self.model) if isinstance(self.model, nn.Module) else self.model
            given["model"] = OWN + (own if isinstance(own, type) else type(own)).__name__
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31 - 1)
        given |= {"data": "arrays", "test": 0, "seed": int(seed), "out": out}
        settings, origins, _ = resolve_train(given, origin="argument", environ=os.environ, start_of=settings_of_start)
        if origins["batch_size"] != "argument" and settings.batch_size > pictures // 2:
            settings = settings.model_copy(update={"batch_size": max(1, pictures // 2)})
        return own, settings

    def _train(self, job: Job) -> list[dict[str, Any]]:
        history = []
        with Display(steps_per_epoch=len(job.learner.batches), quiet=not self.verbose) as display:
            for happening in job.run():
                if isinstance(happening, EpochResult):
                    history.append(asdict(happening))
                    display.epoch(history[-1], job.epochs)
        return history

    def _images(self, X: Any, *, first: bool) -> Images:
        """Return pictures uint8 (N, H, W, C); `first` remembers their shape, else they must have that of `fit`."""
        if not hasattr(X, "shape"):
            X = np.asarray(X)
        flat = len(X.shape) <= 2
        if flat and self.image_shape is None:
            raise PicturesRefused(
                f"X has shape {tuple(X.shape)}: flat rows, not pictures",
                "expected (N, H, W), (N, H, W, C) or (N, C, H, W)",
                _shape_hint(X.shape),
            )
        if flat:
            X = validate_data(self, X, reset=first, dtype="numeric")
            X = self._unflattened(X)
        if hasattr(X, "detach"):
            X = X.detach().cpu().numpy()
        X = self._scaled(np.asarray(X), first=first)
        with _as_value_errors():
            images = Dataset.from_arrays(X, np.zeros(len(X), dtype=np.int64), ["unknown"], name="X").images
        if not len(images):
            raise PicturesRefused(f"X has shape {tuple(X.shape)}: a minimum of 1 picture is required")
        shape = images.shape[1:]
        if first:
            self.image_shape_ = shape
            self.n_features_in_ = int(np.prod(shape))
        elif shape != self.image_shape_:
            raise PicturesRefused(
                f"X holds pictures of {_told(shape)}, but ImageClassifier was fitted on {_told(self.image_shape_)}",
                "",
                "bring them to that size first",
            )
        return images

    def _unflattened(self, X: NDArray[Any]) -> NDArray[Any]:
        shape = tuple(self.image_shape or ())
        if len(shape) not in (2, 3):
            raise ParameterRefused(f"image_shape = {shape}", "it is (H, W) or (H, W, C)", "")
        try:
            return X.reshape(len(X), *shape)  # (N, F) -> (N, H, W) or (N, H, W, C)
        except ValueError:
            told = f"image_shape = {shape} does not fit rows of {X.shape[1]} numbers"
            raise ParameterRefused(told, "H x W (x C) must be that many", _shape_hint(X.shape)) from None

    def _scaled(self, X: NDArray[Any], *, first: bool) -> NDArray[Any]:
        """Bring numbers from `pixel_range` to floats 0–1."""
        if self.pixel_range is None:
            return X
        if X.dtype.kind not in "buif":
            raise PicturesRefused(f"X has type {X.dtype}", "pixel_range scales numbers", "")
        X = X.astype(np.float64)
        fitted = isinstance(self.pixel_range, str)
        if first:
            if fitted and self.pixel_range != "fit":
                raise ParameterRefused(f"pixel_range = {self.pixel_range!r}", 'it is (low, high) or "fit"', "")
            if isinstance(self.pixel_range, str):
                low, high = X.min(initial=np.inf), X.max(initial=-np.inf)
            else:
                low, high = self.pixel_range
            self.pixel_range_ = (float(low), float(high))
        low, high = self.pixel_range_
        if not fitted and not low < high:
            raise ParameterRefused(f"pixel_range = {self.pixel_range!r}", "low must be under high", "")
        if not fitted and len(X) and (X.min() < low or X.max() > high):
            raise PicturesRefused(
                f"X ranges from {X.min():g} to {X.max():g}", f"pixel_range is {low:g} to {high:g}", "widen pixel_range"
            )
        return np.clip((X - low) / (high - low or 1.0), 0.0, 1.0) if np.isfinite(X).all() else X

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        return tags


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Let errors in data and parameters be ValueErrors too, and a signal end the program.

    scikit-learn's searches take any other exception for a fit that failed, and go on.
    """
    try:
        yield
    except (PicturesRefused, ParameterRefused):
        raise
    except DataError as error:
        raise PicturesRefused(error.what, error.cause, error.fix) from error
    except UsageError as error:
        refused = ParameterRefused(error.what, error.cause, error.fix)
        refused.detail = error.detail
        raise refused from error
    except Interrupted as error:
        if error.exit_code == 130:
            raise KeyboardInterrupt from error
        raise SystemExit(error.exit_code) from error


def _shape_hint(shape: tuple[int, ...]) -> str:
    side = round(shape[1] ** 0.5) if len(shape) == 2 else 0
    return f"give image_shape=({side}, {side})" if side and side * side == shape[1] else "give image_shape=(H, W)"


def _told(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _unheard(_line: str) -> None:
    return
