"""Pictures in .npz files: names of arrays, labels in every form, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.data import arrays
from striate.data.arrays import ArrayPlace
from striate.data.sources import open_source
from striate.errors import DataError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def save(path: Path, **named: object) -> Path:
    np.savez(path, **named)  # type: ignore[arg-type]
    return path


def labels_of(path: Path) -> list[str | None]:
    return [record.label for record in open_source(path).records]


def test_train_and_test(tmp_path: Path) -> None:
    source = open_source(
        save(tmp_path / "set.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=np.array([2, 1]))
    )
    assert (source.kind, source.name, source.classes) == ("npz", "set", ("0", "1", "2"))
    assert [(r.source, r.label, r.split) for r in source.records[5:]] == [
        ("set.npz#train/5", "2", "train"),
        ("set.npz#test/0", "2", "test"),
        ("set.npz#test/1", "1", "test"),
    ]
    place = source.records[3].place
    assert isinstance(place, ArrayPlace) and np.array_equal(place.array(), IMAGES[3]) and place.path is None
    with Image.open(io.BytesIO(place.read())) as image, place.open() as stream:
        assert np.array_equal(np.asarray(image), IMAGES[3]) and stream.read() == place.read()


PAIRS = {
    "one-set": {"images": IMAGES, "labels": LABELS},
    "letters": {"x": IMAGES, "y": LABELS},
    "medmnist": {"train_images": IMAGES, "train_labels": LABELS[:, None]},
    "one-hot": {"images": IMAGES, "labels": np.eye(3)[LABELS]},
    "whole-floats": {"images": IMAGES, "labels": LABELS.astype(float)},
    "compact": {"images": IMAGES, "labels": LABELS.astype(np.uint8)},
    "text": {"images": IMAGES, "labels": LABELS.astype(str)},
    "bytes": {"images": IMAGES, "labels": LABELS.astype("S1")},
    "named-by-number": {"images": IMAGES, "labels": LABELS, "classes": np.array(["0", "1", "2"])},
    "channels-first": {"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS},
    "fortran": {"images": np.asfortranarray(IMAGES), "labels": LABELS},
    "floats": {"images": IMAGES.astype(np.float32) / 255, "labels": LABELS},
}


@pytest.mark.parametrize("named", PAIRS.values(), ids=PAIRS.keys())
def test_forms(tmp_path: Path, named: dict[str, np.ndarray]) -> None:
    records = open_source(save(tmp_path / "a.npz", **named)).records
    assert [record.label for record in records] == ["0", "1", "2", "0", "1", "2"]
    for record, image in zip(records, IMAGES, strict=True):
        assert isinstance(record.place, ArrayPlace) and np.array_equal(record.place.array(), image)


def test_gray_pictures_have_one_channel(tmp_path: Path) -> None:
    record = open_source(save(tmp_path / "a.npz", images=IMAGES[..., 0], labels=LABELS)).records[1]
    assert isinstance(record.place, ArrayPlace) and record.place.array().shape == (7, 5, 1)
    with Image.open(io.BytesIO(record.place.read())) as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), IMAGES[1, ..., 0])


def test_class_names(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=np.array(["鸟", "cat", "bee"]))
    assert labels_of(path)[:3] == ["鸟", "cat", "bee"] and open_source(path).classes == ("bee", "cat", "鸟")


def test_compressed_too(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    assert len(labels_of(tmp_path / "a.npz")) == 6


REFUSED = {
    "no-labels": ({"images": IMAGES}, "holds images"),
    "other-names": ({"data": IMAGES, "target": LABELS}, "holds no array"),
    "twice": ({"x_train": IMAGES, "y_train": LABELS, "images": IMAGES, "labels": LABELS}, "same split twice"),
    "lengths": ({"images": IMAGES, "labels": LABELS[:5]}, "6 pictures but 5 labels"),
    "from-one": ({"images": IMAGES, "labels": LABELS + 1}, "labels run from 1 to 3"),
    "objects": ({"images": IMAGES, "labels": np.array([0, 1, 2, "a", None, 1], dtype=object)}, "Python objects"),
    "flat": ({"images": IMAGES.reshape(6, -1), "labels": LABELS}, "shape (6, 105)"),
    "beyond-names": ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b"])}, "out of range"),
    "scalar": ({"images": IMAGES, "labels": np.array(3)}, "announces 8 and shape ()"),
    "empty": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "holds no pictures"),
    "nan": ({"images": IMAGES, "labels": np.full(6, np.nan)}, "labels have shape"),
}


@pytest.mark.parametrize(("named", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, named: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(save(tmp_path / "a.npz", **named))
    assert said in str(caught.value)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (str(tmp_path / "sprung"), "w")  # type: ignore[return-value]

    trap = np.empty(6, dtype=object)
    trap[:] = Trap()
    with pytest.raises(DataError, match="could run code"):
        open_source(save(tmp_path / "a.npz", images=IMAGES, labels=trap))
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_announces_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 8, 8, 1)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    with pytest.raises(DataError, match="one file may hold"):
        open_source(tmp_path / "a.npz")
    monkeypatch.setattr(arrays, "MOST_BYTES", IMAGES.nbytes + 10)
    with pytest.raises(DataError, match="one file may hold 640"):
        open_source(save(tmp_path / "b.npz", images=IMAGES, labels=LABELS))


def test_damage(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.npz", images=IMAGES, labels=LABELS).read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as"):
        open_source(tmp_path / "a.npz")
    at = whole.index(IMAGES.tobytes()[:20])
    (tmp_path / "a.npz").write_bytes(whole[:at] + b"\0\0\0" + whole[at + 3 :])
    with pytest.raises(DataError, match="CRC"):
        open_source(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", b"no array")
        archive.writestr("labels.npy", b"")
    with pytest.raises(DataError, match="cannot be read as"):
        open_source(tmp_path / "a.npz")
