"""What `striate.` exports: it joins data, training, evaluation and pictures."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from striate.data.dataset import Parts
from striate.errors import DataError
from striate.evaluation.evaluate import evaluate_pictures
from striate.files import write_json
from striate.predictor.predictor import Predictor, load_predictor
from striate.report import plots
from striate.report.console import Display, note, say
from striate.report.live import LiveCurves
from striate.report.progress import Progress as Passes
from striate.report.text import closing, opening
from striate.reporting.advice import Advisor
from striate.reporting.run import write_card_page, write_report
from striate.runs.folder import RunFolder, open_run
from striate.runs.journal import EpochResult, read_results, read_steps
from striate.settings.layers import resolve_train
from striate.settings.train import TrainSettings
from striate.training.begin import resume_job, start_job
from striate.training.distributed import Alone, join
from striate.training.follower import follow
from striate.training.job import Job
from striate.training.material import as_parts
from striate.training.pictures import pictures_of, run_of
from striate.training.prepare import OWN
from striate.training.starting import settings_of_start
from striate.training.tracking import check_trackers, open_trackers

SAMPLES_SHOWN = 40
MISTAKES_SHOWN = 24
DRAWINGS_APART = 10  # in times of one drawing


class Run:
    """A trained run: its folder, and what can be asked of it."""

    def __init__(self, folder: RunFolder, predictor: Predictor | None = None, data: Parts | None = None) -> None:
        self.folder = folder.path
        self._folder = folder
        self._predictor = predictor
        self._data = data

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def results(self) -> list[dict[str, Any]]:
        """The rows of results.csv."""
        return [asdict(row) for row in read_results(self.folder)]

    @property
    def evaluation(self) -> dict[str, Any]:
        """evaluation.json: the numbers of the test at the end of training."""
        return self._folder.read_json("evaluation.json")

    def predictor(self) -> Predictor:
        """Return the trained net, ready to answer."""
        if self._predictor is None:
            self._predictor = load_predictor(self.folder)
        return self._predictor

    def predict(self, sources: Any) -> Any:
        """Answer for one picture or a list; see Predictor.predict."""
        return self.predictor().predict(sources)

    def evaluate(self, split: str = "test", **options: Any) -> dict[str, Any]:
        """Evaluate on a split; see striate.evaluate."""
        return evaluate(self.folder, split=split, predictor=self._predictor, parts=self._data, **options)

    def report(self, out: str | Path | None = None, **options: Any) -> Path:
        """Write the report as one HTML file and return its path; see striate.write_report."""
        return write_report(self.folder, out=out, predictor=self._predictor, data=self._data, **options)


def train(
    data: Any = "digits",
    *,
    model: Any = None,
    live: bool = False,
    quiet: bool = False,
    report: bool = False,
    config: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train a classifier and test it once.

    `data`: the name of a data set, (images, labels), a Dataset or Parts; images uint8 or float 0–1 of shape (N, H, W),
    (N, H, W, C) or (N, C, H, W). `model`: a registered name, an nn.Module of your own or its class. `settings`: any of
    TrainSettings. `live` redraws the curves in a notebook; `report` also writes report.html.
    Raises StriateError with cause and fix.
    """
    given = dict(settings)
    parts = None
    if isinstance(data, str):
        given["data"] = data
    else:
        parts = as_parts(data)
        given["data"] = parts.name
    own = None
    if isinstance(model, str):
        given["model"] = model
    elif model is not None:
        own = model
        given["model"] = OWN + (model if isinstance(model, type) else type(model)).__name__
    file = Path(config) if config is not None else None
    resolved, _, _ = resolve_train(
        given, origin="argument", config=file, environ=os.environ, start_of=settings_of_start
    )
    command = f"striate.train({data!r:.80})"
    return run_training(resolved, data=parts, model=own, live=live, quiet=quiet, report=report, command=command)


def run_training(
    settings: TrainSettings,
    *,
    data: Parts | None = None,
    model: Any = None,
    live: bool = False,
    quiet: bool = False,
    report: bool = False,
    command: str = "",
) -> Run:
    """Train with settings that are already resolved; the command line calls this."""
    began = time.perf_counter()
    check_trackers(settings.track)
    with join(settings.timeout) as team:
        if not team.leads:
            return _follow(team, settings, data, model)
        with Passes(quiet) as passes:
            start: dict[str, Any] = {"data": data, "model": model, "stage": passes.stage, "command": command}
            job = start_job(settings, report=_teller(quiet), team=team, **start)
        typed = settings.model if settings.model is not None and ".py:" in settings.model else ""
        _draw_samples(job)
        return _carry_out(job, began, live=live, quiet=quiet, report=report, data=data, typed=typed)


def resume(
    run: str | Path,
    *,
    data: Any = None,
    model: Any = None,
    data_root: str | Path | None = None,
    allow_changes: bool = False,
    quiet: bool = False,
    report: bool = False,
    command: str = "",
    **settings: Any,
) -> Run:
    """Go on with an interrupted run from its last save, to the very end that it would have had; or extend a run.

    `data` and `model` are needed again where they were arrays or a module of your own. `epochs="+10"` (or the whole
    number) adds epochs, to a finished run too. Any other of TrainSettings that differs from the run's, and data that
    differ, raise UsageError, unless `allow_changes`: then that is recorded in changes.json.
    """
    began = time.perf_counter()
    parts = as_parts(data) if data is not None else None
    if data_root is not None:
        settings["data_root"] = Path(data_root)
    with join(str(settings.get("timeout", TrainSettings.model_fields["timeout"].default))) as team:
        if not team.leads:
            own: dict[str, Any] = {"data_root": settings.get("data_root")}
            return _follow(team, TrainSettings(**own), parts, model)
        job = resume_job(
            open_run(run),
            data=parts,
            model=model,
            given=settings,
            allow_changes=allow_changes,
            report=_teller(quiet),
            command=command or f"striate.resume({str(run)!r}{''.join(f', {k}={v!r}' for k, v in settings.items())})",
            team=team,
        )
        return _carry_out(job, began, live=False, quiet=quiet, report=report, data=parts)


load = load_predictor


def evaluate(
    run: str | Path,
    *,
    split: str = "test",
    data: Any = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    model: Any = None,
    precision: str = "fp32",
    tta: str = "none",
    expect_sha256: str | None = None,
    out: str | Path | None = None,
    predictor: Predictor | None = None,
    parts: Parts | None = None,
) -> dict[str, Any]:
    """Evaluate a run's model on a split of its own data, or that of a file on data with the same classes.

    Returns what evaluation.json holds; writes it only to `out`. Every picture counts once. `precision` fp32 or bf16,
    which says how it changes the answers. `tta` (mirror, shift, mirror-shift) adds the row `top1_tta`.
    """
    predictor = predictor or load_predictor(run, device=device, model=model, expect_sha256=expect_sha256)
    predictor = predictor.in_precision(precision)
    folder, settings = run_of(run, predictor.output, note)
    part, images, indices = pictures_of(
        folder, predictor, settings, note, split=split, data=parts if data is None else data, data_root=data_root
    )
    evaluation = evaluate_pictures(predictor, part, images, indices, split=split, loss_kind=settings.loss, tta=tta)
    if precision != "fp32":
        note(predictor.change_against_fp32(images))
    if out is not None:
        write_json(Path(out), evaluation.record)
    return evaluation.record


def _follow(team: Alone, settings: TrainSettings, data: Parts | None, model: Any) -> Run:
    """Train along with the first process of a team, which shows and writes everything."""
    follower = follow(team, settings, data, model)
    follower.run()
    return Run(RunFolder(follower.folder), data=data)


def _teller(quiet: bool, tell: Callable[[str], None] = note) -> Callable[[str], None]:
    return (lambda line: None) if quiet else tell


def _carry_out(
    job: Job, began: float, *, live: bool, quiet: bool, report: bool, data: Parts | None, typed: str = ""
) -> Run:
    """Run a job to its end, showing and drawing what happens."""
    show = _teller(quiet, say)
    for line in opening(_facts(job)):
        show(line)
    steps_per_epoch = len(job.learner.batches)
    curves = _Curves(job, live)
    advisor = Advisor(job.folder, job.settings.model_dump(), given=data is not None, report=_teller(quiet))
    settings, at = job.settings.model_dump(mode="json"), job.progress.step
    tracked = open_trackers(job.folder, job.settings.track, settings, at, _teller(quiet))
    with tracked as trackers, Display(steps_per_epoch=steps_per_epoch, quiet=quiet) as display:
        for happening in job.run():
            trackers.look()
            if isinstance(happening, EpochResult):
                display.epoch(asdict(happening), job.epochs)
                advisor.look(job.epochs)
                curves.update()
                continue
            display.progress(
                epoch=happening.epoch,
                step=happening.step,
                step_in_epoch=happening.step_in_epoch,
                loss=happening.loss_sum / max(1, happening.seen),
                pictures_per_second=happening.seen / max(1e-9, happening.epoch_seconds),
                estimate=job.estimate,
            )
    curves.draw()
    pictures = ["curves.png", *_draw_evaluation(job)]
    if report:
        write_report(job.folder.path, data=job.material.parts, predictor=job.predictor(), note=_teller(quiet))
        pictures.append("report.html")
    else:
        try:
            write_card_page(job.folder)
        except DataError as error:  # somebody took a document of the run away; the model is whole
            note(f"MODEL_CARD.md was not written: {error.what}")
    files = [job.folder.file(name) for name in ["samples.png", *pictures]]
    trackers.finish(job.progress.step, job.evaluation.record if job.evaluation is not None else None, files)
    next_commands = _next_commands(job, typed, given=data is not None)
    for line in closing(_closing_facts(job, time.perf_counter() - began, pictures, next_commands)):
        show(line)
    return Run(job.folder, job.predictor(), data)


def _facts(job: Job) -> dict[str, Any]:
    settings = job.settings.model_dump()
    settings["decoupled"] = job.settings.decay_is_decoupled
    summary = job.parts.summary
    return {
        "environment": job.folder.read_json("env.json"),
        "data": job.folder.read_json("data.json"),
        "net": {
            "name": job.parts.name or type(job.learner.net).__name__,
            "parameters": summary.parameters,
            "macs": summary.macs if summary.macs_known else None,
            "input_size": job.material.preprocess.size,
        },
        "settings": settings,
        "plan": job.learner.plan.to_json(),
        "steps_per_epoch": len(job.learner.batches),
        "notes": job.parts.notes,
    }


def _closing_facts(job: Job, seconds: float, pictures: list[str], next_commands: list[str]) -> dict[str, Any]:
    return {
        "results": [asdict(row) for row in read_results(job.folder.path)],
        "best_epoch": job.best.epoch,
        "evaluation": job.evaluation.record if job.evaluation is not None else None,
        "seconds": seconds,
        "folder": str(job.folder),
        "pictures": ["samples.png", *pictures],
        "next": next_commands,
    }


def _next_commands(job: Job, typed: str, *, given: bool) -> list[str]:
    """Return what to type next: to ask about pictures, and to draw some.

    `typed` is a net of the user's own as it was named on the command line; `given`: the data were arrays.
    """
    if job.parts.name is None and not typed:
        return [f'striate.load("{job.folder}", model={type(job.learner.net).__name__}()).predict("picture.png")']
    model = f" --model {shlex.quote(typed)}" if typed else ""
    asked = f"--data {shlex.quote(job.settings.data)} --split test --index 0:4 --plot answers.png"
    if job.evaluation is None or given:
        asked = "picture.png"
    folder = shlex.quote(str(job.folder))
    return [f"striate predict {folder}{model} {asked}", f"striate serve {folder}{model}"]


def _draw_samples(job: Job) -> None:
    part, indices = job.material.split.of(job.material.parts, "train")
    chosen = indices[:SAMPLES_SHOWN]
    labels = [part.classes[label] for label in part.labels[chosen]]
    plots.sample_grid(job.folder.file("samples.png"), part.images[chosen], labels, title=f"{part.name}: train pictures")


class _Curves:
    """curves.png, rewritten at each epoch's end; where epochs are as short as drawings, only every so often."""

    def __init__(self, job: Job, live: bool) -> None:
        self.folder = job.folder
        self.live = LiveCurves() if live else None
        self.drawn_at = float("-inf")
        self.cost = 0.0

    def update(self) -> None:
        """Draw, unless drawing would take more than a tenth of the time."""
        if time.perf_counter() - self.drawn_at > DRAWINGS_APART * self.cost:
            self.draw()

    def draw(self) -> None:
        began = time.perf_counter()
        steps = read_steps(self.folder.path)
        results = [asdict(row) for row in read_results(self.folder.path)]
        plots.curves(self.folder.file("curves.png"), steps, results, title=self.folder.name)
        if self.live is not None:
            self.live.update(steps, results)
        self.drawn_at = time.perf_counter()
        self.cost = self.drawn_at - began


def _draw_evaluation(job: Job) -> list[str]:
    evaluation = job.evaluation
    if evaluation is None:
        return []
    folder, classes = job.folder.path, list(job.classes)
    plots.confusion_matrix(folder / "confusion_matrix.png", evaluation.record["confusion"], classes)
    wrong = (evaluation.predictions != evaluation.labels).nonzero()[0]
    confidence = evaluation.probabilities[wrong, evaluation.predictions[wrong]]
    worst = wrong[(-confidence).argsort(kind="stable")][:MISTAKES_SHOWN]
    if not len(wrong):  # the picture says so, and of how many
        worst = evaluation.labels.argsort()
    part, _ = job.material.split.of(job.material.parts, "test")
    plots.mistakes(
        folder / "mistakes.png",
        part.images[evaluation.indices[worst]],
        [classes[label] for label in evaluation.labels[worst]],
        [classes[label] for label in evaluation.predictions[worst]],
        [float(evaluation.probabilities[row, evaluation.predictions[row]]) for row in worst],
    )
    return ["confusion_matrix.png", "mistakes.png"]
