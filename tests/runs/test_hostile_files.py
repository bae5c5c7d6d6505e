"""Files that a stranger made to harm: each is refused with one typed error, in little time and memory; no code runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors

import striate

pytest.importorskip("resource", reason="this system does not tell the peak memory of a process")
SECONDS, MEGABYTES = 5, 500
NET = {"model": "three-conv", "input_size": 8}

# Each case in one process: a payload would leave the marker, a bomb would show in the seconds or the peak memory.
CHILD = """
import json, resource, sys, time, warnings
from pathlib import Path
import striate
from striate.errors import StriateError
warnings.simplefilter("error")
given = json.loads(sys.stdin.read())
striate.load(given["good"], device="cpu")
striate.import_model(given["good_file"], model="three-conv", input_size=8, out=given["out"] + "/good")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, told = peak(), {}
for name, path in given["cases"].items():
    began = time.perf_counter()
    try:
        if Path(path).is_dir():
            striate.load(path, device="cpu")
        else:
            striate.import_model(path, model="three-conv", input_size=8, out=f"{given['out']}/{name}")
        kind, text = "nothing", ""
    except StriateError as error:
        kind, text = type(error).__name__, str(error)
    except BaseException as error:
        kind, text = f"untyped {type(error).__name__}", str(error)
    told[name] = {"kind": kind, "text": text, "seconds": time.perf_counter() - began, "grown": peak() - before}
print(json.dumps(told))
"""


class Payload:
    """Leaves a marker where it is unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def payloads(marker: Path) -> dict[str, Payload]:
    line = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": Payload(os.system, f"touch {marker}"),
        "eval": Payload(eval, line),
        "exec": Payload(exec, line),
        "open": Payload(open, str(marker), "w"),
    }


def good_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(striate.create_model("three-conv", 10, 1, 8).state_dict())


def zipped(pickled: bytes, storages: dict[str, bytes] | None = None, compress: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch.save writes it, with any pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return stream.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def tensor_pickle(claimed: int = 4, shape: str = "K\x02K\x02\x86", strides: str = "K\x02K\x01\x86") -> bytes:
    """The pickle of {"w": tensor} whose storage "0" claims `claimed` floats; shape and strides as instructions."""
    long = b"\x8a\x08" + struct.pack("<q", claimed)
    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + long + b"tQK\x00" + shape.encode("latin-1")
        + strides.encode("latin-1") + b"\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


def pickles(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Yield pickles that do harm, or are no weights."""
    for name, payload in payloads(marker).items():
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            yield f"{name}-{protocol}", pickle.dumps(payload, protocol)
            yield f"{name}-in-a-dict-{protocol}", pickle.dumps({"conv1.weight": payload}, protocol)
    touch = f"touch {marker}".encode()
    yield "inst", b"(S'" + touch + b"'\nios\nsystem\n."
    yield "obj", b"(cos\nsystem\nS'" + touch + b"'\no."
    yield "stack-global", b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch + b"\x85R."
    yield "allowed-name-in-a-call", b"\x80\x02ccollections\nOrderedDict\n]]cos\nsystem\na\x85R."
    yield "extension", b"\x80\x02\x82\x01."
    yield "hides-a-method", b"\x80\x02ccollections\nOrderedDict\n)R}X\x04\x00\x00\x00keysK\x01sb."
    yield "deep-key", b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"K\x01s."
    doubled = b"".join(b"q\x01h\x01h\x01\x86" for _ in range(100))
    yield "doubled-key", b"\x80\x02})" + doubled + b"K\x01s."
    yield "many-lists", b"\x80\x02(" + b"]" * 900_000 + b"t."
    yield "long-text", b"\x80\x02X\xff\xff\xff\xffabc."
    yield "long-text-8", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc."
    yield "long-number", b"\x80\x02\x8b\xff\xff\xff\x7f\x01."
    yield "large-memo", b"\x80\x02]r\xff\xff\xff\xff."
    yield "underflow", b"\x80\x02RRRRbst."
    yield "no-end", b"\x80\x02]]]]"
    yield "empty-pickle", b""
    yield "too-long", b"\x80\x02" + b"N0" * 3_000_000 + b"."
    yield "a-number", b"\x80\x02K\x01."
    yield "other-persistent-id", b"\x80\x02X\x01\x00\x00\x00aQ."
    yield "claims-more-than-there-is", tensor_pickle(claimed=1 << 30)
    yield "claims-less-than-nothing", tensor_pickle(claimed=-4)
    yield "huge-shape", tensor_pickle(shape="J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", strides="K\x00K\x00\x86")
    yield "beyond-the-storage", tensor_pickle(strides="K\x09K\x01\x86")
    yield "negative-shape", tensor_pickle(shape="J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86")


def tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def edited_zip(members: dict[str, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def overlapping_zip() -> bytes:
    """Many entries of the table of contents point at the same bytes."""
    whole = zipped(pickle.dumps({}, 2), {"0": bytes(1 << 20)})
    start = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    entries = [b"PK\x01\x02" + part for part in whole[start:end].split(b"PK\x01\x02")[1:]]
    last = entries[-1]
    copies = [last.replace(b"data/0", b"data/%d" % number) for number in range(1, 10)]
    directory = b"".join(entries + copies)
    count = len(entries) + len(copies)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    return whole[:start] + directory + tail


def archives(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Yield files of every container that torch has read, with payloads and with bombs."""
    state, payload = good_state(), payloads(marker)["system"]
    with_code = {**state, "conv1.weight": payload}
    yield "module.pt", saved(striate.create_model("three-conv", 10, 1, 8))
    yield "payload.pt", saved(payload)
    yield "payload-inside.model", saved({"state_dict": state, "note": payload})
    yield "legacy.pt", saved(state, _use_new_zipfile_serialization=False)
    yield "legacy-payload.pth", saved(with_code, _use_new_zipfile_serialization=False)
    for protocol in (0, 1, 3, 4, 5):
        yield f"protocol-{protocol}.pt", saved(state, pickle_protocol=protocol)
        yield f"payload-protocol-{protocol}.pt", saved(with_code, pickle_protocol=protocol)
    yield "payload-as.safetensors", saved(with_code)
    inner = {"storages": pickle.dumps(1), "tensors": pickle.dumps(1), "pickle": pickle.dumps(payload)}
    yield "tar.pt", tar(inner)
    yield "tar-of-a-zip.pt", tar({"archive.pt": saved(with_code)})
    yield "zip-of-a-zip.pt", edited_zip({"archive.pt": saved(with_code)})
    yield "zip-of-a-tar.pt", edited_zip({"archive/data.pkl": tar(inner)})
    yield "zip-with-a-zip-beside.pt", edited_zip({"a/data.pkl": pickle.dumps({}, 2), "a/inner.pt": saved(with_code)})
    yield "two-folders.pt", edited_zip({"a/data.pkl": pickle.dumps({}, 2), "b/data/0": b""})
    yield "climbs.pt", edited_zip({"../../data.pkl": pickle.dumps({}, 2), "../../etc/passwd": b""})
    yield "script.pt", edited_zip({"a/data.pkl": pickle.dumps({}, 2), "a/constants.pkl": b"", "a/code/a.py": b""})
    yield "bomb.pt", zipped(pickle.dumps({}, 2), {"0": bytes(20 << 20)}, zipfile.ZIP_DEFLATED)
    yield "bomb-in-the-pickle.pt", zipped(bytes(20 << 20), None, zipfile.ZIP_DEFLATED)
    yield "overlap.pt", overlapping_zip()
    yield "members.pt", edited_zip({f"a/data/{number}": b"" for number in range(30_000)})
    whole = saved(state)
    yield "ends-early.pt", whole[:-30]
    yield "other-tail.pt", whole + whole[-22:-2] + b"\x02\x00ab"
    yield "directory-lies.pt", whole[:-10] + b"\xff\xff\xff\x7f" + whole[-6:]
    yield "flipped.pt", whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    yield "sparse.pt", saved({**state, "conv1.weight": state["conv1.weight"].to_sparse()})
    yield "complex.pt", saved({**state, "fc.bias": torch.ones(10, dtype=torch.complex64)})
    yield "nan.pt", saved({**state, "fc.bias": torch.full((10,), float("nan"))})
    yield "infinite-in-float32.pt", saved({**state, "fc.bias": torch.full((10,), 1e300, dtype=torch.float64)})
    yield "numbers-as-names.pt", saved(dict(enumerate(state.values())))
    yield "two-states.pt", saved({"model": state, "state_dict": state})
    yield "missing.pt", saved({name: state[name] for name in list(state)[1:]})
    yield "one-more.pt", saved({**state, "conv4.weight": torch.ones(1)})
    yield "transposed.pt", saved({**state, "fc.weight": state["fc.weight"].T})
    yield "too-large.pt", saved({**state, "more": torch.zeros(20 << 20, dtype=torch.uint8)})
    yield "whole-numbers.pt", saved({**state, "fc.bias": torch.ones(10, dtype=torch.int64)})
    yield "gzip.pt", b"\x1f\x8b\x08" + bytes(100)
    yield "empty.pt", b""
    yield "text.pt", b"weights\n" * 100


def headed(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors_files() -> Iterator[tuple[str, bytes]]:
    """Yield safetensors files that lie."""
    whole = save_safetensors(good_state())
    for tenth in range(10):
        yield f"cut-{tenth}", whole[: len(whole) * tenth // 10]
    yield "one-byte-more", whole + b"\0"
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    eight = bytes(8)
    yield "no-json", headed(b"{" + b"x" * 30)
    yield "a-list", headed([one])
    yield "negative-length", headed({"a": one}, eight, -1 & (1 << 64) - 1)
    yield "length-of-the-file", headed({"a": one}, eight, 1 << 62)
    yield "long-header", headed(b"{" + b" " * (5 << 20) + b"}")
    yield "overlap", headed({"a": one, "b": one}, eight)
    yield "half-overlap", headed({"a": one, "b": {**one, "data_offsets": [4, 12]}}, bytes(12))
    yield "gap", headed({"a": one, "b": {**one, "data_offsets": [16, 24]}}, bytes(24))
    yield "data-of-no-one", headed({"a": one}, bytes(16))
    yield "beyond-the-end", headed({"a": {**one, "data_offsets": [0, 1 << 60], "shape": [1 << 58]}}, eight)
    yield "backwards", headed({"a": {**one, "data_offsets": [8, 0]}}, eight)
    yield "negative-shape", headed({"a": {**one, "shape": [-1, -2]}}, eight)
    yield "overflowing-shape", headed({"a": {**one, "shape": [1 << 33, 1 << 33]}}, eight)
    yield "empty-and-huge", headed({"a": {**one, "shape": [0, 1 << 60], "data_offsets": [0, 0]}})
    yield "fractional-shape", headed({"a": {**one, "shape": [2.0]}}, eight)
    yield "truth-as-a-shape", headed({"a": {**one, "shape": [True, 2]}}, eight)
    yield "many-axes", headed({"a": {**one, "shape": [2] + [1] * 1000}}, eight)
    yield "other-type", headed({"a": {**one, "dtype": "F4"}}, eight)
    yield "list-as-a-type", headed({"a": {**one, "dtype": []}}, eight)
    yield "entry-of-no-object", headed({"a": 1}, eight)
    yield "another-key", headed({"a": {**one, "code": "x"}}, eight)
    yield "name-twice", headed(b'{"a":' + json.dumps(one).encode() + b',"a":' + json.dumps(one).encode() + b"}", eight)
    yield "deep", headed(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}")
    yield "long-numbers", headed(b'{"a":' + b"9" * 100_000 + b"}")
    many = {f"t{n}": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(100_000)}
    yield "100000-tensors", headed(many, bytes(100_000))
    fewer = {name: many[name] for name in list(many)[:20_000]}
    yield "20000-tensors", headed(fewer, bytes(20_000))


def changed_run(good: Path, folder: Path, changes: dict[str, Any], weights: bytes | None = None) -> None:
    """Copy a good run with entries of model.json changed (a.b=value); new weights get their right digest."""
    folder.mkdir()
    (folder / "weights").mkdir()
    card = json.loads((good / "model.json").read_text())
    content = (good / "weights" / "best.safetensors").read_bytes() if weights is None else weights
    (folder / "weights" / "best.safetensors").write_bytes(content)
    card["weights"]["sha256"] = striate_sha(content)
    del card["sha256"]  # of the document itself; a stranger would leave it out, or write the right one
    for place, value in changes.items():
        *way, last = place.split(".")
        target = card
        for key in way:
            target = target[key]
        target[last] = value
    (folder / "model.json").write_text(json.dumps(card))
    for name in ("config.yaml", "status.json", "data.json"):
        (folder / name).write_bytes((good / name).read_bytes())


def striate_sha(content: bytes) -> str:
    from striate.files import sha256_bytes

    return sha256_bytes(content)


def runs(good: Path, folder: Path, marker: Path) -> Iterator[tuple[str, Path]]:
    """Yield run folders whose model.json or weights lie."""
    state = good_state()
    many = 10**9
    cards: dict[str, dict[str, Any]] = {
        "channels": {"model.in_channels": many, "preprocess.channels": many},
        "some-channels": {"model.in_channels": 1024, "preprocess.channels": 1024},
        "classes": {"model.num_classes": many},
        "side": {"model.input_size": [many, many], "preprocess.size": [many, many]},
        "largest-side": {"model.input_size": [4096, 4096], "preprocess.size": [4096, 4096]},
        "width-of-a-layer": {"model.name": "mlp", "model.options": {"hidden": [many]}},
        "widest-layers": {"model.name": "mlp", "model.options": {"hidden": [100_000] * 100}},
        "width-in-words": {"model.name": "mlp", "model.options": {"hidden": "1000000000"}},
        "width-with-lines": {"model.name": "mlp", "model.options": {"hidden": "1_000_000_000,5"}},
        "many-layers": {"model.name": "mlp", "model.options": {"hidden": [1] * 100_000}},
        "option-of-options": {"model.name": "mlp", "model.options": {"hidden": {"a": [1]}}},
        "unknown-option": {"model.options": {"code": "os.system"}},
        "negative": {"model.num_classes": -1},
        "fraction": {"model.num_classes": 10.0},
        "unknown-net": {"model.name": "resnet-9000"},
        "net-in-a-file": {"model.name": "net.py:MyNet"},
        "net-in-a-module": {"model.name": "os.system"},
        "net-of-no-name": {"model.name": ["three-conv"]},
        "newer": {"format": 2},
        "no-format": {"format": "1"},
        "names-twice": {"classes": ["a"] * 10},
        "names-of-no-text": {"classes": list(range(10))},
        "other-pictures": {"preprocess.size": [9, 9]},
        "bad-preprocess": {"preprocess.std": [0.0]},
        "mean-of-words": {"preprocess.mean": ["x"]},
        "climbs": {"weights.file": "../../three.pt"},
        "climbs-inside": {"weights.file": "weights/../../../three.pt"},
        "absolute": {"weights.file": "/etc/passwd"},
        "drive": {"weights.file": "C:\\windows\\win.ini"},
        "folder-as-weights": {"weights.file": "weights"},
        "other-digest": {"weights.sha256": "0" * 64},
        "huge-temperature": {"temperature": 10**400},
        "no-temperature": {"temperature": True},
        "macs-of-words": {"metrics": {"macs": "many"}},
    }
    for name, changes in cards.items():
        changed_run(good, folder / name, changes)
        yield name, folder / name
    weights = {
        "nan": save_safetensors({**state, "fc.bias": torch.full((10,), float("nan"))}),
        "half": save_safetensors({name: tensor.half() for name, tensor in state.items()}),
        "shapes": save_safetensors({**state, "fc.bias": torch.zeros(11)}),
        "names": save_safetensors({**state, "more": torch.zeros(1)}),
        "pickled": saved({**state, "more": Payload(os.system, f"touch {marker}")}),
    }
    for name, content in [*weights.items(), *safetensors_files()]:
        changed_run(good, folder / f"weights-{name}", {}, content)
        yield f"weights-{name}", folder / f"weights-{name}"
    texts = {
        "deep": "[" * 500_000,
        "deep-inside": json.dumps({"format": 1, "model": 0}).replace("0", "[" * 900 + "]" * 900),
        "empty": "",
        "long": " " * (9 << 20),
        "digits": '{"format": ' + "1" * 10_000 + "}",
    }
    for name, text in texts.items():
        changed_run(good, folder / f"text-{name}", {})
        (folder / f"text-{name}" / "model.json").write_text(text)
        yield f"text-{name}", folder / f"text-{name}"
    for name, make in (("pipe", os.mkfifo), ("link", lambda path: path.symlink_to("/dev/zero"))):
        changed_run(good, folder / name, {})
        path = folder / name / "weights" / "best.safetensors"
        path.unlink()
        make(path)
        yield name, folder / name


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file of weights, and the run that it becomes."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "three.pt").write_bytes(saved(good_state()))
    return folder / "three.pt", striate.import_model(folder / "three.pt", out=folder / "run", **NET)


def told_by_child(good: tuple[Path, Path], folder: Path, cases: dict[str, Path]) -> dict[str, dict[str, Any]]:
    given = {"good": str(good[1]), "good_file": str(good[0]), "out": str(folder / "out")}
    given["cases"] = {name: str(path) for name, path in cases.items()}  # type: ignore[assignment]
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(given), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_payloads_would_run(tmp_path: Path) -> None:
    """Else the test below could not fail."""
    for name, payload in payloads(tmp_path / "marker").items():
        pickle.loads(pickle.dumps(payload))
        assert (tmp_path / "marker").exists(), name
        (tmp_path / "marker").unlink()
    fires = dict(pickles(tmp_path / "marker"))
    for name in ("inst", "obj", "stack-global"):
        pickle.loads(fires[name])
        assert (tmp_path / "marker").exists(), name
        (tmp_path / "marker").unlink()


@pytest.mark.slow
def test_hostile_files_are_refused(good: tuple[Path, Path], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    cases: dict[str, Path] = {}

    def add(name: str, content: bytes) -> None:
        cases[name] = tmp_path / name
        cases[name].write_bytes(content)

    for name, content in pickles(marker):
        add(f"{name}.pt", zipped(content, {"0": bytes(16)}))
        add(f"{name}-bare.safetensors", content)
    for name, content in archives(marker):
        add(name, content)
    for name, content in safetensors_files():
        add(f"{name}.safetensors", content)
    (tmp_path / "runs").mkdir()
    cases.update(runs(good[1], tmp_path / "runs", marker))
    told = told_by_child(good, tmp_path, cases)

    assert not marker.exists()
    assert set(told) == set(cases) and len(cases) > 300
    assert not {name: (case["kind"], case["text"]) for name, case in told.items() if case["kind"] != "DataError"}
    # A slow machine is given three times the stated time; memory is the same everywhere.
    assert not {name: case["seconds"] for name, case in told.items() if case["seconds"] > 3 * SECONDS}
    assert max(case["grown"] for case in told.values()) < MEGABYTES
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["good"], "a refused file left something"

    texts = {name: case["text"] for name, case in told.items()}
    everything = " ".join(texts.values())
    assert "weights_only=False" not in everything and "safe_globals" not in everything, "a hint to switch safety off"
    assert "a whole module" in texts["module.pt"] and "state_dict()" in texts["module.pt"]
    assert "before 1.6" in texts["legacy.pt"] and "tar" in texts["tar.pt"] and "TorchScript" in texts["script.pt"]
    assert "sparse" in texts["sparse.pt"] and "not finite" in texts["nan.pt"] and "compressed" in texts["bomb.pt"]
    assert "missing: conv1.weight" in texts["missing.pt"] and "conv4.weight" in texts["one-more.pt"]
    assert "1 to 1,024" in texts["channels"] and "resnet-9000" in texts["unknown-net"]
    assert "outside its folder" in texts["climbs"] and "newer striate" in texts["newer"]
