"""One way from a picture to probabilities: every form of a picture gets the same answer."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import striate
from striate.data.builtin import load_named
from striate.data.preprocess import Preprocess
from striate.errors import DataError, UsageError
from striate.models.registry import create_model
from striate.predictor.nets import load_weights
from striate.predictor.predictor import BATCH_PICTURES, Predictor
from striate.predictor.probabilities import probabilities
from striate.predictor.torch_backend import predictor_of

DIGITS = load_named("digits").train


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    net = create_model("three-conv", 10, 1, 8)
    preprocess = Preprocess((8, 8), "stretch", 1, (77.9,), (95.9,))
    return predictor_of(net, preprocess, DIGITS.classes, temperature=0.7, name="made")


def test_every_form_of_a_picture_gets_the_same_answer(predictor: Predictor, tmp_path: Path) -> None:
    pixels = DIGITS.images[5]
    image = Image.fromarray(pixels[..., 0])
    image.save(tmp_path / "five.png")
    stream = io.BytesIO()
    image.save(stream, "BMP")
    forms = [str(tmp_path / "five.png"), tmp_path / "five.png", stream.getvalue(), image, pixels, pixels[..., 0]]
    answers = predictor.predict(forms)
    wanted = predictor.probabilities(predictor.logits(DIGITS.images[5:6]))[0]
    for answer in answers:
        assert list(answer.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-6)
        assert answer.label == answers[0].label and sum(answer.probabilities.values()) == pytest.approx(1)
    assert predictor.predict(tmp_path / "five.png").label == answers[0].label


def test_an_unreadable_picture_fails_alone_and_order_is_kept(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(DIGITS.images[3][..., 0]).save(tmp_path / "good.png")
    names = [tmp_path / name for name in ("good.png", "bad.png", "missing.png", "empty.png", "good.png")]
    answers = predictor.predict(names)
    assert [answer.error is None for answer in answers] == [True, False, False, False, True]
    assert [answer.source for answer in answers] == [str(name) for name in names]
    assert answers[0].probabilities == answers[4].probabilities
    for answer in answers[1:4]:
        entry = answer.to_json()
        assert set(entry) == {"source", "error"} and set(entry["error"]) == {"code", "cause", "fix"}


def test_many_pictures_are_answered_in_batches(predictor: Predictor) -> None:
    answers = predictor.predict_many(list(DIGITS.images[:1200]))
    together = predictor.probabilities(predictor.logits(DIGITS.images[:1200]))
    assert len(answers) == 1200
    got = np.array([list(answer.probabilities.values()) for answer in answers])
    assert np.abs(got - together).max() < 1e-6


def test_large_pictures_go_fewer_at_a_time(predictor: Predictor) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten())
    large = predictor_of(net, Preprocess((1024, 1024), channels=1), DIGITS.classes)
    assert predictor.batch_pictures == BATCH_PICTURES and large.batch_pictures == 2
    assert predictor_of(net, Preprocess((4000, 4000), channels=1), DIGITS.classes).batch_pictures == 1


def test_a_stream_that_stands_in_the_list_twice(predictor: Predictor) -> None:
    stream = io.BytesIO()
    Image.fromarray(DIGITS.images[5][..., 0]).save(stream, "PNG")
    image = Image.open(stream)
    answers = predictor.predict([image] * 20)
    assert all(answer.error is None and answer.probabilities == answers[0].probabilities for answer in answers)


def test_files_are_decoded_side_by_side_and_answered_in_order(tmp_path: Path) -> None:
    """Two files are read at the same time: each waits for the other."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    predictor = predictor_of(net, Preprocess((8, 8), channels=1), DIGITS.classes, threads=2)
    meeting = threading.Barrier(2)
    read = predictor._read
    predictor._read = lambda source: (meeting.wait(timeout=20), read(source))[1]  # type: ignore[method-assign]
    for number in range(6):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.png")
    answers = predictor.predict([tmp_path / f"{number}.png" for number in range(6)])
    assert [int(answer.seen[0, 0, 0]) for answer in answers] == list(range(6))


def test_pictures_are_taken_and_answered_as_they_come(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than two batches are taken ahead of the answers, and none after the asker has left."""
    monkeypatch.setattr("striate.predictor.predictor.BATCH_PICTURES", 4)
    taken = []

    def coming() -> Iterator[np.ndarray]:
        for number in range(1000):
            taken.append(number)
            yield DIGITS.images[number]

    answers = predictor.answers(coming())
    for number in range(30):
        assert np.array_equal(next(answers).seen, DIGITS.images[number])
        assert len(taken) <= number + 8
    answers.close()
    assert len(taken) <= 38
    assert [answer.source for answer in predictor.answers(iter(DIGITS.images[:9]))][8] == "picture 8"


def test_bf16_is_refused_where_it_would_be_emulated(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.predictor.torch_backend.processor_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(UsageError, match="bf16 is not for this processor"):
        predictor.in_precision("bf16")
    assert predictor.in_precision("fp32").backend.plan == predictor.backend.plan


def test_the_change_that_bf16_brings_is_counted(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("striate.predictor.torch_backend.processor_flags", lambda: frozenset({"bf16"}))
    images = DIGITS.images[:40]
    coarse = predictor.in_precision("bf16")
    exact, found = predictor.logits(images), coarse.logits(images)
    assert 0 < np.abs(exact - found).max() < 0.1 and found.dtype == np.float32
    largest = np.abs(predictor.probabilities(exact) - predictor.probabilities(found)).max()
    changed = (exact.argmax(1) != found.argmax(1)).sum()
    told = coarse.change_against_fp32(images)
    assert told == (
        f"bf16 against fp32, first 40 pictures: probabilities differ by {largest:.2g} at most, {changed} answers change"
    )
    assert "differ by 0 at most, 0 answers" in predictor.change_against_fp32(images)
    assert predictor.backend.plan.precision == "fp32"


def test_a_predictor_for_answering_has_its_batchnorm_folded() -> None:
    net = create_model("airnet", 10, 1, 16, widths=(4, 4, 4)).eval()
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 1), dtype=np.uint8)
    exact, folded = (
        predictor_of(net, Preprocess((16, 16), channels=1), DIGITS.classes, fold=fold) for fold in (False, True)
    )
    assert exact.backend.answering is net is folded.net and folded.backend.answering is not net
    assert np.abs(exact.logits(images) - folded.logits(images)).max() < 1e-5


def test_a_picture_is_answered_alike_whatever_stands_beside_it(predictor: Predictor) -> None:
    whole = predictor.logits(DIGITS.images[:300])
    for size in (1, 7, 250):
        assert np.abs(predictor.logits(DIGITS.images[:300], size) - whole).max() < 1e-5


def test_the_nets_mode_is_put_back(predictor: Predictor) -> None:
    predictor.net.train()
    predictor.logits(DIGITS.images[:3])
    assert predictor.net.training
    predictor.net.eval()


def test_probabilities_against_torch() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(1)) * 30
    soft = probabilities(logits.numpy(), "softmax", 2.0)
    assert np.abs(soft - torch.softmax(logits.double() / 2, 1).numpy()).max() < 1e-12
    single = probabilities(logits.numpy(), "sigmoid")
    assert np.abs(single - torch.sigmoid(logits.double()).numpy()).max() < 1e-12
    for wrong in ("max", ""):
        with pytest.raises(UsageError):
            probabilities(logits.numpy(), wrong)
    with pytest.raises(UsageError):
        probabilities(logits.numpy(), "softmax", 0.0)


def test_weights_that_do_not_fit_are_listed(predictor: Predictor) -> None:
    tensors = dict(predictor.net.state_dict())
    first = next(iter(tensors))
    tensors["stray"] = torch.zeros(1)
    del tensors[first]
    with pytest.raises(DataError) as caught:
        load_weights(predictor.net, tensors, "file")
    assert first in str(caught.value) and "stray" in str(caught.value)


def test_evaluate_and_predict_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = striate.train("digits", epochs=3, quiet=True)
    rows = (run.folder / "predictions.csv").read_text().splitlines()[1:]
    loaded = striate.load(run.folder, device="cpu")
    answers = loaded.predict([DIGITS.images[int(row.split(",")[0])] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        _, _, _, prediction, probability = row.split(",")
        assert answer.label == prediction and answer.probability == pytest.approx(float(probability), abs=2e-6)
    again = striate.evaluate(run.folder, out=tmp_path / "evaluation.json")
    assert again == run.evaluation == run._folder.read_json("evaluation.json")
    assert (tmp_path / "evaluation.json").is_file()
    table = striate.compare([run.folder, str(run.folder)])
    assert table[0]["top1"] == again["top1"] and table[0]["parameters"] == 7178 and table[0]["model"] == "three-conv"
    with pytest.raises(DataError, match="classes"):
        striate.evaluate(run.folder, data=(DIGITS.images[:20], DIGITS.labels[:20] % 2))


class Fixed(torch.nn.Module):
    """Gives the same logits whatever it sees."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_sigmoids_that_are_equal_in_float_are_told_apart_by_their_logits() -> None:
    preprocess = Preprocess((8, 8), channels=1)
    predictor = predictor_of(Fixed([50.0, 60.0, -3.0]), preprocess, ("a", "b", "c"), output="sigmoid")
    answer = predictor.predict(DIGITS.images[0])
    assert answer.probabilities["a"] == answer.probabilities["b"] == 1.0 and answer.label == "b"
    assert sum(answer.probabilities.values()) > 1.5, "sigmoids need not sum to one"


def test_the_temperature_divides_the_logits_and_leaves_the_answer() -> None:
    preprocess = Preprocess((8, 8), channels=1)
    cold, warm = (
        predictor_of(Fixed([0.0, 2.0, 1.0]), preprocess, ("a", "b", "c"), temperature=t).predict(DIGITS.images[0])
        for t in (1.0, 4.0)
    )
    wanted = torch.tensor([0.0, 0.5, 0.25]).double().softmax(0).tolist()
    assert list(warm.probabilities.values()) == pytest.approx(wanted)
    assert cold.label == warm.label == "b" and cold.probability > warm.probability


def test_an_answer_as_plain_data(predictor: Predictor) -> None:
    answer = predictor.predict([DIGITS.images[7]])[0]
    entry = answer.to_json()
    assert set(entry) == {"source", "label", "probability", "probabilities", "rejected", "steps"}
    assert list(entry["probabilities"]) == list(DIGITS.classes) and entry["source"] == "picture 0"
    assert entry["probability"] == max(entry["probabilities"].values()) == entry["probabilities"][entry["label"]]
    assert np.array_equal(answer.seen, DIGITS.images[7])


def test_nothing_to_answer(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.logits(DIGITS.images[:0]).shape == (0, 10)


def test_pictures_of_other_sizes_and_channels_go_through_the_same_geometry(predictor: Predictor) -> None:
    large = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8)
    gray = np.asarray(Image.fromarray(large).convert("L"))
    wanted = predictor.preprocess.geometry(gray[..., None])
    assert wanted.shape == (8, 8, 1)
    seen = predictor.predict(large).seen
    assert seen.shape == (8, 8, 1) and np.abs(seen.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_shapes_that_do_not_fit_are_named(predictor: Predictor, shape: tuple[int, ...]) -> None:
    tensors = dict(predictor.net.state_dict())
    name = next(iter(tensors))
    tensors[name] = torch.zeros(shape)
    with pytest.raises(DataError) as caught:
        load_weights(predictor.net, tensors, "file")
    assert f"{name} {shape} instead of" in caught.value.cause
