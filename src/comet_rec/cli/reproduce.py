"""The commands ``comet-rec reproduce`` and ``comet-rec inspect``: a report, pictures of a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comet_rec.cli import options
from comet_rec.cli.interrupt import interruptible
from comet_rec.cli.terminal import say, show
from comet_rec.errors import ConfigError, TrainingInterrupted

if TYPE_CHECKING:
    from comet_rec.experiments.runner import Item, Runner


Parts = Annotated[
    list[str],
    typer.Argument(
        metavar="PART…",
        help="table1 … table5, figure3 … figure6, falsification, reliability, ties, beyond, "
        "ablation, falsification-best, or all.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", metavar="FOLDER", help="Folder of the report; an existing one is continued."
    ),
]
Logs = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Catalog name, file, or NAME=FILE for your copy of a named set; repeatable. "
        "Default: the logs of the budget.",
    ),
]
BudgetName = Annotated[
    str, typer.Option("--budget", help="smoke (takes minutes, only a test) or full.")
]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", min=1, max=1000, help="Training seeds in tables and falsifications."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="MODEL",
        help="Train only this model, by its name in the tables, with every seed; repeatable. "
        "The report also shows other models that are trained already.",
    ),
]
Journals = Annotated[
    list[Path] | None,
    typer.Option(
        "--journal",
        metavar="FILE",
        help="Journal of `comet-rec tune`: the report shows it, and models on the same log use "
        "its best settings; repeatable.",
    ),
]
Figures = Annotated[bool, typer.Option(help="Draw figures (needs matplotlib).")]
Recorded = Annotated[
    bool, typer.Option("--recorded", help="Train nothing; report what is trained already.")
]


@options.reads_log(leave_out=("folder",))
def reproduce(
    parts: Parts,
    out: Out = Path("reproduction"),
    data: Logs = None,
    budget: BudgetName = "smoke",
    seeds: Seeds = None,
    only: Only = None,
    journals: Journals = None,
    figures: Figures = True,
    recorded: Recorded = False,
    device: options.Device = "cpu",
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Reproduce tables and figures of the paper in report.html, report.md and report.json."""
    options.check_folder(out)
    options.set_threads(reading.threads)
    from comet_rec.config import unknown
    from comet_rec.estimators.surroundings import torch_device
    from comet_rec.experiments import reproduce as study
    from comet_rec.experiments.logs import read_logs
    from comet_rec.experiments.plans import BUDGETS, parts_of
    from comet_rec.experiments.plots import pyplot
    from comet_rec.experiments.tuning import history

    if budget not in BUDGETS:
        raise ConfigError(unknown("budget", budget, list(BUDGETS)))
    chosen, asked = BUDGETS[budget], parts_of(parts)
    torch_device(device)
    if figures:
        pyplot()  # report a missing matplotlib before the training, not after
    for journal in journals or ():
        history(journal)  # report a wrong file before a log is read

    sources = data or chosen.logs
    logs = read_logs(sources, reading.keywords(), lambda line: None if quiet else say(line))
    with interruptible() as stop:
        work = study.Study(
            asked, logs, chosen, seeds or chosen.seeds, out,
            tell=lambda item, items: None if quiet else say(ended_line(item, items)),
            stop=stop, journals=journals or (), only=only or (), device=device, recorded=recorded,
        )  # fmt: skip
        try:
            command = _command(parts, data, budget, seeds, only, journals)
            command += _reading(reading) + (" --recorded" if recorded else "")
            study.reproduce(work, command, figures=figures)
        except TrainingInterrupted as error:
            raise TrainingInterrupted(
                f"{error}; the report in {out} holds the finished trainings; repeat the command "
                "to go on"
            ) from None
    show(f"written to {out / 'report.html'}")
    _say_failed(work.runner)


def ended_line(item: Item, items: Sequence[Item]) -> str:
    """Progress line for a training that has ended or was left out, with the time for the rest.

    `item` is the training, and `items` are all trainings of the report.
    """
    from comet_rec.estimators.progress import clock
    from comet_rec.experiments.runner import seconds_left

    ended = sum(each.state not in ("waiting", "running") for each in items)
    job = item.job
    return (
        f"{ended}/{len(items)} {job.log} {job.label} seed {job.seed}: {item.state} "
        f"{item.note} {item.seconds:,.0f} s, about {clock(seconds_left(items))} left"
    )


def _say_failed(runner: Runner) -> None:
    """If a training failed, print a line about the first failure and exit with status 1."""
    if not runner.failed:
        return
    first = runner.failed[0]
    say(
        f"{len(runner.failed)} of {len(runner.items)} trainings failed, first {first.job.log} "
        f"{first.job.label} seed {first.job.seed}: {first.note}; repeat the command to try again"
    )
    raise typer.Exit(1)


def _command(
    parts: list[str], data: list[str] | None, budget: str, seeds: int | None,
    only: list[str] | None, journals: list[Path] | None,
) -> str:  # fmt: skip
    """Shell command that makes the same report; it names files without their folders."""
    words = ["comet-rec", "reproduce", *parts, "--budget", budget]
    for source in data or ():
        name, equals, file = source.partition("=")
        words += ["--data", f"{name}={Path(file).name}" if equals else Path(source).name]
    words += ["--seeds", str(seeds)] if seeds else []
    for label in only or ():
        words += ["--only", label]
    for journal in journals or ():
        words += ["--journal", journal.name]
    return shlex.join(words)


def _reading(reading: options.Reading) -> str:
    """Options for reading the logs that differ from the defaults, as text for a shell."""
    changed = {k: v for k, v in vars(reading).items() if v != getattr(options.Reading, k)}
    names = (name for name in changed if name not in ("threads", "folder"))
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(str(changed[name]))}" for name in names
    )


def inspect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `train --out` wrote.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder for the pictures.")
    ] = Path("pictures"),
    tower: Annotated[str, typer.Option(help="Tower whose filters are drawn: user or item.")] = (
        "user"
    ),
) -> None:
    """Draw a trained run, in PNG and SVG.

    The pictures show filters (Figure 5), weights of history positions, similar items, and figures
    by popularity and by length of history.
    """
    if tower not in ("user", "item"):
        raise ConfigError(f"--tower {tower}: give user or item")
    options.check_folder(out)
    from comet_rec.estimators.registry import load_model
    from comet_rec.experiments.inspection import pictures
    from comet_rec.experiments.plots import draw, pyplot

    pyplot()  # report a missing matplotlib before the figures are measured, not after
    found = list(pictures(load_model(run).run, tower))
    absent = [each for each in found if isinstance(each, str)]
    if len(absent) == len(found):
        raise ConfigError(f"{run}: nothing to draw: {'; '.join(absent)}")
    out.mkdir(parents=True, exist_ok=True)
    for each in found:
        if isinstance(each, str):
            say(each)
            continue
        for name in draw(each, out):
            show(str(out / name))
