"""The processes of a team beside the first one: they train and validate their parts of a run, and write nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from striate.data.dataset import Parts
from striate.data.split import Split
from striate.device import Plan, available_threads
from striate.errors import DataError, Interrupted, PeerLost
from striate.settings.train import TrainSettings
from striate.training.changes import Change, run_in_cycles
from striate.training.distributed import Alone
from striate.training.job import Job
from striate.training.loop import Learner, Progress, train_epoch
from striate.training.material import Material, open_data, prepare_material
from striate.training.prepare import prepare_learner, prepare_net, typed_class
from striate.training.records import fingerprints
from striate.training.schedule import UNKNOWN
from striate.training.starting import FirstWeights
from striate.training.state import load_state, state_tensors
from striate.training.stopping import Stopping
from striate.training.tested import Tested


def lead(job: Job, changes: Sequence[Change] = ()) -> None:
    """Tell the others all that makes them stand where the first process stands: settings, split, weights."""
    team, material, learner = job.team, job.material, job.learner
    if team.size == 1:
        return
    team.tell(
        {
            "folder": str(job.folder.path.absolute()),
            "settings": job.settings.model_dump(mode="json"),
            "fingerprints": fingerprints(material.parts),
            "split": material.split.to_json(),
            "mean": list(material.preprocess.mean),
            "std": list(material.preprocess.std),
            "new": list(job.parts.first.new) if job.parts.first is not None else None,
            "plan": learner.plan.to_json(),
            "changes": [asdict(change) for change in changes],
            "length": [learner.total_steps, learner.measured_steps],
            "progress": asdict(job.progress),
        }
    )
    team.meet()  # on each machine one process opens the data first; the others wait for it here
    team.tell_tensors(state_tensors(learner))


@dataclass
class Follower:
    """One process of a team but the first: `run()` goes the way that the first one goes."""

    settings: TrainSettings
    material: Material
    learner: Learner
    folder: Path
    progress: Progress

    def __post_init__(self) -> None:
        self.tested = Tested(self.settings, self.material, self.learner, self.folder.name)
        self.stopping = Stopping()

    def run(self) -> None:
        """Train to the end; the first process tests. A signal is told to all, and the first one saves."""
        with self.stopping.listening(self._interrupted), self.learner.plan.active():
            try:
                while self.learner.team.tell(False):
                    self._run_epoch()
            except PeerLost as error:
                launch = self.learner.team.launch
                assert launch is not None
                error.fix = f"go on from the last save: {launch.command(f'resume {self.folder}')}"
                raise

    def _run_epoch(self) -> None:
        learner, progress = self.learner, self.progress
        for _ in train_epoch(learner, progress) if progress.step < learner.total_steps else ():
            self._listen()
        updates, validates = self.tested.is_wanted(progress)
        if updates:
            self.tested.update(progress.epoch)
        if validates:
            self.tested.logits("validation", progress)
        progress.next_epoch()

    def _listen(self) -> None:
        learner = self.learner
        stop, total = learner.team.agree(self.stopping.signal, learner.total_steps)
        if learner.total_steps == UNKNOWN != total:  # --time: the first process has just fixed it
            learner.total_steps, learner.measured_steps = total, self.progress.step
        if stop:
            self.stopping.signal = stop
            learner.team.meet()  # until the first process has saved
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"stopped at step {self.progress.step}", exit_code=128 + self.stopping.signal)


def follow(team: Alone, own: TrainSettings | None, data: Parts | None, model: Any) -> Follower:
    """Prepare this process as the first one says. `own`: this process's settings, which say where its data lie.

    Raises DataError where its data are not the first one's.
    """
    told: dict[str, Any] = team.tell(None)
    settings = TrainSettings(**told["settings"])
    if own is not None:
        settings = settings.model_copy(update={"data_root": own.data_root, "download": own.download})
        model = typed_class(own) if model is None else model
    assert team.launch is not None
    if team.launch.local_rank:
        team.meet()
    parts = open_data(settings, _say_nothing).parts if data is None else data
    if not team.launch.local_rank:
        team.meet()
    if fingerprints(parts) != told["fingerprints"]:
        raise DataError(
            f"process {team.rank} has other data than process 0",
            f"{parts.name} has another fingerprint there",
            "give every machine the same data",
        )
    material = prepare_material(settings, parts, Split.from_json(told["split"]), _say_nothing, len(told["mean"]))
    mean, std = tuple(told["mean"]), tuple(told["std"])
    material.preprocess = dataclasses.replace(material.preprocess, mean=mean, std=std)
    plan = Plan(**told["plan"])
    plan = dataclasses.replace(plan, threads=min(plan.threads, settings.threads or available_threads()))
    # The weights themselves come with the state.
    first = FirstWeights({}, tuple(told["new"]), {"from": "process 0"}) if told["new"] is not None else None
    parts_of_net = prepare_net(settings, material, model, team.size, first)
    learner = prepare_learner(settings, material, parts_of_net, plan, team)
    load_state(learner, team.tell_tensors(None))
    run_in_cycles(learner, settings, [Change(**change) for change in told["changes"]])
    learner.total_steps, learner.measured_steps = told["length"]
    follower = Follower(settings, material, learner, Path(told["folder"]), Progress(**told["progress"]))
    follower.tested.restore(follower.progress.epoch)
    return follower


def _say_nothing(_line: str) -> None:
    return
