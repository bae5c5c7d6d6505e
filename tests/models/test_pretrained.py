"""Nets of timm, and what torchvision publishes: built, read, joined, refused. All weights are made here."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

import striate.models  # noqa: F401  (enters the nets into the registry)
from striate.data.dataset import Dataset, Parts
from striate.errors import DataError, MissingExtra, UsageError
from striate.models import timm_nets
from striate.models.registry import create_model, describe_model, model_options, native_shape
from striate.models.torchvision_weights import PUBLISHED, published
from striate.runs.tensors import write_tensors
from striate.settings.layers import resolve_train
from striate.training import fetching
from striate.training.begin import start_job
from striate.training.job import Job
from striate.training.starting import settings_of_start

timm = pytest.importorskip("timm")
SMALL = "timm:test_resnet"  # timm's own for tests: 0.5 million parameters, 160 pixels


def pictures(channels: int = 3, side: int = 40, classes: int = 3) -> Parts:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 48)
    images = random.integers(0, 90, (48, side, side, channels)) + 50 * labels[:, None, None, None]
    return Parts("made", Dataset("made", images.astype(np.uint8), labels, tuple("abcdefgh"[:classes])))


def begin(out: Path, parts: Parts, **settings: Any) -> Job:
    given = {"data": "made", "epochs": 1, "batch_size": 8, "device": "cpu", "out": out, "size": 40, **settings}
    resolved, _, _ = resolve_train(given, origin="argument", environ={}, start_of=settings_of_start)
    return start_job(resolved, data=parts, report=print)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty, and no network behind it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def keep(hub: Path, name: str, **changed: Any) -> dict[str, torch.Tensor]:
    """Put made weights for a net of timm where the hub keeps what it downloaded; return them."""
    card = timm_nets.weights_card(name)
    torch.manual_seed(5)
    net = timm.create_model(name.removeprefix("timm:"), pretrained=False)
    state = {key: tensor.clone().contiguous() for key, tensor in net.state_dict().items()}
    folder = hub / f"models--{card.repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    write_tensors(folder / "snapshots" / ("0" * 40) / card.file, {**state, **changed})
    return state


def test_a_net_of_timm_is_built_as_every_net_is() -> None:
    net = create_model("timm:resnet18", 7, 1, (64, 48))
    assert net(torch.zeros(2, 1, 64, 48)).shape == (2, 7)
    assert native_shape("timm:resnet18") == (1000, 3, (224, 224)) and "resnet18.a1_in1k" in describe_model(
        "timm:resnet18"
    )
    assert model_options("timm:resnet18") == {"drop_rate": 0.0, "drop_path_rate": 0.0}
    assert create_model("timm:test_vit", 7, 3, (80, 80))(torch.zeros(1, 3, 80, 80)).shape == (1, 7)
    assert create_model("timm:test_resnet", 7, 3, 64, drop_rate="0.5").drop_rate == 0.5


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("timm:resnet81", {}, "unknown net of timm"),
        ("timm:resnet18.nobody", {}, "unknown weights of resnet18"),
        ("timm:hf-hub:someone/net", {}, "unknown net of timm"),
        ("timm:local-dir:/tmp", {}, "unknown net of timm"),
        (SMALL, {"checkpoint_path": "/tmp/code.pth"}, "unknown option"),
        (SMALL, {"pretrained": True}, "unknown option"),
        (SMALL, {"drop_rate": "much"}, "has to be a number"),
    ],
)
def test_what_a_file_of_a_stranger_might_name_is_refused(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_model(name, 3, 3, 64, **options)
    assert told in str(caught.value)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_nets.importlib.util, "find_spec", lambda name: None)
    timm_nets.builder.cache_clear()
    with pytest.raises(MissingExtra) as caught:
        create_model("timm:resnet18", 7, 1, 64)
    assert caught.value.exit_code == 4 and caught.value.fix == "pip install 'striate[pretrained]'"
    with pytest.raises(MissingExtra, match=r"made with timm 1\.0"):
        timm_nets.check_timm("timm 1.0.31")


def test_published_weights_come_from_the_hubs_cache(hub: Path, tmp_path: Path) -> None:
    state = keep(hub, SMALL)
    job = begin(tmp_path / "run", pictures(), model=SMALL, freeze="all")
    net = job.learner.net.state_dict()
    assert [name for name in net if name not in state or not torch.equal(net[name], state[name])] == [
        "fc.weight",
        "fc.bias",
    ]
    card = timm_nets.weights_card(SMALL)
    preprocess = job.material.preprocess
    assert preprocess.mean == pytest.approx([255 * value for value in card.mean]) and preprocess.fit == "crop"
    record = job.folder.read_json("start.json")
    assert record["library"] == f"timm {timm.__version__}" and record["new"] == ["fc"]
    job.held.close()
    gray = begin(tmp_path / "gray", pictures(channels=1), model=SMALL)  # gray is repeated: the net sees three channels
    assert gray.material.preprocess.channels == 3 and gray.material.train_images.shape[3] == 3
    gray.held.close()


def test_weights_that_are_not_there_are_refused_in_a_sentence(hub: Path, tmp_path: Path) -> None:
    for more, told in (({}, "cannot be had"), ({"download": False}, "is not here")):
        with pytest.raises(DataError) as caught:
            begin(tmp_path / "run", pictures(), model=SMALL, **more)
        assert told in caught.value.what and "--init-from none" in caught.value.fix
    begin(tmp_path / "drawn", pictures(), model=SMALL, init_from=None).held.close()
    state = keep(hub, SMALL)
    broken = state["conv1.weight"] if "conv1.weight" in state else next(iter(state.values()))
    name = next(key for key, tensor in state.items() if tensor is broken)
    keep(tmp_path / "other", SMALL)
    file = next((hub / f"models--{timm_nets.weights_card(SMALL).repository.replace('/', '--')}").rglob("*.safetensors"))
    write_tensors(file, {**state, name: broken.fill_(float("nan"))})
    with pytest.raises(DataError, match="not finite"):
        begin(tmp_path / "nan", pictures(), model=SMALL)


def test_a_file_for_a_net_of_timm(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    write_tensors(tmp_path / "w.safetensors", state)
    job = begin(tmp_path / "run", pictures(), model=SMALL, init_from=str(tmp_path / "w.safetensors"))
    net = job.learner.net.state_dict()
    assert {name for name in net if not torch.equal(net[name], state[name])} == {"fc.weight", "fc.bias"}
    job.held.close()


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("resnet18", "resnet18", {}),
        pytest.param("vgg11", "vgg11_bn", {"batch_norm": True}, marks=pytest.mark.slow),
        pytest.param("alexnet", "alexnet", {}, marks=pytest.mark.slow),
        pytest.param("googlenet", "googlenet", {}, marks=pytest.mark.slow),
        pytest.param("densenet121", "densenet121", {}, marks=pytest.mark.slow),
    ],
)
def test_torchvisions_file_is_fetched_and_joined(
    name: str, theirs: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a server at hand, with random weights; the published digest is put in their place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = torchvision.models.get_model(theirs, weights=None)
    from striate.files import sha256_file
    from striate.models import torchvision_weights as table
    from striate.training import starting

    torch.save(net.state_dict(), tmp_path / "made.pth")
    made = table.published(name, options)
    digest = sha256_file(tmp_path / "made.pth")
    file = table.Published(f"{theirs}-{digest[:8]}.pth", made.megabytes, made.options, made.mean, made.std)
    (tmp_path / "served").mkdir()
    (tmp_path / "made.pth").rename(tmp_path / "served" / file.file)
    monkeypatch.setattr(starting, "published", lambda net, options: file)
    monkeypatch.setattr(fetching, "cache_folder", lambda: tmp_path / "cache" / "data")
    settings = {
        "model": name,
        "model_option": options,
        "init_from": "torchvision",
        "size": 64 if name != "alexnet" else 72,
    }
    parts = pictures(side=48)
    with pytest.raises(DataError, match="is not here"):
        begin(tmp_path / "run", parts, download=False, **settings)
    with served(tmp_path / "served") as address:
        monkeypatch.setattr(fetching, "ADDRESS", address)
        told = begin(tmp_path / "run", parts, **settings)
    state, ours = net.state_dict(), told.learner.net.state_dict()
    new = {key.rpartition(".")[0] for key in ours if not torch.equal(ours[key], state[key])}
    assert new == {told.learner.net.state_dict() and key.rpartition(".")[0] for key in told.parts.first.new}  # type: ignore[union-attr]
    assert told.material.preprocess.mean == pytest.approx([255 * value for value in made.mean])
    told.held.close()
    again = begin(tmp_path / "again", parts, download=False, **settings)  # from the cache
    again.held.close()


def served(folder: Path) -> Any:
    """Serve a folder on loopback while the block runs; gives its address."""
    import contextlib
    import functools
    import http.server
    import threading

    @contextlib.contextmanager
    def serving() -> Any:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()

    return serving()


def test_a_file_of_another_digest_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "cache_folder", lambda: tmp_path / "cache" / "data")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / PUBLISHED["resnet18"][0].file).write_bytes(b"another file")
    with served(tmp_path / "served") as address:
        monkeypatch.setattr(fetching, "ADDRESS", address)
        with pytest.raises(DataError, match="expected one that begins f37072fd"):
            begin(tmp_path / "run", pictures(), model="resnet18", init_from="torchvision")


def test_the_table_is_torchvisions() -> None:
    """Files, sizes, mean and std as the installed torchvision names them, of its default weights."""
    for name, files in PUBLISHED.items():
        for file in files:
            theirs = name + ("_bn" if file.options.get("batch_norm") else "")
            weights = torchvision.models.get_model_weights(theirs).DEFAULT
            assert weights.url == fetching.ADDRESS + file.file
            transform = weights.transforms()
            assert (transform.crop_size[0], transform.resize_size[0]) == (file.side, file.resized)
            if name != "googlenet":
                assert (transform.mean, transform.std) == (list(file.mean), list(file.std))
            assert round(weights.meta["_file_size"]) == pytest.approx(file.megabytes, abs=1)
    assert published("vgg16", {"batch_norm": "yes"}).file.startswith("vgg16_bn")
    assert published("vgg16", {}).file.startswith("vgg16-")
    assert published("alexnet", {}).options == {"hidden": (4096, 4096)}


def test_googlenets_own_normalisation_is_in_its_numbers() -> None:
    """What torchvision's net does to a picture that is normalised for the others is what ours is told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = torchvision.models.googlenet(weights=None, transform_input=True)
    pixels = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    file = PUBLISHED["googlenet"][0]
    own_mean, own_std = (torch.tensor(values)[:, None, None] for values in (file.mean, file.std))
    torch.testing.assert_close(net._transform_input((pixels - mean) / std), (pixels - own_mean) / own_std)


@pytest.mark.slow
def test_a_run_of_a_net_of_timm_works_everywhere(tmp_path: Path) -> None:
    """From the command: models, train with weights of a hub at hand, eval, resume, predict, explain, export, report."""
    from tests.models.hub import serving_hub

    torch.manual_seed(5)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    card = timm_nets.weights_card(SMALL)
    write_tensors(tmp_path / "served.safetensors", state)
    with serving_hub({f"/{card.repository}/resolve/main/{card.file}": tmp_path / "served.safetensors"}) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "STRIATE_DEVICE": "cpu"}
        environment |= {"HF_HUB_DISABLE_XET": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}

        def run(*words: str, code: int = 0) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "striate", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == code, done.stdout + done.stderr
            return done.stdout + done.stderr

        assert "224" in run("models", "timm:resnet18", "--input", "3x224x224")
        told = run("train", "digits", "--model", SMALL, "--size", "32", "--epochs", "2", "--freeze", "1", "--out", "r")
        assert f"downloading {card.repository}/{card.file} from {address}" in told
        assert "first weights from timm's" in told
    environment["HF_HUB_OFFLINE"] = "1"
    assert "Top-1" in run("eval", "r") or "top-1" in run("eval", "r")
    run("resume", "r", "--epochs", "+1")
    run("verify", "r", "--steps", "2")
    run("predict", "r", "--data", "digits", "--split", "test", "--index", "0:2")
    run("explain", "r", "--data", "digits", "--split", "test", "--index", "0", "--out", "explained")
    assert "agree" in run("export", "r")
    run("report", "r")
    card_text = (tmp_path / "r" / "model.json").read_text()
    assert f'"library": "timm {timm.__version__}"' in card_text and '"name": "timm:test_resnet"' in card_text
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['timm'] = None\n")
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    told = run("predict", "r", "--data", "digits", "--index", "0", code=4)
    assert "made with timm" in told and "striate[pretrained]" in told
