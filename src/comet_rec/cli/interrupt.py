"""Ctrl-C, SIGTERM and SIGHUP as a request that training heeds between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""Sent when the terminal goes; no such signal on Windows."""


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first of these signals into a request, and say so; the second one stops at once.

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
