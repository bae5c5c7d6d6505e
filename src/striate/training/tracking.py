"""Trackers of other makers that a run is also written to: TensorBoard and MLflow, from the run's own files.

They are off unless --track names them, and nothing of them is imported then. A run never ends because of one: a tracker
that fails is left out from there on, and one line says so. What it was told last stands in tracking.json, so that a
resumed run goes on in the same place and tells nothing twice.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from striate.errors import DataError, Interrupted, MissingExtra
from striate.runs.folder import FORMAT, RunFolder
from striate.runs.journal import StepRow, read_results

FILE = "tracking.json"
TENSORBOARD = "tensorboard"  # also the name of its folder in the run's
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow"}
#: An unreachable server may hold up a run this long, in seconds, unless MLflow's own variables say otherwise.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}

Report = Callable[[str], None]
Scalars = Mapping[str, float]


class Tracker(Protocol):
    """What one tracker can be told; `state` finished, interrupted or failed."""

    name: str

    def settings(self, values: Mapping[str, Any]) -> None: ...

    def scalars(self, rows: Sequence[tuple[int, Scalars]]) -> None: ...

    def files(self, paths: Sequence[Path]) -> None: ...

    def end(self, state: str) -> None: ...


def check_trackers(track: Sequence[str]) -> None:
    """Raise MissingExtra where a tracker is asked for that is not installed."""
    for name in track:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise MissingExtra(f"--track {name}", "it is not installed", "pip install 'striate[track]'")


@contextlib.contextmanager
def open_trackers(
    folder: RunFolder, track: Sequence[str], settings: Mapping[str, Any], step: int, report: Report
) -> Iterator[Trackers]:
    """Give the trackers of a run that begins or goes on at `step`; an error inside is told to them as the end."""
    trackers = Trackers(folder, report)
    for name in track:
        trackers.open(name, settings, step)
    try:
        yield trackers
    except BaseException as error:
        trackers.look()
        trackers.end("interrupted" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "failed")
        raise


class Trackers:
    """The trackers of one run that still work."""

    def __init__(self, folder: RunFolder, report: Report) -> None:
        self.folder = folder
        self.report = report
        self.open_ones: list[Tracker] = []
        self.record: dict[str, Any] = {}  # name → {"step", "epoch" told last, and what finds the place again}
        self._read_to = 0

    def open(self, name: str, settings: Mapping[str, Any], step: int) -> None:
        """Begin with a tracker, or go on with it where the run was written to it before."""
        try:
            saved = self.folder.read_json(FILE).get(name, {}) if self.folder.file(FILE).is_file() else {}
            mine = {"step": 0, "epoch": 0, **saved}
            if name == TENSORBOARD:
                mine["step"] = min(int(mine["step"]), step)
                tracker: Tracker = TensorBoard(self.folder.file(TENSORBOARD), purge=step + 1 if saved else None)
            else:
                tracker = MLflow(self.folder, mine, str(settings["data"]))
            if not saved:
                tracker.settings(settings)
        except Exception as error:  # whatever another's package raises; the run does not hang on it
            self._lost(name, error)
            return
        if name == TENSORBOARD:
            results = read_results(self.folder.path) if self.folder.file("results.csv").is_file() else []
            mine["epoch"] = max([row.epoch for row in results if row.step <= step], default=0) if saved else 0
        self.record[name] = mine
        self.open_ones.append(tracker)
        self._write()

    def look(self) -> None:
        """Tell what steps.csv and results.csv hold since the last look."""
        if not self.open_ones:
            return
        rows = self._new_rows()
        try:
            results = read_results(self.folder.path)
        except DataError:  # someone took it away; the run will begin it anew
            results = []
        for tracker in list(self.open_ones):
            mine = self.record[tracker.name]
            steps = [
                (step, {"step/loss": loss, "step/lr": lr}) for step, _, lr, loss in rows if step > int(mine["step"])
            ]
            epochs = [row for row in results if row.epoch > int(mine["epoch"])]
            told = [(row.step, _scalars(row)) for row in epochs]
            if steps or told:
                self._do(tracker, lambda one, lines=[*steps, *told]: one.scalars(lines))  # type: ignore[misc]
                mine["step"] = max([int(mine["step"]), *(step for step, _ in steps)])
                mine["epoch"] = max([int(mine["epoch"]), *(row.epoch for row in epochs)])
                self._write()

    def finish(self, step: int, evaluation: Mapping[str, Any] | None, files: Sequence[Path]) -> None:
        """Tell the numbers of the test and the pictures of the run, and end."""
        self.look()
        final: dict[str, float] = {}
        if evaluation is not None:
            final = {f"test/{name}": evaluation[name] for name in ("loss", "macro_f1", "ece")}
            final["test/accuracy"] = evaluation["top1"]["value"]
        for tracker in list(self.open_ones):
            if final:
                self._do(tracker, lambda one: one.scalars([(step, final)]))
            self._do(tracker, lambda one: one.files([path for path in files if path.is_file()]))
        self.end("finished")

    def end(self, state: str) -> None:
        """Close all."""
        for tracker in list(self.open_ones):
            self._do(tracker, lambda one: one.end(state))
        self.open_ones = []

    def _do(self, tracker: Tracker, work: Callable[[Tracker], None]) -> None:
        if tracker not in self.open_ones:
            return
        try:
            work(tracker)
        except Exception as error:  # whatever another's package raises; the run does not hang on it
            self.open_ones.remove(tracker)
            self._lost(tracker.name, error)

    def _lost(self, name: str, error: Exception) -> None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        self.report(f"no tracking with {name} from here on: {reason}; the run goes on")

    def _write(self) -> None:
        with contextlib.suppress(Exception):  # a full disk ends the run where it saves, and says so there
            self.folder.write_json(FILE, {"format": FORMAT, **self.record})

    def _new_rows(self) -> list[StepRow]:
        """Read the whole lines that were added to steps.csv."""
        rows: list[StepRow] = []
        with contextlib.suppress(OSError), open(self.folder.file("steps.csv"), "rb") as stream:
            stream.seek(self._read_to)
            content = stream.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for line in whole.decode().splitlines():
                parts = line.split(",")
                if len(parts) == 4 and parts[0].isdigit():
                    rows.append((int(parts[0]), int(parts[1]), float(parts[2]), float(parts[3])))
        return rows


def _scalars(row: Any) -> dict[str, float]:
    names = ("lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second", "peak_memory_mb")
    found = {f"epoch/{name}": getattr(row, name) for name in names}
    return {name: float(value) for name, value in found.items() if value is not None}


class TensorBoard:
    """Event files in the run's folder; `purge`: the first step of which older ones hold nothing that counts."""

    name = TENSORBOARD

    def __init__(self, folder: Path, purge: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder), purge_step=purge)

    def settings(self, values: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | `{value}` |" for name, value in values.items())
        self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", 0)
        self.writer.flush()

    def scalars(self, rows: Sequence[tuple[int, Scalars]]) -> None:
        for step, values in rows:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def files(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    self.writer.add_image(path.stem, np.asarray(picture.convert("RGB")), 0, dataformats="HWC")
        self.writer.flush()

    def end(self, state: str) -> None:
        self.writer.close()


class MLflow:
    """A run of MLflow at MLFLOW_TRACKING_URI, or where MLflow keeps runs without it.

    `record` keeps its id and address. MLflow's own reports over the network are off unless its variable says otherwise.
    """

    name = "mlflow"
    MOST = 500  # metrics a request; MLflow takes 1,000

    def __init__(self, folder: RunFolder, record: dict[str, Any], experiment: str) -> None:
        for variable, value in {**PATIENCE, "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
            os.environ.setdefault(variable, value)
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow.tracking import MlflowClient

        address = os.environ.get("MLFLOW_TRACKING_URI") or record.get("address")
        self.client: Any = MlflowClient(tracking_uri=address)
        if "run" in record:
            self.run = str(record["run"])
            self.client.update_run(self.run, status="RUNNING")
            return
        called = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"striate {experiment}"
        found = self.client.get_experiment_by_name(called)
        number = found.experiment_id if found is not None else self.client.create_experiment(called)
        self.run = self.client.create_run(
            number, run_name=folder.name, tags={"striate.folder": str(folder)}
        ).info.run_id
        record |= {"run": self.run, "address": self.client.tracking_uri, "experiment": called}

    def settings(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(self.run, params=[Param(name, str(value)[:6000]) for name, value in values.items()])

    def scalars(self, rows: Sequence[tuple[int, Scalars]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for step, values in rows for name, value in values.items()]
        for first in range(0, len(metrics), self.MOST):
            self.client.log_batch(self.run, metrics=metrics[first : first + self.MOST])

    def files(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self.client.log_artifact(self.run, str(path))

    def end(self, state: str) -> None:
        status = {"finished": "FINISHED", "interrupted": "KILLED"}.get(state, "FAILED")
        self.client.set_terminated(self.run, status)
