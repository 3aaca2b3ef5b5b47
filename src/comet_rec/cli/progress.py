"""A training in the shell: its progress on stderr, and the signals that stop it between steps."""

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
"""Sent when the terminal goes; no such signal on Windows."""


@contextlib.contextmanager
def training_progress(quiet: bool) -> Iterator[Report]:
    """Something that takes a stage and its progress and shows it on stderr.

    A live bar on a terminal, a line an epoch elsewhere, nothing if quiet.
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
    """A line at the end of each epoch, with the time that the stage may still take."""
    began: dict[str, tuple[float, int]] = {}

    def report(stage: str, progress: Progress) -> None:
        first = progress.epoch - 1 if progress.finished_epoch else progress.epoch
        start, epoch = began.setdefault(stage, (time.monotonic(), first))
        if progress.finished_epoch:
            spent = (time.monotonic() - start) / max(progress.epoch - epoch, 1)
            write(_epoch_line(stage, progress, spent * (progress.epochs - progress.epoch)))

    return report


def _epoch_line(stage: str, progress: Progress, left: float) -> str:
    """Line of progress for a finished epoch; `left` is in seconds."""
    from comet_rec.training.validation import validation_text

    text = f"{stage} epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.4f}"
    if progress.validation is not None:
        text += f", validation {validation_text(progress.validation)}"
    rate = progress.positives / max(progress.train_seconds, 1e-9)
    return f"{text}, {rate:,.0f} positives/s, at most {clock(left)} left"


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request, and say so; a second stops at once.

    SIGTERM is what a scheduler or a container's stop sends first. SIGHUP never stops at once and
    does not count as a first signal, since a shell and the terminal it goes with may both send it.
    Where it is ignored, as under `nohup`, it stays ignored.
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
        note = b"stopping after this step, or what cannot be divided; Ctrl-C again stops at once\n"
        with contextlib.suppress(OSError):  # what reads it may have been stopped too
            os.write(2, note)  # a handler may interrupt a print

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
