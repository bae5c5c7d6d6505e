"""Files got by hand: recognised, checked, copied into the cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from striate.data.builtin import add_file, load_named
from striate.data.named import IDX_NAMES, NAMED, PARQUET_NAMES
from striate.errors import DataError, UsageError

RANDOM = np.random.default_rng(13)
IMAGES, LABELS = RANDOM.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), (np.arange(12) % 10).astype(np.uint8)
GRAY = RANDOM.integers(0, 256, (12, 28, 28), dtype=np.uint8)
ARRAYS = dict(zip(IDX_NAMES, (GRAY[:10], LABELS[:10], GRAY[10:], LABELS[10:]), strict=True))


@pytest.fixture(autouse=True)
def small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every set with ten and two pictures, so that files are quick to write."""
    for name, named in NAMED.items():
        monkeypatch.setitem(NAMED, name, replace(named, train=10, test=2))


def refused(path: Path, name: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        add_file(path, name)
    assert caught.value.fix
    return str(caught.value)


def test_idx_files_one_by_one(cache: Path, tmp_path: Path, write_idx: Any) -> None:
    for stem in IDX_NAMES:
        path = write_idx(tmp_path / f"{stem}.gz", ARRAYS[stem])
        message = refused(path)
        assert "mnist, fashion-mnist, kmnist" in message and "--data" in message
        told = add_file(path, "kmnist")
    assert told == f"added t10k-labels-idx1-ubyte.gz to kmnist, which is now complete in {cache / 'kmnist'}"
    parts = load_named("kmnist", download=False)
    assert np.array_equal(parts.train.images[..., 0], GRAY[:10])


def test_what_is_missing_is_told(tmp_path: Path, write_idx: Any) -> None:
    told = add_file(write_idx(tmp_path / IDX_NAMES[0], ARRAYS[IDX_NAMES[0]]), "mnist")
    assert "added train-images-idx3-ubyte to mnist" in told
    assert all(stem in told for stem in IDX_NAMES[1:]) and "train-images-idx3-ubyte.gz" not in told


@pytest.mark.parametrize("by", ["md5", "sha256", "content_sha256"])
def test_a_digest_says_whose_file_it_is_under_any_name(
    cache: Path, tmp_path: Path, write_idx: Any, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    path = write_idx(tmp_path / "download (1).gz", ARRAYS[IDX_NAMES[1]])
    content = path.read_bytes()
    digests = {
        "md5": hashlib.md5(content).hexdigest(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content_sha256": hashlib.sha256(gzip.decompress(content)).hexdigest(),
    }
    known = NAMED["fashion-mnist"]
    none = {"md5": "", "sha256": "", "content_sha256": ""}
    files = (known.files[0], replace(known.files[1], **{**none, by: digests[by]}), *known.files[2:])
    monkeypatch.setitem(NAMED, "fashion-mnist", replace(known, files=files))
    assert "to fashion-mnist" in add_file(path)
    assert (cache / "fashion-mnist" / "train-labels-idx1-ubyte.gz").read_bytes() == content
    assert "belongs to fashion-mnist" in refused(path, "mnist")


def test_a_good_copy_replaces_a_broken_one_of_another_spelling(cache: Path, tmp_path: Path, write_idx: Any) -> None:
    for stem in IDX_NAMES:
        write_idx(cache / "mnist" / stem, ARRAYS[stem])
    (cache / "mnist" / IDX_NAMES[0]).write_bytes(b"broken")
    with pytest.raises(DataError):
        load_named("mnist", download=False)
    add_file(write_idx(tmp_path / f"{IDX_NAMES[0]}.gz", ARRAYS[IDX_NAMES[0]]), "mnist")
    assert len(load_named("mnist", download=False).train) == 10


def test_a_file_already_in_the_cache_stays(cache: Path, write_idx: Any) -> None:
    path = write_idx(cache / "mnist" / f"{IDX_NAMES[1]}.gz", LABELS[:10])
    add_file(path, "mnist")
    assert path.is_file()


def tar_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"folder/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_cifar_archives_and_batches(cache: Path, tmp_path: Path, write_cifar: Any) -> None:
    archive = tmp_path / "cifar-100-binary.tar.gz"
    train, test = (write_cifar(IMAGES[p], LABELS[p], LABELS[p]) for p in (slice(0, 10), slice(10, 12)))
    archive.write_bytes(tar_bytes({"train.bin": train, "test.bin": test[:-1]}))
    assert "test.bin" in refused(archive)
    archive.write_bytes(tar_bytes({"train.bin": train, "test.bin": test[: len(test) // 2]}))
    assert "test has 1 pictures" in refused(archive)
    archive.write_bytes(tar_bytes({"train.bin": train, "test.bin": test}))
    assert "complete" in add_file(archive)
    assert np.array_equal(load_named("cifar100", download=False).train.images, IMAGES[:10])

    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(write_cifar(IMAGES[2 * i : 2 * i + 2], LABELS[2 * i : 2 * i + 2]))
        told = add_file(tmp_path / name)
        assert ("complete" in told) == (i == 5) and ("test_batch.bin" in told) == (i < 6)
    assert np.array_equal(load_named("cifar10", download=False).train.images, IMAGES[:10])
    (tmp_path / names[2]).write_bytes(write_cifar(IMAGES[:1], LABELS[:1]))
    assert "data_batch_3.bin" in refused(tmp_path / names[2])


def test_parquet_tables(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    def write(name: str, part: slice, classes: list[str]) -> Path:
        rows = []
        for image in IMAGES[part]:
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "PNG")
            rows.append({"bytes": stream.getvalue(), "path": None})
        features = {"label": {"names": classes, "_type": "ClassLabel"}}
        table = pyarrow.table({"img": rows, "label": LABELS[part].astype(np.int64)})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pyarrow.parquet.write_table(table, tmp_path / name)
        return tmp_path / name

    classes = list(NAMED["cifar10"].classes)
    assert PARQUET_NAMES[1] in add_file(write("whatever.parquet", slice(0, 10), classes))
    assert "complete" in add_file(write("other.parquet", slice(10, 12), classes))
    assert len(load_named("cifar10", download=False).train) == 10
    assert "CIFAR-10" in refused(write("short.parquet", slice(0, 5), classes))


def test_what_is_refused(tmp_path: Path, write_idx: Any) -> None:
    assert "does not exist" in refused(tmp_path / "nothing")
    assert "--data-root" in refused(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x")
    message = refused(tmp_path / "cifar-10-python.tar.gz")
    assert "pickles" in message and "cifar-10-binary.tar.gz" in message
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    assert "no file of a named data set" in refused(tmp_path / "cat.png")
    (tmp_path / "empty").write_bytes(b"")
    assert "no file of a named data set" in refused(tmp_path / "empty")
    odd = write_idx(tmp_path / "numbers.gz", LABELS)
    assert "no file of a named data set" in refused(odd)
    assert "shape (12,)" in refused(write_idx(tmp_path / f"{IDX_NAMES[1]}.gz", LABELS), "mnist")
    assert "out of range" in refused(write_idx(tmp_path / f"{IDX_NAMES[1]}.gz", LABELS[:10] + 5), "mnist")
    assert "has none" in refused(write_idx(tmp_path / f"{IDX_NAMES[1]}.gz", LABELS[:10]), "cifar10")
    cut = write_idx(tmp_path / f"{IDX_NAMES[0]}.gz", GRAY[:10])
    cut.write_bytes(cut.read_bytes()[:-5])
    assert "cut short" in refused(cut, "mnist")
    with pytest.raises(UsageError):
        add_file(odd, "nonsense")
