"""The command ``comet-rec train``: train a model and save the run."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.cli import evaluate, options
from comet_rec.cli.progress import interruptible, training_progress
from comet_rec.cli.terminal import show
from comet_rec.cli.tracking import Tracker, tracking
from comet_rec.errors import (
    ArtefactError,
    CometError,
    CometWarning,
    ConfigError,
    InputError,
    TrainingInterrupted,
)

if TYPE_CHECKING:
    from comet_rec.data.interactions import Interactions
    from comet_rec.data.split import Split
    from comet_rec.estimators.estimator import Estimator


@options.reads_log
def train(
    data: options.Data,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the trained run.")],
    model: Annotated[
        str, typer.Option(help="Model: comet, mf, svdpp, fism, gmf, mlp, neumf, convncf, ease, …")
    ] = "comet",
    preset: Annotated[
        str, typer.Option(help="Preset: auto, best, static, paper, paper-literal or a variant.")
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of training; candidates have their own seed.")
    ] = 0,
    refit: Annotated[
        bool | None,
        typer.Option(help="Train again with the validation rows. Default: as the preset says."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Train on all rows, without evaluation.")
    ] = False,
    test: options.Test = None,
    candidates: options.Candidates = None,
    init_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN", help="Run whose weights initialise the model; repeatable (NeuMF: two)."
        ),
    ] = None,
    device: options.Device = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped training.")] = False,
    tracker: Annotated[
        str | None,
        typer.Option(help="Also send losses and metrics to: tensorboard or mlflow."),
    ] = None,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Split a log, train a model, evaluate it, and write the run to a folder."""
    if all_ and (test or candidates or refit):
        raise InputError("--all holds nothing out; remove --test, --candidates and --refit")
    if candidates and not test:
        raise InputError("--candidates needs --test FILE")
    from comet_rec.artefact.lock import locked

    options.check_folder(out)
    with (
        locked(out, "train"),  # lock now: after hours of training it would be too late
        tracking(tracker, out) as tracked,
    ):
        _check_target(out, resume)
        from comet_rec.config import unknown
        from comet_rec.estimators.registry import ESTIMATORS, load_model

        if model not in ESTIMATORS:
            raise ConfigError(unknown("model", model, list(ESTIMATORS)))
        changes = options.pairs(settings or [])
        estimator = ESTIMATORS[model](preset=preset, seed=seed, device=device, **changes)
        starts = [load_model(folder) for folder in init_from or []]
        log = options.read_data(data, reading)
        titles = options.titles_of(data, reading.folder)
        held = None if all_ else _split(log, reading, test, candidates, estimator)
        options.say_notes([*log.notes, *(held.notes if held else ())], quiet)
        tracked.open()  # after all checks, so that no refused training is recorded
        _fit(estimator, log if held is None else held, refit, starts, out, resume, quiet, tracked)
        keywords = reading.keywords()
        keywords.pop("threads", None)  # they do not change the log
        estimator.describe(data, titles, keywords)
        written = _save(estimator, out)
        tracked.result(estimator.run)
    if not quiet:
        _say_result(estimator, written)


def _save(estimator: Estimator, out: Path) -> Path:
    """Save the run to `out`, or beside it if another process has just saved a run there."""
    named = out.resolve() if out.name in ("", "..") else out
    place, number = out, 2
    while (place / "manifest.json").exists():
        place, number = named.with_name(f"{named.name}-{number}"), number + 1
    if place != out:
        warnings.warn(
            f"{out}: another run was saved there during this training; this run is saved in "
            f"{place}",
            CometWarning,
            stacklevel=2,
        )
    from comet_rec.experiments.plots import training_curves

    estimator.save(place, pictures=training_curves(estimator.run))
    return place


def _say_result(estimator: Estimator, out: Path) -> None:
    """Print the metrics, the options for training on all rows, and the run's folder."""
    if estimator.run.split is not None:
        evaluate.show_report(estimator.run.metrics or {})
        if estimator.run.chosen:
            words = " ".join(f"--set {key}={value}" for key, value in estimator.run.chosen.items())
            if estimator.run.started_from:
                words += ", and --init-from runs that were trained with --all"
            show(f"to train on all rows with the settings that validation chose: --all {words}")
    show(f"written to {out}")


def _split(
    log: Interactions,
    reading: options.Reading,
    test: Path | None,
    candidates: Path | None,
    estimator: Estimator,
) -> Split:
    """Split a log by the given test file; without one, hold out one item per user."""
    from comet_rec.data.given_split import given_split
    from comet_rec.data.split import leave_one_out

    protocol = estimator.config_for(log).protocol
    if test is None:
        return leave_one_out(
            log, negatives=protocol.negatives, seed=protocol.seed, ties=protocol.ties
        )
    rows = options.read_test(log, reading, test, candidates)
    return given_split(log, *rows, protocol)


def _check_target(out: Path, resume: bool) -> None:
    """Refuse an output folder that is not empty, unless it holds a training to resume."""
    from comet_rec.artefact.folder import refuse_foreign

    if not out.exists():
        return
    if not any(out.iterdir()):
        try:
            out.rmdir()  # a failed training leaves nothing behind
        except OSError as error:  # a mount point, or a parent folder without write access
            raise InputError(
                f"{out}: cannot be replaced: {error.strerror}; give a new folder inside it"
            ) from None
        return
    finished = (out / "manifest.json").exists()
    if finished or not (out / "checkpoints").is_dir():
        fault = "is a finished run" if finished and resume else "exists and is not empty"
        raise InputError(f"{out}: {fault}; remove it or give another --out")
    if not resume:
        raise InputError(
            f"{out}: holds an unfinished training; add --resume to go on, or remove the folder"
        )
    refuse_foreign(out)  # before the training, not after


def _fit(
    estimator: Estimator,
    data: Any,
    refit: bool | None,
    starts: list[Estimator],
    out: Path,
    resume: bool,
    quiet: bool,
    tracked: Tracker,
) -> None:
    """Train with progress and checkpoints; an interrupt saves the state for `--resume`."""
    from comet_rec.artefact.checkpoint import has_checkpoint
    from comet_rec.training.checkpoints import Hooks

    with training_progress(quiet) as report, interruptible() as stop:
        report = tracked.beside(report)
        hooks = Hooks(report=report, stop=stop, checkpoints=out / "checkpoints", resume=resume)
        try:
            estimator.fit(data, refit=refit, init_from=starts, hooks=hooks)
        except TrainingInterrupted as error:
            raise TrainingInterrupted(
                f"{error}; saved in {out}: repeat the command with --resume to go on"
            ) from None
        except CometError as error:
            saved = isinstance(error, ArtefactError) and has_checkpoint(out / "checkpoints")
            if not resume and not saved:  # the folder was empty before, so leave nothing behind
                shutil.rmtree(out / "checkpoints", ignore_errors=True)
                with contextlib.suppress(OSError):
                    out.rmdir()  # fails if another process has saved a run there meanwhile
            raise
