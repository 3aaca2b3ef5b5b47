"""Commands in forked children, which may be killed or fail while this process goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from comet_rec.cli.app import run as command
from tests.artefact.test_replacing import in_child

UNCAUGHT = 70
"""Exit status of a child whose error nobody caught."""


def run(
    words: list[str], prepare: Callable[[], None] = lambda: None, said: Path | None = None
) -> int:
    """Exit status of ``comet-rec`` with these words, in a forked child; see `called`."""
    return called(lambda: command(words), prepare, said)


def called(
    act: Callable[[], int | None], prepare: Callable[[], None] = lambda: None,
    said: Path | None = None,
) -> int:  # fmt: skip
    """Exit status that `act` returns in a forked child.

    `prepare` is called in the child first. What `act` prints goes to the file `said`.
    """
    return in_child(lambda: os._exit(_acted(act, prepare, said)))


def begun(
    words: list[str], prepare: Callable[[], None] = lambda: None, said: Path | None = None
) -> int:
    """Process id of a forked child that runs ``comet-rec`` with these words; see `called`."""
    child = os.fork()
    if child == 0:
        os._exit(_acted(lambda: command(words), prepare, said))
    return child


def ended(child: int) -> int | None:
    """Exit status of a child, negative for a signal; None as long as it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return None if pid == 0 else os.waitstatus_to_exitcode(status)


def kill_after(child: int, seconds: float) -> int | None:
    """Kill a child after this time; None, or its exit status if it has ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = ended(child)
        if status is not None:
            return status
        time.sleep(min(0.002, max(deadline - time.monotonic(), 0)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _acted(act: Callable[[], int | None], prepare: Callable[[], None], said: Path | None) -> int:
    with open(said or os.devnull, "w", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        try:
            prepare()
            return act() or 0
        except SystemExit as error:
            return int(error.code or 0)
        except BaseException as error:  # one that the command line does not know
            with contextlib.suppress(Exception):
                print(f"uncaught {type(error).__name__}: {error}", flush=True)
            return UNCAUGHT
