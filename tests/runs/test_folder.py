"""Run folders: claimed by one, found again, read with an error that names the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from striate.errors import DataError, LockHeld, StriateError, UsageError
from striate.runs.folder import RunFolder, claim_run, open_run

CLAIM = """
import sys
from pathlib import Path
from striate.runs.folder import claim_run
print("ready", flush=True)
sys.stdin.readline()
print(claim_run("digits", "lenet5", None, Path(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def finished(path: Path) -> RunFolder:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("data: digits\n")
    return RunFolder(path)


def test_numbers_count_up_and_latest_names_the_newest() -> None:
    first, second = (claim_run("digits", "lenet5", None) for _ in range(2))
    other = claim_run("mnist", "lenet5", None)
    assert [str(run) for run in (first, second, other)] == [
        str(Path("runs") / name) for name in ("digits-lenet5-1", "digits-lenet5-2", "mnist-lenet5-1")
    ]
    assert Path("runs/latest").read_text() == "mnist-lenet5-1\n"
    assert first.weights.is_dir() and first.checkpoints.is_dir()
    Path("runs/digits-lenet5-9").touch()
    assert claim_run("digits", "lenet5", None).name == "digits-lenet5-10"


def test_odd_names_stay_inside_the_folder() -> None:
    assert claim_run("../../My Data", "MyNet", None).path == Path("runs/my-data-mynet-1")
    assert claim_run("数字", "…", None).path == Path("runs/run-run-1")


def test_eight_processes_claim_eight_folders(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "runs")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    claimed = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(claimed) == sorted(str(tmp_path / "runs" / f"digits-lenet5-{n}") for n in range(1, 9))


def test_out_is_exactly_the_folder_and_has_to_be_empty(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    assert claim_run("digits", "lenet5", out).path == out
    assert not Path("runs").exists(), "a named folder is not the newest automatic one"
    with pytest.raises(UsageError) as caught:
        claim_run("digits", "lenet5", out)
    assert f"{out} is not empty" in caught.value.what and caught.value.exit_code == 2


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StriateError, match="cannot make a run folder") as caught:
            claim_run("digits", "lenet5", out)
        assert caught.value.cause and not isinstance(caught.value, UsageError)
    Path("runs").touch()
    with pytest.raises(StriateError, match="cannot make a run folder"):
        claim_run("digits", "lenet5", None)


def test_a_run_is_found_by_folder_by_name_and_as_latest() -> None:
    finished(Path("runs/digits-lenet5-1"))
    Path("runs/latest").write_text("digits-lenet5-1\n")
    for path in ("runs/digits-lenet5-1", Path("runs/digits-lenet5-1"), "digits-lenet5-1", "runs/latest", "latest"):
        assert open_run(path).path.resolve() == Path("runs/digits-lenet5-1").resolve()


def test_a_run_that_is_not_there() -> None:
    finished(Path("runs/digits-lenet5-1"))
    with pytest.raises(UsageError) as caught:
        open_run("runs/digits-lenet-1")
    assert "digits-lenet5-1" in caught.value.cause and "latest" in caught.value.fix
    Path("runs/latest").write_text("digits-gone-3\n")
    with pytest.raises(UsageError, match="unknown run"):
        open_run("runs/latest")
    Path("empty").mkdir()
    with pytest.raises(DataError, match="empty is no run folder"):
        open_run("empty")


def test_json_documents_and_their_faults() -> None:
    run = finished(Path("run"))
    run.write_json("data.json", {"format": 1, "name": "数字"})
    assert run.read_json("data.json") == {"format": 1, "name": "数字"}
    for content, sentence in (
        ("{", "cannot be read"),
        ("[1]", "has format"),
        (json.dumps({"format": 2}), "has format 2"),
        ("\x80", "cannot be read"),
    ):
        run.file("data.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=sentence) as caught:
            run.read_json("data.json")
        assert "data.json" in caught.value.what and caught.value.fix
    with pytest.raises(DataError, match=r"split\.json is missing"):
        run.read_json("split.json")


def test_status_and_lock() -> None:
    run = finished(Path("run"))
    run.set_status("interrupted", step=7)
    assert run.status()["state"] == "interrupted" and run.status()["step"] == 7
    with run.lock(), pytest.raises(LockHeld), RunFolder(Path("run")).lock():
        pass
