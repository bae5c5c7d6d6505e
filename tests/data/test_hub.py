"""Parquet tables of pictures: columns, shards, rows with a fault, and a hub on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from striate.data import hub
from striate.data.hub import split_of
from striate.data.sources import open_source
from striate.errors import DataError, MissingExtra, UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

CONTENT = [bytes([i]) * (i + 1) for i in range(7)]
LABELS = [1, 0, 1, 2, 0, 1, 2]
NAMES = ["cat", "ant", "猫"]


def write(path: Path, image: Any = "struct", label: Any = "numbers", names: Any = None, rows: int = 7) -> Path:
    """Write a table: `image` is struct, binary, text or an array, `label` numbers, text or values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = CONTENT[:rows]
    struct = pyarrow.array([{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(content)])
    images = {"struct": struct, "binary": pyarrow.array(content), "text": pyarrow.array(["x"] * rows)}
    values = {"numbers": LABELS, "text": [NAMES[i] for i in LABELS]}
    chosen = values[label] if isinstance(label, str) else label
    table = pyarrow.table({"image": images[image] if isinstance(image, str) else image, "label": chosen})
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    parquet.write_table(table, path, row_group_size=3)
    return path


@pytest.mark.parametrize("image", ["struct", "binary"])
def test_a_file(tmp_path: Path, image: str) -> None:
    with open_source(write(tmp_path / "pets.parquet", image, names=NAMES)) as source:
        assert (source.kind, source.name, source.classes) == ("parquet", "pets", ("ant", "cat", "猫"))
        assert [(r.source, r.label, r.split) for r in source.records[:2]] == [
            ("pets.parquet#0", "ant", None),
            ("pets.parquet#1", "cat", None),
        ]
        assert [record.place.read() for record in source.records] == CONTENT
        with source.records[6].place.open() as stream:
            assert stream.read() == CONTENT[6] and source.records[6].place.path is None


@pytest.mark.parametrize(("label", "classes"), [("numbers", ("0", "1", "2")), ("text", ("ant", "cat", "猫"))])
def test_labels_without_a_list_of_names(tmp_path: Path, label: str, classes: tuple[str, ...]) -> None:
    with open_source(write(tmp_path / "a.parquet", label=label)) as source:
        assert source.classes == classes


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    with open_source(write(tmp_path / "a.parquet", label=[0, None, -1, 1, 0, 0, 1])) as source:
        assert len(source.records) == 5
        assert [(left.source, left.code) for left in source.left_out] == [
            ("a.parquet#1", "no-label"),
            ("a.parquet#2", "no-label"),
        ]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("data/validation-00002-of-00010-4f1d.parquet", "validation"),
        ("default/test/0000.parquet", "test"),
        ("Valid.parquet", "validation"),
        ("pets.parquet", None),
        ("training-set.parquet", None),
    ],
)
def test_the_split_is_in_the_name(path: str, split: str | None) -> None:
    assert split_of(Path(path)) == split


def test_a_folder_of_shards(tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001", "extra"):
        write(tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text("x")
    with open_source(tmp_path) as source:
        assert source.kind == "parquet" and source.name == tmp_path.name
        assert [record.split for record in source.records] == ["test"] * 7 + ["train"] * 14
        assert source.records[7].source == "data/train-00000-of-00002.parquet#0"
        assert [(left.source, left.code) for left in source.left_out] == [("extra.parquet", "other-split")]


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'image' has type string"):
        open_source(write(tmp_path / "a.parquet", "text"))
    with pytest.raises(DataError, match=r"b\.parquet#0: the label is 0\.5"):
        open_source(write(tmp_path / "b.parquet", label=[0.5] * 7))
    with pytest.raises(DataError, match="no labelled pictures"):
        open_source(write(tmp_path / "c.parquet", label=[-1] * 7))
    parquet.write_table(pyarrow.table({"image": CONTENT, "what": LABELS}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="no column of labels"):
        open_source(tmp_path / "d.parquet")
    parquet.write_table(pyarrow.table({"what": CONTENT, "label": LABELS}), tmp_path / "e.parquet")
    with pytest.raises(DataError, match="no column of pictures"):
        open_source(tmp_path / "e.parquet")


def test_a_number_beyond_the_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.parquet#2: label 3 out of range"):
        open_source(write(tmp_path / "a.parquet", label=[0, 1, 3, 0, 0, 0, 0], names=NAMES))


def test_cells_without_bytes(tmp_path: Path) -> None:
    images = pyarrow.array([{"bytes": CONTENT[3], "path": "a"}, {"bytes": None, "path": "b.png"}, None])
    with open_source(write(tmp_path / "a.parquet", images, [0, 1, 0], rows=3)) as source:
        assert source.records[0].place.read() == CONTENT[3]
        for row in (1, 2):
            with pytest.raises(DataError, match=f"a.parquet#{row} has no picture bytes"):
                source.records[row].place.read()


def test_damage(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.parquet").read_bytes()
    for length in (4, 100, len(whole) - 8):
        (tmp_path / "a.parquet").write_bytes(whole[:length])
        with pytest.raises(DataError, match="cannot be read as parquet"):
            open_source(tmp_path / "a.parquet")


def test_groups_of_rows_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_source(write(tmp_path / "a.parquet")) as source:
        monkeypatch.setattr(hub, "MOST_GROUP_BYTES", 10)
        with pytest.raises(DataError, match="group 2 of its rows"):
            source.records[6].place.read()


def test_threads_read_in_any_order_and_little_is_kept(tmp_path: Path) -> None:
    content = [i.to_bytes(4, "big") * 5 for i in range(300)]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"image": content, "label": [0] * 300}), path, row_group_size=10)
    with open_source(path) as source, ThreadPoolExecutor(4) as pool:
        order = [i * 7 % 300 for i in range(300)]
        assert list(pool.map(lambda i: source.records[i].place.read(), order)) == [content[i] for i in order]
        place = source.records[0].place
        assert isinstance(place, hub.CellPlace) and len(place.table._kept) <= 4
    with pytest.raises(DataError, match="cannot be read"):
        place.read()


@pytest.mark.parametrize(("module", "target"), [("pyarrow", "a.parquet"), ("huggingface_hub", "hf://owner/name")])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, target: str) -> None:
    write(tmp_path / "a.parquet")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as caught:
        open_source(target)
    assert caught.value.fix == "pip install 'striate[parquet]'"


def test_cifar10(data_root: Path) -> None:
    with open_source(data_root / "cifar10") as source:
        splits = [record.split for record in source.records]
        assert (splits.count("train"), splits.count("test")) == (50_000, 10_000)
        assert source.classes[:3] == ("airplane", "automobile", "bird") and len(source.classes) == 10
        assert source.records[0].place.read()[:4] == b"\x89PNG"


class Hub:
    """A hub with one data set, owner/pets, of the files given."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, list[str]()
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.answer(self, body=True)

            def do_HEAD(self) -> None:
                served.answer(self, body=False)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler, body: bool) -> None:
        path = handler.path.split("?")[0]
        self.asked.append(path)
        sizes = {name: len(data) for name, data in self.files.items()}
        kind, content, status = "application/json", b"{}", 200
        headers = {"X-Repo-Commit": "a" * 40}
        if path.startswith("/api/datasets/owner/pets/revision/"):
            siblings = [{"rfilename": name} for name in self.files]
            content = json.dumps({"id": "owner/pets", "sha": "a" * 40, "siblings": siblings}).encode()
        elif path.startswith("/api/datasets/owner/pets/tree/"):
            tree = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()]
            content = json.dumps(tree).encode()
        elif path.startswith("/datasets/owner/pets/resolve/"):
            content, kind = self.files[path.split("/", 6)[6]], "application/octet-stream"
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        else:
            status, headers["X-Error-Code"] = 404, "RepoNotFound"
        handler.send_response(status)
        for key, value in {**headers, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if body:
            handler.wfile.write(content)


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub on loopback, and an empty cache of hub files."""
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    shard = write(tmp_path / "shard.parquet", names=NAMES).read_bytes()
    served = Hub({f"data/{split}-00000-of-00001.parquet": shard for split in ("train", "test")} | {"README.md": b"x"})
    monkeypatch.setenv("HF_ENDPOINT", served.address)
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_a_data_set_of_the_hub(pets: Hub) -> None:
    told: list[str] = []
    with open_source("hf://owner/pets", report=told.append) as source:
        assert (source.kind, source.name, source.classes) == ("parquet", "pets", ("ant", "cat", "猫"))
        assert [record.split for record in source.records] == ["test"] * 7 + ["train"] * 7
        assert source.records[7].source == "data/train-00000-of-00001.parquet#0"
        assert [record.place.read() for record in source.records] == CONTENT * 2
    assert told == ["looking for hf://owner/pets on the hub, or in its cache"]
    assert not any("README" in path for path in pets.asked)  # only tables are fetched
    pets.server.shutdown()  # afterwards the hub's own cache serves
    pets.server.server_close()
    with open_source("hf://owner/pets") as source:
        assert len(source.records) == 14


def test_several_configurations(pets: Hub) -> None:
    shard = pets.files["data/train-00000-of-00001.parquet"]
    pets.files = {"cats/train/0000.parquet": shard, "cats/test/0000.parquet": shard, "dogs/train/0000.parquet": shard}
    with pytest.raises(UsageError, match="several configurations") as caught:
        open_source("hf://owner/pets")
    assert caught.value.cause == "cats, dogs" and caught.value.fix == "name one: hf://owner/pets/cats"
    with open_source("hf://owner/pets/cats") as source:
        assert [record.split for record in source.records] == ["test"] * 7 + ["train"] * 7


def test_what_the_hub_does_not_have(pets: Hub) -> None:
    with pytest.raises(DataError, match="hf://owner/none cannot be had"):
        open_source("hf://owner/none")
    pets.files = {"README.md": b"x"}
    with pytest.raises(DataError, match="no parquet files"):
        open_source("hf://owner/pets")


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/..%2f", "hf:///etc/passwd"])
def test_broken_addresses(address: str) -> None:
    with pytest.raises(UsageError, match="no data set on the hub"):
        open_source(address)
