"""Ctrl-C and SIGTERM as a request that training heeds between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first of them into a request, and say so; the second one stops at once.

    SIGTERM is what a scheduler or a container's stop sends first.
    """
    asked = threading.Event()

    def handle(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        note = b"stopping after this step, or what cannot be divided; Ctrl-C again stops at once\n"
        with contextlib.suppress(OSError):  # what reads it may have been stopped too
            os.write(2, note)  # a handler may interrupt a print

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {sign: signal.signal(sign, handle) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
