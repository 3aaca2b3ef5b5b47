"""Training's progress: a live bar on a terminal, a line an epoch elsewhere, nothing if quiet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from comet_rec.cli.terminal import say

if TYPE_CHECKING:
    from comet_rec.training.trainer import Progress

Report = Callable[[str, "Progress"], None]


@contextlib.contextmanager
def training_progress(quiet: bool) -> Iterator[Report]:
    """Something that takes a stage and its progress and shows it on stderr."""
    if quiet:
        yield lambda stage, progress: None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines(say)


def epoch_line(stage: str, progress: Progress, left: float) -> str:
    """Line of progress for a finished epoch; `left` is in seconds."""
    from comet_rec.training.validation import validation_text

    text = f"{stage} epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.4f}"
    if progress.validation is not None:
        figures = progress.validation
        text += ", validation " + validation_text(figures)
    rate = progress.positives / max(progress.train_seconds, 1e-9)
    return text + f", {rate:,.0f} positives/s, at most {clock(left)} left"


def _lines(write: Callable[[str], None]) -> Report:
    began: dict[str, tuple[float, int]] = {}

    def report(stage: str, progress: Progress) -> None:
        first = progress.epoch - 1 if progress.finished_epoch else progress.epoch
        start, epoch = began.setdefault(stage, (time.monotonic(), first))
        if progress.finished_epoch:
            spent = (time.monotonic() - start) / max(progress.epoch - epoch, 1)
            write(epoch_line(stage, progress, spent * (progress.epochs - progress.epoch)))

    return report


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}
        lines = _lines(partial(console.print, markup=False, highlight=False))

        def report(stage: str, progress: Progress) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=progress.epochs)
            lines(stage, progress)
            bar.update(
                tasks[stage],
                completed=progress.done,
                description=f"{stage} epoch {progress.current} loss {progress.loss:.4f}",
            )

        yield report


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
