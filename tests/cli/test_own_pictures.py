"""Pictures of one's own from end to end: folder, zip, table, a folder with faults; train, eval, predict, resume."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Striate
from tests.data.planted import planted_folder

SMALL = ("--model", "lenet5", "--size", "28", "--epochs", "2", "--batch-size", "8", "--threads", "1", "--quiet")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep decoded pictures in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_pictures(root: Path, classes: dict[str, int], *, first: int = 0) -> Path:
    """Write class folders of colour noise around a colour of the class; `first` begins the numbers of the files."""
    for position, (name, count) in enumerate(sorted(classes.items())):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            random = np.random.default_rng([position, number])
            pixels = random.integers(0, 120, (36, 48, 3), dtype=np.uint8)
            pixels[..., position % 3] += 120
            Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return root


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_folder_trains_is_evaluated_and_predicted(striate: Striate, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", {"moss": 30, "sand": 30})
    done = striate("train", "photos", *SMALL, "--out", "run")
    assert done.code == 0, done.err
    data, split = read_json(tmp_path / "run/data.json"), read_json(tmp_path / "run/split.json")
    assert data["name"] == "photos" and data["classes"] == ["moss", "sand"] and data["left_out"] == []
    numbers = [index for name in ("train", "validation", "test") for index in split[name]["indices"]]
    assert sorted(numbers) == list(range(60))
    assert any("size 28×28" in reason for reason in data["geometry"]) and len(data["geometry"]) == 3
    trained = read_json(tmp_path / "run/evaluation.json")
    again = striate("eval", "run", "--json")
    assert again.code == 0 and json.loads(again.out)["top1"] == trained["top1"]
    with open(tmp_path / "run/predictions.csv", encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    asked = striate("predict", "run", str(photos / first["source"]), "--json")
    answer = json.loads(asked.out)["results"][0]
    assert answer["label"] == first["prediction"]
    assert answer["probability"] == pytest.approx(float(first["probability"]), abs=1e-5)
    numbered = striate("predict", "run", "--data", "photos", "--split", "test", "--index", "0", "--json")
    assert numbered.code == 0, numbered.err
    assert json.loads(numbered.out)["results"][0]["probability"] == pytest.approx(answer["probability"], abs=1e-5)


def test_added_pictures_leave_the_split_of_the_old_ones(striate: Striate, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", {"moss": 25, "sand": 25})
    assert striate("train", "./photos", *SMALL, "--out", "before").code == 0
    write_pictures(photos, {"moss": 6, "sand": 6}, first=100)
    assert striate("train", "./photos", *SMALL, "--out", "after").code == 0
    places = []
    for run in ("before", "after"):
        names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
        if run == "before":
            names = [name for name in names if int(Path(name).stem) < 100]
        split = read_json(tmp_path / run / "split.json")
        places.append(
            {names[index]: part for part in ("train", "validation", "test") for index in split[part]["indices"]}
        )
    assert all(places[1][name] == part for name, part in places[0].items())


def test_a_zip_and_a_table_give_what_the_folder_gives(striate: Striate, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", {"moss": 20, "sand": 20})
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos))
    with open(tmp_path / "table.csv", "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("path", "label"))
        rows.writerows((path.relative_to(tmp_path), path.parent.name) for path in sorted(photos.rglob("*.png")))
    losses = set()
    for number, target in enumerate(("photos", "set.zip", "table.csv")):
        done = striate("train", target, *SMALL, "--out", f"run{number}")
        assert done.code == 0, done.err
        losses.add((tmp_path / f"run{number}/steps.csv").read_text())
    assert len(losses) == 1, "the same pictures train another net"


def test_a_given_split_is_kept_and_other_data_are_matched_by_name(striate: Striate, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos / "train", {"moss": 20, "sand": 20, "tar": 20})
    write_pictures(photos / "val", {"moss": 5, "sand": 5, "tar": 5}, first=50)
    done = striate("train", "photos", *SMALL, "--out", "run")
    assert done.code == 0, done.err
    data = read_json(tmp_path / "run/data.json")
    assert data["counts"]["validation"] == 15 and 0 < data["counts"]["test"] < 20
    other = write_pictures(tmp_path / "other", {"sand": 4, "tar": 3, "zinc": 2}, first=80)
    judged = striate("eval", "run", "--data", str(other), "--json")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["samples"] == 7
    assert "zinc" in judged.err and "moss" in judged.err


def test_faults_are_left_out_once_each_and_strict_refuses(striate: Striate, tmp_path: Path) -> None:
    planted_folder(tmp_path / "photos")
    refused = striate("train", "photos", *SMALL, "--out", "run", "--strict")
    assert refused.code == 3 and "must be decided" in refused.error_lines()["cause"]
    assert not (tmp_path / "run").exists()
    done = striate("train", "photos", *SMALL, "--out", "run")
    assert done.code == 0, done.err
    data = read_json(tmp_path / "run/data.json")
    left = [found["source"] for found in data["left_out"] if found["code"] == "unreadable"]
    assert left and len(left) == len(set(left))
    assert {"unreadable", "label-conflict"} <= {found["code"] for found in data["findings"]}


def test_groups_are_not_divided(striate: Striate, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", {"moss": 40, "sand": 40})
    assert striate("train", "photos", *SMALL, "--out", "run", "--group", r"(\d\d)\d\.png").code == 0
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    split = read_json(tmp_path / "run/split.json")
    holders: dict[str, set[str]] = {}
    for part in ("train", "validation", "test"):
        for index in split[part]["indices"]:
            holders.setdefault(Path(names[index]).stem[:2], set()).add(part)
    assert all(len(parts) == 1 for parts in holders.values()) and len(holders) == 4


def test_flags_for_own_pictures_do_nothing_for_a_named_set(striate: Striate) -> None:
    for flags in (("--strict",), ("--group", "x"), ("--no-cache",)):
        refused = striate("train", "digits", *flags)
        assert refused.code == 2 and "has no effect" in refused.error_lines()["error"]


def test_uneven_classes_weigh_more_and_it_is_said(striate: Striate, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", {"moss": 60, "sand": 12})
    arguments = [word for word in SMALL if word != "--quiet"]
    done = striate("train", "photos", *arguments, "--out", "run")
    assert done.code == 0, done.err
    assert "classes are uneven" in done.out and "--balance none" in done.out


def test_resume_sees_the_same_pictures(striate: Striate, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", {"moss": 25, "sand": 25})
    assert striate("train", "photos", *SMALL, "--out", "run").code == 0
    longer = striate("resume", "run", "--epochs", "+1", "--quiet")
    assert longer.code == 0, longer.err
    next(photos.rglob("*.png")).unlink()
    refused = striate("resume", "run", "--epochs", "+1", "--quiet")
    assert refused.code in (2, 3) and "photos" in refused.err


def test_seventy_fifteen_fifteen_whatever_the_net(striate: Striate, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", {"moss": 2})
    for flags in ((), ("--model", "lenet5")):
        shown = striate("train", "photos", *flags, "--show-config")
        rows = [line.split()[:2] for line in shown.out.splitlines()]
        assert ["validation", "0.15"] in rows and ["test", "0.15"] in rows
