"""The command ``comet-rec train``: train a model and save the run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.cli import evaluate, launched, options
from comet_rec.cli.interrupt import interruptible
from comet_rec.cli.tables import show_table
from comet_rec.cli.terminal import folded, say, show
from comet_rec.cli.tracking import Tracker, tracking
from comet_rec.errors import (
    ArtefactError,
    CometError,
    CometWarning,
    ConfigError,
    InputError,
    TrainingInterrupted,
)
from comet_rec.text import shortened

if TYPE_CHECKING:
    from comet_rec.data.interactions import Interactions
    from comet_rec.data.split import Split
    from comet_rec.estimators.estimator import Estimator
    from comet_rec.training.checkpoints import Hooks


LEAST_ESTIMATE = 10.0
"""Estimated seconds of a training from which on they are printed."""


@options.reads_log
def train(
    data: options.Data,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the trained run.")],
    model: Annotated[
        str, typer.Option(help="Model: comet, sasrec, mf, svdpp, fism, gmf, mlp, neumf, ease, …")
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
    final: Annotated[
        bool,
        typer.Option("--final", help="After evaluation, train once more on all rows, to go live."),
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Train on all rows, without evaluation.")
    ] = False,
    yardsticks: Annotated[
        bool, typer.Option(help="Show popularity, ItemKNN and EASE beside the model.")
    ] = True,
    split_by: options.SplitBy = "leave-one-out",
    test: options.Test = None,
    candidates: options.Candidates = None,
    init_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN", help="Run whose weights initialise the model; repeatable (NeuMF: two)."
        ),
    ] = None,
    device: options.Device = "cpu",
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="End training after 90s, 5m or 1h30m with the best epoch so far."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped training.")] = False,
    tracker: Annotated[
        str | None,
        typer.Option(help="Also send losses and metrics to: tensorboard or mlflow."),
    ] = None,
    memory: options.Memory = None,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Split a log, train a model, evaluate it, and write the run to a folder."""
    if all_ and final:
        raise InputError("--final evaluates before it trains on all rows; remove --final or --all")
    if all_ and (test or candidates or refit):
        raise InputError("--all holds nothing out; remove --test, --candidates and --refit")
    if candidates and not test:
        raise InputError("--candidates needs --test FILE")
    if split_by != "leave-one-out" and (all_ or test):
        raise InputError("--split divides DATA; remove it, or --all and --test")
    limit = None if time_limit is None else _seconds(time_limit)
    if launched.restarted() and (out / "manifest.json").exists() and _is_of_this_job(out):
        show(f"written to {out}, before a process failed")
        return
    resume = resume or _resumes_by_itself(out)
    first = launched.rank() == 0
    quiet = quiet or not first
    with (
        _reserved(out, resume),
        launched.joined(),
        tracking(tracker if first else None, out) as tracked,
    ):
        if launched.size() > 1:
            from comet_rec import processes

            resume = processes.from_first(resume)  # files may show later on another machine
        from comet_rec.config import unknown
        from comet_rec.estimators.registry import ESTIMATORS, load_model
        from comet_rec.training import pretraining

        if model not in ESTIMATORS:
            raise ConfigError(unknown("model", model, list(ESTIMATORS)))
        changes = options.pairs(settings or [])
        estimator = ESTIMATORS[model](preset=preset, seed=seed, device=device, **changes)
        initial = [load_model(folder) for folder in init_from or []]
        starts, final_starts = _for_final(initial) if final else (initial, [])
        log = options.read_data(data, reading)
        titles = options.titles_of(data, reading.folder)
        held = None if all_ else _split(log, reading, split_by, test, candidates, estimator)
        options.say_notes([*log.notes, *(held.notes if held else ())], quiet)
        for start in final_starts:  # now, not after the first training
            pretraining.check_data(start.run, estimator.config_for(log), log, None)
        tracked.open()  # after all checks, so that no refused training is recorded
        training = _Training(estimator, out, resume, quiet, limit, final, tracked)
        training.fit(log if held is None else held, refit, starts)
        keywords = reading.keywords()
        keywords.pop("threads", None)  # they do not change the log
        estimator.describe(data, titles, keywords)
        if yardsticks and held is not None and launched.size() == 1:
            estimator.yardsticks()
        if final:
            training.final(final_starts)
        written = _save(estimator, out)
        options.say_memory(memory, quiet)
        tracked.result(estimator.run)
    if not quiet:
        _say_result(estimator, written)


@contextlib.contextmanager
def _reserved(out: Path, resume: bool) -> Iterator[None]:
    """Reserve the folder for this training: after hours it would be too late to refuse it.

    The first process of several does this for all.
    """
    from comet_rec.artefact.lock import locked

    if launched.rank() > 0:
        yield
        return
    options.check_folder(out)
    with locked(out, "train"):
        _check_target(out, resume)
        yield


def _is_of_this_job(out: Path) -> bool:
    """Whether the run was saved after ``torchrun``, the parent of this process, had started.

    Systems without /proc cannot tell, so there the run counts as that of another job.
    """
    try:
        # Behind the name in parentheses, field 19 is the start in clock ticks after the boot.
        fields = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return False
    started = time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return (out / "manifest.json").stat().st_mtime > started


def _resumes_by_itself(out: Path) -> bool:
    """Whether several processes find a checkpoint: torchrun or a scheduler has restarted them."""
    from comet_rec.artefact.checkpoint import has_checkpoint

    return launched.size() > 1 and has_checkpoint(out / "checkpoints")


def _save(estimator: Estimator, out: Path) -> Path:
    """Save the run to `out`, or beside it if another process has just saved a run there."""
    named = out.resolve() if out.name in ("", "..") else out
    place, number = out, 2
    while launched.rank() == 0 and (place / "manifest.json").exists():
        place, number = named.with_name(f"{named.name}-{number}"), number + 1
    if place != out:
        warnings.warn(
            f"{out}: another run was saved there during this training; this run is saved in "
            f"{place}",
            CometWarning,
            stacklevel=2,
        )
    from comet_rec.experiments.plots import training_curves

    estimator.save(place, pictures=training_curves(estimator.run))  # only the first process writes
    return place


def _say_result(estimator: Estimator, out: Path) -> None:
    """Print the metrics, the options for training on all rows, and the run's folder."""
    if estimator.run.split is not None:
        evaluate.show_report(estimator.run.metrics or {})
        if estimator.run.yardsticks is not None:
            show_yardsticks(estimator.run.yardsticks)
        if estimator.run.final:
            note = "the figures are those of the measured model; the weights now know all rows"
            show(folded(note))
        elif estimator.run.chosen:
            words = " ".join(f"--set {key}={value}" for key, value in estimator.run.chosen.items())
            if estimator.run.started_from:
                words += ", and --init-from runs that were trained with --all"
            show(f"to train on all rows with the settings that validation chose: --all {words}")
    show(f"written to {out}")


def show_yardsticks(comparison: Mapping[str, Any]) -> None:
    """Print a table of a model and its yardsticks, and advice if a yardstick is ahead or level."""
    from comet_rec.estimators.yardsticks import advice

    model, *others = comparison["models"]
    kind = "validation full" if comparison["metric"].startswith("full") else "validation"
    columns = ["NDCG@10", "test sampled", "test full", kind, "difference"]
    rows = []
    for entry in comparison["models"]:
        figures = [entry[key] for key in ("sampled", "full", "validation")]
        cells = ["" if figure is None else f"{figure:.4f}" for figure in figures]
        low, high = entry["low"], entry["high"]
        paired = "" if low is None else f"{entry['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
        rows.append([entry["model"], *cells, paired])
    notes = [
        f"difference: {model['model']} minus the row, same {comparison['users']:,} validation "
        "users, 95 % interval"
    ]
    notes += [f"left out: {reason}" for reason in comparison["left_out"]]
    if others:
        show_table(columns, rows)
    for note in [*notes, advice(comparison)]:
        show(folded(note))


def _split(
    log: Interactions,
    reading: options.Reading,
    split_by: str,
    test: Path | None,
    candidates: Path | None,
    estimator: Estimator,
) -> Split:
    """Split a log by the given test file; without one, as `--split` says."""
    from comet_rec.data.given_split import given_split

    protocol = estimator.config_for(log).protocol
    if test is None:
        return options.split_of(log, split_by, protocol)
    rows = options.read_test(log, reading, test, candidates)
    return given_split(log, *rows, protocol)


def _check_target(out: Path, resume: bool) -> None:
    """Refuse an output folder that is not empty, unless it holds a training to resume."""
    from comet_rec.artefact.checkpoint import has_checkpoint
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
    if (out / "manifest.json").exists():
        # A training that was killed at its very end has left one: it must not be thrown away.
        raise InputError(
            f"{out}: holds a finished run; give another --out, or remove the run to train anew"
        )
    checkpoints = out / "checkpoints"
    if not checkpoints.is_dir():
        raise InputError(f"{out}: exists and is not empty; remove it or give another --out")
    # Without a checkpoint, a training was killed before its first one was complete: begin anew.
    if not resume and has_checkpoint(checkpoints):
        raise InputError(
            f"{out}: holds an unfinished training; add --resume to go on, or remove the folder"
        )
    refuse_foreign(out)  # before the training, not after


def _for_final(initial: list[Estimator]) -> tuple[list[Estimator], list[Estimator]]:
    """Runs of `--init-from` that initialise the measured training, and those for the final one.

    Raises
    ------
    InputError
        When a measured run has no counterpart that was trained on all rows.
    """
    measured = [each for each in initial if each.run.known is not each.run.interactions]
    on_all_rows = [each for each in initial if each.run.known is each.run.interactions]

    def models(estimators: list[Estimator]) -> list[tuple[str, str]]:
        return sorted((each.name, repr(each.config.model)) for each in estimators)

    if models(measured) != models(on_all_rows):
        raise InputError(
            "--init-from with --final needs two runs of each model with equal settings; give one "
            "that was measured and one that was trained with --all"
        )
    return measured, on_all_rows


@dataclass(frozen=True)
class _Training:
    """Trainings of one command, with progress and checkpoints.

    An interrupt saves the state for `--resume`.
    """

    estimator: Estimator
    out: Path
    resume: bool
    quiet: bool
    time_limit: float | None
    final_follows: bool
    tracked: Tracker

    def fit(self, data: Any, refit: bool | None, starts: list[Estimator]) -> None:
        """Train on a split or on all rows.

        A measured run is kept for `--resume`, because evaluation and yardsticks may take minutes.
        """
        from comet_rec.artefact.checkpoint import MEASURED
        from comet_rec.training import kept

        with self._hooks() as hooks:
            self.estimator.fit(data, refit=refit, init_from=starts, hooks=hooks)
            place = self.out / "checkpoints" / MEASURED
            first = launched.rank() == 0
            if first and self.estimator.run.split is not None and not place.is_dir():
                kept.keep(self.estimator.run, place)

    def final(self, starts: list[Estimator]) -> None:
        """Train the measured model once more on all rows."""
        with self._hooks() as hooks:
            self.estimator.final(init_from=starts, hooks=hooks)

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[Hooks]:
        from comet_rec.artefact.checkpoint import MEASURED, has_checkpoint
        from comet_rec.estimators.progress import training_progress
        from comet_rec.training.checkpoints import Hooks

        folder, resume = self.out / "checkpoints", self.resume
        try:
            with training_progress(not self.quiet) as report, interruptible() as stop:
                yield Hooks(
                    report=self.tracked.beside(report), stop=stop, checkpoints=folder,
                    resume=resume, time_limit=self.time_limit, final=self.final_follows,
                    estimate=None if self.quiet else self._say_estimate,
                )  # fmt: skip
        except TrainingInterrupted as error:
            raise TrainingInterrupted(
                f"{error}; saved in {self.out}: repeat the command with --resume to go on"
            ) from None
        except CometError as error:
            if (folder / MEASURED).is_dir():
                say(f"note: the measured run is kept in {folder / MEASURED}")
            # One of several processes may have failed alone: torchrun restarts them all.
            elif launched.size() == 1 and not (
                resume or (isinstance(error, ArtefactError) and has_checkpoint(folder))
            ):
                # The folder was empty before, so leave nothing behind.
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    self.out.rmdir()  # fails if another process has saved a run there meanwhile
            raise

    def _say_estimate(self, seconds: float) -> None:
        """Print about how long the training will take, unless it will be over in a moment."""
        from comet_rec.estimators.progress import about

        if seconds < LEAST_ESTIMATE:
            return
        line = f"training takes at most about {about(seconds)}"
        if self.time_limit is not None:
            line += f"; the limit is {about(self.time_limit)}"
        say(line)


def _seconds(text: str) -> float:
    """Parse a duration such as 90s, 5m, 2h or 1h30m into seconds.

    Raises
    ------
    InputError
        When the text is no such duration, or no time at all.
    """
    match = re.fullmatch(r"(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?", text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise InputError(
            f"--time-limit {shortened(text)!r}: is not a time; write it as 90s, 5m, 2h or 1h30m"
        )
    return float(total)
