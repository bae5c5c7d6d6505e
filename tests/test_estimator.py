"""ImageClassifier keeps scikit-learn's contract, and striate's rules for pictures."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_checks
from torch import nn

import striate
from striate.errors import StriateError
from striate.settings.train import TrainSettings

# Checks of scikit-learn that are expected to fail, each with the reason: there is none.
EXPECTED_FAILED_CHECKS: dict[str, str] = {}
# What it skips: pictures are in three or four axes, and its own data in two, so only an ImageClassifier that is told
# how rows become pictures is given data.
OF_ROWS = {
    "model": "mlp",
    "model_option": {"hidden": [16]},
    "image_shape": (1, -1),
    "pixel_range": "fit",
    "validation": 0,
    "epochs": 30,
    "lr": 0.02,
    "threads": 1,
    "device": "cpu",
}
QUICK = {"epochs": 2, "model": "mlp", "device": "cpu"}
NEEDS_SIGNALS = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.images[:400] / 16, np.array([f"digit {n}" for n in data.target[:400]])


@pytest.fixture(scope="module")
def fitted(digits: tuple[np.ndarray, np.ndarray]) -> striate.ImageClassifier:
    return striate.ImageClassifier(**QUICK | {"epochs": 6}, lr=0.01).fit(*digits)


@pytest.mark.slow
def test_the_applicable_checks_of_scikit_learn_pass() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = estimator_checks.check_estimator(
            striate.ImageClassifier(**OF_ROWS), on_fail=None, expected_failed_checks=EXPECTED_FAILED_CHECKS
        )
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert not failed
    assert sum(result["status"] == "passed" for result in results) >= 40


@pytest.mark.parametrize(
    "check",
    [
        "check_estimators_dtypes",
        "check_fit_score_takes_y",
        "check_estimators_nan_inf",
        "check_estimators_unfitted",
        "check_estimator_sparse_array",
        "check_n_features_in_after_fitting",
        "check_classifiers_one_label",
        "check_supervised_y_2d",
    ],
)
def test_a_check_of_scikit_learn_passes(check: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(estimator_checks, check)("ImageClassifier", striate.ImageClassifier(**OF_ROWS | {"epochs": 2}))


def test_a_classifier_as_it_comes_passes_the_checks_without_data() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = estimator_checks.check_estimator(striate.ImageClassifier(), on_fail=None)
    assert not [result["check_name"] for result in results if result["status"] == "failed"]


def test_fit_predict_and_score(digits: tuple[np.ndarray, np.ndarray], fitted: striate.ImageClassifier) -> None:
    images, names = digits
    assert fitted.classes_.tolist() == sorted(set(names))
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (400, 10) and np.allclose(probabilities.sum(axis=1), 1)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(images)).all()
    assert fitted.score(images, names) == (fitted.predict(images) == names).mean() > 0.8
    assert (fitted.n_features_in_, fitted.image_shape_, fitted.n_iter_) == (64, (8, 8, 1), 6)
    assert len(fitted.history_) == 6 and 1 <= fitted.best_epoch_ <= 6
    assert fitted.predictor_.predict(images[0]).label == fitted.predict(images[:1])[0]


def test_the_forms_of_pictures_are_those_of_train(
    digits: tuple[np.ndarray, np.ndarray], fitted: striate.ImageClassifier
) -> None:
    images, _ = digits
    bytes_ = np.rint(images * 255).astype(np.uint8)
    expected = fitted.predict_proba(images)
    for same in (bytes_, bytes_[..., None], bytes_[:, None], images.tolist()):
        assert np.array_equal(fitted.predict_proba(same), expected)
    for wrong, told in (
        (images * 16, "range from 0 to 16"),
        (images[:, :4], "4 x 8 x 1"),
        (images.reshape(400, 64), r"give image_shape=\(8, 8\)"),
        (images[:0], "minimum of 1"),
        (np.repeat(bytes_[..., None], 3, axis=3), "8 x 8 x 3"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            fitted.predict(wrong)
        assert isinstance(caught.value, StriateError)


def test_it_trains_as_striate_train_does(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, names = digits
    numbers = np.unique(names, return_inverse=True)[1]
    run = striate.train((images, numbers), **QUICK, test=0, seed=3, quiet=True, out=tmp_path / "train")
    classifier = striate.ImageClassifier(**QUICK, random_state=3, out=tmp_path / "fit").fit(images, names)
    assert [row["train_loss"] for row in classifier.history_] == [row["train_loss"] for row in run.results]
    answer = striate.load(tmp_path / "fit", device="cpu").predict(images[7])
    assert np.allclose(list(answer.probabilities.values()), classifier.predict_proba(images[7:8])[0], atol=1e-6)
    assert answer.label == classifier.predict(images[7:8])[0]
    with pytest.raises(ValueError, match="fit"):  # the folder is not overwritten
        classifier.fit(images, names)


def test_nothing_is_left_behind(
    digits: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    striate.ImageClassifier(**QUICK).fit(*digits)
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


def test_a_grid_and_a_pipeline(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, names = digits
    rows = images.reshape(400, 64) * 16
    flat = striate.ImageClassifier(**QUICK, image_shape=(8, 8), pixel_range="fit", validation=0)
    assert make_pipeline(StandardScaler(), clone(flat)).fit(rows, names).predict(rows).shape == (400,)
    grid = GridSearchCV(
        make_pipeline(FunctionTransformer(lambda x: x / 16), striate.ImageClassifier(**QUICK, validation=0)),
        {"imageclassifier__lr": [1e-5, 0.01], "imageclassifier__epochs": [3]},
        cv=2,
        error_score="raise",
    ).fit(images * 16, names)
    assert grid.best_params_ == {"imageclassifier__lr": 0.01, "imageclassifier__epochs": 3}
    assert grid.score(images * 16, names) > 0.4


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def test_a_net_of_ones_own_stays_as_it_was(digits: tuple[np.ndarray, np.ndarray]) -> None:
    net = Small()
    before = net.layers[1].weight.detach().clone()
    classifier = striate.ImageClassifier(net, epochs=1, device="cpu").fit(*digits)
    assert (net.layers[1].weight == before).all()
    assert len(classifier.predict(digits[0])) == 400
    assert len(striate.ImageClassifier(Small, epochs=1, device="cpu").fit(*digits).predict(digits[0])) == 400


def test_it_is_cloned_and_pickled(digits: tuple[np.ndarray, np.ndarray], fitted: striate.ImageClassifier) -> None:
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params() and not hasattr(twin, "classes_")
    assert twin.set_params(lr=0.5).lr == 0.5
    with pytest.raises(ValueError, match="Invalid parameter"):
        twin.set_params(learning_rate=1)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"lr": -1.0}, "lr"),
        ({"model": "three-con"}, "three-conv"),
        ({"settings": {"epoch": 3}}, "epoch"),
        ({"settings": {"lr": 0.1}, "lr": 0.2}, "given twice"),
        ({"momentum": 0.5}, "no effect"),
        ({"pixel_range": "all"}, "pixel_range"),
        ({"pixel_range": (1, 0)}, "low must be under high"),
        ({"pixel_range": (0, 0.5)}, "widen"),
    ],
)
def test_a_wrong_parameter_is_a_value_error(
    parameters: dict[str, Any], told: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        striate.ImageClassifier(**{**QUICK, **parameters}).fit(*digits)
    assert isinstance(caught.value, StriateError)


def test_a_shape_of_rows_must_fit(digits: tuple[np.ndarray, np.ndarray]) -> None:
    rows = digits[0].reshape(400, 64)
    for shape, told in (((8, 9), "does not fit rows of 64"), ((64,), "it is"), (None, r"image_shape=\(8, 8\)")):
        with pytest.raises(ValueError, match=told):
            striate.ImageClassifier(**QUICK, image_shape=shape).fit(rows, digits[1])


def test_every_parameter_is_a_setting_or_described() -> None:
    own = {"settings", "image_shape", "pixel_range", "random_state", "verbose"}
    assert set(striate.ImageClassifier().get_params()) - set(TrainSettings.model_fields) == own
    page = (Path(__file__).parents[1] / "docs" / "estimator.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in striate.ImageClassifier().get_params())


@NEEDS_SIGNALS
def test_ctrl_c_ends_a_search(digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn would take another exception for one more fit that failed."""
    from striate.report.console import Display

    monkeypatch.setattr(Display, "epoch", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    grid = GridSearchCV(striate.ImageClassifier(**QUICK, validation=0), {"lr": [0.01, 0.02]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        grid.fit(*digits)
