"""Training in the shell: progress on stderr, and signals that stop it after a step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from comet_rec.cli.terminal import say

if TYPE_CHECKING:
    from comet_rec.training.trainer import Progress

Report = Callable[[str, "Progress"], None]
HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Signal of a terminal that closes; None on Windows, which has no such signal."""


@contextlib.contextmanager
def training_progress(quiet: bool) -> Iterator[Report]:
    """Context with a function that shows the progress of a training on stderr.

    It draws a bar on a terminal, and prints a line per epoch elsewhere. With `quiet` it shows
    nothing.
    """
    if quiet:
        yield lambda stage, progress: None
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield _lines(say)
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
            description = f"{stage} epoch {progress.current} loss {progress.loss:.4f}"
            bar.update(tasks[stage], completed=progress.done, description=description)

        yield report


def _lines(write: Callable[[str], None]) -> Report:
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
    from comet_rec.training.fit import validation_text

    text = f"{stage} epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.4f}"
    if progress.validation is not None:
        text += f", validation {validation_text(progress.validation)}"
    rate = progress.positives / max(progress.train_seconds, 1e-9)
    return f"{text}, {rate:,.0f} positives/s, at most {clock(left)} left"


def clock(seconds: float) -> str:
    """A duration in seconds as text: minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Context in which the first Ctrl-C or SIGTERM only requests a stop; the second stops at once.

    The context gives a function that returns whether a stop was requested. SIGHUP requests a stop
    too, but never stops at once, because a shell and its terminal may both send it. An ignored
    SIGHUP, as under `nohup`, stays ignored.
    """
    asked = threading.Event()
    counted = 0

    def handle(signum: int, frame: Any) -> None:
        nonlocal counted
        if signum != HANG_UP:
            counted += 1
        if counted > 1:
            raise KeyboardInterrupt
        if asked.is_set():
            return
        asked.set()
        note = b"stopping after the current step; press Ctrl-C again to quit now\n"
        with contextlib.suppress(OSError):  # the reader of stderr may have been stopped too
            os.write(2, note)  # not print: the handler may interrupt one

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    signals = [signal.SIGINT, signal.SIGTERM]
    if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
        signals.append(HANG_UP)
    before = {sign: signal.signal(sign, handle) for sign in signals}
    try:
        yield asked.is_set
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
