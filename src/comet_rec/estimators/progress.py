"""Progress of a training on stderr: a bar on a terminal and in notebooks, else lines."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from comet_rec.text import printable
from comet_rec.training.fit import validation_text
from comet_rec.training.trainer import Progress

Report = Callable[[str, Progress], None]


@contextlib.contextmanager
def training_progress(show: bool | None) -> Iterator[Report]:
    """Context with a function that shows the progress of a training on stderr.

    On a terminal, and in a notebook that has ipywidgets, there is a bar; it moves with every step.
    Elsewhere there is a line per epoch.

    Parameters
    ----------
    show : bool or None
        Whether to show anything. None shows progress on a terminal and in a notebook only.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    notebook = _in_notebook()
    if show is False or (show is None and not terminal and not notebook):
        yield lambda stage, progress: None
        return
    # Without ipywidgets, rich warns at each refresh and draws no bar.
    if not terminal and not (notebook and importlib.util.find_spec("ipywidgets")):
        yield _lines(_write)
        return
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
            validates = stage.endswith("validation") and progress.batch == progress.batches
            now = "validating" if validates else f"loss {progress.loss:.4f}"
            description = f"{stage} epoch {progress.current} {now}"
            bar.update(tasks[stage], completed=progress.done, description=description)

        yield report


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console(stderr=True).is_jupyter


def _write(line: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()


def _lines(write: Callable[[str], Any]) -> Report:
    """Function that writes one line per finished epoch, with the time that the rest may take."""
    began: dict[str, tuple[float, int]] = {}

    def report(stage: str, progress: Progress) -> None:
        first = progress.epoch - 1 if progress.finished_epoch else progress.epoch
        start, epoch = began.setdefault(stage, (time.monotonic(), first))
        if progress.finished_epoch:
            spent = (time.monotonic() - start) / max(progress.epoch - epoch, 1)
            write(_epoch_line(stage, progress, spent * (progress.epochs - progress.epoch)))

    return report


def _epoch_line(stage: str, progress: Progress, left: float) -> str:
    """Line for a finished epoch of a training stage; `left` is the remaining time in seconds."""
    text = f"{stage} epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.4f}"
    if progress.validation is not None:
        text += f", validation {validation_text(progress.validation)}"
    rate = progress.positives / max(progress.train_seconds, 1e-9)
    return f"{text}, {rate:,.0f} positives/s, at most {clock(left)} left"


def clock(seconds: float) -> str:
    """A duration in seconds as text: minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def about(seconds: float) -> str:
    """A duration in seconds as rounded text, such as "40 s", "12 min" or "2 h 30 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
