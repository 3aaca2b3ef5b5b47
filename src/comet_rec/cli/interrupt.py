"""Signals that stop a training after its current step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Signal of a terminal that closes; None on Windows, which has no such signal."""


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
