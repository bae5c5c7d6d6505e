"""The named data sets: facts, where they are looked for, what is refused, and one that is downloaded."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.data.builtin import describe_named, load_named
from striate.data.lookup import locate
from striate.data.named import IDX_NAMES, NAMED, PARQUET_NAMES, NamedFile, NamedSet
from striate.errors import DataError, UsageError

RANDOM = np.random.default_rng(11)
TOY_IMAGES = RANDOM.integers(0, 256, (9, 4, 5), dtype=np.uint8)
TOY_LABELS = (np.arange(9) % 3).astype(np.uint8)
TOY = NamedSet(
    name="toy",
    title="Toy",
    classes=("a", "b", "c"),
    classes_zh=("甲", "乙", "丙"),
    train=6,
    test=3,
    shape=(4, 5, 1),
    licence="CC0",
    homepage="https://example.org/toy",
    folders=("Toy/raw", "toy"),
    files=tuple(NamedFile(f"{stem}.gz", (), 100) for stem in IDX_NAMES),
)
TOY_ARRAYS = dict(zip(IDX_NAMES, (TOY_IMAGES[:6], TOY_LABELS[:6], TOY_IMAGES[6:], TOY_LABELS[6:]), strict=True))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> NamedSet:
    monkeypatch.setitem(NAMED, "toy", TOY)
    return TOY


def write_toy(folder: Path, write_idx: Any, suffix: str = ".gz", **arrays: np.ndarray) -> Path:
    for stem, array in {**TOY_ARRAYS, **arrays}.items():
        write_idx(folder / f"{stem}{suffix}", array)
    return folder


def refused(name: str, root: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load_named(name, root, download=False)
    assert caught.value.fix
    return str(caught.value)


# ---- facts


@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
def test_facts_are_complete(named: NamedSet) -> None:
    assert NAMED[named.name] is named
    assert len(named.classes) == len(set(named.classes)) == len(named.classes_zh) == len(set(named.classes_zh))
    assert named.licence and named.homepage.startswith("https://") and not named.tried
    assert named.name in named.folders or named.kind == "embedded", "downloads go to a folder of that name"
    for file in named.files:
        assert len(file.urls) >= 2 and len(set(file.urls)) == len(file.urls) and file.size > 0
        assert all(url.startswith(("https://", "http://codh.rois.ac.jp/")) for url in file.urls)
        assert all(url.endswith(f"/{file.name}") for url in file.urls)
        assert len(file.md5) == 32 and {len(file.sha256), len(file.content_sha256)} == {0, 64}


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100"])
def test_facts_against_torchvision(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    other = getattr(torchvision.datasets, name)
    named = NAMED[{"FashionMNIST": "fashion-mnist"}.get(name, name.lower())]
    if named.kind == "idx":
        assert [(file.name, file.md5) for file in named.files] == other.resources
        if name != "MNIST":
            assert list(named.classes) == other.classes
    assert f"{name}/raw" in named.folders or named.kind == "cifar"


def test_digits_are_scikit_learns(cache: Path) -> None:
    from sklearn.datasets import load_digits

    parts = load_named("digits")
    bunch = load_digits()
    assert parts.test is None and parts.validation is None and parts.train.images.shape == (1797, 8, 8, 1)
    # Halves go to the even number: 8 · 255 / 16 = 127.5 → 128.
    scale = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert np.array_equal(parts.train.images[..., 0], np.array(scale)[bunch.images.astype(int)])
    assert np.array_equal(parts.train.labels, bunch.target)
    assert parts.train.source(7) == "digits#7"


# ---- looking


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["Toy/raw", "toy", "."])
def test_every_layout_is_found(cache: Path, tmp_path: Path, toy: Any, write_idx: Any, folder: str, suffix: str) -> None:
    root = tmp_path / "root"
    write_toy(root / folder, write_idx, suffix)
    parts = load_named("toy", root)
    assert parts.test is not None and parts.licence == "CC0"
    assert np.array_equal(parts.train.images, TOY_IMAGES[:6, ..., None])
    assert np.array_equal(parts.test.images, TOY_IMAGES[6:, ..., None])
    assert np.array_equal(parts.test.labels, TOY_LABELS[6:])
    assert parts.train.name == "toy/train" and parts.test.source(2) == "toy/test#2"
    assert parts.train.classes == ("a", "b", "c")


def test_the_order_of_looking(
    cache: Path, tmp_path: Path, toy: Any, write_idx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(root: Path | None) -> int:
        return int(load_named("toy", root, download=False).train.images[0, 0, 0, 0])

    for value, folder in ((1, cache), (2, tmp_path / "shared"), (3, tmp_path / "root")):
        images = TOY_IMAGES[:6].copy()
        images[0, 0, 0] = value
        write_toy(folder / "toy", write_idx, **{IDX_NAMES[0]: images})
    (tmp_path / "empty").mkdir()
    assert first(None) == 1
    monkeypatch.setenv("STRIATE_DATA", str(tmp_path / "shared"))
    assert first(None) == 2 and first(tmp_path / "root") == 3
    assert first(tmp_path / "empty") == 2, "a root without the set is not the end of looking"
    monkeypatch.setenv("STRIATE_DATA", str(tmp_path / "nowhere"))
    lines: list[str] = []
    load_named("toy", None, report=lines.append)
    assert len(lines) == 1 and "nowhere" in lines[0]
    with pytest.raises(UsageError, match="nowhere"):
        load_named("toy", tmp_path / "nowhere")


def test_unknown_names_get_near_ones(cache: Path) -> None:
    with pytest.raises(UsageError, match="did you mean fashion-mnist"):
        load_named("fashionmnist")
    with pytest.raises(UsageError, match="did you mean cifar10"):
        load_named("cifar-10")
    assert load_named("DIGITS").name == "digits"


def test_what_is_not_here_says_what_to_do(cache: Path, tmp_path: Path) -> None:
    message = refused("kmnist", tmp_path)
    assert "kmnist is not here" in message and str(cache) in message and str(tmp_path) in message
    assert "t10k-labels-idx1-ubyte.gz" in message and "striate data add FILE" in message


def test_another_sets_files_lying_directly_are_passed_over(
    cache: Path, tmp_path: Path, toy: Any, write_idx: Any, monkeypatch: pytest.MonkeyPatch, sha256: Any
) -> None:
    write_toy(tmp_path, write_idx)
    labels = bytes((0, 0, 8, 1, 0, 0, 0, 6)) + TOY_LABELS[:6].tobytes()
    files = (TOY.files[0], replace(TOY.files[1], content_sha256=sha256(labels)), *TOY.files[2:])
    monkeypatch.setitem(NAMED, "other", replace(TOY, name="other", files=files))
    assert locate(NAMED["other"], tmp_path) is not None
    assert locate(TOY, tmp_path) is None


# ---- refusing


def test_broken_sets_are_named(cache: Path, tmp_path: Path, toy: Any, write_idx: Any) -> None:
    folder = write_toy(tmp_path / "toy", write_idx)
    whole = (folder / f"{IDX_NAMES[0]}.gz").read_bytes()
    (folder / f"{IDX_NAMES[0]}.gz").write_bytes(whole[:-9])
    message = refused("toy", tmp_path)
    assert str(folder / IDX_NAMES[0]) in message and "delete it and run again" in message
    write_idx(folder / f"{IDX_NAMES[0]}.gz", TOY_IMAGES[:5])
    assert "5 pictures" in refused("toy", tmp_path)
    write_idx(folder / f"{IDX_NAMES[1]}.gz", TOY_LABELS[:5])
    message = refused("toy", tmp_path)
    assert "toy/train has 5 pictures" in message and "expected 6" in message
    write_toy(tmp_path / "toy", write_idx, **{IDX_NAMES[3]: np.array([0, 1, 3], np.uint8)})
    assert "is 3 in row 2" in refused("toy", tmp_path)
    (folder / f"{IDX_NAMES[3]}.gz").unlink()
    message = refused("toy", tmp_path)
    assert "toy is not here" in message and f"{folder} lacks t10k-labels-idx1-ubyte" in message


def test_other_bytes_are_told_but_another_wrapper_is_not(
    cache: Path, tmp_path: Path, write_idx: Any, monkeypatch: pytest.MonkeyPatch, sha256: Any
) -> None:
    folder = write_toy(tmp_path / "toy", write_idx)
    contents = [gzip.decompress((folder / f"{stem}.gz").read_bytes()) for stem in IDX_NAMES]
    files = [
        replace(file, md5="0" * 32, content_sha256=sha256(content))
        for file, content in zip(TOY.files, contents, strict=True)
    ]
    monkeypatch.setitem(NAMED, "toy", replace(TOY, files=tuple(files)))
    lines: list[str] = []
    load_named("toy", tmp_path, report=lines.append)
    assert lines == []
    images = TOY_IMAGES[6:].copy()
    images[1, 2, 3] ^= 1
    write_idx(folder / f"{IDX_NAMES[2]}.gz", images)
    load_named("toy", tmp_path, report=lines.append)
    assert len(lines) == 1 and f"{IDX_NAMES[2]}.gz is not the official file of toy" in lines[0]


# ---- CIFAR's layouts


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 and CIFAR-100 with ten and two pictures."""
    for name in ("cifar10", "cifar100"):
        monkeypatch.setitem(NAMED, name, replace(NAMED[name], train=10, test=2))
    return RANDOM.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), np.arange(12) % 10


def check(parts: Any, images: np.ndarray, labels: np.ndarray) -> None:
    assert np.array_equal(np.concatenate([parts.train.images, parts.test.images]), images)
    assert np.array_equal(np.concatenate([parts.train.labels, parts.test.labels]), labels)


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin", "."])
def test_cifar10_batches(cache: Path, tmp_path: Path, small_cifar: Any, write_cifar: Any, folder: str) -> None:
    images, labels = small_cifar
    (tmp_path / "r" / folder).mkdir(parents=True)
    for i in range(5):
        batch = write_cifar(images[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2])
        (tmp_path / "r" / folder / f"data_batch_{i + 1}.bin").write_bytes(batch)
    (tmp_path / "r" / folder / "test_batch.bin").write_bytes(write_cifar(images[10:], labels[10:]))
    parts = load_named("cifar10", tmp_path / "r")
    check(parts, images, labels)
    assert parts.train.classes[:2] == ("airplane", "automobile")
    (tmp_path / "r" / folder / "batches.meta.txt").write_text("cat\ndog\nc\nd\ne\nf\ng\nh\ni\nj\n")
    assert "cat, dog" in refused("cifar10", tmp_path / "r")
    (tmp_path / "r" / folder / "batches.meta.txt").unlink()
    (tmp_path / "r" / folder / "data_batch_1.bin").write_bytes(write_cifar(images[:1], labels[:1]))
    assert "9 pictures" in refused("cifar10", tmp_path / "r"), "a batch cut between two records"
    (tmp_path / "r" / folder / "data_batch_1.bin").unlink()
    assert ("lacks data_batch_1.bin" in refused("cifar10", tmp_path / "r")) == (folder != ".")


@pytest.mark.parametrize("folder", ["cifar-100-binary", "cifar100", "."])
def test_cifar100_archive(cache: Path, tmp_path: Path, small_cifar: Any, write_cifar: Any, folder: str) -> None:
    import tarfile

    images, labels = small_cifar
    fine = labels + 90
    (tmp_path / "r" / folder).mkdir(parents=True)
    with tarfile.open(tmp_path / "r" / folder / "cifar-100-binary.tar.gz", "w:gz") as archive:
        for name, part in (("train", slice(0, 10)), ("test", slice(10, 12))):
            content = write_cifar(images[part], fine[part], labels[part])
            member = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    parts = load_named("cifar100", tmp_path / "r")
    check(parts, images, fine)
    assert parts.train.classes[90] == "train" and NAMED["cifar100"].classes_zh[90] == "火车"


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_parquet_lying_directly_goes_by_its_class_names(
    cache: Path, tmp_path: Path, small_cifar: Any, name: str
) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    images, labels = small_cifar
    column = "label" if name == "cifar10" else "fine_label"

    def write(classes: list[str]) -> None:
        for file_name, part in zip(PARQUET_NAMES, (slice(0, 10), slice(10, 12)), strict=True):
            rows = []
            for image in images[part]:
                stream = io.BytesIO()
                Image.fromarray(image).save(stream, "PNG")
                rows.append({"bytes": stream.getvalue(), "path": None})
            features = {column: {"names": classes, "_type": "ClassLabel"}}
            table = pyarrow.table({"img": rows, column: labels[part]})
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            pyarrow.parquet.write_table(table, tmp_path / file_name)

    classes = list(NAMED[name].classes)
    # The hub's table of CIFAR-100 calls the crab "cra".
    write(["cra" if word == "crab" else word for word in classes])
    parts = load_named(name, tmp_path)
    check(parts, images, labels)
    assert parts.train.classes == tuple(classes)
    other = NAMED["cifar100" if name == "cifar10" else "cifar10"]
    assert locate(other, tmp_path) is None
    write(classes[::-1])
    assert "in this order" in refused(name, tmp_path)


# ---- downloading


@pytest.fixture
def served_toy(mirror: Any, dead_address: str, monkeypatch: pytest.MonkeyPatch, sha256: Callable[..., str]) -> Any:
    """The toy set on a server, behind a dead address."""
    files = []
    for stem, array in TOY_ARRAYS.items():
        content = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
        packed = gzip.compress(content)
        urls = (dead_address, mirror.serve(f"{stem}.gz", packed))
        files.append(NamedFile(f"{stem}.gz", urls, len(packed), content_sha256=sha256(content)))
    monkeypatch.setitem(NAMED, "toy", replace(TOY, files=tuple(files)))
    return mirror


def test_a_set_is_downloaded_once_and_read(cache: Path, served_toy: Any) -> None:
    lines: list[str] = []
    parts = load_named("toy", report=lines.append)
    assert np.array_equal(parts.train.images, TOY_IMAGES[:6, ..., None]) and parts.test is not None
    assert "downloading toy: 4 files" in lines[0] and str(cache / "toy") in lines[0]
    assert sum("passed over" in line for line in lines) == 4 and len(lines) == 5
    assert {path.name for path in (cache / "toy").iterdir()} - {".lock"} == {f"{stem}.gz" for stem in IDX_NAMES}
    assert len(served_toy.requests) == 4
    again = load_named("toy")
    assert len(served_toy.requests) == 4 and again.train.fingerprint == parts.train.fingerprint


def test_only_missing_files_are_downloaded(cache: Path, served_toy: Any, write_idx: Any) -> None:
    for stem, suffix in zip(IDX_NAMES[:3], ("", ".gz", ""), strict=True):
        write_idx(cache / "toy" / f"{stem}{suffix}", TOY_ARRAYS[stem])
    load_named("toy")
    assert [path for path, _ in served_toy.requests] == [f"/{IDX_NAMES[3]}.gz"]


def test_without_network_the_error_names_addresses_and_files(
    cache: Path, served_toy: Any, write_idx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(cache / "toy" / f"{IDX_NAMES[1]}.gz", TOY_LABELS[:6])
    for served in served_toy.paths.values():
        served.status = 503
    with pytest.raises(DataError) as caught:
        load_named("toy")
    message = str(caught.value)
    assert "could not download train-images" in message and "503" in message and "refused" in message
    assert all(url in message for url in NAMED["toy"].files[0].urls)
    for stem in (IDX_NAMES[0], IDX_NAMES[2], IDX_NAMES[3]):
        assert f"{stem}.gz" in caught.value.fix
    assert IDX_NAMES[1] not in caught.value.fix, "what is here need not be fetched"
    assert NAMED["toy"].homepage in message and "striate data add FILE" in message


# ---- the list and the real data


def test_the_list(cache: Path, tmp_path: Path, toy: Any, write_idx: Any) -> None:
    rows = {row["name"]: row for row in describe_named()}
    assert list(rows) == [*NAMED]
    assert rows["digits"]["where"] == "inside scikit-learn" and rows["digits"]["pictures"] == 1797
    assert "not here" in rows["cifar100"]["where"] and rows["cifar100"]["classes"] == 100
    assert rows["mnist"]["size"] == (28, 28, 1) and "CC BY-SA" in rows["mnist"]["licence"]
    write_toy(tmp_path / "root", write_idx)
    assert {row["name"]: row for row in describe_named(tmp_path / "root")}["toy"]["where"] == str(tmp_path / "root")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_sets_are_official(cache: Path, data_root: Path, name: str) -> None:
    lines: list[str] = []
    parts = load_named(name, data_root, download=False, report=lines.append)
    assert lines == [], "the unpacked bytes have the digests given"
    assert parts.test is not None and len(parts.train) == 60000 and len(parts.test) == 10000


def test_the_real_cifar10(cache: Path, data_root: Path) -> None:
    pytest.importorskip("pyarrow")
    parts = load_named("cifar10", data_root, download=False)
    assert parts.test is not None
    assert np.bincount(parts.train.labels).tolist() == [5000] * 10
    mean = parts.train.images.reshape(-1, 3).mean(axis=0) / 255
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
