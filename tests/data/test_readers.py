"""The readers of IDX, CIFAR's binary layout and the hub's parquet tables: what is written is read, damage is named."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.data import readers
from striate.data.readers import read_cifar_binary, read_idx, read_idx_pair, read_parquet, read_parquet_classes
from striate.errors import DataError, MissingExtra

SEEDED = settings(
    derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FEW = settings(SEEDED, max_examples=12)
RANDOM = np.random.default_rng(3)
IDX = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (5, 4, 3)) + RANDOM.bytes(60)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def refused(reader: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        reader(*arguments)
    assert caught.value.fix, "an error says what to do"
    return str(caught.value)


# ---- IDX


@SEEDED
@given(
    shape=st.one_of(st.tuples(st.integers(1, 300)), st.tuples(*[st.integers(1, 20)] * 3)),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_idx_round_trip(tmp_path: Path, write_idx: Any, shape: tuple[int, ...], packed: bool, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    got = read_idx(write_idx(tmp_path / ("a.gz" if packed else "a"), array))
    assert got.dtype == np.uint8 and got.flags.writeable and np.array_equal(got, array)


@SEEDED
@given(length=st.integers(0, len(IDX) - 1), packed=st.booleans())
def test_idx_cut_anywhere_is_refused(tmp_path: Path, length: int, packed: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(IDX[:length]) if packed else IDX[:length])
    assert str(path) in refused(read_idx, path)


@SEEDED
@given(length=st.integers(0, len(gzip.compress(IDX)) - 1))
def test_gzip_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(IDX)[:length])
    assert str(path) in refused(read_idx, path)


@SEEDED
@given(position=st.integers(0, len(gzip.compress(IDX)) - 1), value=st.integers(1, 255))
def test_a_damaged_gzip_is_refused_or_harmless(tmp_path: Path, position: int, value: int) -> None:
    damaged = bytearray(gzip.compress(IDX, mtime=0))
    damaged[position] ^= value
    path = tmp_path / "a.gz"
    path.write_bytes(damaged)
    try:
        got = read_idx(path)
    except DataError as error:
        assert str(path) in str(error)
    else:  # the header's time, name and system bytes do not touch the content
        assert got.tobytes() == IDX[16:]


@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_bytes_after_the_end_is_refused(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(IDX + b"x") if packed else IDX + b"x")
    assert "after the last value" in refused(read_idx, path)
    path.write_bytes(gzip.compress(IDX) + b"trailing" if packed else IDX + IDX)
    assert str(path) in refused(read_idx, path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "<!DOCTYPE"),
        (b"\0\0\x0d\x03" + IDX[4:], "00 00 0d 03"),
        (b"\0\0\x08\x02" + IDX[4:], "expected 00 00 08 01"),
        (IDX[:4] + b"\xff" * 12, "damaged"),
        (IDX[:4] + bytes(12), "damaged"),
        (gzip.compress(b"not IDX at all", mtime=0), "no IDX file"),
    ],
)
def test_what_is_no_idx_file(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    message = refused(read_idx, path)
    assert str(path) in message and word in message


def test_a_gzip_bomb_is_read_no_further_than_announced(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(IDX[:16] + bytes(50_000_000)))
    assert "more than 60" in refused(read_idx, path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "No such file" in refused(read_idx, tmp_path / "nothing")
    assert str(tmp_path) in refused(read_idx, tmp_path)


def test_idx_pairs(tmp_path: Path, write_idx: Any) -> None:
    array, labels = pixels(6, 4, 3), np.array([0, 1, 2, 0, 1, 2], np.uint8)
    images_path, labels_path = write_idx(tmp_path / "i", array), write_idx(tmp_path / "l.gz", labels)
    images, numbers, classes = read_idx_pair(images_path, labels_path, 3)
    assert np.array_equal(images, array[..., None]) and numbers.dtype == np.int64 and classes is None
    assert np.array_equal(numbers, labels)
    message = refused(read_idx_pair, images_path, labels_path, 2)
    assert "row 2" in message and "0 to 1" in message and str(labels_path) in message
    message = refused(read_idx_pair, images_path, write_idx(tmp_path / "m", labels[:5]), 3)
    assert "6 pictures" in message and "5 labels" in message
    assert "swapped" in refused(read_idx_pair, labels_path, images_path, 3)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_idx_against_torchvision(data_root: Path, tmp_path: Path, name: str) -> None:
    import torchvision

    raw = data_root / name / "raw"
    unpacked = tmp_path / name / "raw"
    unpacked.mkdir(parents=True)
    for stem in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (unpacked / stem).write_bytes(b"")  # torchvision only looks whether it is there
    for stem in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (unpacked / stem).write_bytes(gzip.decompress((raw / f"{stem}.gz").read_bytes()))
    other = getattr(torchvision.datasets, name)(tmp_path, train=False)
    got = read_idx_pair(raw / "t10k-images-idx3-ubyte.gz", raw / "t10k-labels-idx1-ubyte.gz", 10)
    assert np.array_equal(got.images[..., 0], other.data.numpy())
    assert np.array_equal(got.labels, other.targets.numpy())


# ---- CIFAR, binary


def cifar10_files(write_cifar: Any, count: int = 3) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    images, labels = pixels(6 * count, 32, 32, 3), RANDOM.integers(0, 10, 6 * count).astype(np.uint8)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files = {
        name: write_cifar(images[i * count : (i + 1) * count], labels[i * count : (i + 1) * count])
        for i, name in enumerate(names)
    }
    return files, images, labels


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", folder: str = "cifar-10-batches-bin") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("form", ["folder", "w:gz", "w"])
def test_cifar10_round_trip(tmp_path: Path, write_cifar: Any, form: str) -> None:
    files, images, labels = cifar10_files(write_cifar)
    files["batches.meta.txt"] = b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n"
    files["readme.html"] = b"<html>"
    if form == "folder":
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        path = tmp_path
    else:
        path = write_tar(tmp_path / "archive", files, form)
    parts = read_cifar_binary(path)
    assert list(parts) == ["train", "test"]
    assert np.array_equal(parts["train"].images, images[:15]) and np.array_equal(parts["test"].images, images[15:])
    assert np.array_equal(parts["train"].labels, labels[:15]) and parts["train"].labels.dtype == np.int64
    assert parts["test"].classes == tuple("abcdefghij")
    assert parts["train"].images.flags.c_contiguous and parts["train"].images.flags.writeable


@FEW
@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_cifar100_reads_the_fine_labels(tmp_path: Path, write_cifar: Any, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    fine = random.integers(0, 100, count).astype(np.uint8)
    content = write_cifar(images, fine, random.integers(0, 20, count).astype(np.uint8))
    path = write_tar(tmp_path / "a.tar.gz", {"train.bin": content, "test.bin": content})
    parts = read_cifar_binary(path)
    assert np.array_equal(parts["train"].images, images) and np.array_equal(parts["test"].labels, fine)


def test_one_cifar_file(tmp_path: Path, write_cifar: Any) -> None:
    files, images, _ = cifar10_files(write_cifar)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(files["data_batch_2.bin"])
    assert np.array_equal(read_cifar_binary(path)["train"].images, images[3:6])


def test_a_damaged_cifar_folder(tmp_path: Path, write_cifar: Any) -> None:
    files, images, labels = cifar10_files(write_cifar)
    assert "binary version" in refused(read_cifar_binary, tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "data_batch_3.bin").write_bytes(files["data_batch_3.bin"][:-1])
    message = refused(read_cifar_binary, tmp_path)
    assert "data_batch_3.bin" in message and "9,218 bytes" in message and "3,073" in message
    (tmp_path / "data_batch_3.bin").write_bytes(write_cifar(images[:3], labels[:3] * 0 + 10))
    message = refused(read_cifar_binary, tmp_path)
    assert "data_batch_3.bin" in message and "is 10 in row 0" in message
    (tmp_path / "data_batch_3.bin").unlink()
    assert "lacks data_batch_3.bin" in refused(read_cifar_binary, tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(files["data_batch_3.bin"])
    (tmp_path / "test.bin").write_bytes(write_cifar(images[:1], labels[:1], labels[:1]))
    assert "CIFAR-10 and CIFAR-100" in refused(read_cifar_binary, tmp_path)


@SEEDED
@given(fraction=st.floats(0, 0.999))
def test_a_cifar_archive_cut_anywhere_is_refused(tmp_path: Path, write_cifar: Any, fraction: float) -> None:
    whole = tmp_path / "whole.tar.gz"
    if not whole.exists():
        write_tar(whole, cifar10_files(write_cifar, 1)[0])
    content = whole.read_bytes()
    path = tmp_path / "cut.tar.gz"
    for length in (int(fraction * len(content)), len(content) - 4):  # the second lacks half of gzip's own sum
        path.write_bytes(content[:length])
        assert str(path) in refused(read_cifar_binary, path)


def test_archives_that_mean_harm(tmp_path: Path, write_cifar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _, _ = cifar10_files(write_cifar)
    outside = write_tar(tmp_path / "outside.tar", files, "w", folder="../../outside")
    assert len(read_cifar_binary(outside)["train"].images) == 15
    assert not (tmp_path.parent / "outside").exists(), "nothing is extracted"

    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            member = tarfile.TarInfo("test_batch.bin")
            member.size = 3073
            archive.addfile(member, io.BytesIO(bytes(3073)))
    assert "twice" in refused(read_cifar_binary, tmp_path / "twice.tar")

    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        member = tarfile.TarInfo("test_batch.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    assert "no CIFAR .bin file" in refused(read_cifar_binary, tmp_path / "link.tar")

    monkeypatch.setattr(readers, "MOST_TAR_BYTES", 1 << 20)
    bomb = write_tar(tmp_path / "bomb.tar.gz", {"other": bytes(4 << 20), **files})
    assert "far more" in refused(read_cifar_binary, bomb)
    bomb = write_tar(tmp_path / "bomb2.tar.gz", {**files, "other": bytes(4 << 20)})
    assert "far more" in refused(read_cifar_binary, bomb)
    with tarfile.open(tmp_path / "name.tar.gz", "w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x" * (4 << 20)))
    assert "far more" in refused(read_cifar_binary, tmp_path / "name.tar.gz")
    (tmp_path / "long.bin").write_bytes(bytes(2 << 20))
    (tmp_path / "test_batch.bin").write_bytes(bytes(2 << 20))
    assert "larger than" in refused(read_cifar_binary, tmp_path / "test_batch.bin")


def test_a_python_archive_is_not_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", {"data_batch_1": b"\x80\x02}q\x01."})
    assert "pickles" in refused(read_cifar_binary, path)


# ---- parquet


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, kind)
    return stream.getvalue()


def write_table(
    path: Path,
    encoded: list[bytes | None],
    labels: list[Any],
    names: list[str] | None = None,
    columns: tuple[str, str] = ("img", "label"),
    row_group_size: int = 7,
) -> Path:
    import pyarrow
    import pyarrow.parquet

    pictures = pyarrow.array(
        [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(encoded)],
        pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]),
    )
    table = pyarrow.table({columns[0]: pictures, columns[1]: pyarrow.array(labels), "more": [0] * len(labels)})
    if names is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)
    return path


@FEW
@given(
    count=st.integers(1, 30),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    columns=st.sampled_from([("img", "label"), ("image", "fine_label")]),
)
def test_parquet_round_trip(
    tmp_path: Path, count: int, height: int, width: int, channels: int, columns: tuple[str, str]
) -> None:
    pytest.importorskip("pyarrow")
    images, labels = pixels(count, height, width, channels), [i % 4 for i in range(count)]
    path = write_table(tmp_path / "a.parquet", [encode(i) for i in images], labels, list("wxyz"), columns)
    got = read_parquet(path)
    assert np.array_equal(got.images, images) and got.images.dtype == np.uint8
    assert np.array_equal(got.labels, labels) and got.labels.dtype == np.int64
    assert got.classes == tuple("wxyz") == read_parquet_classes(path)


def test_parquet_without_names(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write_table(tmp_path / "a.parquet", [encode(pixels(4, 4, 3))], [7])
    assert read_parquet(path).classes is None and read_parquet_classes(path) is None
    assert read_parquet_classes(tmp_path / "nothing") is None


def test_what_is_wrong_with_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    picture, path = encode(pixels(4, 4, 3)), tmp_path / "a.parquet"
    assert "row 1" in refused(read_parquet, write_table(path, [picture, b"<html>no picture"], [0, 0]))
    assert "row 2" in refused(read_parquet, write_table(path, [picture, picture, None], [0, 0, 0]))
    assert "2 labels out of range" in refused(read_parquet, write_table(path, [picture] * 3, [0, 2, -1], ["a", "b"]))
    assert "empty rows" in refused(read_parquet, write_table(path, [picture] * 2, [0, None]))
    assert "double" in refused(read_parquet, write_table(path, [picture], [0.5]))
    assert "no rows" in refused(read_parquet, write_table(path, [], pyarrow.array([], pyarrow.int64())))
    message = refused(read_parquet, write_table(path, [picture], [0], columns=("photo", "label")))
    assert "'img' or 'image'" in message and "photo, label, more" in message
    assert "fine_label" in refused(read_parquet, write_table(path, [picture], [0], columns=("img", "kind")))
    pyarrow.parquet.write_table(pyarrow.table({"img": ["a.png"], "label": [0]}), path)
    assert "struct" in refused(read_parquet, path)
    path.write_bytes(write_table(tmp_path / "b.parquet", [picture], [0]).read_bytes()[:-20])
    assert "cannot be read as parquet" in refused(read_parquet, path)
    assert "nothing" in refused(read_parquet, tmp_path / "nothing")


def test_without_pyarrow_the_pip_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'striate\[parquet\]'"):
        read_parquet(tmp_path / "a.parquet")
    assert read_parquet_classes(tmp_path / "a.parquet") is None


def test_parquet_against_pillow(data_root: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    path = data_root / "cifar10" / "test-00000-of-00001.parquet"
    got = read_parquet(path)
    assert got.images.shape == (10000, 32, 32, 3) and np.bincount(got.labels).tolist() == [1000] * 10
    table = pyarrow.parquet.read_table(path)
    for row in RANDOM.choice(10000, 100, replace=False).tolist():
        content = table["img"][row]["bytes"].as_py()
        assert np.array_equal(got.images[row], np.asarray(Image.open(io.BytesIO(content))))
        assert got.labels[row] == table["label"][row].as_py()
